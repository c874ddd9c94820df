"""The same work by other means: what users have today, written from descriptions.

The aggregations take grads [B, n, C, H, W] and return maps [B, H, W] in [0, 1]. tests/benchmarks
holds them to the same answer: timing a wrong twin is worth nothing.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor

from gag_fast.models import Preprocessing


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


def compiled(function):
    """torch.compile with the shapes of this call burnt in, as its fastest users have it."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def authors_loop(model: torch.nn.Module, images: torch.Tensor, targets: torch.Tensor, n: int):
    """The published code's loop: n passes over the batch, NCHW, weights not frozen."""
    std = 0.15 * (images.max() - images.min())
    samples = []
    for _ in range(n):
        noisy = (images + torch.randn_like(images) * std).requires_grad_(True)
        model(noisy).gather(1, targets[:, None]).sum().backward()
        samples.append(noisy.grad)
    model.zero_grad(set_to_none=True)
    return samples


def captum_noise_tunnel(model: torch.nn.Module, n: int):
    """Captum's NoiseTunnel over Saliency, or None where Captum is not installed."""
    try:
        from captum.attr import NoiseTunnel, Saliency
    except ImportError:
        return None
    tunnel = NoiseTunnel(Saliency(model))

    def attribute(images: torch.Tensor, targets: torch.Tensor):
        return tunnel.attribute(
            images, nt_type="smoothgrad", nt_samples=n, nt_samples_batch_size=1, stdevs=0.6,
            target=targets, abs=False,
        )  # fmt: skip

    return attribute


def authors_way(
    module: torch.nn.Module, images: Tensor, maps: Tensor, targets: Tensor, p: Preprocessing
) -> dict[str, list[float]]:
    """RCAP, deletion and insertion of each (image, map) as the published code computes them."""
    from torchvision.transforms import v2

    mean, std = (torch.tensor(v)[:, None, None] for v in (p.mean, p.std))

    def probabilities(batch: list[Tensor], size: int, target: int) -> Tensor:
        with torch.no_grad():
            scores = [module(part) for part in torch.stack(batch).split(size)]
        return torch.cat(scores).softmax(1)[:, target]

    def quantiles(m: Tensor, rates: list[float]) -> list[float]:
        ordered = m.flatten().sort().values
        return [ordered[int(len(ordered) * r) - 1].item() for r in rates]

    found: dict[str, list[float]] = {"rcap": [], "dauc": [], "iauc": []}
    for image, image_maps, target in zip(images, maps, targets.tolist(), strict=True):
        for m in image_maps:
            pixels = image * std + mean
            recovered, shares = [], []
            for q in quantiles(m, [0.9, 0.8, 0.7, 0.6, 0.5]):
                recovered.append((torch.where(m > q, pixels, 0) - mean) / std)
                shares.append((m[m > q].sum() / m.sum()).item())
            got = probabilities([*recovered, image], 128, target)[:-1]
            found["rcap"].append((torch.tensor(shares) * got).mean().item())
            levels = quantiles(m, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
            blurred = v2.GaussianBlur(kernel_size=33, sigma=16)(image)
            deleted = [torch.where(m > q, 0, image) for q in levels]
            inserted = [torch.where(m > q, image, blurred) for q in levels]
            for name, batch in (("dauc", deleted), ("iauc", inserted)):
                curve = probabilities(batch, 4, target)
                found[name].append(torch.trapezoid(curve, dx=0.1).item())
    return found


class FixedMaps:
    """Stands where torch-cam wants an extractor, and gives the maps `[B,H,W]` at hand."""

    def __init__(self, model: torch.nn.Module, maps: Tensor) -> None:
        self.model, self._maps = model, maps

    def __call__(self, class_idx=None, scores=None, normalized=True, **_):
        return [self._maps]

    def fuse_cams(self, cams):
        return cams[0]

    def _hooks_off(self):
        return contextlib.nullcontext()
