"""What a measure's function is given: some images with their maps, ranks, masks and curves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast._errors import GagFastError
from gag_fast.perturb import Ranked
from gag_fast.presets import Preset

Again = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]
"""A method of explanation: (model, images [B, C, H, W], targets [B], image_ids) -> maps.

The ids [B] are those by which the first maps were made, None without: a changed image keeps its
own, so that both meet the same noise."""


@dataclass(frozen=True)
class WithIds:
    """A method that takes image_ids: any number of images, each with its own."""

    function: Callable[..., Tensor]

    def __call__(self, model: Any, images: Tensor, targets: Tensor, ids: Tensor | None) -> Tensor:
        """As `Again`."""
        return self.function(model, images, targets, image_ids=ids)


@dataclass(frozen=True)
class Points:
    """What the classifier said of a curve's pictures.

    Attributes:
        probabilities: float32 [B, M, steps]: of the target class; M is 1 where the pictures are
            the same for every map.
        first: bool, like `probabilities`: whether the target is the class of highest probability.
        pixels: int64, like `probabilities`: how many pixels were recovered, deleted or inserted;
            None where that is not what the pictures differ in.
    """

    probabilities: Tensor
    first: Tensor
    pixels: Tensor | None


@dataclass
class Case:
    """Some images and their maps, on the classifier's device.

    Attributes:
        images: float32 [B, C, H, W], normalised for the model.
        given: float32 or float64 [B, M, H, W]: the maps as they came.
        targets: int64 [B].
        masks: float64 [B, H, W] in [0, 1], or None.
        mean, std: float64 [C]: what the images were normalised with.
        preset: the measures' parameters.
        model: what made the maps, where it was given.
        again: by map, what makes it.
        ids: int64 [B]: the image_ids by which the maps were made, or None.
        curves: by name, once the pictures are scored.
        extras: what else a function wants the result to show: name -> [B, M, ...].
        facts: what a curve's function leaves for a measure's.
    """

    images: Tensor
    given: Tensor
    targets: Tensor
    masks: Tensor | None
    mean: Tensor
    std: Tensor
    preset: Preset
    model: Any = None
    again: Sequence[Again] = ()
    ids: Tensor | None = None
    curves: dict[str, Points] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def black(self) -> Tensor:
        """A black pixel after normalisation: float32 [C]."""
        return (-self.mean / self.std).float()

    def explain(self, m: int, images: Tensor, model: Any = None) -> Tensor:
        """Map number m made again, of other images [k B, C, H, W] or by another model: [k B, H, W].

        More than once the images (k > 1) is for methods that are `WithIds`.
        """
        model = self.model if model is None else model
        times = len(images) // len(self.targets)
        ids = None if self.ids is None else self.ids.repeat(times)
        maps = self.again[m](model, images, self.targets.repeat(times), ids)
        if list(maps.shape) != [len(images), *images.shape[2:]]:
            raise GagFastError(
                f"explain must give maps [B, H, W] = {[len(images), *images.shape[2:]]}, got "
                f"{list(maps.shape)}"
            )
        return maps.detach().to(self.given.device, self.given.dtype)

    @functools.cached_property
    def finite(self) -> Tensor:
        """Whether every value of a map is finite: bool [B, M]."""
        return self.given.isfinite().flatten(2).all(dim=2)

    @functools.cached_property
    def maps(self) -> Tensor:
        """The maps; zeros in place of one that is not finite, whose results become NaN anyway."""
        return torch.where(self.finite[..., None, None], self.given, 0)

    @functools.cached_property
    def ranked(self) -> Ranked:
        """The maps sorted, as rows [B M, H W]."""
        return perturb.rank(self.given.flatten(0, 1))

    @property
    def pixels(self) -> int:
        """H W."""
        return self.given.shape[-2] * self.given.shape[-1]

    @property
    def mask(self) -> Tensor:
        """The masks as [B, 1, H, W], beside the maps."""
        assert self.masks is not None, "the table says that this measure needs a mask"
        return self.masks[:, None]

    def by_map(self, rows: Tensor) -> Tensor:
        """[B M, ...] as [B, M, ...]."""
        return rows.reshape(*self.given.shape[:2], *rows.shape[1:])
