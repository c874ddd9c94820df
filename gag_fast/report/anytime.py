"""Comparisons that may be looked at after every image, and stopped as soon as they are clear.

A test that is read again and again, until it says what one hopes for, has lost its error rate. The
ones here keep theirs however often they are read: they bet against the hypothesis that a mean is
m, and by Ville's inequality a fair game multiplies its stake by 2/α with probability at most α/2.
The bets are those of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting" (JRSS B 86, 2024): the hedged capital process (Theorem 3) with predictable plug-in bets
(their Eq. 26), in the form for sampling without replacement (Section 5), since a data set is
finite: what is asked for is its own mean, the one that the whole run would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gag_fast._errors import GagFastError

_SHARE = 0.5  # of the stake, at most, is lost at once


class Betting:
    """Log wealth of bets on values in [0, 1], drawn at random, for and against a mean of `mean`.

    Args:
        mean: `[columns]` hypotheses, each in [0, 1].
        population: how many values there are in all, drawn without replacement; None: endless.
        error: the error rate that the bets are sized for. Any size is valid.
    """

    def __init__(self, mean: np.ndarray, population: int | None = None, error: float = 0.05):
        self.mean = np.asarray(mean, dtype=np.float64)
        self.population = population
        self._log_stake = np.log(2 / error)
        self.count = 0
        self._sum = np.zeros(self.mean.shape)
        self._squares = np.zeros(self.mean.shape)
        self._up = np.zeros(self.mean.shape)
        self._down = np.zeros(self.mean.shape)

    def update(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Takes in values `[n, columns]`, or `[n, 1]` for all columns, in the order drawn.

        Returns:
            the log wealth after each of them, `[n, columns]`, of the bets that the mean is higher,
            and of those that it is lower.
        """
        values = np.broadcast_to(values, (len(values), *self.mean.shape)).astype(np.float64)
        t = self.count + np.arange(1, len(values) + 1)[:, None]
        after = self._sum + np.cumsum(values, axis=0)
        before = after - values
        centre = (0.5 + after) / (t + 1)
        squares = self._squares + np.cumsum((values - centre) ** 2, axis=0)
        variance = (0.25 + np.vstack([self._squares[None], squares[:-1]])) / t  # of those before
        bet = np.sqrt(2 * self._log_stake / (variance * t * np.log(t + 1)))
        mean: np.ndarray = self.mean[None]
        if self.population is not None:
            # What the rest must have as its mean, were the hypothesis true.
            mean = (self.population * mean - before) / np.maximum(self.population - t + 1, 1)
        gain = values - mean
        tiny = 1e-12
        up = np.log1p(np.minimum(bet, _SHARE / np.maximum(mean, tiny)) * gain)
        down = np.log1p(np.minimum(bet, _SHARE / np.maximum(1 - mean, tiny)) * -gain)
        # A rest that would need values below 0, or above 1, cannot be.
        up = np.where(mean < -1e-9, np.inf, up)
        down = np.where(mean > 1 + 1e-9, np.inf, down)
        ups, downs = self._up + np.cumsum(up, axis=0), self._down + np.cumsum(down, axis=0)
        self.count += len(values)
        if len(values):
            self._sum, self._squares = after[-1], squares[-1]
            self._up, self._down = ups[-1], downs[-1]
        return ups, downs


def confidence_sequence(
    values: np.ndarray, *, error: float = 0.05, population: int | None = None, steps: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals that hold the mean at all times together with probability 1 − error.

    Args:
        values: `[n]` in [0, 1], in the order drawn.
        error: the chance that the mean is ever outside.
        population: as for `Betting`; None: the mean of the distribution that values come from.
        steps: of the grid of means that is tried; the interval is rounded outwards to it.

    Returns:
        low, high: `[n]` after each value; they never widen.
    """
    grid = np.linspace(0, 1, steps + 1)
    ups, downs = Betting(grid, population, error).update(np.asarray(values)[:, None])
    alive = np.maximum.accumulate(np.maximum(ups, downs), axis=0) < np.log(2 / error)
    any_left = alive.any(axis=1)
    first = np.where(any_left, alive.argmax(axis=1), 0)
    last = np.where(any_left, steps - alive[:, ::-1].argmax(axis=1), steps)
    low, high = grid[np.maximum(first - 1, 0)], grid[np.minimum(last + 1, steps)]
    # Between two points of the grid nothing need be alive: the interval of before stays.
    return np.maximum.accumulate(low), np.minimum.accumulate(np.where(any_left, high, 1))


@dataclass(frozen=True)
class Decision:
    """A pair of methods of which one was found better.

    Attributes:
        better, worse: their numbers.
        image: after how many images.
    """

    better: int
    worse: int
    image: int


class Race:
    """Methods compared pair by pair by one measure while the images come in random order.

    All decisions together are right with probability 1 − error, whenever one looks and stops:
    right about the mean over all `images`. Holm's adjustment over the pairs, on p-values that hold
    at any time (one over the largest wealth so far).

    Args:
        methods: how many.
        images: of the whole data set.
        low, high: the measure's range.
        higher_is_better: its direction.
        error: the chance of any wrong decision.

    Raises:
        ValueError: fewer than two methods, a range that is not finite, an error outside (0, 1).
    """

    def __init__(
        self,
        methods: int,
        images: int,
        *,
        low: float,
        high: float,
        higher_is_better: bool,
        error: float = 0.05,
    ):
        if methods < 2:
            raise GagFastError(f"a ranking needs two methods or more, got {methods}")
        if not (np.isfinite([low, high]).all() and low < high):
            raise GagFastError(f"the measure's range must be finite, got {low} to {high}")
        if not 0 < error < 1:
            raise GagFastError(f"the error rate must be between 0 and 1, got {error}")
        self.methods, self.images, self.error = methods, images, error
        self._low, self._high = low, high
        self._sign = 1.0 if higher_is_better else -1.0
        self.pairs = [(a, b) for a in range(methods) for b in range(a + 1, methods)]
        self._first = np.array([a for a, _ in self.pairs])
        self._second = np.array([b for _, b in self.pairs])
        half = np.full(len(self.pairs), 0.5)
        self._bets = Betting(half, images, error / len(self.pairs))
        self._best = np.zeros(len(self.pairs))  # largest log wealth so far, either way
        self._up = np.zeros(len(self.pairs), bool)  # which way that was
        self.decisions: dict[tuple[int, int], Decision] = {}
        self.settled_at: int | None = None

    @property
    def seen(self) -> int:
        """Images so far."""
        return self._bets.count

    @property
    def settled(self) -> bool:
        """Whether every place of the ranking is decided, directly or through methods between."""
        return self.settled_at is not None

    def update(self, scores: np.ndarray) -> None:
        """Takes in scores `[n, methods]` of the next images; NaN where a method failed.

        A pair of which one failed counts as a difference of 0: it moves no mean to either side.

        Raises:
            ValueError: a score outside the measure's range, or more images than there are.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if self.seen + len(scores) > self.images:
            raise GagFastError(f"more scores than the {self.images} images of the data set")
        span = self._high - self._low
        outside = (scores < self._low - 1e-3 * span) | (scores > self._high + 1e-3 * span)
        if outside.any():
            raise GagFastError(
                f"a score of {scores[outside][0]:g} is outside the measure's range "
                f"{self._low:g} to {self._high:g}"
            )
        scores = self._sign * np.clip(scores, self._low, self._high)
        difference = scores[:, self._first] - scores[:, self._second]
        values = 0.5 + np.nan_to_num(difference, nan=0.0) / (2 * span)
        begin = self.seen
        ups, downs = self._bets.update(values)
        wealth = np.vstack([self._best[None], np.maximum(ups, downs)])
        largest = np.maximum.accumulate(wealth, axis=0)[1:]
        p_values = np.minimum(1.0, 2 * np.exp(-largest))
        rejected = _holm_rejects(p_values, self.error)
        news = np.flatnonzero((rejected[1:] != rejected[:-1]).any(axis=1)) + 1
        for row in [0, *news] if len(rejected) else []:
            for k in np.flatnonzero(rejected[row]):
                if self.pairs[k] not in self.decisions:
                    self._decide(int(k), ups[: row + 1, k], downs[: row + 1, k], begin + row + 1)
            if self.settled_at is None and self._is_settled():
                self.settled_at = begin + int(row) + 1
        if len(scores):
            for pair in range(len(self.pairs)):
                self._up[pair] = self._side(pair, ups[:, pair], downs[:, pair])
            self._best = largest[-1]

    def _side(self, pair: int, ups: np.ndarray, downs: np.ndarray) -> bool:
        """Whether the largest wealth so far came of betting that the first is better."""
        up, down = ups.max(), downs.max()
        return bool(self._up[pair]) if max(up, down) <= self._best[pair] else bool(up > down)

    def _decide(self, pair: int, ups: np.ndarray, downs: np.ndarray, image: int) -> None:
        a, b = self.pairs[pair]
        better, worse = (a, b) if self._side(pair, ups, downs) else (b, a)
        self.decisions[a, b] = Decision(better, worse, image)

    def _is_settled(self) -> bool:
        """Neighbours in a settled ranking have nothing between them: they are decided directly."""
        wins = np.zeros(self.methods, int)
        beats = np.eye(self.methods, dtype=bool)
        for decision in self.decisions.values():
            beats[decision.better, decision.worse] = True
        for k in range(self.methods):  # Warshall: what follows from the decisions
            beats |= beats[:, k : k + 1] & beats[k : k + 1, :]
        wins = beats.sum(axis=1)
        order = np.argsort(-wins, kind="stable")
        return all(bool(beats[a, b]) for a, b in pairwise(order))


def _holm_rejects(p_values: np.ndarray, error: float) -> np.ndarray:
    """Which hypotheses Holm's step-down test rejects, for each row of `[n, pairs]`."""
    count = p_values.shape[1]
    order = np.argsort(p_values, axis=1, kind="stable")
    ordered = np.take_along_axis(p_values, order, axis=1)
    passed = np.logical_and.accumulate(ordered <= error / (count - np.arange(count)), axis=1)
    rejected = np.zeros(p_values.shape, bool)
    np.put_along_axis(rejected, order, passed, axis=1)
    return rejected
