"""Figures and tables as files of their own: SVG without a style sheet, PDF, CSV, LaTeX."""

import csv
import io
import re
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gag_fast.report import charts, figures, grids
from gag_fast.report.command import write_report
from gag_fast.report.reading import read_run
from gag_fast.report.statistics import Interval
from tests.report.made_up_runs import make_run

HOSTILE = '=HYPERLINK("http://x")</title><script>'


@pytest.fixture
def written(tmp_path):
    methods = ("guided_absgrad@0", "guided_absgrad@50", "guided_absgrad@85", HOSTILE)
    fail = {(1, "guided_absgrad@0"): "@too dark"}
    run = make_run(tmp_path / "a", images=25, methods=methods, pictures=False, fail=fail)
    return write_report([read_run(run)], tmp_path / "out", ["figures", "tables"])


def test_every_chart_is_a_drawing_that_needs_nothing(written):
    drawings = [p for p in written if p.suffix == ".svg"]
    assert len(drawings) == 3 + 3 + 3 + 3 + 1  # ranks, curves, distributions, over p, throughput
    for path in drawings:
        root = ElementTree.fromstring(path.read_text())
        assert float(root.get("width")) > 0
        marks = [m for m in root.iter() if m.tag.endswith(("path", "circle", "rect", "text"))]
        assert all(m.get("fill") for m in marks)
        assert not any(m.get("class") or m.get("data-m") for m in root.iter())
        assert not [m for m in root.iter() if m.tag.endswith("script")]


def test_every_chart_is_a_pdf(written):
    papers = [p for p in written if p.suffix == ".pdf"]
    assert len(papers) == 13
    for path in papers:
        content = path.read_bytes()
        table = int(re.search(rb"startxref\n(\d+)", content)[1])
        assert content[table:].startswith(b"xref\n")
        for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", content), start=1):
            assert content[int(place) :].startswith(b"%d 0 obj" % number)


def test_a_pdf_holds_the_charts_text(written):
    path = next(p for p in written if p.name.startswith("ranks-rcap") and p.suffix == ".pdf")
    packed = re.search(rb"stream\n(.*)\nendstream", path.read_bytes(), re.S)[1]
    drawn = zlib.decompress(packed).decode("cp1252")
    assert "(guided_absgrad@85) Tj" in drawn
    assert "(mean rank) Tj" in drawn
    assert r'(=HYPERLINK\("http://x"\)</title><script>) Tj' in drawn


def test_tables_of_the_page(written):
    names = {p.name for p in written if p.suffix == ".csv"}
    assert names >= {"summary.csv", "pairs-rcap.csv", "against-guided-absgrad-85.csv"}
    assert names >= {"failures.csv", "measures.csv"}
    for path in (p for p in written if p.suffix == ".csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len({len(row) for row in rows}) == 1
        assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)
    pairs = next(p for p in written if p.name == "pairs-rcap.csv")
    assert len(pairs.read_text().splitlines()) == 1 + 6
    for path in (p for p in written if p.suffix == ".tex"):
        lines = [x for x in path.read_text().splitlines() if x.endswith(r"\\")]
        assert len({len(re.findall(r"(?<!\\)&", x)) for x in lines}) == 1


def test_text_is_never_a_formula():
    grid = grids.Grid("a", "A", ["x", "y"], [["=1+1", -0.5], ["-", float("nan")]])
    assert grids.to_csv(grid) == "x,y\n'=1+1,-0.5\n'-,\n"


def test_the_table_of_inks_knows_every_class():
    """Whatever a chart may draw has a colour of its own outside the page."""
    source = Path(charts.__file__).read_text()
    classes = set(re.findall(r'class="([a-z]+)', source)) | {"title", "value"}
    for name in classes - {"whisker"}:
        ink = figures.ink_of(name, "3")
        assert ink.fill or ink.stroke


def test_scatter_and_front():
    points = [
        charts.Point(0, "<b>", Interval(1, 0.9, 1.2, 9), Interval(0.2, 0.1, 0.3, 9), True),
        charts.Point(1, "dear", Interval(40, 39, 42, 9), Interval(0.4, 0.3, 0.5, 9), True),
        charts.Point(2, "bad", Interval(41, 40, 42, 9), Interval(0.1, 0.0, 0.2, 9), False),
    ]
    svg = charts.scatter(points, label="a", x_label="seconds an image")
    assert "<b>" not in svg
    assert svg.count('class="front"') == 1
    root = ElementTree.fromstring(figures.to_svg(svg))
    assert len([m for m in root.iter() if m.tag.endswith("circle")]) == 3
