"""docs/errors.md: every error of the package, what was received, and what to do."""

import ast
import functools
import inspect
import re

import pytest

from gag_fast._errors import GagFastError, InputTypeError
from tests import ROOT

PAGE = ROOT / "docs" / "errors.md"
OPEN = "…"
SOURCES = sorted(p for f in ("gag_fast", "export") for p in (ROOT / f).rglob("*.py"))
PLAIN = ("ValueError", "TypeError")


def raised(tree):
    """(class, message with … for what differs, line) of each error that is made in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name):
            name = node.func.id
            if name.endswith(("Error", "Died")) or name == "error":
                yield name, skeleton(node.args[0]), node.lineno


def skeleton(message):
    """A message with … in the place of its values."""
    if isinstance(message, ast.Constant):
        return str(message.value)
    if isinstance(message, ast.JoinedStr):
        parts = (p.value if isinstance(p, ast.Constant) else OPEN for p in message.values)
        return "".join(parts)
    return OPEN


@functools.cache
def sites():
    """(class, message, place) of every error of ours in the sources."""
    return [
        (name, text, f"{path.relative_to(ROOT)}:{line}")
        for path in SOURCES
        for name, text, line in raised(ast.parse(path.read_text()))
        if name not in NOT_SHOWN
    ]


NOT_SHOWN = {
    *("ArgumentTypeError", "AttributeError", "SkippedError", "DecompressionBombError"),
    *("MemoryError", "NotImplementedError", "OSError"),
}
"""Errors that argparse words, that Python's own protocols ask for, or that are caught inside."""


def entries():
    """(pattern of the message, what to do) of each line of the page's tables."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and cells[0].startswith("`") and cells[1] and " " in cells[0]:
            yield cells[0][1:-1].replace("\\`", "`").replace("\\|", "|"), cells[2]


def covers(pattern, text):
    """Whether the fixed parts of the pattern stand in the text, in order."""
    return re.search(".*".join(map(re.escape, pattern.split(OPEN))), text, re.S) is not None


def test_every_message_is_in_the_table():
    known = [pattern for pattern, _ in entries()]
    missing = [
        f"{place} {name}: {text}"
        for name, text, place in sites()
        if text.strip(OPEN + ": ") and not any(covers(pattern, text) for pattern in known)
    ]
    assert not missing, "add a line to docs/errors.md for:\n" + "\n".join(missing)


def test_every_line_of_the_table_is_of_a_message():
    texts = [text for _, text, _ in sites()] + [p.read_text() for p in (ROOT / "csrc").rglob("*.*")]
    for path in SOURCES:  # some are worded by a function of their own
        nodes = ast.walk(ast.parse(path.read_text()))
        texts += [skeleton(node) for node in nodes if isinstance(node, ast.JoinedStr)]
    stale = [pattern for pattern, _ in entries() if not any(covers(pattern, t) for t in texts)]
    assert not stale


def test_every_line_says_what_to_do():
    found = list(entries())
    assert len(found) > 60
    assert len({pattern for pattern, _ in found}) == len(found)
    assert [pattern for pattern, remedy in found if len(remedy) < 8] == []
    assert [p for p, _ in found if len(p.replace(OPEN, "").strip()) < 3] == []


def test_every_class_is_in_the_table():
    text = PAGE.read_text()
    names = {GagFastError.__name__, InputTypeError.__name__, "DiskFullError"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                names.add(node.name)
    assert len(names) >= 14
    assert sorted(n for n in names - {"SkippedError"} if f"`{n}`" not in text) == []


def test_what_a_caller_did_wrong_is_an_error_of_ours():
    """`except GagFastError` catches it; reference.py is read alone and imports torch only."""
    plain = [
        f"{path.relative_to(ROOT)}:{node.lineno}: raise GagFastError, or InputTypeError for a type"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if path.name != "reference.py"
        and isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in PLAIN
    ]
    assert plain == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise GagFastError(f"p must be a share, got {p!r}")', "p must be a share, got …"),
        ('raise ModelError("a" "b")', "ab"),
        ("raise MethodError(str(error))", OPEN),
    ],
)
def test_what_is_read_of_a_message(source, found):
    assert [text for _, text, _ in raised(ast.parse(inspect.cleandoc(source)))] == [found]


def test_what_covers_a_message():
    assert covers("… must be one of …, got …", "method must be one of …, got …")
    assert not covers("got … must be", "method must be one of …, got …")
