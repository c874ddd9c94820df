"""The operators once more in plain torch: slow, obvious, and the tests' oracle in float64.

Imports only torch. Used by tests and benchmarks, never by the package itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def absgrad(grads: Tensor) -> Tensor:
    """Eq. 3.2, `mean_n |g|`: `[B, n, C, H, W]` -> `[B, C, H, W]`."""
    return grads.abs().mean(dim=1)


def variance(grads: Tensor) -> Tensor:
    """Eq. 3.3, the unbiased variance over n: `[B, n, C, H, W]` -> `[B, C, H, W]`.

    The first gradient is taken off beforehand: exact in float64 and accurate in float32 even where
    the mean is a thousand times the standard deviation.
    """
    return (grads - grads[:, :1]).var(dim=1, unbiased=True)


def threshold(values: Tensor, p: float) -> Tensor:
    """The p-th percentile over H x W, numpy's `method="linear"`: `[B, C, H, W]` -> `[B, C, 1, 1]`.

    The rank is computed in float64; float32 picks other neighbours from 2^14 pixels up.
    """
    rows = values.flatten(-2).sort(dim=-1).values
    rank = (p / 100.0) * (rows.shape[-1] - 1)
    low, high = math.floor(rank), math.ceil(rank)
    below, above, weight = rows[..., low], rows[..., high], rank - low
    gap = above - below
    q = below + gap * weight if weight < 0.5 else above - gap * (1 - weight)
    return q[..., None, None]


def guide(values: Tensor, p: float) -> Tensor:
    """Eq. 3.4, `1 where V >= q, else V`; q as numpy computes it of float64 values."""
    if p == 0:
        return torch.ones_like(values)
    kept = values.double() >= threshold(values.double(), p)
    return torch.where(kept, torch.ones_like(values), values)


def min_max(maps: Tensor) -> Tensor:
    """Each map `[..., H, W]` to [0, 1]; a map of one value to zeros; a non-finite one to NaN."""
    low = maps.amin(dim=(-2, -1), keepdim=True)
    high = maps.amax(dim=(-2, -1), keepdim=True)
    scaled = (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))
    spoiled = ~torch.isfinite(maps).flatten(-2).all(dim=-1)[..., None, None]
    return torch.where(spoiled, torch.full_like(scaled, math.nan), scaled)


def _maps(
    values: Tensor | None,
    magnitude: Tensor,
    p: Sequence[float],
    normalize: bool,
    keep_channels: bool,
) -> Tensor:
    maps = []
    for percent in p:
        spoiled = ~torch.isfinite(magnitude).flatten(-2).all(dim=-1)
        if percent == 0:
            guided = magnitude
        else:
            assert values is not None
            spoiled = spoiled | ~torch.isfinite(values).flatten(-2).all(dim=-1)
            guided = guide(values, percent) * magnitude
        nan = torch.full_like(guided, math.nan)
        guided = torch.where(spoiled[..., None, None], nan, guided)
        if not keep_channels:
            total = guided[:, 0]
            for c in range(1, guided.shape[1]):
                total = total + guided[:, c]
            guided = min_max(total) if normalize else total
        maps.append(guided)
    return torch.stack(maps)


def _accumulator(grads: Tensor) -> Tensor:
    return grads if grads.dtype == torch.float64 else grads.float()


def guided_absgrad(
    grads: Tensor, p: Sequence[float], normalize: bool = True, keep_channels: bool = False
) -> Tensor:
    """Algorithm 1 for each percent: `[B, n, C, H, W]` -> `[k, B, H, W]`, or `[k, B, C, H, W]`."""
    grads = _accumulator(grads)
    values = None if all(v == 0 for v in p) else variance(grads)
    return _maps(values, absgrad(grads), p, normalize, keep_channels)


def gradient_stats_(
    shift: Tensor, mean: Tensor, m2: Tensor, abssum: Tensor, grads: Tensor, count: int
) -> None:
    """Welford's recurrence, sample by sample; arguments as the operator's (csrc/schema.cpp).

    The sums are plain ones: in float64, where this is used, nothing needs to be settled.
    """
    for i, g in enumerate(_accumulator(grads).unbind(dim=1)):
        if count + i == 0:
            shift.copy_(g)
            mean.zero_()
            m2.zero_()
            abssum.copy_(g.abs())
            continue
        d = g - shift
        delta = d - mean
        mean += delta / (count + i + 1)
        m2 += delta * (d - mean)
        abssum += g.abs()


def guided_absgrad_from_stats(
    m2: Tensor,
    abssum: Tensor,
    count: int,
    p: Sequence[float],
    normalize: bool = True,
    keep_channels: bool = False,
) -> Tensor:
    """Maps from running statistics of `count` samples; `abssum` is the running sum of |g|."""
    values = m2 / (count - 1) if count > 1 else None
    return _maps(values, abssum / count, p, normalize, keep_channels)
