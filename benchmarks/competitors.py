"""The same map by other means: what users have today, written from descriptions.

Every function takes grads [B, n, C, H, W] and returns maps [B, H, W] in [0, 1], or takes what its
name says. tests/benchmarks holds them to the same answer: timing a wrong twin is worth nothing.
"""

from __future__ import annotations

import numpy as np
import torch


def _min_max(maps: torch.Tensor) -> torch.Tensor:
    low = maps.amin((-2, -1), keepdim=True)
    high = maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def plain_torch(grads: torch.Tensor, p: float = 85.0) -> torch.Tensor:
    """What one writes first: var, quantile, where, mean, sum; torch has no half quantile."""
    if grads.dtype in (torch.float16, torch.bfloat16):
        grads = grads.float()
    variance = grads.var(1)
    threshold = torch.quantile(variance.flatten(2), p / 100, dim=2)[..., None, None]
    guide = torch.where(variance >= threshold, 1.0, variance)
    return _min_max((guide * grads.abs().mean(1)).sum(1))


def authors_recipe(samples: list[torch.Tensor], p: float = 85.0) -> torch.Tensor:
    """The published code's steps: stack on a last axis, var, quantile, a loop of abs * guide.

    Args:
        samples: n gradients, each [B, C, H, W].
        p: percent.
    """
    stack = torch.stack(samples, dim=-1)
    variance = stack.var(dim=-1)
    batch, channels = variance.shape[:2]
    threshold = torch.quantile(variance.reshape(batch, channels, -1), p / 100, dim=2)
    guide = variance.clone()
    guide[variance > threshold[..., None, None]] = 1.0
    total = torch.zeros_like(variance)
    for sample in samples:
        total = total + sample.abs() * guide
    return _min_max(total.abs().sum(1))


def numpy_percentile(grads: np.ndarray, p: float = 85.0) -> np.ndarray:
    """The equations in NumPy."""
    variance = grads.var(1, ddof=1)
    threshold = np.percentile(variance, p, axis=(2, 3), keepdims=True)
    guide = np.where(variance >= threshold, 1, variance)
    maps = (guide * np.abs(grads).mean(1)).sum(1)
    low = maps.min((1, 2), keepdims=True)
    return (maps - low) / (maps.max((1, 2), keepdims=True) - low)
