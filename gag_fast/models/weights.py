"""Weights from files: read without running code, and put into a module only where they fit."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from gag_fast._errors import first_line
from gag_fast.models.spec import ModelError

_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_forcing = threading.Lock()


@contextmanager
def tensors_only() -> Iterator[None]:
    """`torch.load` unpickles nothing but tensors meanwhile, whatever its callers ask for.

    `torch.export.load` asks for everything once that was refused, and so runs a pickle's code.
    """
    with _forcing:
        before = os.environ.get(_FORCED)
        os.environ[_FORCED] = "1"
        try:
            yield
        finally:
            del os.environ[_FORCED]
            if before is not None:
                os.environ[_FORCED] = before


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, unwrapped, without "module." prefixes."""
    if not path.is_file():
        raise ModelError(f"weights must be default, none or a file; there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch's own words tell how to run what is in the file; that is no advice for here.
        raise ModelError(
            f"{path} cannot be read as weights: it holds more than tensors, or is damaged; save "
            "the module's state_dict() alone"
        ) from None
    except Exception as error:  # torch raises many kinds; the first line has the reason
        raise ModelError(f"{path} cannot be read as weights: {first_line(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    for key, value in content.items():
        if (reason := _odd(value)) is not None:
            raise ModelError(f"{path}: {key} is {reason}, not a plain tensor with its values")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _odd(value: torch.Tensor) -> str | None:
    """What keeps a stored tensor from being plain numbers, None for a plain one.

    One number repeated by a stride of 0 is a few bytes in a file and gigabytes as a layer.
    """
    if value.is_nested:
        return "nested"
    if value.layout != torch.strided:
        return f"of layout {str(value.layout).removeprefix('torch.')}"
    if value.is_meta:
        return "without values (meta)"
    if value.is_quantized:
        return "quantized"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"a view of shape {tuple(value.shape)} that repeats fewer values"
    return None


def classes_in(state: Mapping[str, torch.Tensor] | None, head: str, default: int) -> int:
    """The number of classes a state dict was made for."""
    if state is None or head not in state or state[head].dim() == 0:
        return default
    return int(state[head].shape[0])


def fill_state(module: nn.Module, state: Mapping[str, torch.Tensor], path: str) -> None:
    """Puts a state dict into a module; every tensor must be there and fit. Raises ModelError."""
    own = module.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    # Old files lack BatchNorm's counter, which eval mode never reads.
    problems = [p for p in problems if not p.endswith(".num_batches_tracked is missing")]
    problems += [f"{key} is unknown" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{path} does not fit the model: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(dict(state), strict=False)
