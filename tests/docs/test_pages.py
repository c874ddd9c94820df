"""The site: it builds without a warning, its tables are the code's, nothing is fetched."""

import importlib.util
import re
import subprocess
import sys

import pytest

import gag_fast
import gag_fast.export
from tests import ROOT
from tests.docs.snippets import blocks

COLUMNS = 110
"""What a page 1,400 pixels wide shows of a line of code."""


def from_site(name):
    """A module of docs/site, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page_tables():
    return from_site("page_tables")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def hooks(page_tables, monkeypatch_module):
    pytest.importorskip("mkdocs")
    beside = {"page_tables": page_tables, "notebooks": from_site("notebooks")}
    for name, module in beside.items():
        monkeypatch_module.setitem(sys.modules, name, module)
    return from_site("hooks")


def test_the_presets_are_those_of_the_code(page_tables):
    text = (ROOT / "docs" / "presets.md").read_text()
    assert page_tables.filled(text) == text, "run python docs/site/page_tables.py"


def test_cells_that_differ_are_marked(page_tables):
    (row,) = [line for line in page_tables.presets_table().splitlines() if "`mae_form`" in line]
    assert [cell.strip() for cell in row.split(" | ")[1:5]] == ["mean", "**sqrt**", "mean", "mean"]


def test_every_field_of_a_preset_has_its_meaning(page_tables):
    both = page_tables.presets_table() + page_tables.common_table()
    named = re.findall(r"^\| `(\w+)` \|", both, re.M)
    assert sorted(named) == sorted(set(page_tables.meanings()) - {"name"})


def test_every_command_and_option_is_on_the_page(page_tables):
    text = page_tables.command_line()
    for command in ("demo", "export", "explain", "evaluate", "report", "reproduce"):
        assert f"## gag-fast {command}\n" in text
    assert "`--until-decided`" in text or "`--until-decided " in text


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    assert sum(path.stat().st_size for path in pictures) <= 1.5e6


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<img alt="a" src="//pictures.example/a.png">',
        '<link rel="stylesheet" href="https://fonts.example/f.css">',
        '<link href="https://fonts.example/" rel="preconnect">',
    ],
)
def test_what_would_be_fetched_is_seen(hooks, html):
    assert hooks._FETCHED.search(html)
    assert not hooks._FETCHED.search('<a href="https://a.example">a</a><img src="pictures/a.png">')


def test_a_formula_becomes_mathml(hooks):
    html = hooks._formulas(r'<p><span class="arithmatex">\(V \ge q\)</span></p>')
    assert "<math" in html
    assert "arithmatex" not in html


def test_a_figure_takes_the_page_s_colours(hooks):
    figure = hooks._figure(ROOT / "docs" / "pictures" / "curves.svg", "curves", "figure1-")
    assert figure.startswith('<svg class="figure" role="img" aria-label="curves" ')
    assert "#ffffff" not in figure
    assert "#000000" not in figure
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', figure)
    assert used
    assert set(used) <= set(re.findall(r'\bid="([^"]+)"', figure))


def test_every_method_has_its_section_picture_and_trap():
    text = (ROOT / "docs" / "methods.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    assert set(sections) - {"Calls"} == set(gag_fast.methods())
    for name in gag_fast.methods():
        for part in (f"pictures/methods/{name}.webp", "**Cost**", "*Trap"):
            assert part in sections[name], (name, part)
        assert re.search(r", (19|20)\d\d|Eq\. \d", sections[name]), name


def test_lines_of_code_are_seen_whole_on_a_wide_screen():
    long = {}
    for block in blocks():
        lines = [line for line in block.text.splitlines() if len(line) > COLUMNS]
        long |= {f"{block.page}:{block.line}": lines} if lines else {}
    assert long == {}


def test_a_link_to_nowhere_is_seen(hooks, caplog):
    assert hooks._linked("[a](nowhere.md)", "docs", "index.md") == "a"
    assert "a link to nowhere.md, which is not there" in caplog.text


def test_make_docs_counts_warnings():
    """Under --quiet MkDocs counts none, and a strict build with a broken link would pass."""
    lines = re.findall(r"^\t.*mkdocs build.*$", (ROOT / "Makefile").read_text(), re.M)
    assert len(lines) == 2
    for line in lines:
        assert "--strict" in line
        assert "-q" not in line.split()
        assert "--quiet" not in line


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "index.html").is_file()
    page = (tmp_path / "reference.html").read_text()
    page += (tmp_path / "reference-export.html").read_text()
    public = {f"gag_fast.{name}" for name in gag_fast.__all__}
    public |= {f"gag_fast.export.{name}" for name in gag_fast.export.__all__}
    assert len(public) >= 25
    assert sorted(name for name in public if f'id="{name}"' not in page) == []


def test_a_notebook_s_page_shows_what_its_cells_showed():
    notebooks = from_site("notebooks")
    book = ROOT / "docs" / "tutorials" / "explain_and_score.ipynb"
    text, pictures = notebooks.as_markdown(book)
    assert text.startswith("# Explain and score\n")
    assert "```python\nimport gag_fast\n" in text
    assert list(pictures) == ["explain_and_score-1.jpeg", "explain_and_score-2.jpeg"]
    assert all(f"({name})" in text for name in pictures)
    assert "<table" in text
    assert "<style" not in text
    assert notebooks._text("10 %\r50 %\r100 %\ndone\n") == "```text\n100 %\ndone\n```"
