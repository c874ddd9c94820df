"""What goes into an input modification (a job) and what comes out of it (samples)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK64 = (1 << 64) - 1


@dataclass(frozen=True)
class Job:
    """A group of images and all that a modification needs to explain them.

    Attributes:
        images: `[B,C,H,W]` float32 or float64.
        rows: where these images stand among all that were given.
        keys: int64 `[B]`, what an image's random numbers hang on, together with `seed`.
        gradient: from modified images `[B,m,C,H,W]` to the gradients of their targets' scores.
        n: number of modifications of each image.
        at_once: how many of them fill a batch.
        seed: any integer.
        std: float32 `[B]`, standard deviation of the noise of each image.
    """

    images: Tensor
    rows: slice
    keys: Tensor
    gradient: Callable[[Tensor], Tensor]
    n: int
    at_once: int
    seed: int
    std: Tensor


@dataclass(frozen=True)
class Sample:
    """Gradients at m modifications of each image, and the path they stand on.

    Attributes:
        gradients: `[B,m,C,H,W]`, of the score at the modified images.
        weight: the path elements dx, broadcastable to `gradients`, such that the sum over all
            samples of `gradients * weight` is the method's attribution; None for modifications
            that are no path (noise), whose attribution is the mean gradient.
    """

    gradients: Tensor
    weight: Tensor | None = None


def generator(seed: int, key: int, stream: int = 0) -> torch.Generator:
    """A CPU generator for the random numbers of one image: a function of (seed, key, stream)."""
    state = seed & _MASK64
    for word in (key & _MASK64, stream & _MASK64):  # splitmix64's finaliser between the words
        state = ((state ^ word) + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return torch.Generator().manual_seed(state)


def identity(job: Job) -> Iterator[Sample]:
    """No modification: one sample, the gradient at the image itself (Simonyan et al. 2013).

    As a path it is one step from zero to the image: gradient times input (Shrikumar et al. 2016).
    """
    points = job.images[:, None]
    yield Sample(job.gradient(points), points)
