import pytest

from gag_fast.experiments import published as paper


def test_every_row_has_the_eleven_columns():
    for name, table in paper.TABLES.items():
        for row, figures in table.items():
            assert len(figures) == len(paper.COLUMNS) == 11, (name, row)
    assert [len(t) for t in paper.TABLES.values()] == [9, 14, 5]


def test_the_tables_agree_with_each_other():
    assert paper.TABLE1["GAG-85"] == paper.TABLE2["GAG"]
    isic = slice(5, 8)  # GB acts on ReLU only, and EfficientNet has none
    assert paper.TABLE2["GB"][isic] == paper.TABLE2["VG"][isic]


@pytest.mark.parametrize(
    ("case", "gain"), [("imagenet-s", 41.66), ("isic", 51.38), ("places365", 44.24)]
)
def test_rcap_gains_that_section_5_1_states(case, gain):
    rows = paper.published("table1", case)
    got = 100 * (rows["GAG-85"]["rcap"] / rows["GAG-0"]["rcap"] - 1)
    assert got == pytest.approx(gain, abs=0.03)


def test_metrics_of_a_case_are_those_the_paper_gives():
    rows = paper.published("table2", "imagenet-s")
    assert list(rows["GAG"]) == ["log_cosh_dice", "mae", "rcap", "dauc", "iauc"]
    assert rows["Guided IG^R"]["iauc"] == 0.3510
    assert paper.published("table3", "places365")["GA"] == {
        "rcap": 3.32,
        "dauc": 1.01,
        "iauc": 1.21,
    }


def test_an_unknown_case_is_named():
    with pytest.raises(ValueError, match=r"'imagenet'; cases: imagenet-s, isic, places365"):
        paper.published("table1", "imagenet")
