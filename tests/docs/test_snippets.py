"""Every block of README.md and the pages: Python runs, commands are ones that the parser takes."""

import importlib.util
import re
import shlex
import tomllib
from collections import Counter

import pytest

from gag_fast.cli import build_parser, main
from tests import ROOT
from tests.docs.snippets import NOT_RUN, RUN, RUNS, SHOWN, Block, blocks, parse

PYTHON = [b for b in blocks() if b.language == "python"]
CONSOLE = [b for b in blocks() if b.language == "console"]
COMMANDS = [(b, words) for b in CONSOLE for words in b.commands]

SHOWN_PYTHON: dict[str, int] = {"docs/gpu.md": 1}
"""How many blocks of Python a page shows that are not run: each has a reason, told in the page."""

OWN = {"gag_fast", "torch", "torchvision", "numpy", "onnx", "PIL", "pyarrow", "scipy"}
"""What is always there: the project and what it depends on."""


@pytest.fixture(scope="module")
def pages_so_far(tmp_path_factory):
    """Of each page whose blocks go on from one another: its folder, its names, the lines run."""
    found = {}

    def of(page):
        if page not in found:
            found[page] = (tmp_path_factory.mktemp("page"), {}, set())
        return found[page]

    return of


def need(block: Block) -> None:
    """Skips where an optional package that the block needs is not installed."""
    for package in sorted(block.packages - OWN):
        if importlib.util.find_spec(package) is None:
            pytest.importorskip(package)


def execute(block: Block, namespace: dict) -> None:
    text = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's own line
    exec(compile(text, str(ROOT / block.page), "exec"), namespace)


@pytest.mark.parametrize("block", PYTHON, ids=lambda b: b.id)
def test_a_python_block_runs(block, prelude, pages_so_far, few_gradients, tmp_path, monkeypatch):
    before = [b for b in PYTHON if b.in_order and b.page == block.page and b.line < block.line]
    todo, folder, namespace, done = [block], tmp_path, {}, set()
    if block.in_order:
        folder, namespace, done = pages_so_far(block.page)
        todo = [b for b in [*before, block] if b.line not in done]
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for one in todo:
        need(one)
        prelude.lay_out(one.text, folder)
        known = prelude.namespace(one.names - namespace.keys())
        namespace |= {name: value for name, value in known.items() if name not in namespace}
        execute(one, namespace)
        done.add(one.line)


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{b.id} {' '.join(w)[:60]}" for b, w in COMMANDS]
)
def test_a_command_is_one_that_there_is(block, words, capsys):
    check_command(words)


def check_command(words: list[str]) -> None:
    """A command of gag-fast parses; of make, pip and python -m, it names what is there."""
    program, *rest = words
    if program == "gag-fast":
        assert parsed(rest), shlex.join(words)
    elif program == "make":
        known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(known), words
    elif program == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extras in re.findall(r"^(?:gag-fast|\.)\[(.*)\]$", "\n".join(rest), re.M):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), words
    elif program in ("python", "python3") and rest[:1] == ["-m"]:
        assert importlib.util.find_spec(rest[1]) is not None, words


def parsed(words: list[str]) -> bool:
    """Whether the command line takes these words; --help and --version end well."""
    try:
        build_parser().parse_args(words)
    except SystemExit as stop:
        return stop.code == 0
    return True


@pytest.mark.parametrize("block", [b for b in CONSOLE if b.marked], ids=lambda b: b.id)
def test_a_marked_console_block_runs(block, prelude, few_gradients, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prelude.lay_out(block.text, tmp_path)
    for words in block.commands:
        assert words[0] == "gag-fast", f"only gag-fast's own commands are run, not {words[0]}"
        try:
            status = main(words[1:])
        except SystemExit as stop:
            status = stop.code
        assert status == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"


def test_every_block_says_what_it_is():
    unknown = [b.id for b in blocks() if b.language not in {*RUNS, *SHOWN, NOT_RUN}]
    assert not unknown, f"a fence needs one of {sorted({*RUNS, *SHOWN, NOT_RUN})}: {unknown}"


def test_what_is_shown_and_not_run_is_counted():
    assert Counter(b.page for b in blocks() if b.language == NOT_RUN) == SHOWN_PYTHON


def test_there_are_blocks_of_each_kind():
    assert len(PYTHON) >= 3
    assert len(COMMANDS) >= 20
    assert any(b.marked for b in CONSOLE)


# ---- the reading of pages itself -----------------------------------------------------------------

PAGE = f"""Text.

```python
a = images
```

1. A list:

    {RUN}
    ```console
    $ gag-fast report runs/a \\
        --formats html | head   # a comment
    gag-fast explain 'a b.png' --model m && make test
    ```
"""


def test_blocks_are_found_with_their_lines_and_marks():
    first, second = parse(PAGE, "page.md")
    assert (first.id, first.text, first.marked) == ("page.md:4", "a = images\n", False)
    assert first.names == {"a", "images"}
    assert (second.language, second.line, second.marked) == ("console", 11, True)
    assert second.commands == [
        ["gag-fast", "report", "runs/a", "--formats", "html"],
        ["head"],
        ["gag-fast", "explain", "a b.png", "--model", "m"],
        ["make", "test"],
    ]


def test_a_fence_that_is_not_closed_is_told():
    with pytest.raises(ValueError, match=r"page.md:1: a fence is opened and not closed"):
        parse("```python\na = 1\n", "page.md")


@pytest.mark.parametrize(
    "words",
    [
        ["gag-fast", "explain", "--modell", "m"],
        ["make", "tea"],
        ["pip", "install", "gag-fast[tea]"],
        ["python", "-m", "benchmarks.tea"],
    ],
)
def test_a_command_that_is_not_there_is_noticed(words, capsys):
    with pytest.raises(AssertionError):
        check_command(words)


def test_packages_that_a_block_needs():
    text = "import pandas, numpy.linalg\nfrom duckdb import sql\nscores.to_frame()\n"
    assert parse(f"```python\n{text}```", "p.md")[0].packages == {"pandas", "numpy", "duckdb"}
