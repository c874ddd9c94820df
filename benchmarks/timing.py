"""Interleaved timing. On a noisy machine only ratios of medians measured side by side hold."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Timing:
    """Seconds of one case, one entry a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile, seconds."""
        ordered = sorted(self.seconds)
        quarter = len(ordered) // 4
        return ordered[quarter], ordered[-1 - quarter]


def interleave(
    cases: dict[str, Callable[[], object]],
    *,
    rounds: int = 15,
    warmup: int = 2,
    budget: float | None = None,
) -> dict[str, Timing]:
    """Time every case once a round, so that a drift of the machine meets all alike.

    The order is drawn anew each round: what a case leaves in the caches then helps or hinders none
    in particular. In a fixed order the case after ours would find our stack in L3.

    Args:
        cases: name -> call without arguments.
        rounds: rounds counted.
        warmup: calls of each case that are not counted.
        budget: stop after this many seconds of counted rounds, but not before three rounds.

    Returns:
        name -> Timing, in the order of `cases`.
    """
    for call in cases.values():
        for _ in range(warmup):
            call()
    taken: dict[str, list[float]] = {name: [] for name in cases}
    names, order = list(cases), random.Random(0)
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        for done in range(rounds):
            if budget is not None and done >= 3 and time.perf_counter() - begin > budget:
                break
            for name in order.sample(names, len(names)):
                call = cases[name]
                start = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


def paired_ratio(a: Timing, b: Timing) -> tuple[float, float, float]:
    """a/b: the ratio of the medians, then the quartiles of the ratios round by round."""
    pairs = sorted(x / y for x, y in zip(a.seconds, b.seconds, strict=True))
    quarter = len(pairs) // 4
    return a.median / b.median, pairs[quarter], pairs[-1 - quarter]
