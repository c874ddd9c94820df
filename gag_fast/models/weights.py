"""Weights from files: read without running code, and put into a module only where they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from gag_fast._errors import first_line
from gag_fast.models.spec import ModelError


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, unwrapped, without "module." prefixes."""
    if not path.is_file():
        raise ModelError(f"weights must be default, none or a file; there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; the first line has the reason
        raise ModelError(f"{path} cannot be read as weights: {first_line(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    return {key.removeprefix("module."): value for key, value in content.items()}


def classes_in(state: Mapping[str, torch.Tensor] | None, head: str, default: int) -> int:
    """The number of classes a state dict was made for."""
    return default if state is None or head not in state else int(state[head].shape[0])


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
