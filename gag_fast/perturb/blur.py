"""Gaussian blur of images as a preset says."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gag_fast._blur import blur_matrix, gaussian
from gag_fast.presets import Preset


def blur(images: Tensor, preset: Preset) -> Tensor:
    """Images [B, C, H, W] blurred as the preset says: float32, computed in float64."""
    height, width = images.shape[-2:]
    what = (preset.blur_kernel, preset.blur_sigma, preset.blur_kernel_form, preset.blur_padding)
    rows = _matrix(height, *what).to(images.device)
    columns = _matrix(width, *what).to(images.device).T
    out = torch.empty(images.shape, dtype=torch.float32, device=images.device)
    for image, blurred in zip(images, out, strict=True):
        blurred.copy_(rows @ image.double() @ columns)
    return out


@functools.lru_cache(maxsize=16)
def _matrix(size: int, kernel: int, sigma: float, form: str, padding: str) -> Tensor:
    taps = gaussian(kernel, sigma) if form == "gaussian" else _folded(kernel, sigma)
    return blur_matrix(size, taps, padding)


def _folded(kernel: int, sigma: float) -> list[float]:
    """The kernel that RISE's code makes: a unit impulse in the middle of `kernel` zeros, filtered.

    Its filter is a Gaussian cut at 4 sigma on a line mirrored at its ends (edge pixel repeated), so
    what falls outside the kernel is folded back into it.
    """
    half = kernel // 2
    weights = [0.0] * kernel
    for tap, value in enumerate(gaussian(2 * int(4 * sigma + 0.5) + 1, sigma)):
        at = (half + tap - int(4 * sigma + 0.5)) % (2 * kernel)
        weights[at if at < kernel else 2 * kernel - 1 - at] += value
    return weights
