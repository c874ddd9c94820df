"""Typed wrappers over the native operators `torch.ops.gag_fast.*`.

They take tensors of the exact shapes below and return new tensors (names that end in `_` write into
their first arguments). Values are checked by the kernels, which raise `RuntimeError` and name what
was received; friendlier messages, other input types and defaults are the business of the public
functions above. No operator is differentiable. All but `impute` run on CPU and CUDA (on torch's
current stream, without synchronising); all work under `torch.compile(fullgraph=True)`.

B images, n samples, C channels, H x W pixels, k percents, M saliency maps, N masked copies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gag_fast import _fake  # noqa: F401  (registers the operators and their fake kernels)

_MASK64 = (1 << 64) - 1
_NATIVE = torch.ops.gag_fast

RUN = 20  # samples that gradient_stats_ adds up before it puts the sums by: kRun in welford.h


def guided_absgrad(
    grads: Tensor, p: Sequence[float], *, normalize: bool = True, keep_channels: bool = False
) -> Tensor:
    """Guided AbsoluteGrad of gradient stacks, Eq. 3.2-3.4 and Algorithm 1, in one read of them.

    Args:
        grads: `[B,n,C,H,W]` float32, float64, float16 or bfloat16, any strides; n >= 2 unless
            every percent is 0. A row (image, channel) with a non-finite gradient makes that image's
            map NaN (with `keep_channels`, that channel's).
        p: k percents in [0, 100]; 0 makes the guide 1 everywhere.
        normalize: min-max each map to [0, 1]; a constant map becomes zeros. Ignored when
            `keep_channels`.
        keep_channels: guide times absgrad per channel instead of their sum over channels.

    Returns:
        `[k,B,H,W]`, or `[k,B,C,H,W]` with `keep_channels`; float64 for float64 input, else float32.
    """
    return _NATIVE.guided_absgrad.default(grads, [float(q) for q in p], normalize, keep_channels)


def guided_absgrad_from_stats(
    m2: Tensor,
    abssum: Tensor,
    count: int,
    p: Sequence[float],
    *,
    normalize: bool = True,
    keep_channels: bool = False,
) -> Tensor:
    """`guided_absgrad` from running statistics: the same bits as from the stack they came from.

    Args:
        m2: `[B,C,H,W]` contiguous, float32 or float64: sum of squared deviations from the mean.
        abssum: like `m2`: the sum of |gradient| over the samples.
        count: number of samples behind both; >= 2 unless every percent is 0.
        p: k percents in [0, 100].
        normalize: as in `guided_absgrad`.
        keep_channels: as in `guided_absgrad`.

    Returns:
        `[k,B,H,W]`, or `[k,B,C,H,W]` with `keep_channels`, in the dtype of `m2`.
    """
    return _NATIVE.guided_absgrad_from_stats.default(
        m2, abssum, count, [float(q) for q in p], normalize, keep_channels
    )


def gradient_stats_(
    shift: Tensor,
    mean: Tensor,
    m2: Tensor,
    abssum: Tensor,
    grads: Tensor,
    count: int,
    settled: Tensor | None = None,
) -> None:
    """Folds m more gradients of each image into running statistics, in place (Welford).

    Args:
        shift: `[B,C,H,W]` contiguous, float32 or float64: each pixel's first gradient; written
            when `count` is 0, so it may be uninitialised then (as may the next three).
        mean: like `shift`: mean of (gradient - shift).
        m2: like `shift`: sum of squared deviations from the mean; variance = m2 / (count - 1).
        abssum: like `shift`: sum of |gradient|.
        grads: `[B,m,C,H,W]`, any of the four gradient dtypes, any strides, m >= 1.
        count: samples already in the statistics.
        settled: `[2,B,C,H,W]` contiguous, like `shift`, zeros at first: the settled parts of `m2`
            and `abssum`, which then are the sums without them (csrc/math/welford.h). Needed where
            `count` + m exceeds `RUN`; the same one from then on.
    """
    _NATIVE.gradient_stats_.default(shift, mean, m2, abssum, grads, count, settled)


def image_keys(images: Tensor) -> Tensor:
    """A 64-bit hash of each image's pixels and their places, the same for any batch or strides.

    Equal to the bit on CPU and CUDA; float64 images are hashed as float32. With it, noise can be
    a function of the image instead of its place in the batch.

    Args:
        images: `[B,C,H,W]` float32 or float64, any strides.

    Returns:
        int64 `[B]`.
    """
    return _NATIVE.image_keys.default(images)


def gaussian_noise(
    images: Tensor, keys: Tensor, std: Tensor, *, seed: int, first_sample: int, samples: int
) -> Tensor:
    """Noisy copies of images: image + std * normal(seed, key, first_sample + s, element).

    The standard normal is a function of those four numbers alone (Philox4x32-10 and Box-Muller,
    csrc/math/normal.h), so a sample's noise does not depend on the batch, the number of samples
    drawn at once, memory format, thread count, SIMD level or device: the same bits everywhere.

    Args:
        images: `[B,C,H,W]` float32 or float64 (noise is float32 either way), any strides.
        keys: int64 `[B]`, see `image_keys`; images of equal keys get equal noise.
        std: float32 `[B]`, the noise's standard deviation in the images' unit.
        seed: any Python int; its low 64 bits count.
        first_sample: number of the first sample, >= 0.
        samples: how many, >= 1; first_sample + samples <= 2^32.

    Returns:
        `[B,samples,C,H,W]` in the dtype of `images`; contiguous, or, for channels_last images,
        strided so that `flatten(0, 1)` is a channels_last view.
    """
    seed &= _MASK64
    seed -= (seed >> 63) << 64  # the operator takes a signed 64-bit integer
    return _NATIVE.gaussian_noise.default(images, keys, std, seed, first_sample, samples)


def saliency_ranks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks of the pixels of saliency maps by descending value, ties by ascending pixel index.

    Args:
        maps: `[M,H,W]` float32 or float64, any strides. -0.0 equals 0.0; NaN comes last, by index.

    Returns:
        `(ranks, order)`, int32 `[M,H*W]`: rank 0 is the most salient pixel, and
        `order[m, ranks[m, p]] == p`.
    """
    return _NATIVE.saliency_ranks.default(maps)


def compose_(out: Tensor, sources: Tensor, fill: Tensor, ranks: Tensor, slots: Tensor) -> None:
    """Writes masked copies of images straight into `out`, for example a session's input buffer.

    Copy i is described by `slots[i] = (map, count, top, rest)`: the pixels p with
    `ranks[map, p] < count` come from `sources[top]`, the others from `sources[rest]`; source -1 is
    the constant colour `fill`. `map` is not looked at when `count <= 0` or `count >= H*W`.

    Args:
        out: `[N,C,H,W]` float32 or float16 (rounded to nearest even), contiguous or channels_last.
        sources: `[S,C,H,W]` float32; fastest in the layout of `out`; S may be 0.
        fill: `[C]` float32.
        ranks: int32 `[M,H*W]` contiguous, from `saliency_ranks`; M may be 0.
        slots: int32 `[N,4]` contiguous. Indexes out of range are refused on the CPU; on CUDA they
            are the caller's duty (checking would synchronise): validate before the upload. There a
            slot with a bad index fills its copy with NaN instead of reading foreign memory.
    """
    _NATIVE.compose_.default(out, sources, fill, ranks, slots)


def impute(pixels: Tensor, missing: Tensor) -> Tensor:
    """Missing pixels filled in: each the mean of its eight neighbours, missing ones among them.

    The neighbours beside and above weigh 1/6, those at the corners 1/12, over the sum of those that
    the image has. The sparse system of all missing pixels is solved by conjugate gradients with
    multigrid (csrc/cpu/impute.h), in one thread, to about 1e-5 of what is filled in. The same
    bits for any number of threads and any batch.

    Args:
        pixels: `[C,H,W]` float32 on the CPU, any strides; those that are missing are not looked at.
        missing: bool `[H,W]` on the CPU. With every pixel missing there is nothing to start from,
            and the result is 0.

    Returns:
        `[C,H,W]` contiguous; the pixels that are there, as they are.
    """
    return _NATIVE.impute.default(pixels, missing)
