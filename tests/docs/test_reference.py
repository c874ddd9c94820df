"""The reference: every public name has its place, and a docstring that says what a user needs.

Where a name computes something, its docstring gives shapes and units, errors, and the equation or
the paper it comes from; every argument is told, and none that is not there.
"""

import ast
import inspect
import re
import textwrap

import pytest

import gag_fast
import gag_fast.export
from tests import ROOT

PAGES = "\n".join(
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("reference", "reference-export")
)
PLACED = re.findall(r"^::: (\S+)$", PAGES, re.M)
PUBLIC = [
    *(f"gag_fast.{name}" for name in gag_fast.__all__),
    *(f"gag_fast.export.{name}" for name in gag_fast.export.__all__),
]

SHAPE = re.compile(r"\[\s*(?:[A-Zkn][\w.]*|\.\.)\s*(?:\([^)]*\))?(?:,\s*[\w.]+)*\]")
"""As [B,C,H,W], [B], [H, W]."""

SOURCE = re.compile(
    r"Eq\. \d|Algorithm 1|Section \d|Tables \d|\(\d{4}\)|, \d{4}|ONNX|presets?\b|Captum"
)
"""An equation, a section, a paper with its year, or whose definition it is."""

COMPUTES = {
    "gag_fast.guided_absgrad",
    "gag_fast.GradientStats",
    "gag_fast.explain",
    "gag_fast.explain_many",
    "gag_fast.GuidedAbsGrad",
    "gag_fast.OnnxGradients",
    "gag_fast.OnnxExplanation",
    "gag_fast.Classifier",
    "gag_fast.evaluate",
    "gag_fast.rcap",
    "gag_fast.log_cosh_dice",
    "gag_fast.mae",
}
"""What gives numbers: shapes, errors and a source are asked of it."""

UNITS = {
    "gag_fast.guided_absgrad": "percent",
    "gag_fast.GradientStats": "float32",
    "gag_fast.explain": "fraction",
    "gag_fast.explain_many": "fraction",
    "gag_fast.GuidedAbsGrad": "unit",
    "gag_fast.OnnxGradients": "relative|logit",
    "gag_fast.OnnxExplanation": "percent",
    "gag_fast.Classifier": "pixel units",
    "gag_fast.evaluate": r"\[0, 1\]",
    "gag_fast.rcap": "percent",
    "gag_fast.log_cosh_dice": r"\[0, 1\]",
    "gag_fast.mae": r"\[0, 1\]",
    "gag_fast.load_images": "normalised",
    "gag_fast.Preprocessing": "pixels",
    "gag_fast.Preset": "percent",
    "gag_fast.run": "images",
    "gag_fast.export.export_onnx": "largest allowed difference",
    "gag_fast.export.export_gradients": "relative|sum",
    "gag_fast.export.export_explanation": "fraction",
    "gag_fast.export.export_web": "fraction",
}
"""The words in which a docstring says in what units its numbers are."""

SERVES = {
    "gag_fast.GagFastError",
    "gag_fast.Scores",
    "gag_fast.plot",
    "gag_fast.ModelSpec",
    "gag_fast.Preprocessing",
    "gag_fast.Preset",
    "gag_fast.build_info",
    "gag_fast.load_images",
    "gag_fast.load_model",
    "gag_fast.methods",
    "gag_fast.preset",
    "gag_fast.run",
    *(name for name in PUBLIC if name.startswith("gag_fast.export.")),
}
"""The other names; one that is new goes into one of the two."""

CANNOT_FAIL = {
    "gag_fast.methods",
    "gag_fast.build_info",
    "gag_fast.GagFastError",
    "gag_fast.export.ExportError",
    "gag_fast.export.ExportReport",
    "gag_fast.export.ExplanationReport",
    "gag_fast.export.GradientReport",
}
"""Names whose use raises nothing of its own."""


def named(dotted):
    value = gag_fast
    for part in dotted.split(".")[1:]:
        value = getattr(value, part)
    return value


def text_of(dotted):
    """The docstring, of a class with those of what it can do."""
    value = named(dotted)
    texts = [inspect.getdoc(value) or ""]
    if inspect.isclass(value):
        own = [
            v for name, v in vars(value).items() if not name.startswith("_") or name == "__call__"
        ]
        texts += [inspect.getdoc(v) or "" for v in own if callable(v)]
    return "\n".join(texts)


def section(text, name):
    """The entries of a Google docstring's section."""
    found = re.search(rf"^{name}:\n((?:[ ]{{4}}.*\n|\n)+)", f"{text}\n", re.M)
    return [] if found is None else re.findall(r"^ {4}(?! )([\w*, ]+):", found[1], re.M)


def told(dotted):
    """The names that a docstring's Args (or a data class's Attributes) tell of."""
    text = inspect.getdoc(named(dotted)) or ""
    entries = section(text, "Args") + section(text, "Attributes")
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


def taken(dotted):
    value = named(dotted)
    parameters = inspect.signature(value).parameters
    return {name for name in parameters if name not in ("self", "args")}


CALLED = [
    name
    for name in PUBLIC
    if inspect.isfunction(named(name)) or "Args:" in (inspect.getdoc(named(name)) or "")
]


def test_no_name_has_two_places():
    """That each public name has one is seen in the page that is built (test_pages)."""
    assert [name for name in PLACED if PLACED.count(name) > 1] == []


def test_every_public_name_is_asked_for_what_it_must_say():
    assert sorted(set(PUBLIC) - COMPUTES - SERVES) == []


def test_what_is_placed_is_there():
    import importlib

    for name in PLACED:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("name", PUBLIC)
def test_it_says_in_a_sentence_what_it_is(name):
    first = text_of(name).partition("\n\n")[0]
    assert len(first) > 20
    assert first.rstrip().endswith((".", ":")), first


@pytest.mark.parametrize("name", CALLED)
def test_every_argument_is_told_and_none_that_is_not_there(name):
    wanted, found = taken(name), told(name)
    assert wanted <= found, f"not told: {sorted(wanted - found)}"
    if inspect.isfunction(named(name)):
        assert found <= wanted, f"not taken: {sorted(found - wanted)}"


@pytest.mark.parametrize("name", sorted(COMPUTES))
def test_what_computes_says_shapes_and_source(name):
    text = text_of(name)
    assert SHAPE.search(text), "no shape"
    assert SOURCE.search(text), "no equation, section or paper"


@pytest.mark.parametrize("name", sorted(UNITS))
def test_units_are_said(name):
    assert re.search(UNITS[name], text_of(name))


@pytest.mark.parametrize("name", [n for n in PUBLIC if n not in CANNOT_FAIL])
def test_errors_are_said(name):
    text = text_of(name)
    assert re.search(r"^Raises:$|\braises\b", text, re.M | re.I), "what can go wrong?"


@pytest.mark.parametrize("name", [n for n in CALLED if inspect.isfunction(named(n))])
def test_what_is_given_back_is_said(name):
    tree = ast.parse(textwrap.dedent(inspect.getsource(named(name))))
    gives = any(isinstance(n, ast.Return) and n.value is not None for n in ast.walk(tree))
    text = inspect.getdoc(named(name))
    first = text.partition("\n\n")[0]
    one_sentence = "\n" not in text
    assert not gives or one_sentence or "Returns:" in text or SHAPE.search(first) or "->" in first
