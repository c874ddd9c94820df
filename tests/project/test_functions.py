"""Functions stay small in what they take: what belongs together travels as one value."""

import ast

import pytest

from tests import ROOT

MOST = 12
FILES = [p for f in ("gag_fast", "export", "benchmarks", "tests") for p in (ROOT / f).rglob("*.py")]
FILES.append(ROOT / "setup.py")


def public(path, names):
    """Whether users of the package call it: no part of its dotted name is private."""
    folder, *inside = path.relative_to(ROOT).with_suffix("").parts
    private = any(name.startswith("_") for name in (*inside, *names) if name != "__init__")
    return folder in ("gag_fast", "export") and not private


def functions(tree, names=()):
    """(dotted name, node) of every function and method, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        inside = names
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = (*names, node.name)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield inside, node
        yield from functions(node, inside)


def count(arguments, is_public):
    """Parameters; a public signature's keyword-only ones are its options and do not count."""
    taken = len(arguments.posonlyargs) + len(arguments.args)
    return taken if is_public else taken + len(arguments.kwonlyargs)


def too_many(path, text):
    return [
        f"{path.relative_to(ROOT)}:{node.lineno} {'.'.join(names)} takes {taken}"
        for names, node in functions(ast.parse(text))
        if (taken := count(node.args, public(path, names))) > MOST
    ]


def test_no_function_takes_more_than_twelve_parameters():
    assert [line for path in FILES for line in too_many(path, path.read_text())] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("def f(a, b, c, d, e, f, g, h, i, j, k, l): pass", 0),
        ("def f(a, b, c, d, e, f, g, h, i, j, k, l, m): pass", 1),
        ("def f(a, *, b, c, d, e, f, g, h, i, j, k, l, m): pass", 0),
        ("def _f(a, *, b, c, d, e, f, g, h, i, j, k, l, m): pass", 1),
        ("class A:\n  def __init__(self, *, b, c, d, e, f, g, h, i, j, k, l, m): pass", 0),
        ("class _A:\n  def __init__(self, *, b, c, d, e, f, g, h, i, j, k, l, m): pass", 1),
    ],
)
def test_what_counts(text, found):
    assert len(too_many(ROOT / "gag_fast" / "explainer.py", text)) == found
