"""What users hand in, turned into what the operators take; refuses the rest in one clear line."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gag_fast._errors import GagFastError, InputTypeError, first_line

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_DTYPE_NAMES = "float32, float64, float16 or bfloat16"
CHANNELS = ("sum", "keep")
Channels = Literal["sum", "keep"]
"""Whether channels are added up, or come back apart and raw."""

Array = npt.NDArray[Any]


class Foreign(Protocol):
    """An array of another library that can be read in place: JAX's, CuPy's, TensorFlow's."""

    def __dlpack__(self) -> Any: ...


# Anything a gradient, or a stack of them, may arrive as.
ArrayLike = Tensor | Array | Foreign


def describe(value: Any) -> str:
    """A value in a few words, for error messages: type, shape and dtype, never the contents."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {list(value.shape)}"
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {list(value.shape)}"
    if isinstance(value, (str, int, float, type(None))):
        return f"{type(value).__name__} {value!r}"
    return f"a {type(value).__name__}"


def adopted(value: Any, name: str) -> Any:
    """A value as it is, or an array of another library as a tensor over the same memory.

    Taken are DLPack (JAX, CuPy, TensorFlow, PyArrow) and CUDA's and NumPy's array interfaces. What
    is computed of them is torch tensors.

    Raises:
        TypeError: the library does not hand the array over; with its reason.
    """
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    try:
        if hasattr(value, "__dlpack__"):
            return _from_dlpack(value)
        if hasattr(value, "__cuda_array_interface__"):
            return torch.as_tensor(value)
        if hasattr(value, "__array_interface__") or hasattr(value, "__array_struct__"):
            return from_array(np.asarray(value), name)
    except (RuntimeError, BufferError, TypeError, ValueError) as error:
        raise InputTypeError(
            f"{name} is {describe(value)} that cannot be read in place ({first_line(error)}): "
            "hand in torch.from_dlpack(...) of it, or a NumPy array"
        ) from None
    return value


_DLPACK_CPU = 1
"""Of DLPack's kinds of device; another's arrays are not to be copied here unasked."""


def _from_dlpack(value: Any) -> Tensor:
    try:
        return torch.from_dlpack(value)
    except (RuntimeError, BufferError, TypeError):
        # A read-only array is only read here, but has to be said to be so.
        on_cpu = value.__dlpack_device__()[0] == _DLPACK_CPU
        if not on_cpu or not hasattr(value, "__array__"):
            raise
        return from_array(np.asarray(value), "the array")


def from_array(value: np.ndarray, name: str) -> Tensor:
    """An array of numbers as a tensor over the same memory, copied where torch cannot view it."""
    if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        raise InputTypeError(f"{name} must be {_DTYPE_NAMES}, got {describe(value)}")
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    # The step of an axis of length 1 is never taken, but torch refuses a negative one.
    steps = [step if size > 1 else value.itemsize for step, size in zip(value.strides, value.shape)]
    if any(step < 0 or step % value.itemsize for step in steps):
        value = np.ascontiguousarray(value)
    elif steps != list(value.strides):
        value = np.lib.stride_tricks.as_strided(value, strides=steps)
    with warnings.catch_warnings():  # a read-only array is only read here
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(value)


def as_gradient(value: Any, name: str) -> Tensor:
    """A tensor or array of gradients as a detached strided tensor on the CPU or a CUDA device.

    Raises:
        TypeError: not a tensor or array, or not of a floating dtype the operators know.
        ValueError: an empty axis, or a device other than CPU and CUDA.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InputTypeError(f"{name} is a masked array: its mask would be lost; fill it first")
    given = value = adopted(value, name)
    if isinstance(value, np.ndarray):
        value = from_array(value, name)
    if not isinstance(value, Tensor):
        raise InputTypeError(
            f"{name} must be a torch tensor or a NumPy array, got {describe(value)}"
        )
    if value.dtype not in DTYPES:
        raise InputTypeError(f"{name} must be {_DTYPE_NAMES}, got {describe(given)}")
    if value.is_nested or type(value).__name__ == "MaskedTensor":
        raise InputTypeError(f"{name} must be a dense tensor, got a {type(value).__name__}")
    if value.layout != torch.strided:
        raise InputTypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    if not (value.is_cpu or value.is_cuda):
        raise GagFastError(f"{name} must be on the CPU or a CUDA device, got {value.device}")
    if value.is_cuda and not _has_cuda_kernels():
        raise GagFastError(
            f"{name} is on {value.device}, but this build of gag_fast has no CUDA kernels loaded: "
            'gag_fast.build_info()["cuda_library"] says why'
        )
    if value.numel() == 0:
        raise GagFastError(f"{name} has an empty axis: shape {list(value.shape)}")
    return value.detach() if value.requires_grad else value


def _has_cuda_kernels() -> bool:
    # While torch.compile traces, torch's own dispatcher would say so soon enough.
    return torch.compiler.is_compiling() or torch._C._dispatch_has_kernel_for_dispatch_key(
        "gag_fast::guided_absgrad", "CUDA"
    )


def as_stack(value: ArrayLike) -> tuple[Tensor, bool]:
    """A gradient stack `[n,C,H,W]` or `[B,n,C,H,W]` as `[B,n,C,H,W]`, and whether it had the B."""
    stack = as_gradient(value, "grads")
    if stack.dim() == 4:
        return stack.unsqueeze(0), False
    if stack.dim() == 5:
        return stack, True
    raise GagFastError(
        f"grads must be [n,C,H,W] or [B,n,C,H,W], got {stack.dim()} dimensions: "
        f"shape {list(stack.shape)}"
    )


def as_sample(value: ArrayLike, name: str = "grad") -> tuple[Tensor, bool]:
    """One gradient `[C,H,W]` or `[B,C,H,W]` as `[B,C,H,W]`, and whether it had the B."""
    sample = as_gradient(value, name)
    if sample.dim() == 3:
        return sample.unsqueeze(0), False
    if sample.dim() == 4:
        return sample, True
    raise GagFastError(
        f"{name} must be [C,H,W] or [B,C,H,W], got {sample.dim()} dimensions: "
        f"shape {list(sample.shape)}"
    )


def as_numbers(value: Any, name: str) -> Tensor:
    """A tensor, an array or a list of numbers as a detached tensor, whatever its dtype."""
    value = adopted(value, name)
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return from_array(value, name)
    if isinstance(value, (int, float, np.number, list, tuple)):
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError):
            pass
    raise InputTypeError(f"{name} must be a torch tensor or a NumPy array, got {describe(value)}")


def as_images(value: Any) -> Tensor:
    """Images `[B,C,H,W]`, floating point and detached, wherever they lie."""
    value = adopted(value, "images")
    if isinstance(value, np.ndarray):
        value = from_array(value, "images")
    if not isinstance(value, Tensor):
        raise InputTypeError(
            f"images must be a torch tensor or a NumPy array, got {describe(value)}"
        )
    if not value.is_floating_point():
        raise InputTypeError(
            f"images must be floating point, normalised for the model, got {describe(value)}"
        )
    if value.dim() != 4 or 0 in value.shape:
        raise GagFastError(f"images must be [B,C,H,W] with no empty axis, got {describe(value)}")
    return value.detach()


def as_targets(value: Any, count: int, classes: int) -> Tensor:
    """Classes of `count` images, int64 `[count]`: one for each, or a single number for all."""
    given = as_numbers(value, "targets")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise InputTypeError(f"targets must be integers, got {describe(value)}")
    if given.dim() == 0:
        given = given.expand(count)
    if list(given.shape) != [count]:
        raise GagFastError(
            f"targets must be one class, or [{count}] for {count} images, got {list(given.shape)}"
        )
    low, high = (int(v) for v in given.aminmax())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise GagFastError(f"target {wrong} is not one of the model's {classes} classes (from 0)")
    return given.long()


def _as_percent(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(
        value, (int, float, np.integer, np.floating)
    ):
        raise InputTypeError(
            f"p must be a percent in [0, 100] or a sequence of them, got {value!r}"
        )
    percent = float(value)
    if math.isnan(percent) or not 0.0 <= percent <= 100.0:
        raise GagFastError(f"p must lie in [0, 100], got {value!r}")
    doubt_share(percent)
    return percent


def doubt_share(percent: float) -> None:
    """Warns of a percent that looks like a share: it is legal, but rarely what was meant."""
    if 0 < percent < 1:
        warnings.warn(
            f"p is a percent, and {percent:g} of it is next to none; "
            f"was p = {100 * percent:g} meant?",
            stacklevel=2,
        )


def doubt_size(sample: Tensor) -> None:
    """Warns of gradients `[B,C,H,W]` so small that their variances, and so the percentile, are 0.

    It looks at one value of an image, and at some thousands only where that one is small; on the
    CPU alone, since a GPU would have to be waited for.
    """
    if not sample.is_cpu or torch.compiler.is_compiling():
        return
    accumulator = torch.float64 if sample.dtype == torch.float64 else torch.float32
    least = math.sqrt(torch.finfo(accumulator).tiny)
    height, width = sample.shape[2:]
    try:
        if all(abs(value) >= least for value in sample[:, 0, height // 2, width // 2].tolist()):
            return
        grid = sample[:, :, :: max(1, height // 64), :: max(1, width // 64)]
        largest = grid.abs().amax((1, 2, 3)).tolist()
    except RuntimeError:  # traced, or mapped over by vmap: there are no numbers to look at
        return
    small = [value for value in largest if 0 < value < least]
    if small:
        warnings.warn(
            f"gradients of {small[0]:.0e} have variances that underflow to 0: p damps none of "
            "their pixels; hand them in as float64, or multiplied by a power of two",
            stacklevel=4,
        )


def as_percents(p: Any) -> tuple[list[float], bool]:
    """p as a list of floats, and whether it was a single number."""
    # Nearly always; the checks below take longer.
    if type(p) in (int, float) and (1 <= p <= 100 or p == 0):
        return [float(p)], True
    if isinstance(p, (np.ndarray, Tensor)):
        p = p.tolist()
    if isinstance(p, (str, bytes)) or not isinstance(p, Sequence):
        return [_as_percent(p)], True
    if len(p) == 0:
        raise GagFastError("p must hold at least one percent, got an empty sequence")
    return [_as_percent(value) for value in p], False


def check_samples(n: int, percents: Sequence[float], what: str = "n") -> None:
    """A variance needs two samples; only p = 0 does without one."""
    if n < 1:
        raise GagFastError(f"at least one gradient is needed, got {what} = {n}")
    if n < 2 and any(p != 0.0 for p in percents):
        worst = next(p for p in percents if p != 0.0)
        raise GagFastError(
            f"p = {worst:g} needs the variance of at least 2 gradients, got {what} = {n}; "
            "with one gradient only p = 0 is defined"
        )


def check_channels(channels: Any) -> bool:
    """Whether channels are kept apart: `channels="keep"` rather than `"sum"`."""
    if channels not in CHANNELS:
        raise GagFastError(f'channels must be "sum" or "keep", got {channels!r}')
    return channels == "keep"
