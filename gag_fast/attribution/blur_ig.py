"""Blur integrated gradients (Xu et al. 2020): the path of ever blurrier images.

`- sum over i of grad f(x_i) * d/dsigma blur(x, sigma_i) * (sigma_{i+1} - sigma_i)` with
`x_i = blur(x, sigma_i)`. Blurring is a product with a banded matrix from either side, computed in
float64: the derivative is a difference of nearly equal images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gag_fast._blur import blur_matrix, gaussian
from gag_fast._errors import GagFastError
from gag_fast.attribution.samples import Job, Sample

PADDINGS = ("constant", "reflect")


def _blur(size: int, sigma: float, kernel_size: int | None, padding: str) -> Tensor:
    """The blur of a line of pixels; `kernel_size` None: up to 4 sigma to either side, as SciPy."""
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    radius = int(4 * sigma + 0.5) if kernel_size is None else kernel_size // 2
    if padding == "reflect" and radius >= size:
        raise GagFastError(f"a kernel of {2 * radius + 1} does not fit {size} mirrored pixels")
    return blur_matrix(size, gaussian(2 * radius + 1, sigma), padding)


def blurred_path(
    job: Job,
    *,
    max_sigma: float = 50.0,
    grad_step: float = 0.01,
    sqrt: bool = False,
    kernel_size: int | None = None,
    padding: str = "constant",
    steps: int | None = None,
) -> Iterator[Sample]:
    """Gradients along the scales from the image to its blur.

    Args:
        job: the images; n steps unless `steps` says otherwise.
        max_sigma: standard deviation in pixels of the blurriest image (itself not on the path).
        grad_step: difference of sigma from which the derivative is taken.
        sqrt: space the variances evenly, not the standard deviations.
        kernel_size: taps, odd; None: up to 4 sigma to either side.
        padding: what lies outside: "constant" zeros, or the image's mirror image ("reflect").
        steps: number of scales.
    """
    count = job.n if steps is None else steps
    if padding not in PADDINGS:
        raise GagFastError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise GagFastError(f"kernel_size must be odd and positive, got {kernel_size}")
    if max_sigma <= 0 or grad_step <= 0:
        raise GagFastError(
            f"max_sigma and grad_step must be positive, got {max_sigma} and {grad_step}"
        )
    linear = [i * max_sigma / count for i in range(count + 1)]
    sigmas = [math.sqrt(s) for s in linear] if sqrt else linear
    images = job.images.double()

    def blur(sigma: float) -> Tensor:
        rows, columns = (
            _blur(size, sigma, kernel_size, padding).to(images.device) for size in images.shape[-2:]
        )
        return rows @ images @ columns.T

    for first in range(0, count, job.at_once):
        scales = range(first, min(first + job.at_once, count))
        points = [blur(sigmas[i]) for i in scales]
        weights = [
            (blur(sigmas[i] + grad_step) - point) * ((sigmas[i] - sigmas[i + 1]) / grad_step)
            for i, point in zip(scales, points, strict=True)
        ]
        path = torch.stack(points, 1).to(job.images.dtype)
        yield Sample(job.gradient(path), torch.stack(weights, 1).to(job.images.dtype))
