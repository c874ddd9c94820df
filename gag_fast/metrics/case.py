"""What a measure's function is given: some images with their maps, ranks, masks and curves."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast.perturb import Ranked
from gag_fast.presets import Preset


@dataclass(frozen=True)
class Points:
    """What the classifier said of a curve's pictures.

    Attributes:
        probabilities: float32 [B, M, steps]: of the target class.
        pixels: int64 [B, M, steps]: how many pixels were recovered, deleted or inserted.
    """

    probabilities: Tensor
    pixels: Tensor


@dataclass
class Case:
    """Some images and their maps, on the classifier's device.

    Attributes:
        images: float32 [B, C, H, W], normalised for the model.
        given: float32 or float64 [B, M, H, W]: the maps as they came.
        targets: int64 [B].
        masks: float64 [B, H, W] in [0, 1], or None.
        black: float32 [C]: a black pixel after normalisation.
        preset: the measures' parameters.
        curves: by name, once the pictures are scored.
        extras: what else a function wants the result to show: name -> [B, M, ...].
    """

    images: Tensor
    given: Tensor
    targets: Tensor
    masks: Tensor | None
    black: Tensor
    preset: Preset
    curves: dict[str, Points] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)

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
