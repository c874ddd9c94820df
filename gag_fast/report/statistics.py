"""Intervals and paired tests for result tables. NumPy only; exact where exact is affordable.

The unit is always the image: methods are scored on the same images, so every resample of the
bootstrap draws images, the same ones for all methods, and every test works on per-image
differences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gag_fast._errors import GagFastError

_CHUNK_VALUES = 1 << 22  # integers drawn at a time: 32 MB

RESAMPLES = 2000

MIN_IMAGES = 20
"""Images that a verdict needs. Of fewer, the bootstrap interval of a mean is too short (of 10
values it covers 90 %, not 95 %), and after Holm's adjustment the tests hardly decide anything."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval; `low` and `high` are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int


def bootstrap_means(
    values: np.ndarray, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Percentile-bootstrap intervals of the column means, one draw of rows for all columns.

    Args:
        values: `[n, columns]`, one row per image; NaN marks a missing value, and a column's mean
            in a resample is over the drawn rows that have it.
        level: coverage of the interval.
        resamples: bootstrap resamples. Above 20,000 rows they are at most 500, above 200,000 at
            most 200: the interval is then narrow, and its own Monte-Carlo error below a table's
            digits.
        seed: of the draw; the same seed gives the same interval.
    """
    means, counts, shifts = _resampled(values, resamples, seed)
    return [_interval(means[k], int(counts[k]), shifts[:, k], level) for k in range(len(means))]


def _interval(mean: float, count: int, shifts: np.ndarray, level: float) -> Interval:
    """A mean with the quantiles of its resampled shifts; those that are not finite do not count."""
    finite = shifts[np.isfinite(shifts)]
    low = high = math.nan
    if count > 1 and finite.size:
        tail = (1 - level) / 2
        low, high = mean + np.quantile(finite, (tail, 1 - tail))
    return Interval(float(mean), float(low), float(high), count)


def _resampled(
    values: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column means, counts of the values they are of, and `[resamples, columns]` shifts of them."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise GagFastError(f"values must be [n, columns], got shape {values.shape}")
    rows, columns = values.shape
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    counts = present.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = filled.sum(0) / counts
    if rows < 2 or columns == 0:
        return means, counts, np.full((1, columns), np.nan)
    if rows > 20_000:
        resamples = min(resamples, 500 if rows <= 200_000 else 200)
    # Centred first: a resampled mean is then a small number added to the mean, and a column of
    # equal values has an interval of exactly no width.
    centred = np.where(present, values - np.where(counts > 0, means, 0.0), 0.0)
    complete = bool(present.all())
    weights_of = present.astype(np.float64)
    generator = np.random.default_rng(seed)
    shifts = np.empty((resamples, columns))
    step = max(1, _CHUNK_VALUES // rows)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.integers(0, rows, size=(stop - start, rows))
        weights = np.stack([np.bincount(row, minlength=rows) for row in drawn]).astype(np.float64)
        total = rows if complete else weights @ weights_of
        with np.errstate(invalid="ignore", divide="ignore"):
            shifts[start:stop] = (weights @ centred) / total
    return means, counts, shifts


def _midranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _exact_signed_rank(statistic: float, n: int) -> float:
    """P(W ≤ statistic) of the signed-rank statistic for n untied differences, by counting."""
    ways = np.zeros(n * (n + 1) // 2 + 1)
    ways[0] = 1
    for rank in range(1, n + 1):
        ways[rank:] = ways[rank:] + ways[:-rank]
    return float(ways[: math.floor(statistic) + 1].sum() / 2.0**n)


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test that differences are symmetric about 0.

    Zero differences are dropped (Wilcoxon's own treatment). Exact for at most 50 untied
    differences; otherwise the normal approximation with tie correction, without a continuity
    correction. NaN when nothing is left; non-finite differences are ignored.
    """
    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[np.isfinite(differences) & (differences != 0)]
    n = differences.size
    if n == 0:
        return math.nan
    magnitude = np.abs(differences)
    ranks = _midranks(magnitude)
    positive = float(ranks[differences > 0].sum())
    smaller = min(positive, n * (n + 1) / 2 - positive)
    _, ties = np.unique(magnitude, return_counts=True)
    if n <= 50 and ties.max() == 1:
        return min(1.0, 2 * _exact_signed_rank(smaller, n))
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((ties.astype(float) ** 3 - ties).sum()) / 48
    z = (smaller - n * (n + 1) / 4) / math.sqrt(variance)
    return min(1.0, math.erfc(-z / math.sqrt(2)))


def sign_test(higher: int, lower: int) -> float:
    """Two-sided p-value of the sign test that up and down are as likely; ties are left out.

    Exact for at most 1,000 images, beyond that the normal approximation with a continuity
    correction. NaN when nothing went up or down.
    """
    n, fewer = higher + lower, min(higher, lower)
    if n == 0:
        return math.nan
    if n <= 1000:
        ways = term = 1
        for k in range(1, fewer + 1):
            term = term * (n - k + 1) // k
            ways += term
        return min(1.0, 2 * ways / 2**n)
    z = max(0.0, n / 2 - fewer - 0.5) / math.sqrt(n / 4)
    return min(1.0, math.erfc(z / math.sqrt(2)))


@dataclass(frozen=True)
class Paired:
    """Two sets of values of the same images: second minus first.

    Attributes:
        difference: its mean with the bootstrap interval.
        p_value: Wilcoxon's signed-rank test, two-sided.
        higher, lower, equal: images whose second value is so.
        sign_p: the sign test on those counts, two-sided.
    """

    difference: Interval
    p_value: float
    higher: int
    lower: int
    equal: int

    @property
    def sign_p(self) -> float:
        """The sign test's p-value: of the counts alone, whatever the sizes of the differences."""
        return sign_test(self.higher, self.lower)


def paired(first: np.ndarray, second: np.ndarray, *, level: float = 0.95, seed: int = 0) -> Paired:
    """Compares values of the same images; a pair with a non-finite value is left out.

    Returns the mean of `second − first` with its bootstrap interval, Wilcoxon's two-sided p-value,
    and how many images went up, down or stayed.

    Raises:
        ValueError: different lengths.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise GagFastError(
            f"paired values must be [n] and [n], got {first.shape} and {second.shape}"
        )
    difference = second - first
    difference = difference[np.isfinite(difference)]
    return paired_columns(difference[:, None], level=level, seed=seed)[0]


def paired_columns(differences: np.ndarray, *, level: float = 0.95, seed: int = 0) -> list[Paired]:
    """`paired` for many columns of differences `[n, columns]`, with one draw of images for all."""
    differences = np.asarray(differences, dtype=np.float64)
    differences = np.where(np.isfinite(differences), differences, np.nan)
    means = bootstrap_means(differences, level=level, seed=seed)
    return [_paired(column, mean) for mean, column in zip(means, differences.T, strict=True)]


def _paired(differences: np.ndarray, mean: Interval) -> Paired:
    higher, lower = int((differences > 0).sum()), int((differences < 0).sum())
    return Paired(mean, wilcoxon(differences), higher, lower, int((differences == 0).sum()))


def paired_table(
    values: np.ndarray, pairs: Sequence[tuple[int, int]], *, level: float = 0.95, seed: int = 0
) -> list[Paired]:
    """`paired` for pairs (first, second) of the columns of a table `[n, k]`.

    Without missing values the resampled mean of a difference is the difference of the resampled
    means, so that k columns are resampled and not their pairs.
    """
    values = np.asarray(values, dtype=np.float64)
    differences = np.stack([values[:, b] - values[:, a] for a, b in pairs], axis=1)
    if not np.isfinite(values).all():
        return paired_columns(differences, level=level, seed=seed)
    means, counts, shifts = _resampled(values, RESAMPLES, seed)
    found = []
    for (a, b), column in zip(pairs, differences.T, strict=True):
        mean, shift = means[b] - means[a], shifts[:, b] - shifts[:, a]
        found.append(_paired(column, _interval(mean, int(counts[a]), shift, level)))
    return found


def row_ranks(values: np.ndarray, *, higher_is_better: bool) -> np.ndarray:
    """Ranks within each row `[n, k]`: 1 the best, equal values sharing the mean of theirs.

    A row with a value that is not finite has no ranks, NaN.
    """
    values = np.asarray(values, dtype=np.float64)
    ranks = np.ones(values.shape)
    for other in values.T:
        column = other[:, None]
        ranks += (column > values) if higher_is_better else (column < values)
        ranks += 0.5 * (column == values)
    ranks -= 0.5  # each value is equal to itself
    ranks[~np.isfinite(values).all(axis=1)] = np.nan
    return ranks


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment for several tests; NaN stays NaN and counts as no test."""
    order = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    running = 0.0
    for position, (p, index) in enumerate(order):
        running = max(running, min(1.0, (len(order) - position) * p))
        adjusted[index] = running
    return adjusted
