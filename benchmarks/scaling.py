"""How the time of one call grows with n, B, H*W, the number of percents and threads."""

from __future__ import annotations

import math
from typing import Any

import torch

import gag_fast
from benchmarks.material import Stack
from benchmarks.timing import interleave

STEPS: dict[str, list[int]] = {
    "n": [10, 20, 40, 80],
    "batch": [2, 4, 8, 16],
    "pixels": [112, 160, 224, 320, 448],
    "percents": [1, 2, 4, 8],
    "threads": [1, 2],
}


def seconds(axis: str) -> dict[int, float]:
    """Median seconds of a call at each step of an axis, interleaved."""
    if axis == "threads":
        return _threads()
    cases, sizes = {}, STEPS[axis]
    for size in sizes:
        stack = {
            "n": lambda s: Stack(batch=4, n=s),
            "batch": lambda s: Stack(batch=s),
            "pixels": lambda s: Stack(batch=4, side=s),
            "percents": lambda s: Stack(batch=4),
        }[axis](size)
        grads = stack.make()
        p = [85.0 - i for i in range(size)] if axis == "percents" else 85.0
        cases[str(size)] = lambda grads=grads, p=p: gag_fast.guided_absgrad(grads, p=p)
    times = interleave(cases, rounds=15)
    return {size: times[str(size)].median for size in sizes}


def _threads() -> dict[int, float]:
    grads, result, before = Stack().make(), {}, torch.get_num_threads()
    try:
        for threads in [t for t in STEPS["threads"] if t <= before]:
            torch.set_num_threads(threads)
            times = interleave({"call": lambda: gag_fast.guided_absgrad(grads, p=85)}, rounds=15)
            result[threads] = times["call"].median
    finally:
        torch.set_num_threads(before)
    return result


def slope(points: dict[float, float]) -> float:
    """Exponent k of time ~ size^k, fitted by least squares on logarithms."""
    x = [math.log(size) for size in points]
    y = [math.log(value) for value in points.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def measure() -> list[dict[str, Any]]:
    """One row an axis: the sizes, the milliseconds, the fitted exponent."""
    rows = []
    for axis in STEPS:
        taken = seconds(axis)
        work = {size**2 if axis == "pixels" else size: t for size, t in taken.items()}
        exponent = slope(work) if len(work) > 1 else None
        rows.append({"axis": axis, "ms": {k: t * 1e3 for k, t in taken.items()}, "slope": exponent})
    return rows
