"""The table of measures: what each is called, means and needs. Everything else is read off it.

Adding a measure takes one row in `MEASURES` and one function in gag_fast/metrics; one that shows
the classifier pictures which no other measure shows takes a row in `CURVES` and its function too.
The columns of a run, the tables, the page and the command line follow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any


class Need(Enum):
    """What a measure needs beside the map; the values are how messages name it."""

    FORWARDS = "forward passes"
    GRADIENTS = "model="
    MASK = "masks="


@dataclass(frozen=True)
class Measure:
    """One measure of saliency maps.

    Attributes:
        name: of `metrics=`, of the result's attribute and of the column.
        label: how tables and charts head it.
        higher_is_better: its direction.
        span: the smallest and the largest value it can take.
        about: one sentence that explains it.
        cost: what it takes under the preset "paper", in words.
        function: "package.module:function"; it takes a `metrics.case.Case` and returns float
            [B, M].
        curves: the rows of `CURVES` that its function reads.
        needs: what must be given; nothing: the map alone.
        parameters: the preset's fields that decide its value.
        nonnegative: negative saliency is refused, as the measure has no meaning then.
        paper: one of the paper's five. Every result row has their columns, and those of them that
            need a mask come unasked wherever there are masks.
        paper_label: how the paper's tables head it, where that is not `label`.
    """

    name: str
    label: str
    higher_is_better: bool
    span: tuple[float, float]
    about: str
    cost: str
    function: str
    curves: tuple[str, ...] = ()
    needs: frozenset[Need] = frozenset()
    parameters: tuple[str, ...] = ()
    nonnegative: bool = False
    paper: bool = False
    paper_label: str | None = None

    @property
    def arrow(self) -> str:
        """The paper's mark for the better direction."""
        return "↑" if self.higher_is_better else "↓"

    @property
    def column(self) -> str:
        """The Parquet column that holds it."""
        return self.name


@dataclass(frozen=True)
class Curve:
    """A series of pictures that is shown to the classifier, and the probabilities it gives.

    Attributes:
        name: in `Scores.curves` and of the column.
        title: how a chart heads it.
        x_label: what its x axis counts.
        about: one line that explains it.
        function: "package.module:function"; it takes a `Case` and says which pictures.
        column: whether result rows hold it.
    """

    name: str
    title: str
    x_label: str
    about: str
    function: str
    column: bool = True


_METRICS = "gag_fast.metrics"
_FORWARDS = frozenset({Need.FORWARDS})
_MASK = frozenset({Need.MASK})
_STEPS = ("step_unit", "step", "last_point", "order", "area_width")
_BLUR = ("blur_kernel", "blur_sigma", "blur_kernel_form", "blur_padding")

MEASURES: dict[str, Measure] = {
    m.name: m
    for m in (
        Measure(
            "rcap",
            "RCAP",
            True,
            (0, 1),
            "How much of the saliency its most salient pixels hold, times how sure the classifier "
            "is of them alone.",
            "5 forward passes a map",
            f"{_METRICS}.masked:rcap",
            curves=("recover",),
            needs=_FORWARDS,
            parameters=("lower_bound", "interval", "threshold", "recover_base"),
            nonnegative=True,
            paper=True,
        ),
        Measure(
            "dauc",
            "DAUC",
            False,
            (0, 1),
            "Area under the class probability while the most salient pixels are deleted first.",
            "9 forward passes a map, 1 an image",
            f"{_METRICS}.masked:dauc",
            curves=("deletion",),
            needs=_FORWARDS,
            parameters=(*_STEPS, "deletion_base"),
            paper=True,
        ),
        Measure(
            "iauc",
            "IAUC",
            True,
            (0, 1),
            "Area under the class probability while the most salient pixels are inserted first.",
            "9 forward passes a map, 2 an image",
            f"{_METRICS}.masked:iauc",
            curves=("insertion",),
            needs=_FORWARDS,
            parameters=(*_STEPS, "insertion_base", *_BLUR),
            paper=True,
        ),
        Measure(
            "log_cosh_dice",
            "Log-cosh Dice",
            False,
            (0, 0.4338),
            "Log-cosh of one minus the overlap of map and mask (soft Dice).",
            "none",
            f"{_METRICS}.masks:log_cosh_dice_of",
            needs=_MASK,
            parameters=("dice_smooth",),
            paper=True,
            paper_label="L_lc-dce",
        ),
        Measure(
            "mae",
            "MAE",
            False,
            (0, 1),
            "Mean absolute difference of map and mask.",
            "none",
            f"{_METRICS}.masks:mae_of",
            needs=_MASK,
            parameters=("mae_form",),
            paper=True,
        ),
    )
}
"""Every measure by name, in the order of columns and tables."""

CURVES: dict[str, Curve] = {
    c.name: c
    for c in (
        Curve(
            "deletion",
            "Deletion",
            "share of pixels removed",
            "most salient pixels removed first",
            f"{_METRICS}.masked:deletion",
        ),
        Curve(
            "insertion",
            "Insertion",
            "share of pixels inserted",
            "most salient pixels inserted first",
            f"{_METRICS}.masked:insertion",
        ),
        Curve(
            "recover",
            "Recover",
            "share of pixels kept",
            "the image restored from its salient pixels",
            f"{_METRICS}.masked:recover",
        ),
    )
}
"""Every series of pictures by name, in the order of columns."""


def choose(names: str | Sequence[str], *, masks: bool) -> tuple[Measure, ...]:
    """The measures of `metrics=`, each once, in the table's order.

    Args:
        names: one name or several; the paper's measures of masks come unasked with masks.
        masks: whether there are masks.

    Raises:
        ValueError: an unknown name, one that needs what was not given, or no measure at all.
    """
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if Need.MASK in measure(name).needs and not masks:
            raise ValueError(f"{name} needs masks=, got none")
    found = tuple(
        m
        for m in MEASURES.values()
        if m.name in asked or (masks and m.paper and Need.MASK in m.needs)
    )
    if not found:
        raise ValueError(f"metrics must name at least one of {', '.join(MEASURES)}")
    return found


def named(names: Iterable[str]) -> tuple[Measure, ...]:
    """The measures of these names, in the table's order."""
    asked = {measure(name) for name in names}
    return tuple(m for m in MEASURES.values() if m in asked)


def measure(name: str) -> Measure:
    """A measure by name.

    Raises:
        ValueError: there is none; with the nearest name where one is near.
    """
    if name in MEASURES:
        return MEASURES[name]
    near = difflib.get_close_matches(str(name), MEASURES, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"metrics must be among {', '.join(MEASURES)}, got {name!r}{hint}")


def curves_of(chosen: Iterable[Measure]) -> tuple[Curve, ...]:
    """The curves that some measures are read off, each once, in the order of the measures."""
    names = dict.fromkeys(name for m in chosen for name in m.curves)
    return tuple(CURVES[name] for name in names)


def columns(chosen: Iterable[Measure] = ()) -> tuple[list[Measure], list[Curve]]:
    """What a run's rows hold: the paper's measures and curves, and those of `chosen`."""
    chosen = set(chosen)
    found = [m for m in MEASURES.values() if m.paper or m in chosen]
    drawn = set(curves_of(found))
    return found, [c for c in CURVES.values() if c.column and c in drawn]


def function_of(row: Measure | Curve) -> Any:
    """The function that a row names, imported now."""
    module, _, name = row.function.partition(":")
    return getattr(import_module(module), name)
