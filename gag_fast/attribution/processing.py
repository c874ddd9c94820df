"""From the gradients of all modifications to one map: processing and aggregation.

Everything is read from running statistics (`GradientStats`) of the *contributions* of the samples:
the gradients, or for path methods gradient times path element. So memory does not grow with n, and
methods that differ only in what they read share one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gag_fast import ops
from gag_fast._errors import GagFastError
from gag_fast.aggregate import GradientStats
from gag_fast.attribution.samples import Sample

VARIANTS = ("+", "-", "A", "G", "GA")
VALUES = ("mean", "absmean", "variance")


@dataclass(frozen=True)
class Processing:
    """What is taken into the statistics of a pass.

    Attributes:
        sign: "" for gradients as they are, "+" or "-" for only the positive or negative ones.
        weighted: contributions are gradient times path element rather than the gradient.
    """

    sign: str = ""
    weighted: bool = False

    def __call__(self, sample: Sample) -> Tensor:
        """Contributions `[B,m,C,H,W]` of a sample."""
        value = sample.gradients
        if self.sign == "+":
            value = value.clamp(min=0)
        elif self.sign == "-":
            value = value.clamp(max=0)
        if self.weighted and sample.weight is not None:
            value = value * sample.weight
        return value


def accumulate(
    samples: Iterable[Sample], processings: Sequence[Processing]
) -> dict[Processing, GradientStats]:
    """One pass over the samples, one set of statistics for each processing."""
    stats = {processing: GradientStats() for processing in processings}
    for sample in samples:
        for processing, running in stats.items():
            running.update_stack(processing(sample))
    return stats


def saliency(
    stats: GradientStats,
    value: str,
    percents: Sequence[float],
    *,
    total: bool = False,
    normalize: bool = True,
    keep: bool = False,
) -> Tensor:
    """Saliency maps from the statistics of a pass.

    Args:
        stats: of contributions `[B,C,H,W]`.
        value: "mean" (of the contributions, its magnitude), "absmean" (Eq. 3.2) or "variance"
            (Eq. 3.3).
        percents: k percents of the variance guide (Eq. 3.4) that multiplies the value; 0: none.
        total: sums over the samples instead of means (path methods).
        normalize: min-max each map to [0, 1].
        keep: per channel and raw instead of summed; "mean" then keeps its sign.

    Returns:
        `[k,B,H,W]`, or with `keep` `[k,B,C,H,W]`.
    """
    n = stats.count
    guided = any(percents)
    if n < 2 and (value == "variance" or guided):
        raise GagFastError(f"a variance needs at least 2 samples of each image, got n = {n}")
    if value == "absmean":  # what the operator reads anyway
        maps = stats.guided_absgrad(percents, normalize, "keep" if keep else "sum")
    else:
        amount = stats.mean().abs() if value == "mean" else stats.variance()
        # The operator takes sums over the samples: with a guide over n of them. Without one it
        # does not look at the deviations, and the amount is the sum over one sample.
        m2, total_of, count = (stats.deviations(), amount * n, n) if guided else (amount, amount, 1)
        maps = ops.guided_absgrad_from_stats(
            m2, total_of, count, percents, normalize=normalize, keep_channels=keep
        )
    if keep and value == "mean":
        maps = maps * stats.mean().sign()
    return maps * n if total and (keep or not normalize) else maps


def min_max(maps: Tensor) -> Tensor:
    """Maps `[...,H,W]` scaled to [0, 1] each; constant maps become zeros."""
    low, high = maps.amin((-2, -1), True), maps.amax((-2, -1), True)
    span = high - low
    return torch.where(span == 0, torch.zeros_like(maps), (maps - low) / span)
