"""What users hand to the explainer, checked; one clear line otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gag_fast import _inputs, ops
from gag_fast._errors import GagFastError
from gag_fast._inputs import describe
from gag_fast.attribution.forward import ForwardSource
from gag_fast.attribution.source import GradientSource

BY_PIXELS = "pixels"

ImageIds = Sequence[int] | Tensor | str | None
"""What an image's random numbers hang on, together with the seed; see `as_keys`."""


def as_images(images: Any) -> Tensor:
    """Images as a detached, finite float32 or float64 tensor `[B,C,H,W]`."""
    batch = _inputs.as_images(images)
    finite = torch.isfinite(batch).flatten(1).all(1)
    if not finite.all():
        raise GagFastError(f"images[{int((~finite).nonzero()[0])}] has values that are not finite")
    return batch if batch.dtype in (torch.float32, torch.float64) else batch.float()


def as_keys(image_ids: ImageIds, images: Tensor) -> Tensor:
    """The images' ids, int64 `[B]`: with the seed, all that an image's random numbers hang on.

    Args:
        image_ids: an integer for each image. None: 0 for every image, so that all meet the same
            noise. An image and a perturbed copy of it then differ in the perturbation alone, which
            is what measures of robustness ask about. "pixels": a hash of each image's pixels, so
            that different images meet different noise, and so do an image and a copy of which one
            value was moved by the last bit.
        images: `[B,C,H,W]`.
    """
    if image_ids is None:
        return torch.zeros(len(images), dtype=torch.int64, device=images.device)
    if isinstance(image_ids, str):
        if image_ids != BY_PIXELS:
            raise GagFastError(
                f'image_ids must be integers, None or "{BY_PIXELS}", got {image_ids!r}'
            )
        return ops.image_keys(images)
    keys = torch.as_tensor(image_ids, device=images.device)
    if keys.is_floating_point() or keys.dtype == torch.bool or keys.shape != images.shape[:1]:
        raise GagFastError(
            f"image_ids must be {len(images)} integers, one per image, got {describe(image_ids)}"
        )
    return keys.to(torch.int64)


def id_of_name(name: str) -> int:
    """The id of an image that has a name: 64 bits of the name's SHA-256, signed."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def as_targets(targets: Any, source: GradientSource | ForwardSource, images: Tensor) -> Tensor:
    """int64 `[B]` on the images' device: the classes given, or those that are predicted."""
    if targets is None:
        return source.logits(images).argmax(1).to(images.device)
    given = _inputs.as_numbers(targets, "targets")
    if given.numel() == 1:
        given = given.reshape(())
    return _inputs.as_targets(given, len(images), source.classes(images[0])).to(images.device)
