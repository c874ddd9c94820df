"""The Gaussian blur of a line of pixels as a matrix, for the pictures that are blurred here.

An image is blurred by two products, `rows @ image @ columns.T`. Reflection and folding are in the
matrices, so any kernel fits any image, and one image's result does not depend on the others of its
batch. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def gaussian(kernel: int, sigma: float) -> list[float]:
    """`exp(-x^2 / 2 sigma^2)` at the `kernel` (odd) whole pixels around 0, with sum 1."""
    half = kernel // 2
    x = torch.arange(-half, half + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (x / sigma) ** 2)
    return (taps / taps.sum()).tolist()


def blur_matrix(size: int, taps: Sequence[float], padding: str) -> Tensor:
    """float64 [size, size]: row i holds the weights of the input pixels in output pixel i.

    Args:
        size: number of pixels of the line.
        taps: an odd number of weights, the middle one for the pixel itself.
        padding: what lies outside the line: its mirror image without the end pixel repeated
            ("reflect"), or zeros (any other word).
    """
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for tap, weight in enumerate(taps, start=-(len(taps) // 2)):
        at = rows + tap
        if padding == "reflect":
            matrix[rows, _reflect(at, size)] += weight
        else:
            inside = (at >= 0) & (at < size)
            matrix[rows[inside], at[inside]] += weight
    return torch.from_numpy(matrix)


def _reflect(at: np.ndarray, size: int) -> np.ndarray:
    """Indexes on a line mirrored at its end pixels without repeating them, as often as needed."""
    if size == 1:
        return np.zeros_like(at)
    at = at % (2 * (size - 1))
    return np.where(at < size, at, 2 * (size - 1) - at)
