"""What each method costs beside what it is worth: seconds and passes an image, and the front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gag_fast.measures import Measure
from gag_fast.report.reading import Run
from gag_fast.report.statistics import Interval, bootstrap_means
from gag_fast.report.tables import Summary


@dataclass(frozen=True)
class Cost:
    """The methods' cost in one unit.

    Attributes:
        unit: "seconds" or "passes", an image.
        values: of each method, by its number; NaN where unknown.
        fronts: measure column -> numbers of the methods that no other one beats: none is as cheap
            and as good, and cheaper or better.
    """

    unit: str
    values: list[Interval]
    fronts: dict[str, list[int]]


def costs(run: Run, summary: Summary) -> list[Cost]:
    """In every unit that the run tells: seconds where they were measured for each method."""
    found = []
    for unit, values in (("seconds", _seconds(run)), ("passes", _passes(run))):
        if any(math.isfinite(value.mean) and value.mean > 0 for value in values):
            fronts = {m.column: front(values, summary, m) for m in summary.metrics}
            found.append(Cost(unit, values, fronts))
    return found


def front(values: list[Interval], summary: Summary, measure: Measure) -> list[int]:
    """The Pareto front of cost against a measure's mean."""
    sign = 1 if measure.higher_is_better else -1
    points = [
        (k, values[k].mean, sign * summary.cells[method][measure.column].mean)
        for k, method in enumerate(summary.methods)
    ]
    points = [p for p in points if math.isfinite(p[1]) and math.isfinite(p[2])]
    return [
        k
        for k, cost, worth in points
        if not any(c <= cost and w >= worth and (c, w) != (cost, worth) for _, c, w in points)
    ]


def _seconds(run: Run) -> list[Interval]:
    """Seconds an image that each method would take alone, its gradients included.

    The intervals are of bootstrap samples of the images.
    """
    seconds = run.columns.get("method_seconds")
    if seconds is None:
        return []
    table = np.full((len(run.images), len(run.methods)), np.nan)
    table[run.image, run.method] = np.where(run.ok, seconds, np.nan)
    return bootstrap_means(table)


def _passes(run: Run) -> list[Interval]:
    known = run.section("passes") or {}
    nan = math.nan
    values = [known.get(method) for method in run.methods]
    return [Interval(float(v) if isinstance(v, int) else nan, nan, nan, 0) for v in values]
