import csv
import io

import numpy as np
import pytest

from gag_fast.measures import MEASURES
from gag_fast.report import tables
from gag_fast.report.reading import read_run
from gag_fast.report.statistics import Interval
from tests.report.made_up_runs import make_run

RCAP, DAUC = MEASURES["rcap"], MEASURES["dauc"]


@pytest.fixture
def summary():
    """Two methods, worked by hand; the second is better in RCAP, both are equal in DAUC."""
    cells = {
        "plain": {"rcap": Interval(0.1, 0.05, 0.15, 3), "dauc": Interval(0.2, 0.1, 0.3, 3)},
        "a_b<i>|": {
            "rcap": Interval(0.43771, 0.4, 0.5, 3),
            "dauc": Interval(0.20001, np.nan, np.nan, 1),
        },
    }
    return tables.Summary("the_run", list(cells), [RCAP, DAUC], cells)


def test_best_is_by_direction_and_by_the_printed_digits(summary):
    assert summary.best(RCAP) == {"a_b<i>|"}
    assert summary.best(DAUC) == {"plain", "a_b<i>|"}  # both print as 0.2000


def test_text(summary):
    assert tables.to_text(summary) == (
        "the_run\n"
        "method   RCAP ↑                    DAUC ↓                      n\n"
        "────────────────────────────────────────────────────────────────\n"
        "plain    0.1000  [0.0500, 0.1500]  0.2000* [0.1000, 0.3000]    3\n"
        "a_b<i>|  0.4377* [0.4000, 0.5000]  0.2000*                   1–3\n"
        "mean [bootstrap 95 % interval]; * best mean\n"
    )


def test_text_of_many_measures_has_a_row_for_each():
    cell = Interval(0.12345, 0.1, 0.2, 7)
    cells = {m: {c.column: cell for c in MEASURES.values()} for m in ("a", "b")}
    lines = tables.to_text(tables.Summary("wide", ["a", "b"], list(MEASURES.values()), cells))
    lines = lines.splitlines()
    assert lines[1].split() == ["method", "a", "b"]
    assert [line.split("  ")[0] for line in lines[3:-2]] == [
        f"{m.label} {m.arrow}" for m in MEASURES.values()
    ]
    assert lines[-2].split() == ["n", "7", "7"]
    assert max(map(len, lines)) < 80


def test_markdown_escapes_what_data_brings(summary):
    text = tables.to_markdown(summary)
    assert text.splitlines()[2:] == [
        "| method | RCAP ↑ | DAUC ↓ | n |",
        "| :-- | --: | --: | --: |",
        "| plain | 0.1000 [0.0500, 0.1500] | **0.2000** [0.1000, 0.3000] | 3 |",
        "| a\\_b&lt;i&gt;\\| | **0.4377** [0.4000, 0.5000] | **0.2000** | 1–3 |",
    ]


def test_csv_holds_full_precision(summary):
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(summary))))
    assert len(rows) == 4
    assert rows[2] == {
        "method": "a_b<i>|",
        "metric": "rcap",
        "mean": "0.43771",
        "low95": "0.4",
        "high95": "0.5",
        "n": "3",
        "best": "1",
    }
    assert rows[3]["low95"] == ""


def test_latex(summary):
    text = tables.to_latex(summary)
    assert r"\begin{tabular}{lr@{\,}lr@{\,}lr}" in text
    row = r"a\_b<i>| & \textbf{0.4377} & {\scriptsize [0.4000, 0.5000]} & \textbf{0.2000} &  & 1--3"
    assert row + r" \\" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert body[1].count("&") == body[2].count("&") == 5


def test_no_values_at_all():
    cells = {"m": {"rcap": Interval(np.nan, np.nan, np.nan, 0)}}
    empty = tables.Summary("e", ["m"], [RCAP], cells)
    assert empty.best(RCAP) == set()
    for _, write in tables.FORMATS.values():
        assert "nan" not in write(empty)


def test_summarize(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=11, pictures=False))
    summary = tables.summarize(run)
    matrix = run.matrix("iauc")
    for column, method in enumerate(run.methods):
        cell = summary.cells[method]["iauc"]
        assert cell.mean == pytest.approx(matrix[:, column].mean(), rel=1e-12)
        assert cell.low < cell.mean < cell.high
        assert cell.n == 11
    assert summary.best(MEASURES["iauc"]) == {"guided_absgrad"}


def test_per_image_text(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=4, pictures=False, methods=("g", "v")))
    text = tables.per_image_text(run, DAUC, limit=3)
    lines = text.splitlines()
    assert lines[0].split() == ["DAUC", "↓", "g", "v"]
    values = run.matrix("dauc")[0]
    marked = lines[1].split()[1 + int(values[1] < values[0])]
    assert marked == f"{values.min():.4f}*"
    assert lines[-1] == "… and 1 images more"


def test_number_has_no_negative_zero():
    assert tables.number(-0.00001) == "0.0000"
    assert tables.number(-0.5) == "-0.5000"
    assert tables.number(float("nan")) == "–"
