"""Integrated gradients (Sundararajan et al. 2017): the straight path from a baseline to the image.

`(x - x') * integral over a in [0, 1] of grad f(x' + a (x - x'))`, by a quadrature of the user's
choice; with several baselines, the mean of their attributions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast._inputs import describe
from gag_fast.attribution.samples import Job, Sample, generator

RULES = (
    "gausslegendre",
    "riemann_left",
    "riemann_right",
    "riemann_middle",
    "riemann_trapezoid",
    "endpoints",
)

Baseline = Tensor | float | str | None


def quadrature(rule: str, steps: int) -> tuple[list[float], list[float]]:
    """Points in [0, 1] and their weights, which sum to 1.

    Rules carry Captum's names (whose own `riemann_trapezoid` has weights that sum to 1 - 1/steps).
    `endpoints` is that of the authors' code: equally spaced points from 0 to 1, both included, of
    equal weight.
    """
    if rule not in RULES:
        raise GagFastError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if steps < 1 or (steps < 2 and rule in ("riemann_trapezoid", "endpoints")):
        raise GagFastError(f"{rule} needs more steps than {steps}")
    if rule == "gausslegendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return list((points + 1) / 2), list(weights / 2)
    index = np.arange(steps)
    if rule == "riemann_trapezoid":
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return list(index / (steps - 1)), list(weights)
    points = {
        "endpoints": index / max(steps - 1, 1),
        "riemann_left": index / steps,
        "riemann_right": (index + 1) / steps,
        "riemann_middle": (index + 0.5) / steps,
    }[rule]
    return list(points), [1 / steps] * steps


def baselines_of(job: Job, baseline: Baseline, count: int) -> list[Tensor]:
    """The baselines, each `[B,C,H,W]` (or broadcastable to it).

    Args:
        job: the images, and the keys of their random baselines.
        baseline: None for zeros (in the model's normalised space), a number, a tensor `[C,H,W]` or
            `[B,C,H,W]`, or `"uniform"`: uniform noise between each image's smallest and largest
            value.
        count: how many random baselines; 1 for the others.
    """
    images = job.images
    if isinstance(baseline, str):
        if baseline != "uniform":
            raise GagFastError(
                f'baseline must be a number, a tensor or "uniform", got {baseline!r}'
            )
        low, high = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
        return [low + (high - low) * _uniform(job, trial) for trial in range(count)]
    if count != 1:
        raise GagFastError(
            f'baselines = {count} needs baseline="uniform", got {describe(baseline)}'
        )
    if isinstance(baseline, Tensor):
        given = baseline.detach().to(images)
        if given.dim() == 4 and len(given) > 1:
            given = given[job.rows]
        try:
            return [given.expand_as(images)]
        except RuntimeError:
            raise GagFastError(
                f"baseline must fit images of shape {list(images.shape)}, got {describe(baseline)}"
            ) from None
    return [torch.full_like(images, 0.0 if baseline is None else float(baseline))]


def _uniform(job: Job, trial: int) -> Tensor:
    shape = job.images.shape[1:]
    drawn = [
        torch.rand(shape, generator=generator(job.seed, int(key), trial))
        for key in job.keys.tolist()
    ]
    return torch.stack(drawn).to(job.images)


def straight_path(
    job: Job,
    *,
    baseline: Baseline = None,
    baselines: int = 1,
    rule: str = "gausslegendre",
    steps: int | None = None,
) -> Iterator[Sample]:
    """Gradients along the straight line from each baseline to the image.

    Args:
        job: the images; n steps unless `steps` says otherwise.
        baseline: see `baselines_of`.
        baselines: how many, when they are random.
        rule: see `quadrature`.
        steps: points on the path, for each baseline.
    """
    points, weights = quadrature(rule, job.n if steps is None else steps)
    for start in baselines_of(job, baseline, baselines):
        difference = job.images - start
        for first in range(0, len(points), job.at_once):
            part = slice(first, first + job.at_once)
            alpha = job.images.new_tensor(points[part]).view(1, -1, 1, 1, 1)
            weight = job.images.new_tensor(weights[part]).view(1, -1, 1, 1, 1) / baselines
            path = start[:, None] + alpha * difference[:, None]
            yield Sample(job.gradient(path), weight * difference[:, None])
