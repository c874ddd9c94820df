"""Guided backpropagation (Springenberg et al. 2015): only positive gradients pass a rectifier.

The rule `max(0, f'(x) * g)` is put in front of every rectifier while the forward pass runs: ReLU,
ReLU6 and other clamps that start at 0, leaky, parametric and randomised ReLU, and threshold, be
they modules or plain function calls, in place or not. Smooth activations (SiLU, GELU, ELU) are no
rectifiers and keep their gradient, so a network of only those gives vanilla gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Names of the torch functions; the in-place ones end in "_".
_RECTIFIERS = {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "threshold", "_threshold"}
# Rectifiers where their lower bound is 0: its place and name among the arguments.
_CLAMPS = {"hardtanh": "min_val", "clamp": "min", "clip": "min", "clamp_min": "min"}


class Rectifiers(TorchFunctionMode):
    """While on, puts guided backpropagation's rule in front of every rectifier that is called.

    Attributes:
        met: number of rectifiers that the rule was put in front of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch instead of each of its functions."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if not _is_rectifier(name.removesuffix("_"), args, kwargs):
            return func(*args, **kwargs)
        self.met += 1
        x, *rest = args if args else [kwargs.pop("input")]
        in_place = name.endswith("_") or bool(kwargs.pop("inplace", False))
        if name.endswith("_"):
            func = getattr(F, name[:-1], None) or getattr(torch, name[:-1])
        result = func(_OnlyPositive.apply(x, in_place), *rest, **kwargs)
        return x.copy_(result) if in_place else result


class _OnlyPositive(torch.autograd.Function):
    """Identity whose gradient is cut at zero from below."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, private: bool) -> Tensor:
        # An in-place rectifier is about to overwrite x, which a view would share.
        return x.clone() if private else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.clamp(min=0), None


def _is_rectifier(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or not x.requires_grad:
        return False
    if name in _CLAMPS:
        bound = args[1] if len(args) > 1 else kwargs.get(_CLAMPS[name])
        return isinstance(bound, (int, float)) and bound == 0
    return name in _RECTIFIERS
