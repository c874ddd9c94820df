"""The table of measures: what each is called, means and needs. Everything else is read off it.

Adding a measure takes one row in `MEASURES` and one function in gag_fast/metrics; one that shows
the classifier pictures which no other measure shows takes a row in `CURVES` and its function too.
The columns of a run, the tables, the page and the command line follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any, Literal

from gag_fast._errors import GagFastError
from gag_fast._text import meant


class Need(Enum):
    """What a measure needs beside the map; the values are how messages name it."""

    FORWARDS = "forward passes"
    MASK = "masks="
    GRADIENTS = "model="
    WEIGHTS = "model= with weights"


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
        undefined: may be NaN for an image that it is not defined for: leave that image out.
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
    undefined: bool = False
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
_GRADIENTS = frozenset({Need.GRADIENTS})
_WEIGHTS = frozenset({Need.WEIGHTS})
_STEPS = ("step_unit", "step", "last_point", "order", "area_width")
_INFORMATION = (
    *("information_shares", "information_seeds", "information_monotonous"),
    *("information_points", "information_minimum", "perturb_seed"),
)
_BLUR = ("blur_kernel", "blur_sigma", "blur_kernel_form", "blur_padding")

MeasureName = Literal[
    "rcap",
    "dauc",
    "iauc",
    "log_cosh_dice",
    "mae",
    "gini",
    "entropy",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "srg",
    "road",
    "aic",
    "sic",
    "average_drop",
    "increase",
    "adcc",
    "infidelity",
    "mufidelity",
    "idsds",
    "max_sensitivity",
    "mprt",
    "emprt",
]
"""The names in MEASURES, for type checkers and editors."""

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
        Measure(
            "gini",
            "Gini",
            True,
            (0, 1),
            "How unevenly the saliency is spread: 0 even, 1 all in one pixel.",
            "none",
            f"{_METRICS}.spread:gini",
        ),
        Measure(
            "entropy",
            "Entropy",
            False,
            (0, math.inf),
            "Entropy of the saliency as shares of its sum, in nats: the fewer pixels, the lower.",
            "none",
            f"{_METRICS}.spread:entropy",
        ),
        Measure(
            "pointing_game",
            "Pointing game",
            True,
            (0, 1),
            "Whether the largest saliency lies on the object.",
            "none",
            f"{_METRICS}.localisation:pointing_game",
            needs=_MASK,
            parameters=("pointing", "pointing_share"),
            undefined=True,
        ),
        Measure(
            "relevance_mass",
            "Relevance mass",
            True,
            (0, 1),
            "Share of the saliency that lies on the object.",
            "none",
            f"{_METRICS}.localisation:relevance_mass",
            needs=_MASK,
            undefined=True,
            nonnegative=True,
        ),
        Measure(
            "relevance_rank",
            "Relevance rank",
            True,
            (0, 1),
            "Share of the most salient pixels, as many as the object has, that lie on it.",
            "none",
            f"{_METRICS}.localisation:relevance_rank",
            needs=_MASK,
            undefined=True,
        ),
        Measure(
            "srg",
            "SRG",
            True,
            (-1, 1),
            "Area between the curves of deleting the least and the most salient pixels first.",
            "18 forward passes a map, 1 an image; 9 of them dauc's, some rcap's",
            f"{_METRICS}.masked:srg",
            curves=("deletion", "lerf"),
            needs=_FORWARDS,
            parameters=(*_STEPS, "deletion_base"),
        ),
        Measure(
            "road",
            "ROAD",
            True,
            (-0.5, 0.5),
            "Like SRG at four shares, removed pixels filled in from their neighbours.",
            "8 forward passes a map, and as many systems of equations",
            f"{_METRICS}.road:road",
            curves=("imputed",),
            needs=_FORWARDS,
            parameters=("road_shares", "road_noise", "perturb_seed"),
        ),
        Measure(
            "aic",
            "AIC",
            True,
            (0, 1),
            "How early the class is predicted while the image is restored, over its file's size.",
            "13 forward passes a map, 2 an image, and as many interpolations and compressions",
            f"{_METRICS}.information:aic",
            curves=("restored",),
            needs=_FORWARDS,
            parameters=_INFORMATION,
            undefined=True,
        ),
        Measure(
            "sic",
            "SIC",
            True,
            (0, 1),
            "How early the class becomes probable while the image is restored, over its file's "
            "size.",
            "the pictures of aic",
            f"{_METRICS}.information:sic",
            curves=("restored",),
            needs=_FORWARDS,
            parameters=_INFORMATION,
            undefined=True,
        ),
        Measure(
            "average_drop",
            "Average drop",
            False,
            (0, 1),
            "How much of the probability goes when the image is dimmed by its map.",
            "1 forward pass a map, 1 an image",
            f"{_METRICS}.product:average_drop",
            curves=("whole", "dimmed"),
            needs=_FORWARDS,
            parameters=("product_base",),
            nonnegative=True,
        ),
        Measure(
            "increase",
            "Increase",
            True,
            (0, 1),
            "Whether the probability rises when the image is dimmed by its map.",
            "the pictures of average_drop",
            f"{_METRICS}.product:increase",
            curves=("whole", "dimmed"),
            needs=_FORWARDS,
            parameters=("product_base",),
            nonnegative=True,
        ),
        Measure(
            "adcc",
            "ADCC",
            True,
            (0, 1),
            "Harmonic mean of: explaining the dimmed image alike, a small map, a small drop.",
            "the pictures of average_drop, and 1 explanation a map",
            f"{_METRICS}.product:adcc",
            curves=("whole", "dimmed"),
            needs=_FORWARDS | _GRADIENTS,
            parameters=("product_base",),
            nonnegative=True,
        ),
        Measure(
            "infidelity",
            "Infidelity",
            False,
            (0, math.inf),
            "Squared error of the change that saliency foretells for noise on the image.",
            "21 forward passes an image",
            f"{_METRICS}.agreement:infidelity",
            curves=("whole", "noisy"),
            needs=_FORWARDS,
            parameters=(
                *("infidelity_samples", "infidelity_noise", "infidelity_scaled"),
                "perturb_seed",
            ),
        ),
        Measure(
            "mufidelity",
            "MuFidelity",
            True,
            (-1, 1),
            "Rank correlation of saliency and loss of probability over random sets of cells.",
            "201 forward passes an image",
            f"{_METRICS}.agreement:mufidelity",
            curves=("whole", "subsets"),
            needs=_FORWARDS,
            parameters=(
                *("mufidelity_grid", "mufidelity_share", "mufidelity_samples"),
                *("cell_base", "perturb_seed"),
            ),
        ),
        Measure(
            "idsds",
            "IDSDS",
            True,
            (-1, 1),
            "Rank correlation of saliency and loss of probability over the cells of a grid.",
            "17 forward passes an image",
            f"{_METRICS}.agreement:idsds",
            curves=("whole", "cells"),
            needs=_FORWARDS,
            parameters=("idsds_grid", "cell_base"),
        ),
        Measure(
            "max_sensitivity",
            "Max sensitivity",
            False,
            (0, math.inf),
            "Largest change of the map, relative to it, under small changes of the image.",
            "10 explanations a map",
            f"{_METRICS}.robustness:max_sensitivity",
            needs=_GRADIENTS,
            parameters=("sensitivity_samples", "sensitivity_radius", "perturb_seed"),
        ),
        Measure(
            "mprt",
            "MPRT",
            False,
            (-1, 1),
            "Mean rank correlation of the map with those of ever more randomised weights.",
            "20 explanations a map",
            f"{_METRICS}.robustness:mprt",
            needs=_GRADIENTS | _WEIGHTS,
            parameters=("randomise_order", "randomise_groups", "randomise_seed"),
        ),
        Measure(
            "emprt",
            "eMPRT",
            True,
            (-1, math.inf),
            "Relative rise of the map's complexity when all weights are randomised.",
            "1 explanation a map",
            f"{_METRICS}.robustness:emprt",
            needs=_GRADIENTS | _WEIGHTS,
            parameters=("randomise_order", "randomise_seed", "randomise_bins"),
            undefined=True,
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
        Curve(
            "lerf",
            "Deletion, reversed",
            "share of pixels removed",
            "least salient pixels removed first",
            f"{_METRICS}.masked:lerf",
            column=False,
        ),
        Curve(
            "imputed",
            "ROAD",
            "share of pixels filled in",
            "most salient pixels filled in first, then least",
            f"{_METRICS}.road:imputed",
            column=False,
        ),
        Curve(
            "restored",
            "Information",
            "picture",
            "the image restored from few pixels to all",
            f"{_METRICS}.information:restored",
            column=False,
        ),
        Curve(
            "whole",
            "Whole",
            "picture",
            "the image as it is",
            f"{_METRICS}.product:whole",
            column=False,
        ),
        Curve(
            "dimmed",
            "Dimmed",
            "picture",
            "the image dimmed by its map",
            f"{_METRICS}.product:dimmed",
            column=False,
        ),
        Curve(
            "noisy",
            "Noisy",
            "picture",
            "the image less noise",
            f"{_METRICS}.agreement:noisy",
            column=False,
        ),
        Curve(
            "subsets",
            "Sets of cells",
            "picture",
            "random sets of cells replaced",
            f"{_METRICS}.agreement:subsets",
            column=False,
        ),
        Curve(
            "cells",
            "Cells",
            "picture",
            "every cell replaced alone",
            f"{_METRICS}.agreement:cells",
            column=False,
        ),
    )
}
"""Every series of pictures by name, in the order of columns."""


def choose(
    names: str | Sequence[str],
    *,
    masks: bool = False,
    model: bool = False,
    weights: bool | None = None,
    negative: bool = False,
) -> tuple[Measure, ...]:
    """The measures of `metrics=`, each once, in the table's order.

    Args:
        names: one name or several, or "all": every one that what is given allows; the paper's
            measures of masks come unasked with masks.
        masks: whether there are masks.
        model: whether there is what made the maps.
        weights: whether it has layers to draw anew, which "all" then allows for; None: as `model`.
        negative: whether a map has negative values, which "all" then allows for.

    Raises:
        ValueError: an unknown name, one that needs what was not given, or no measure at all.
    """
    asked = [names] if isinstance(names, str) else list(names)
    given = {Need.MASK: masks, Need.GRADIENTS: model}
    lacks = {need for need, there in given.items() if not there}
    if "all" in asked:
        allowed = [
            m.name
            for m in MEASURES.values()
            if not m.needs & lacks
            and not (weights is False and Need.WEIGHTS in m.needs)
            and not (negative and m.nonnegative)
        ]
        asked = [*allowed, *(name for name in asked if name != "all")]
    for name in asked:
        for need in sorted(measure(name).needs & lacks, key=lambda n: n.value):
            raise GagFastError(f"{name} needs {need.value}, got none")
    found = tuple(
        m
        for m in MEASURES.values()
        if m.name in asked or (masks and m.paper and Need.MASK in m.needs)
    )
    if not found:
        raise GagFastError(f"metrics must name at least one of {', '.join(MEASURES)}")
    return found


def preset_of(fields: Mapping[str, Any], chosen: Iterable[Measure]) -> dict[str, Any]:
    """A preset's fields without those that decide other measures than the paper's and `chosen`.

    What a run is known by: its folder goes on when a later version knows more measures.
    """
    kept = {p for m in columns(chosen)[0] for p in m.parameters}
    others = {p for m in MEASURES.values() for p in m.parameters} - kept
    return {name: value for name, value in fields.items() if name not in others}


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
    raise GagFastError(
        f"metrics must be among {', '.join(MEASURES)}, got {name!r}{meant(name, MEASURES)}"
    )


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
