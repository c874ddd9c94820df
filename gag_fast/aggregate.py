"""Guided AbsoluteGrad of gradients one already has: all at once, or as they arrive.

Non-finite gradients: an image whose absgrad (or, for p > 0, variance) is not finite at any pixel of
any channel gets a map of NaN, since its percentiles and its minimum and maximum have no meaning;
with `channels="keep"` only the channel concerned is NaN. Other images are not touched. A sum or a
square that overflows the accumulator counts as not finite, and so does, for the min-max, a map
value that does. The same holds on CPU and CUDA.

Very small gradients: a variance has the square of the gradients' unit. In float32 it loses digits
where gradients are below 1e-19 or so in magnitude, and is 0 below 1e-23: where that makes the
percentile 0, p damps none, and on the CPU a warning says so (a GPU would have to be waited for).
Hand such gradients in as float64, or multiply them by a power of two, which is exact (and
multiplies V, the weight of the pixels below the percentile, by its square).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from gag_fast import ops
from gag_fast._errors import GagFastError, InputTypeError, within_memory
from gag_fast._inputs import (
    Array,
    ArrayLike,
    Channels,
    Foreign,
    adopted,
    as_percents,
    as_sample,
    as_stack,
    check_channels,
    check_samples,
    describe,
    doubt_size,
)


@overload
def guided_absgrad(
    grads: Tensor | Sequence[Tensor],
    p: float | Sequence[float] = 85,
    *,
    normalize: bool = True,
    channels: Channels = "sum",
) -> Tensor: ...
@overload
def guided_absgrad(  # type: ignore[overload-overlap]  # NumPy speaks DLPack too
    grads: Array | Sequence[Array],
    p: float | Sequence[float] = 85,
    *,
    normalize: bool = True,
    channels: Channels = "sum",
) -> Array: ...
@overload
def guided_absgrad(
    grads: Foreign | Sequence[Foreign],
    p: float | Sequence[float] = 85,
    *,
    normalize: bool = True,
    channels: Channels = "sum",
) -> Tensor: ...
@within_memory
def guided_absgrad(
    grads: ArrayLike | Sequence[ArrayLike],
    p: float | Sequence[float] = 85,
    *,
    normalize: bool = True,
    channels: Channels = "sum",
) -> Tensor | Array:
    """Guided AbsoluteGrad saliency maps of gradient stacks (Eq. 3.2-3.4 and Algorithm 1).

    `sum_C (G * A)` with the absgrad `A = mean_n |g|`, the variance `V` of the signed gradients
    (unbiased, over n), and the guide `G = 1 where V >= q, else V`, q being the p-th percentile of V
    over the pixels of that image and channel. The stack is read once, in place, whatever its
    strides, and whatever the number of percents.

    Args:
        grads: `[n,C,H,W]` or `[B,n,C,H,W]`, torch tensor (CPU or CUDA), NumPy array or an array
            that speaks DLPack (JAX, CuPy, TensorFlow); or a sequence of n of them, each `[C,H,W]`
            or `[B,C,H,W]`. float32, float64, float16 or bfloat16. n >= 2 unless every p is 0.
            Never differentiated through.
        p: percent in [0, 100] below which pixels are damped by their variance, or a sequence of k
            of them. 0 damps none: plain AbsoluteGrad.
        normalize: min-max each map to [0, 1]; a map of equal values becomes zeros.
        channels: `"sum"` adds the channels up; `"keep"` returns each channel's `G * A`, raw.

    Returns:
        `[H,W]` or `[B,H,W]`; with `channels="keep"` `[C,H,W]` or `[B,C,H,W]`; with a sequence p a
        leading axis k. float64 for float64 gradients, else float32; on the gradients' device; a
        NumPy array where the gradients were NumPy, else a torch tensor. For gradients that are not
        finite, and for those below 1e-19, whose variances lose digits in float32 and underflow,
        see the module's text.

    Raises:
        TypeError: grads or p of a type or dtype that is not listed above.
        ValueError: wrong rank, an empty axis, n = 1 with p > 0, p outside [0, 100], samples that
            differ in shape, dtype or device, an unknown `channels`.
    """
    percents, single = as_percents(p)
    keep = check_channels(channels)
    if not isinstance(grads, (list, tuple)):
        grads = adopted(grads, "grads")
    if isinstance(grads, (Tensor, np.ndarray)):
        stack, batched = as_stack(grads)
        check_samples(stack.shape[1], percents)
        if any(percents):
            doubt_size(stack[:, 0])
        maps = ops.guided_absgrad(stack, percents, normalize=normalize, keep_channels=keep)
        return _hand_back(maps, single, batched, isinstance(grads, np.ndarray))
    stats = _fold_sequence(grads)
    check_samples(stats.count, percents)
    return stats.guided_absgrad(p, normalize, channels)


def _fold_sequence(grads: Any) -> GradientStats:
    if not isinstance(grads, (list, tuple)):
        raise InputTypeError(
            "grads must be a torch tensor, a NumPy array or a list or tuple of them, "
            f"got {describe(grads)}"
        )
    if not grads:
        raise GagFastError("grads must hold at least one gradient, got an empty sequence")
    grads = [adopted(_alone(grad), f"grads[{i}]") for i, grad in enumerate(grads)]
    first = grads[0]
    for i, grad in enumerate(grads):
        if not isinstance(grad, (Tensor, np.ndarray)):
            raise InputTypeError(f"grads[{i}] must be a tensor or an array, got {describe(grad)}")
        if isinstance(grad, Tensor) != isinstance(first, Tensor):
            raise InputTypeError(
                f"grads mixes tensors and arrays: grads[0] is {describe(first)}, "
                f"grads[{i}] is {describe(grad)}"
            )
        if grad.dtype != first.dtype:
            raise InputTypeError(
                f"grads differ in dtype: grads[0] is {describe(first)}, "
                f"grads[{i}] is {describe(grad)}"
            )
        if grad.shape != first.shape:
            raise GagFastError(
                f"grads differ in shape: grads[0] is {describe(first)}, "
                f"grads[{i}] is {describe(grad)}"
            )
        if isinstance(grad, Tensor) and grad.device != first.device:
            raise GagFastError(
                f"grads are on different devices: grads[0] on {first.device}, "
                f"grads[{i}] on {grad.device}"
            )
    stats = GradientStats()
    for i, grad in enumerate(grads):
        sample, batched = as_sample(grad, f"grads[{i}]")
        stats._fold(sample.unsqueeze(1), batched, isinstance(grad, np.ndarray))
    return stats


def _alone(grad: Any) -> Any:
    """A gradient out of the tuple of one that `torch.autograd.grad` returns it in."""
    return grad[0] if isinstance(grad, tuple) and len(grad) == 1 else grad


def _hand_back(result: Tensor, single: bool, batched: bool, numpy: bool) -> Tensor | Array:
    """`[k,B,...]` without the axes the caller did not have, in the caller's kind of array."""
    if not batched:
        result = result.squeeze(1)
    if single:
        result = result.squeeze(0)
    return result.numpy() if numpy else result


def _kind(grad: Tensor) -> tuple[object, ...]:
    """All of a tensor that the checks look at."""
    return grad.shape, grad.dtype, grad.device, grad.layout


class Moments(NamedTuple):
    """Running statistics of every pixel's gradients, `[B,C,H,W]` each (csrc/math/welford.h)."""

    shift: Tensor  # the first gradient
    mean: Tensor  # of (gradient - shift)
    m2: Tensor  # sum of squared deviations from the mean; variance = m2 / (count - 1)
    abssum: Tensor  # sum of |gradient|


def _new_moments(stack: Tensor) -> Moments:
    """Room for the statistics of `[B,m,C,H,W]`; one block: freed, it is used again as it is."""
    dtype = torch.float64 if stack.dtype == torch.float64 else torch.float32
    with torch.inference_mode(False):  # or they could not be updated outside of it
        shape = (len(Moments._fields), stack.shape[0], *stack.shape[2:])
        return Moments(*torch.empty(shape, dtype=dtype, device=stack.device).unbind(0))


def _add_exactly(total: Tensor, rest: Tensor, term: Tensor) -> None:
    """total + rest + term into total + rest: `rest` takes what rounding takes from `total`."""
    new = total + term
    added = new - total
    lost = (total - (new - added)).add_(term - added)
    rest.add_(torch.where(lost.isnan(), torch.zeros_like(lost), lost))
    total.copy_(new)


class GradientStats:
    """Running statistics of gradients: memory does not grow with the number of samples.

    Holds four maps of the gradients' shape, in float32 (float64 for float64 gradients): the first
    gradient, and of the differences from it the mean and the sum of squared deviations (Welford),
    and the sum of |g|; from the 21st sample on two more, which keep the digits of the two sums.
    Feeding the samples of a stack one by one gives the same bits as the one-shot call on the stack.

    Several threads may use one object: each call is done as a whole, in some order. `copy.copy`,
    `copy.deepcopy` and pickle give an object of its own.

    Example:
        stats = GradientStats()
        for _ in range(n):
            stats.update(next_gradient())       # [C,H,W] or [B,C,H,W]
        saliency = stats.guided_absgrad(p=85)   # [H,W] or [B,H,W]
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._count = 0
        self._batched = False
        self._numpy = False
        self._checked: tuple[object, ...] | None = None  # _kind of the last tensor taken in
        self._state: Moments | None = None  # until the first sample
        # [2,B,C,H,W]: what m2 and abssum have put by (csrc/math/welford.h); None until they do.
        self._settled: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = None if self._state is None else Moments(*(t.clone() for t in self._state))
            settled = None if self._settled is None else self._settled.clone()
            mine = {**self.__dict__, "_state": state, "_settled": settled}
            del mine["_lock"]
            return mine

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def __copy__(self) -> GradientStats:
        other = type(self)()
        other.__dict__.update(self.__getstate__())
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> GradientStats:
        return self.__copy__()

    def __repr__(self) -> str:
        shape = None if self._state is None else self._shape()
        return f"GradientStats(count={self._count}, shape={shape})"

    @property
    def count(self) -> int:
        """Number of samples taken in so far."""
        return self._count

    @within_memory
    def update(self, grad: ArrayLike) -> None:
        """Takes in one more sample.

        Args:
            grad: `[C,H,W]` or `[B,C,H,W]`, tensor or NumPy array, or a tuple of one such (as
                `torch.autograd.grad` returns it); shape, device and accumulator
                (float64 or not) as the samples before it. Its memory may be reused afterwards.

        Raises:
            TypeError: not a floating tensor or array, or float64 after others (or the reverse).
            ValueError: wrong rank, an empty axis, another shape or device than before.
        """
        # One more of the kind that was checked last time; else the checks are a tenth of the time.
        with self._lock:
            if type(grad) is Tensor and _kind(grad) == self._checked and self._state is not None:
                sample = grad.detach() if self._batched else grad.detach().unsqueeze(0)
                self._take_in(self._state, sample.unsqueeze(1))
                return
            grad = adopted(_alone(grad), "grad")
            sample, batched = as_sample(grad)
            self._fold(sample.unsqueeze(1), batched, isinstance(grad, np.ndarray))
            self._checked = _kind(grad) if type(grad) is Tensor else None

    @within_memory
    def update_stack(self, grads: ArrayLike) -> None:
        """Takes in the n samples of a stack `[n,C,H,W]` or `[B,n,C,H,W]`, in one read of it.

        The same as n calls of `update` in that order, bit for bit. Raises as `update`.
        """
        grads = adopted(grads, "grads")
        stack, batched = as_stack(grads)
        self._fold(stack, batched, isinstance(grads, np.ndarray))

    @within_memory
    def merge(self, other: GradientStats) -> None:
        """Takes in all samples of `other`, which is left as it was (Chan's rule).

        Raises:
            TypeError: `other` is not a GradientStats, or accumulates in another dtype.
            ValueError: `other` is of another shape or on another device.
        """
        if not isinstance(other, GradientStats):
            raise InputTypeError(f"merge needs a GradientStats, got {describe(other)}")
        # Of two objects that are merged into each other at once, both threads lock the same first.
        first, second = sorted((self, other), key=id)
        with first._lock, second._lock:
            self._merge(other)

    def _merge(self, other: GradientStats) -> None:
        if other._state is None:
            return
        if self._state is None:
            self.__dict__.update(other.__getstate__())
            return
        self._check_same(other._state.shift, other._batched)
        mine, theirs = self._state, other._state
        total = self._count + other._count
        # Distance of the two means. The shifts are gradients of the same pixel, so their difference
        # is exact where it matters: where both are far from zero and close to each other.
        delta = (theirs.shift - mine.shift).add_(theirs.mean).sub_(mine.mean)
        between = (delta * delta).mul_(self._count * (other._count / total))
        mine.mean.add_(delta, alpha=other._count / total)
        self._settled = settled = self._settled_sums()
        others = other._settled
        added: list[list[Tensor]] = [[theirs.m2, between], [theirs.abssum]]
        for i, rest in enumerate((mine.m2, mine.abssum)):
            terms = [rest.clone(), *(t.clone() for t in added[i])]
            if others is not None:
                terms.append(others[i].clone())
            rest.zero_()
            for term in terms:
                _add_exactly(settled[i], rest, term)
        self._count = total

    def mean(self) -> Any:
        """Mean of the signed gradients, in the shape of a sample."""
        with self._lock:
            state = self._require(1, "mean")
            return self._hand_back(state.shift + state.mean)

    def absmean(self) -> Any:
        """Absgrad, `mean_n |g|` (Eq. 3.2), in the shape of a sample."""
        with self._lock:
            return self._hand_back(self._require(1, "absmean").abssum / self._count)

    def variance(self) -> Any:
        """Unbiased variance of the signed gradients (Eq. 3.3), in the shape of a sample."""
        with self._lock:
            return self._hand_back(self._require(2, "variance").m2 / (self._count - 1))

    def deviations(self) -> Any:
        """Sum of squared deviations from the mean, in the shape of a sample."""
        with self._lock:
            return self._hand_back(self._require(1, "deviations").m2)

    @within_memory
    def guided_absgrad(
        self, p: float | Sequence[float] = 85, normalize: bool = True, channels: Channels = "sum"
    ) -> Any:
        """Saliency maps of the samples so far; arguments, result as `gag_fast.guided_absgrad`."""
        percents, single = as_percents(p)
        keep = check_channels(channels)
        with self._lock:
            check_samples(self._count, percents, "count")
            state = self._require(1, "guided_absgrad")
            if any(percents):
                doubt_size(state.shift)
            maps = ops.guided_absgrad_from_stats(
                state.m2,
                state.abssum,
                self._count,
                percents,
                normalize=normalize,
                keep_channels=keep,
            )
            return _hand_back(maps, single, self._batched, self._numpy)

    def moments(self) -> Moments:
        """The statistics as the operators take them, `[B,C,H,W]` each; not to be written to."""
        with self._lock:
            return self._require(1, "moments")

    def _fold(self, stack: Tensor, batched: bool, numpy: bool) -> None:
        """Takes in a stack `[B,m,C,H,W]`; the first one decides what the others must be like."""
        with self._lock:
            if self._state is not None:
                self._check_same(stack[:, 0], batched)
                self._take_in(self._state, stack)
                return
            state = _new_moments(stack)
            self._take_in(state, stack)
            self._state, self._batched, self._numpy = state, batched, numpy

    def _take_in(self, state: Moments, stack: Tensor) -> None:
        samples = stack.shape[1]
        if self._settled is None and self._count + samples <= ops.RUN:
            ops.gradient_stats_(*state, stack, self._count)
        else:
            settled = self._settled_sums(state)
            ops.gradient_stats_(*state, stack, self._count, settled)
            self._settled = settled
        self._count += samples

    def _settled_sums(self, state: Moments | None = None) -> Tensor:
        """`_settled`, made where it is not there yet."""
        if self._settled is not None:
            return self._settled
        state = state or self._state
        assert state is not None
        with torch.inference_mode(False):
            return state.m2.new_zeros((2, *state.m2.shape))

    def _shape(self) -> list[int]:
        assert self._state is not None
        shape = list(self._state.shift.shape)
        return shape if self._batched else shape[1:]

    def _check_same(self, like: Tensor, batched: bool) -> None:
        """Refuses what does not go with the samples so far; `like` is `[B,C,H,W]`."""
        assert self._state is not None
        mine = self._state.shift
        shape = list(like.shape) if batched else list(like.shape[1:])
        if like.shape != mine.shape or batched != self._batched:
            raise GagFastError(f"samples so far are of shape {self._shape()}, got {shape}")
        if like.device != mine.device:
            raise GagFastError(f"samples so far are on {mine.device}, got one on {like.device}")
        if (like.dtype == torch.float64) != (mine.dtype == torch.float64):
            raise InputTypeError(f"statistics accumulate in {mine.dtype}, got {like.dtype}")

    def _require(self, count: int, what: str) -> Moments:
        if self._state is None or self._count < count:
            raise GagFastError(f"{what} needs at least {count} samples, got count = {self._count}")
        if self._settled is None:
            return self._state
        m2, abssum = self._settled
        return self._state._replace(m2=m2 + self._state.m2, abssum=abssum + self._state.abssum)

    def _hand_back(self, value: Tensor) -> Any:
        value = value if self._batched else value[0]
        return value.numpy() if self._numpy else value
