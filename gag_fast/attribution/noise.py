"""Gaussian noise (Smilkov et al. 2017), the modification of SmoothGrad, VarGrad and GAG."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from gag_fast import ops
from gag_fast.attribution.samples import Job, Sample

RANGES = ("image", "batch")


def noise_std(images: Tensor, noise: float, over: str = "image") -> Tensor:
    """Standard deviation of the noise: `noise * (max - min)`.

    Args:
        images: `[B,C,H,W]`.
        noise: fraction of the range of values.
        over: whose range: each image's own, or that of the whole batch (the authors' code; then a
            map depends on the images beside it).

    Returns:
        float32 `[B]`.
    """
    low, high = images.amin((1, 2, 3)), images.amax((1, 2, 3))
    if over == "batch":
        low, high = low.amin().expand_as(low), high.amax().expand_as(high)
    return (noise * (high - low)).float()


def noisy(job: Job) -> Iterator[Sample]:
    """Gradients at `image + std * normal(seed, key, sample)`, n of them.

    The noise is a function of (seed, key, sample, element) alone, so it depends neither on the
    batch nor on how many samples are drawn at once.
    """
    for first in range(0, job.n, job.at_once):
        count = min(job.at_once, job.n - first)
        points = ops.gaussian_noise(
            job.images, job.keys, job.std, seed=job.seed, first_sample=first, samples=count
        )
        yield Sample(job.gradient(points))
