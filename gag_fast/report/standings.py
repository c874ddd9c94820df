"""Which method is better, by one metric: every pair of methods, image by image.

Demšar's comparison of many methods over many data sets (JMLR 7, 2006) with images in the place of
data sets: ranks within each image, and pairs of methods told apart or not. The pairs are tested by
Wilcoxon's signed-rank test with Holm's adjustment, as Benavoli, Corani and Mangili (JMLR 17, 2016)
advise in the place of the mean-ranks test: whether two methods differ then does not depend on which
others are in the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gag_fast.measures import Measure
from gag_fast.report.reading import Run
from gag_fast.report.statistics import (
    MIN_IMAGES,
    Interval,
    Paired,
    bootstrap_means,
    holm,
    paired_table,
    row_ranks,
)

ALPHA = 0.05
"""Two methods are told apart at an adjusted p below this."""


@dataclass(frozen=True)
class Standing:
    """The methods of a run by one metric.

    Attributes:
        metric: which.
        order: numbers of the methods, the best mean rank first.
        ranks: of each method (by its number) the mean rank with its bootstrap interval.
        pairs: (a, b), a < b -> the differences b minus a.
        adjusted: (a, b) -> Wilcoxon's p after Holm's adjustment over the pairs of this metric.
        n: images that every method has a value of; the ranks are theirs.
    """

    metric: Measure
    order: list[int]
    ranks: list[Interval]
    pairs: dict[tuple[int, int], Paired]
    adjusted: dict[tuple[int, int], float]
    n: int

    @property
    def enough(self) -> bool:
        """Whether there are images enough for verdicts."""
        return self.n >= MIN_IMAGES

    def wins(self, row: int, column: int) -> tuple[int, int, int]:
        """Images on which method `row` is better than `column`, as good, worse."""
        pair = self.pairs[min(row, column), max(row, column)]
        # `higher` counts the images on which the later method of the pair is higher.
        better = (column < row) == self.metric.higher_is_better
        win, loss = (pair.higher, pair.lower) if better else (pair.lower, pair.higher)
        return win, pair.equal, loss

    def p_value(self, row: int, column: int) -> float:
        """The adjusted p of a pair."""
        return self.adjusted[min(row, column), max(row, column)]

    def verdict(self, row: int, column: int) -> str:
        """Of `row` against `column`: "better", "worse", "not told apart" or "too few images".

        The side is that of the mean difference; where most images are on the other side, nothing is
        claimed.
        """
        pair = self.pairs[min(row, column), max(row, column)]
        if pair.difference.n < MIN_IMAGES:
            return "too few images"
        win, _, loss = self.wins(row, column)
        mean = pair.difference.mean if row > column else -pair.difference.mean
        side = mean > 0 if self.metric.higher_is_better else mean < 0
        if not self.p_value(row, column) < ALPHA or (win > loss) != side:
            return "not told apart"
        return "better" if side else "worse"

    def alike(self) -> list[list[int]]:
        """The longest runs of neighbours in `order` of which no pair is told apart."""
        found: list[list[int]] = []
        for start in range(len(self.order)):
            stop = start + 1
            while stop < len(self.order) and all(
                self.verdict(a, self.order[stop]) in ("not told apart", "too few images")
                for a in self.order[start:stop]
            ):
                stop += 1
            if stop - start > 1 and not (found and self.order[stop - 1] in found[-1]):
                found.append(self.order[start:stop])
        return found


def standings(run: Run, *, seed: int = 0) -> list[Standing]:
    """Of every metric of a run with two methods or more, where some image has a value of all."""
    if len(run.methods) < 2:
        return []
    found = [_standing(metric, run.matrix(metric.column), seed) for metric in run.metrics]
    return [standing for standing in found if standing.n]


def _standing(metric: Measure, values: np.ndarray, seed: int) -> Standing:
    count = values.shape[1]
    keys = [(a, b) for a in range(count) for b in range(a + 1, count)]
    pairs = dict(zip(keys, paired_table(values, keys, seed=seed), strict=True))
    adjusted = dict(zip(keys, holm([pairs[key].p_value for key in keys]), strict=True))
    ranks = row_ranks(values, higher_is_better=metric.higher_is_better)
    means = bootstrap_means(ranks, seed=seed)
    whole = int(np.isfinite(ranks[:, 0]).sum())
    order = sorted(range(count), key=lambda k: (means[k].mean, k))
    return Standing(metric, order, means, pairs, adjusted, whole)
