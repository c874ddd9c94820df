"""What users hand to the metrics, checked and turned into tensors; one clear line otherwise."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._inputs import Array, as_numbers, as_targets, describe
from gag_fast.classifier import Classifier
from gag_fast.classifier.ahead import uploaded
from gag_fast.measures import Measure, Need
from gag_fast.metrics.case import Again, Case, WithIds
from gag_fast.metrics.robustness import resettable
from gag_fast.presets import Preset


@dataclass(frozen=True)
class Batch:
    """What is scored, where the caller had it.

    Attributes:
        images: float32 [B, C, H, W].
        maps: float32 or float64 [B, M, H, W].
        targets: int64 [B].
        masks: float [B, H, W], or None.
        several: whether maps came as [B, M, H, W].
        device: where results go; None: NumPy.
        scored_on: the classifier's device.
        ids: int64 [B]: the image_ids by which the maps were made, or None.
    """

    images: Tensor
    maps: Tensor
    targets: Tensor
    masks: Tensor | None
    several: bool
    device: torch.device | None
    scored_on: torch.device
    ids: Tensor | None = None

    def part(self, start: int, stop: int) -> Batch:
        """Images start ... stop-1."""
        return replace(
            self,
            images=self.images[start:stop],
            maps=self.maps[start:stop],
            targets=self.targets[start:stop],
            masks=None if self.masks is None else self.masks[start:stop],
            ids=None if self.ids is None else self.ids[start:stop],
        )

    def case(
        self,
        colours: tuple[Tensor, Tensor],
        preset: Preset,
        model: Any = None,
        again: Sequence[Again] = (),
    ) -> Case:
        """These images as the measures' functions take them, on the classifier's device."""
        on = self.scored_on
        return Case(
            uploaded(self.images, on),
            uploaded(self.maps, on),
            uploaded(self.targets, on),
            None if self.masks is None else uploaded(self.masks, on),
            uploaded(colours[0], on),
            uploaded(colours[1], on),
            preset,
            model,
            again,
            self.ids,
        )

    def like_given(self, value: Tensor) -> Tensor | Array:
        """A result [B, M, ...] as the caller's kind, without M where the maps had none."""
        value = value if self.several else value[:, 0]
        if value.is_floating_point():
            value = value.float()
        return value.cpu().numpy() if self.device is None else value.to(self.device)


def check_batch(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    masks: Any,
    *,
    nonnegative: str | None,
    ids: Any = None,
) -> Batch:
    """Everything that `evaluate` takes, checked against each other and the classifier.

    `nonnegative` names a measure that has no meaning for negative saliency, if there is one.
    """
    x = clf.check_images(images)
    count, _, height, width = x.shape
    m = as_maps(maps, "maps")
    if m.ndim not in (3, 4) or m.shape[0] != count or m.shape[-2:] != x.shape[-2:]:
        raise GagFastError(
            f"maps must be [{count}, {height}, {width}] or [{count}, M, {height}, {width}] for "
            f"these images, got {list(m.shape)}"
        )
    if 0 in m.shape:
        raise GagFastError(f"maps has an empty axis: shape {list(m.shape)}")
    if nonnegative is not None and bool((m < 0).any()):
        raise GagFastError(
            f"{nonnegative} needs maps >= 0, as it has no meaning otherwise; got a smallest "
            f"value of {float(m[m.isfinite()].min()):g}. Take magnitudes or min-max first"
        )
    classes = clf.classes(x)
    t = as_targets(targets, count, classes)
    truth = None if masks is None else as_masks(masks, m)
    device = None if isinstance(images, np.ndarray) else images.device
    several = m.ndim == 4
    return Batch(
        x,
        m if several else m[:, None],
        t,
        truth,
        several,
        device,
        clf.device,
        None if ids is None else _as_ids(ids, count),
    )


def _as_ids(value: Any, count: int) -> Tensor:
    tensor = torch.as_tensor(value)
    if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.shape != (count,):
        raise GagFastError(
            f"image_ids must be {count} integers, one for each image, got {describe(value)}"
        )
    return tensor.to(torch.int64)


def as_maps(value: Any, name: str) -> Tensor:
    """Maps as a float32 or float64 tensor."""
    tensor = as_numbers(value, name)
    if not tensor.is_floating_point():
        raise InputTypeError(f"{name} must be floating point, got {tensor.dtype}")
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def as_masks(value: Any, maps: Tensor) -> Tensor:
    """Masks [B, H, W] in [0, 1] as a float64 tensor that fits the maps."""
    tensor = as_numbers(value, "masks").double()
    wanted = [maps.shape[0], *maps.shape[-2:]]
    if list(tensor.shape) != wanted:
        raise GagFastError(f"masks must be {wanted} for these maps, got {list(tensor.shape)}")
    low, high = (float(v) for v in tensor.aminmax())
    if not 0 <= low <= high <= 1:
        raise GagFastError(f"masks must lie in [0, 1], got values in [{low:g}, {high:g}]")
    return tensor


def check_pair(maps: Any, masks: Any) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor | Array]]:
    """Maps [B(, M), H, W] and masks that broadcast to them, float64; and the way back."""
    m = as_maps(maps, "maps")
    if m.ndim not in (3, 4) or 0 in m.shape:
        raise GagFastError(
            f"maps must be [B, H, W] or [B, M, H, W] and not empty, got {list(m.shape)}"
        )
    truth = as_masks(masks, m).to(m.device)
    nan = m.new_full((), torch.nan, dtype=torch.float64)
    finite = m.isfinite().flatten(-2).all(dim=-1)[..., None, None]
    found = torch.where(finite, m.double(), nan)

    def back(value: Tensor) -> Tensor | Array:
        value = value.float()
        return value.cpu().numpy() if isinstance(maps, np.ndarray) else value

    return found, truth if m.ndim == 3 else truth[:, None], back


def check_again(model: Any, explain: Any, maps: int, chosen: Sequence[Measure]) -> list[Again]:
    """What makes each map again: `explain` itself for all of them, or one for each."""
    if not any(Need.GRADIENTS in m.needs for m in chosen):
        return []
    names = ", ".join(m.name for m in chosen if Need.GRADIENTS in m.needs)
    several = isinstance(explain, (list, tuple))
    given = list(explain) if several else [explain] * maps
    if len(given) != maps or not all(callable(each) for each in given):
        raise InputTypeError(
            f"{names}: explain must be the function (model, images, targets) -> maps that made the "
            f"maps, or {maps} of them for maps [B, {maps}, H, W], got {explain!r}"
        )
    weights = [m.name for m in chosen if Need.WEIGHTS in m.needs]
    if weights and not isinstance(model, torch.nn.Module):
        raise InputTypeError(
            f"{weights[0]} draws the weights of model= anew: it must be a torch module, got a "
            f"{type(model).__name__}"
        )
    if weights and not resettable(model):
        raise GagFastError(
            f"{weights[0]} draws weights anew by reset_parameters, which no layer of this "
            f"{type(model).__name__} has"
        )
    return [_with_ids(each) for each in given]


def _with_ids(function: Callable[..., Tensor]) -> Again:
    """A function that takes image_ids gets them; any other does without."""
    try:
        takes_ids = "image_ids" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a function that Python cannot look into
        takes_ids = False
    if takes_ids:
        return WithIds(function)
    return lambda model, images, targets, ids: function(model, images, targets)
