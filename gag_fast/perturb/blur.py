"""Gaussian blur of images as two small matrix products.

Reflection and folding are in the matrices, so any kernel fits any image, and one image's result
does not depend on the others of its batch.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

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
    """float64 [size, size]: row i holds the weights of the input pixels in output pixel i."""
    weights = _gaussian(kernel, sigma) if form == "gaussian" else _folded(kernel, sigma)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for tap, weight in enumerate(weights, start=-(kernel // 2)):
        at = rows + tap
        if padding == "reflect":
            matrix[rows, _reflect(at, size)] += weight
        else:
            inside = (at >= 0) & (at < size)
            matrix[rows[inside], at[inside]] += weight
    return torch.from_numpy(matrix)


def _gaussian(kernel: int, sigma: float) -> list[float]:
    """exp(-x^2 / 2 sigma^2) at whole pixels, normalised to sum 1."""
    half = kernel // 2
    values = [math.exp(-0.5 * (x / sigma) ** 2) for x in range(-half, half + 1)]
    return [v / sum(values) for v in values]


def _folded(kernel: int, sigma: float) -> list[float]:
    """The kernel that RISE's code makes: a unit impulse in the middle of `kernel` zeros, filtered.

    Its filter is a Gaussian cut at 4 sigma on a line mirrored at its ends (edge pixel repeated), so
    what falls outside the kernel is folded back into it.
    """
    half = kernel // 2
    weights = [0.0] * kernel
    for tap, value in enumerate(_gaussian(2 * int(4 * sigma + 0.5) + 1, sigma)):
        at = (half + tap - int(4 * sigma + 0.5)) % (2 * kernel)
        weights[at if at < kernel else 2 * kernel - 1 - at] += value
    return weights


def _reflect(at: np.ndarray, size: int) -> np.ndarray:
    """Indexes on a line mirrored at its end pixels without repeating them, as often as needed."""
    if size == 1:
        return np.zeros_like(at)
    at = at % (2 * (size - 1))
    return np.where(at < size, at, 2 * (size - 1) - at)
