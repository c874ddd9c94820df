"""What users hand to the explainer, checked; one clear line otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gag_fast import ops
from gag_fast._inputs import describe, from_array
from gag_fast.attribution.source import GradientSource


def as_images(images: Any) -> Tensor:
    """Images as a detached, finite float32 or float64 tensor `[B,C,H,W]`."""
    batch = from_array(images, "images") if isinstance(images, np.ndarray) else images
    if not isinstance(batch, Tensor):
        raise TypeError(f"images must be a tensor or an array, got {describe(images)}")
    if not batch.is_floating_point():
        raise TypeError(
            f"images must be floating point, normalised for the model, got {describe(images)}"
        )
    if batch.dim() != 4 or 0 in batch.shape:
        raise ValueError(f"images must be [B,C,H,W] with no empty axis, got {describe(images)}")
    batch = batch.detach()
    finite = torch.isfinite(batch).flatten(1).all(1)
    if not finite.all():
        raise ValueError(f"images[{int((~finite).nonzero()[0])}] has values that are not finite")
    return batch if batch.dtype in (torch.float32, torch.float64) else batch.float()


def as_keys(image_ids: Sequence[int] | Tensor | None, images: Tensor) -> Tensor:
    """int64 `[B]`, what each image's random numbers hang on: the ids, or a hash of the pixels."""
    if image_ids is None:
        return ops.image_keys(images)
    keys = torch.as_tensor(image_ids, device=images.device)
    if keys.is_floating_point() or keys.dtype == torch.bool or keys.shape != images.shape[:1]:
        raise ValueError(
            f"image_ids must be {len(images)} integers, one per image, got {describe(image_ids)}"
        )
    return keys.to(torch.int64)


def as_targets(targets: Any, source: GradientSource, images: Tensor) -> Tensor:
    """int64 `[B]` on the images' device: the classes given, or those that are predicted."""
    if targets is None:
        return source.logits(images).argmax(1)
    given = torch.as_tensor(targets)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"targets must be integers, got {describe(targets)}")
    if given.numel() == 1:
        given = given.reshape(()).expand(len(images))
    if given.shape != images.shape[:1]:
        raise ValueError(
            f"targets must be one class, or one for each of {len(images)} images, "
            f"got {describe(targets)}"
        )
    classes = source.classes(images[0])
    low, high = int(given.min()), int(given.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"target {wrong} is not one of the model's {classes} classes (from 0)")
    return given.to(images.device, torch.int64)
