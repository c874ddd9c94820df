"""What a classifier is given, checked: one clear line that names what was received."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gag_fast._errors import ClassifierError
from gag_fast._inputs import as_images


def checked_images(images: Any, channels: int | None, size: tuple[int, int] | None) -> Tensor:
    """Images as a float32 tensor [B, C, H, W] that fits the model, wherever it lies."""
    images = as_images(images)
    shape = list(images.shape)
    wanted = (channels, *(size or (None, None)))
    if any(w not in (None, got) for w, got in zip(wanted, shape[1:], strict=True)):
        expected = ", ".join("any" if w is None else str(w) for w in wanted)
        raise ClassifierError(f"the classifier takes images [B, {expected}], got {shape}")
    return images.float()


def checked_colours(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """mean and std, both or neither, one value a channel."""
    if (mean is None) != (std is None):
        raise ClassifierError(f"give mean and std together, got mean={mean}, std={std}")
    if mean is None or std is None:
        return None, None
    if len(mean) != len(std) or channels not in (None, len(mean)):
        raise ClassifierError(f"mean and std must have {channels or 'C'} values, got {mean}, {std}")
    if any(s <= 0 for s in std):
        raise ClassifierError(f"std must be positive, got {std}")
    return tuple(map(float, mean)), tuple(map(float, std))


def checked_threads(threads: int | None) -> int:
    """CPU threads; None: torch's number, but not more than the process may use."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
        return max(1, min(torch.get_num_threads(), allowed))
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ClassifierError(f"threads must be a positive number or None, got {threads!r}")
    return threads


def checked_batch_size(batch: int | None, fixed: int | None, path: Path | None) -> int | None:
    """Images in a forward pass, or None to measure; `fixed`: what the file demands."""
    if batch is None:
        return fixed
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ClassifierError(f"batch_size must be a positive number or None, got {batch!r}")
    if fixed not in (None, batch):
        raise ClassifierError(
            f"{path} has a fixed batch of {fixed}, batch_size={batch} does not fit; "
            "export it with a dynamic batch"
        )
    return batch
