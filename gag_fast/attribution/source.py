"""What the explainer needs of whatever computes gradients.

`gradients.GradientEngine` runs a torch module. Anything else with these members can stand in its
place, such as sessions of an exported gradient graph: it has no module to look into, so methods
that need one (`registry`) refuse it, and it may differentiate one score only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

SCORES = ("logit", "nll")
"""What may be differentiated: the class's logit, or its negative log-softmax."""


@runtime_checkable
class GradientSource(Protocol):
    """Computes logits and gradients of one classifier.

    Attributes:
        scores: those of SCORES that it can differentiate.
        memory_format: the layout of images that costs it no copy.
    """

    scores: tuple[str, ...]
    memory_format: torch.memory_format

    def check(self, images: Tensor) -> None:
        """Refuses images `[B,C,H,W]` that it cannot take, in one line."""

    def batch_size(self, image: Tensor) -> int:
        """Modified images a pass for images like `image` `[C,H,W]`."""

    def classes(self, image: Tensor) -> int:
        """Number K of classes."""

    def logits(self, images: Tensor) -> Tensor:
        """Logits `[B,K]` of images `[B,C,H,W]`, however many."""

    def gradients(self, images: Tensor, targets: Tensor, *, score: str = "logit") -> Tensor:
        """Gradients `[N,C,H,W]` of the targets' scores at images `[N,C,H,W]`, however many.

        Args:
            images: on any device that `check` lets pass.
            targets: int64 `[N]`.
            score: one of `scores`.

        Returns:
            float32 (float64 for a float64 classifier), any strides, on the images' device.
        """


def at_points(source: GradientSource, points: Tensor, targets: Tensor, **how: object) -> Tensor:
    """Gradients at m modifications of each image.

    Args:
        source: what computes.
        points: `[B,m,C,H,W]`.
        targets: int64 `[B]`.
        **how: further keywords of the source's `gradients`.

    Returns:
        `[B,m,C,H,W]`.
    """
    repeated = targets.repeat_interleave(points.shape[1])
    found = source.gradients(points.flatten(0, 1), repeated, **how)  # type: ignore[arg-type]
    return found.unflatten(0, points.shape[:2])


def fill_batches(images: int, samples: int, batch: int) -> tuple[int, int]:
    """(images side by side, samples of each at once) that need the fewest passes.

    Args:
        images: how many there are.
        samples: modifications of each.
        batch: modified images a pass.
    """
    best = (0, 0, 0)
    for group in range(1, min(images, batch) + 1):
        at_once = min(samples, batch // group)
        full, rest = divmod(images, group)
        passes = full * -(-samples // at_once)
        if rest:
            passes += -(-samples // min(samples, batch // rest))
        if not best[0] or passes <= best[0]:
            best = (passes, group, at_once)
    return best[1], best[2]


def groups(images: int, samples: int, batch: int) -> Iterator[tuple[slice, int]]:
    """Which images go side by side, and how many samples of each fill a batch."""
    group, at_once = fill_batches(images, samples, batch)
    for first in range(0, images, group):
        rows = slice(first, min(first + group, images))
        yield rows, min(samples, max(at_once, group * at_once // (rows.stop - rows.start)))
