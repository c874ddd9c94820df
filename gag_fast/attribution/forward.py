"""What methods need that look at scores alone: pictures in, the score of a class out.

A `Classifier` does it by its session, a torch module by passes without gradients. Either way the
pictures are made in place, in the buffers that the passes read, a batch at a time: memory does not
grow with how many there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast._inputs import describe
from gag_fast.attribution.gradients import GradientEngine

PROBABILITY, LOGIT = "probability", "logit"

Write = Callable[[Tensor, int], None]
"""write(buffer `[m,C,H,W]`, first): makes the pictures number first ... first + m - 1 in it. Called
from several threads at once; a picture must depend on its number alone."""


@runtime_checkable
class Scorer(Protocol):
    """What runs pictures through a session of its own: `gag_fast.Classifier` is one.

    It has `batch_size` and `device` beside these.
    """

    def check_images(self, images: Any) -> Tensor:
        """Images as float32 `[B,C,H,W]`; refuses those that do not fit."""

    def classes(self, images: Tensor) -> int:
        """Number K of classes."""

    def drive(self, jobs: int, shape: Any, fill: Any, collect: Any) -> None:
        """Runs batches: fill(buffer, job) -> rows, then collect(raw scores, job)."""

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities `[N,K]` of raw scores."""

    def logits(self, scores: Tensor) -> Tensor:
        """Logits `[N,K]` of raw scores."""


class ForwardSource(ABC):
    """Scores of pictures, by forward passes.

    Attributes:
        scores: what it can tell of a class.
        natural: what calling the model gives of it, as in Captum: a module's logit, a
            Classifier's probability.
        device: where pictures are made.
    """

    scores = (PROBABILITY, LOGIT)
    natural: str
    device: torch.device

    @abstractmethod
    def check(self, images: Tensor) -> None:
        """Refuses images `[B,C,H,W]` that it cannot take, in one line."""

    @abstractmethod
    def classes(self, image: Tensor) -> int:
        """Number K of classes, for images like `image` `[C,H,W]`."""

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Scores `[B,K]` of images, the highest of which is the predicted class's."""

    @abstractmethod
    def values(self, write: Write, targets: Tensor, like: Tensor, score: str) -> Tensor:
        """The scores of pictures.

        Args:
            write: makes them.
            targets: int64 `[N]`, the class that each is asked about.
            like: `[B,C,H,W]`, whose shape and dtype the pictures have.
            score: one of `scores`.

        Returns:
            `[N]` on `device`, float32 (float64 for a float64 module).
        """


class ByScorer(ForwardSource):
    """By a Classifier, in its batches and lanes."""

    natural = PROBABILITY

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer
        self.device = scorer.device

    def check(self, images: Tensor) -> None:
        """Refuses images that do not fit."""
        self._scorer.check_images(images)

    def classes(self, image: Tensor) -> int:
        """Number K of classes."""
        return self._scorer.classes(image[None].float())

    def logits(self, images: Tensor) -> Tensor:
        """Scores `[B,K]`."""
        return self._scorer(images.float())

    def values(self, write: Write, targets: Tensor, like: Tensor, score: str) -> Tensor:
        """Scores `[N]` of the pictures."""
        scorer, count = self._scorer, len(targets)
        read = scorer.probabilities if score == PROBABILITY else scorer.logits
        chosen = targets.to(self.device)[:, None]
        found = torch.empty(count, device=self.device)
        batch = scorer.batch_size

        def fill(buffer: Tensor, job: int) -> int:
            rows = min(batch, count - job * batch)
            write(buffer[:rows], job * batch)
            return rows

        def collect(raw: Tensor, job: int) -> None:
            part = slice(job * batch, job * batch + len(raw))
            found[part] = read(raw).gather(1, chosen[part])[:, 0]

        scorer.drive(-(-count // batch), tuple(like.shape[1:]), fill, collect)
        return found


class ByEngine(ForwardSource):
    """By a torch module, without gradients."""

    natural = LOGIT

    def __init__(self, engine: GradientEngine) -> None:
        self._engine = engine
        self.device = engine.device or torch.device("cpu")

    def check(self, images: Tensor) -> None:
        """Refuses images that do not fit."""
        self._engine.check(images)
        self.device = images.device

    def classes(self, image: Tensor) -> int:
        """Number K of classes."""
        return self.logits(image[None]).shape[1]

    def logits(self, images: Tensor) -> Tensor:
        """Scores `[B,K]`."""
        parts = images.split(self._engine.forward_batch)
        with torch.no_grad():
            return torch.cat([self._engine.forward(self._like(p).copy_(p)) for p in parts])

    @torch.no_grad()
    def values(self, write: Write, targets: Tensor, like: Tensor, score: str) -> Tensor:
        """Scores `[N]` of the pictures."""
        engine, count = self._engine, len(targets)
        batch = min(engine.forward_batch, count)
        buffer = self._like(like[:1].expand(batch, *like.shape[1:])).zero_()
        parts = []
        for first in range(0, count, batch):
            rows = min(batch, count - first)
            write(buffer[:rows], first)
            # Always the whole buffer: some kernels round differently for another batch size.
            scores = engine.forward(buffer)
            if score == PROBABILITY:
                scores = engine.reading.of_wide(scores)
            parts.append(scores[:rows].gather(1, targets[first : first + rows, None])[:, 0])
        found = torch.cat(parts)
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def _like(self, images: Tensor) -> Tensor:
        """Room for images, in the engine's dtype and layout."""
        dtype = self._engine.dtype or images.dtype
        return torch.empty_like(images, dtype=dtype, memory_format=self._engine.memory_format)


def baseline_of(baseline: Any, images: Tensor) -> Tensor:
    """What hidden pixels show, `[B,C,H,W]` (expanded).

    Args:
        baseline: a number in the images' unit (None: 0, the mean colour of normalised images), or
            a tensor `[C]`, `[C,H,W]` or `[B,C,H,W]`.
        images: `[B,C,H,W]`.
    """
    if baseline is None:
        baseline = 0.0
    if isinstance(baseline, (int, float)) and not isinstance(baseline, bool):
        return torch.full((), float(baseline)).to(images).expand_as(images)
    if isinstance(baseline, Tensor):
        given = baseline.detach().to(images)
        try:
            return (given[:, None, None] if given.dim() == 1 else given).expand_as(images)
        except RuntimeError:
            pass
    raise GagFastError(
        f"baseline must be a number or a tensor [C], [C,H,W] or [B,C,H,W] for images "
        f"{list(images.shape)}, got {describe(baseline)}"
    )


def spans(first: int, count: int, each: int) -> list[tuple[int, slice, slice]]:
    """Which pictures a buffer holds, where every image has `each`: (image, its own, in the buffer).

    Args:
        first: number of the first picture.
        count: how many.
        each: pictures of an image.
    """
    found, at = [], first
    while at < first + count:
        image, own = divmod(at, each)
        rows = min(each - own, first + count - at)
        found.append((image, slice(own, own + rows), slice(at - first, at - first + rows)))
        at += rows
    return found


def whole_number(name: str, value: Any, least: int = 1) -> int:
    """An option that must be an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise GagFastError(f"{name} must be an integer of {least} or more, got {value!r}")
    return value
