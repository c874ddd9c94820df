"""A measure is a row of the table and a function: run, column, tables and page follow."""

import ast
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import gag_fast
from gag_fast import measures
from gag_fast.cli import main
from gag_fast.data import open_dataset
from gag_fast.experiments import tables as papers_tables
from gag_fast.images import load_image, preprocess
from gag_fast.measures import CURVES, MEASURES, Curve, Measure, Need
from gag_fast.perturb import Masked
from gag_fast.report.command import write_report
from gag_fast.report.reading import read_run
from gag_fast.report.tables import summarize, to_text
from tests.runs.run_rows import MODEL, rows, same_bits

PACKAGE = Path(gag_fast.__file__).parent


def bare(case):
    """The pictures of the toy's curve: the image as it is."""
    return Masked(torch.zeros(case.ranked.ranks.shape[0], 1, dtype=torch.int64), "black", "image")


def warmth(case):
    """The toy's function."""
    return case.curves["bare"].probabilities[..., 0] * case.maps.mean(dim=(2, 3))


@pytest.fixture
def toy(monkeypatch):
    row = Measure(
        "warmth",
        "Warmth",
        False,
        (0, 1),
        "Probability of the image alone, times the mean of the map.",
        "1 forward pass an image",
        f"{__name__}:warmth",
        curves=("bare",),
        needs=frozenset({Need.FORWARDS}),
    )
    monkeypatch.setitem(MEASURES, "warmth", row)
    curve = Curve("bare", "Bare", "picture", "the image as it is", f"{__name__}:bare")
    monkeypatch.setitem(CURVES, "bare", curve)
    return row


def test_a_row_and_a_function_are_a_measure(toy, photos, start, onnx, tmp_path, capsys):
    data = photos(4)
    out = start(data, metrics=("warmth", "rcap")).out
    table = pq.read_table(next((out / "results").glob("*.parquet")))
    assert {"warmth", "bare", "rcap", "dauc"} <= set(table.schema.names)
    module, spec = gag_fast.load_model(MODEL)
    item = open_dataset(data, 5, spec.labels).items[0]
    image = preprocess(load_image(item.path), spec.preprocessing)[None]
    saliency = gag_fast.explain(module, image, torch.tensor([item.target]), method="vanilla")
    clf = gag_fast.Classifier(onnx, "cpu")
    expected = float(clf(image)[0, item.target] * saliency.mean())
    row = next(r for r in table.to_pylist() if (r["image"], r["method"]) == (item.image, "vanilla"))
    assert row["warmth"] == pytest.approx(expected, rel=1e-4)
    assert row["bare"] == pytest.approx([float(clf(image)[0, item.target])], rel=1e-5)
    assert row["dauc"] is None
    # The tables and the page.
    text = to_text(summarize(read_run(out)))
    assert "Warmth ↓" in text
    scores = {"warmth": {}, "rcap": {}}
    assert papers_tables.in_papers_order(scores) == ("rcap", "warmth")
    assert papers_tables.heading("warmth") == "Warmth↓"
    write_report([read_run(out)], tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Warmth ↓" in page
    assert "the image as it is" in page
    # And the command line.
    assert main(["report", str(out)]) == 0
    assert "Warmth" in capsys.readouterr().out


def test_other_measures_do_not_move(toy, photos, start):
    data = photos(4)
    alone = start(data, "alone", metrics=("rcap",)).out
    beside = start(data, "beside", metrics=("rcap", "warmth")).out
    columns = ("image", "method", "rcap", "recover")
    assert same_bits(rows(alone, columns), rows(beside, columns))
    assert "warmth" not in pq.read_schema(next((alone / "results").glob("*.parquet"))).names


def test_no_other_file_lists_the_measures():
    """A file that names most of the measures as strings is a second table of them."""
    # The paper's figures and claims are about its own five.
    papers = {f"experiments/{name}.py" for name in ("published", "propositions", "trends")}
    allowed = {"measures.py", *papers}
    for path in PACKAGE.rglob("*.py"):
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        listed = {m for m in ("rcap", "dauc", "iauc", "log_cosh_dice", "mae") if m in strings}
        assert len(listed) < 4 or str(path.relative_to(PACKAGE)) in allowed, (path, listed)


def test_the_table_is_whole():
    for row in MEASURES.values():
        assert callable(measures.function_of(row)), row.name
        assert row.about.endswith("."), row.name
        assert row.span[0] < row.span[1], row.name
        assert set(row.curves) <= set(CURVES), row.name
        assert bool(row.curves) <= (Need.FORWARDS in row.needs), row.name
        assert set(row.parameters) <= set(gag_fast.preset("paper").to_dict()), row.name
    for curve in CURVES.values():
        assert callable(measures.function_of(curve)), curve.name


def test_names():
    assert [m.name for m in measures.choose(("iauc", "rcap"), masks=False)] == ["rcap", "iauc"]
    with pytest.raises(ValueError, match=r"got 'dauk'; did you mean dauc\?"):
        measures.choose("dauk", masks=False)
