"""Fake (meta) kernels: shapes, dtypes and strides of every operator's outputs, and no data; vmap.

`torch.compile`, `torch.export` and `torch.library.opcheck` call these instead of the real kernels.
The real kernels check their arguments in full; here only what decides an output's shape is looked
at. Meaning of the shapes: csrc/schema.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gag_fast import _library  # noqa: F401  (registers the operators these kernels belong to)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that keeps statistics of `dtype` gradients: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _maps(like: Tensor, dtype: torch.dtype, shape: Sequence[int], k: int, keep: bool) -> Tensor:
    b, c, h, w = shape
    return like.new_empty((k, b, c, h, w) if keep else (k, b, h, w), dtype=dtype)


@torch.library.register_fake("gag_fast::guided_absgrad")
def _guided_absgrad(
    grads: Tensor, p: Sequence[float], normalize: bool, keep_channels: bool
) -> Tensor:
    torch._check(grads.dim() == 5, lambda: f"grads must be [B,n,C,H,W], got {grads.dim()} axes")
    b, _, c, h, w = grads.shape
    return _maps(grads, accumulator(grads.dtype), (b, c, h, w), len(p), keep_channels)


@torch.library.register_fake("gag_fast::guided_absgrad_from_stats")
def _guided_absgrad_from_stats(
    m2: Tensor,
    abssum: Tensor,
    count: int,
    p: Sequence[float],
    normalize: bool,
    keep_channels: bool,
) -> Tensor:
    torch._check(m2.dim() == 4, lambda: f"m2 must be [B,C,H,W], got {m2.dim()} axes")
    return _maps(m2, m2.dtype, m2.shape, len(p), keep_channels)


@torch.library.register_fake("gag_fast::gradient_stats_")
def _gradient_stats_(
    shift: Tensor,
    mean: Tensor,
    m2: Tensor,
    abssum: Tensor,
    grads: Tensor,
    count: int,
    settled: Tensor | None = None,
) -> None:
    torch._check(grads.dim() == 5, lambda: f"grads must be [B,m,C,H,W], got {grads.dim()} axes")


@torch.library.register_fake("gag_fast::image_keys")
def _image_keys(images: Tensor) -> Tensor:
    torch._check(images.dim() == 4, lambda: f"images must be [B,C,H,W], got {images.dim()} axes")
    return images.new_empty((images.shape[0],), dtype=torch.int64)


@torch.library.register_fake("gag_fast::gaussian_noise")
def _gaussian_noise(
    images: Tensor, keys: Tensor, std: Tensor, seed: int, first_sample: int, samples: int
) -> Tensor:
    torch._check(images.dim() == 4, lambda: f"images must be [B,C,H,W], got {images.dim()} axes")
    b, c, h, w = images.shape
    channels_last = not images.is_contiguous() and images.is_contiguous(
        memory_format=torch.channels_last
    )
    if channels_last:
        return images.new_empty((b, samples, h, w, c)).permute(0, 1, 4, 2, 3)
    return images.new_empty((b, samples, c, h, w))


@torch.library.register_fake("gag_fast::saliency_ranks")
def _saliency_ranks(maps: Tensor) -> tuple[Tensor, Tensor]:
    torch._check(maps.dim() == 3, lambda: f"maps must be [M,H,W], got {maps.dim()} axes")
    m, h, w = maps.shape
    return (
        maps.new_empty((m, h * w), dtype=torch.int32),
        maps.new_empty((m, h * w), dtype=torch.int32),
    )


@torch.library.register_fake("gag_fast::impute")
def _impute(pixels: Tensor, missing: Tensor) -> Tensor:
    torch._check(pixels.dim() == 3, lambda: f"pixels must be [C,H,W], got {pixels.dim()} axes")
    return pixels.new_empty(pixels.shape)


@torch.library.register_fake("gag_fast::compose_")
def _compose_(out: Tensor, sources: Tensor, fill: Tensor, ranks: Tensor, slots: Tensor) -> None:
    torch._check(out.dim() == 4, lambda: f"out must be [N,C,H,W], got {out.dim()} axes")


@torch.library.register_vmap("gag_fast::guided_absgrad")
def _guided_absgrad_vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    grads: Tensor,
    p: Sequence[float],
    normalize: bool,
    keep_channels: bool,
) -> tuple[Tensor, int]:
    """torch.vmap: the axis mapped over is one more of images."""
    stacks = grads.movedim(in_dims[0] or 0, 0)
    maps = torch.ops.gag_fast.guided_absgrad.default(
        stacks.flatten(0, 1), p, normalize, keep_channels
    )
    return maps.unflatten(1, stacks.shape[:2]), 1


@torch.library.register_vmap("gag_fast::guided_absgrad_from_stats")
def _guided_absgrad_from_stats_vmap(
    info: Any,
    in_dims: tuple[int | None, ...],
    m2: Tensor,
    abssum: Tensor,
    count: int,
    p: Sequence[float],
    normalize: bool,
    keep_channels: bool,
) -> tuple[Tensor, int]:
    axis = next(dim for dim in in_dims[:2] if dim is not None)
    size = m2.shape[axis] if in_dims[0] is not None else abssum.shape[axis]

    def folded(value: Tensor, dim: int | None) -> Tensor:
        wide = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
        return wide.flatten(0, 1).contiguous()

    maps = torch.ops.gag_fast.guided_absgrad_from_stats.default(
        folded(m2, in_dims[0]), folded(abssum, in_dims[1]), count, p, normalize, keep_channels
    )
    return maps.unflatten(1, (size, -1)), 1


def _refuse_vmap(name: str) -> None:
    """torch.vmap of any other operator: one line, instead of a slow loop with a warning."""

    def refuse(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        raise RuntimeError(
            f"gag_fast::{name} has no rule for torch.vmap: it takes a batch itself, so hand it all "
            "images at once"
        )

    torch.library.register_vmap(f"gag_fast::{name}", refuse)


for _name in ("gradient_stats_", "image_keys", "gaussian_noise", "saliency_ranks", "compose_"):
    _refuse_vmap(_name)
