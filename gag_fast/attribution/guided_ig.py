"""Guided integrated gradients (Kapishnikov et al. 2021): a path where gradients are small.

At each of n steps the features with the smallest gradients move towards the image, as many and as
far as it takes for the L1 distance to shrink by 1/n, within a band around the straight path. All
images of a batch walk together, each on its own path; positions are kept in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast.attribution.integrated_gradients import Baseline, baselines_of
from gag_fast.attribution.samples import Job, Sample

_CLOSE = 1e-9  # relative and absolute, as in the reference implementation


def guided_path(
    job: Job,
    *,
    baseline: Baseline = None,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    steps: int | None = None,
) -> Iterator[Sample]:
    """Gradients along each image's guided path from its baseline.

    Args:
        job: the images; n steps unless `steps` says otherwise.
        baseline: see `integrated_gradients.baselines_of`.
        fraction: share of the features, those of smallest gradient, that may move at a time.
        max_dist: how far, as a share of the whole way, a feature may run ahead of or lag behind
            the straight path; 0 is the straight path itself, 1 leaves it free.
        steps: points on the path.
    """
    count = job.n if steps is None else steps
    if not 0 < fraction <= 1:
        raise GagFastError(f"fraction must lie in (0, 1], got {fraction}")
    if not 0 <= max_dist <= 1:
        raise GagFastError(f"max_dist must lie in [0, 1], got {max_dist}")
    images = job.images.double().flatten(1)
    (start,) = baselines_of(job, baseline, 1)
    start = start.double().flatten(1)
    x = start.clone()
    for step in range(count):
        point = x.view(job.images.shape)[:, None].to(job.images.dtype)
        gradients = job.gradient(point)
        moved = _walk(x, images, start, gradients.flatten(1).abs(), step, count, fraction, max_dist)
        weight = (moved - x).view(job.images.shape)[:, None]
        yield Sample(gradients, weight.to(gradients.dtype))
        x = moved


def _walk(
    x: Tensor,
    end: Tensor,
    start: Tensor,
    magnitude: Tensor,
    step: int,
    count: int,
    fraction: float,
    max_dist: float,
) -> Tensor:
    """Where the paths stand after this step: from x `[B,F]`, by gradient magnitudes `[B,F]`."""
    whole = end - start
    alpha = (step + 1.0) / count
    lowest, highest = max(alpha - max_dist, 0.0), min(alpha + max_dist, 1.0)
    x_min, x_max = start + whole * lowest, start + whole * highest
    distance = (end - start).abs().sum(1)
    goal = distance * (1 - (step + 1) / count)
    rank = int(fraction * (magnitude.shape[1] - 1)) + 1  # of the "lower" quantile
    magnitude = magnitude.clone()
    x = x.clone()
    active = torch.ones_like(goal, dtype=torch.bool)
    while True:
        # Features that lag behind the band are pulled to its edge; those without a way to go stay.
        lags = (x - start) / whole < lowest
        x = torch.where(active[:, None] & lags & (whole != 0), x_min, x)
        left = (x - end).abs().sum(1)
        active = active & ~torch.isclose(goal, left, rtol=_CLOSE, atol=_CLOSE)
        # Features at the band's front edge are out of the race.
        magnitude[x == x_max] = torch.inf
        threshold = magnitude.kthvalue(rank, 1, keepdim=True).values
        chosen = (magnitude <= threshold) & (magnitude != torch.inf)
        reach = ((x - x_max).abs() * chosen).sum(1)
        active = active & (reach > 0)  # nowhere left to go: this step ends short of its goal
        if not active.any():
            return x
        gamma = (left - goal) / reach
        ahead = torch.where((gamma > 1)[:, None], x_max, x + (x_max - x) * gamma[:, None])
        x = torch.where(active[:, None] & chosen, ahead, x)
        active = active & (gamma > 1)
