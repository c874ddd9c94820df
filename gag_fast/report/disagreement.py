"""Where scoring presets disagree: the same maps, ranked under each of them.

A run that scores under further presets has a column `measure@preset` for each. The rankings of the
methods are compared by Kendall's τ-b (Biometrika 33, 1945): 1 the same order, −1 the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gag_fast.measures import Measure
from gag_fast.report.reading import Run

MOST = 10
"""Turned images that are listed by name."""


@dataclass(frozen=True)
class Turned:
    """An image of which two presets name another method the best.

    Attributes:
        image: its name.
        first, second: numbers of the methods, by the run's own preset and by the other.
        tau: between the two rankings of the methods on this image.
    """

    image: str
    first: int
    second: int
    tau: float


@dataclass(frozen=True)
class Disagreement:
    """One measure under several presets.

    Attributes:
        measure: which.
        presets: names, the run's own first.
        orders: of each preset, numbers of the methods by their means, the best first.
        tau: `[presets, presets]` between the rankings by the means.
        per_image: of each further preset, the mean over the images of τ to the run's own.
        shares: of each further preset, the share of the images that turn.
        turned: of each further preset, those that disagree most.
        n: images with every score under every preset.
    """

    measure: Measure
    presets: list[str]
    orders: list[list[int]]
    tau: np.ndarray
    per_image: list[float]
    shares: list[float]
    turned: list[list[Turned]]
    n: int


def disagreements(run: Run) -> list[Disagreement]:
    """Of every measure that the run has under several presets; none with a single method."""
    if len(run.methods) < 2:
        return []
    found = [_of_measure(run, measure) for measure in run.metrics]
    return [one for one in found if one is not None]


def _of_measure(run: Run, measure: Measure) -> Disagreement | None:
    head = f"{measure.column}@"
    others = [name.removeprefix(head) for name in run.columns if name.startswith(head)]
    if not others:
        return None
    tables = [run.matrix(measure.column)]
    for preset in others:
        table = np.full_like(tables[0], np.nan)
        table[run.image, run.method] = np.where(run.ok, run.columns[head + preset], np.nan)
        tables.append(table)
    whole = np.all([np.isfinite(table).all(axis=1) for table in tables], axis=0)
    if not whole.any():
        return None
    sign = 1 if measure.higher_is_better else -1
    worth = [sign * table[whole] for table in tables]
    means = np.stack([table.mean(axis=0) for table in worth])
    names = [run.images[k] for k in np.flatnonzero(whole)]
    taus = [kendall(worth[0], table) for table in worth[1:]]
    best = [table.argmax(axis=1) for table in worth]
    # Two methods that are both the best have not turned.
    rows = np.arange(len(names))
    turns = [table[rows, best[0]] < table.max(axis=1) for table in worth[1:]]
    own = run.section("preset") or {}
    return Disagreement(
        measure=measure,
        presets=[str(own.get("name", "paper")), *others],
        orders=[np.argsort(-row, kind="stable").tolist() for row in means],
        tau=np.array([[float(kendall(a[None], b[None])[0]) for b in means] for a in means]),
        per_image=[float(np.nanmean(t)) if np.isfinite(t).any() else float("nan") for t in taus],
        shares=[float(turn.mean()) for turn in turns],
        turned=[
            [
                Turned(names[k], int(best[0][k]), int(best[position][k]), float(tau[k]))
                for k in sorted(np.flatnonzero(turn), key=lambda k: np.nan_to_num(tau[k]))[:MOST]
            ]
            for position, (turn, tau) in enumerate(zip(turns, taus), start=1)
        ],
        n=len(names),
    )


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of every row of two tables `[n, k]`; NaN where a row's values are all equal."""
    count = first.shape[1]
    a, b = np.triu_indices(count, 1)
    one, two = np.sign(first[:, a] - first[:, b]), np.sign(second[:, a] - second[:, b])
    size = np.sqrt((one != 0).sum(axis=1) * (two != 0).sum(axis=1).astype(float))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (one * two).sum(axis=1) / size
