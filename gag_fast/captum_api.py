"""Guided AbsoluteGrad in the shape of a Captum attribution; works with or without Captum."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn

from gag_fast._inputs import describe
from gag_fast.attribution.settings import SAMPLES
from gag_fast.explainer import explain

try:
    from captum.attr import GradientAttribution as _Attribution
except ImportError:

    class _Attribution:  # type: ignore[no-redef]
        """What Captum's base class gives, where Captum is not installed."""

        multiplies_by_inputs = False

        def __init__(self, forward_func: Callable[..., Tensor]) -> None:
            self.forward_func = forward_func

        def has_convergence_delta(self) -> bool:
            """False: there is no approximation whose error could be told."""
            return False


def _wrappable(method: Callable[..., Any]) -> Callable[..., Any]:
    """Captum's NoiseTunnel calls `attribute.__wrapped__`, as its own methods are decorated."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


class _Bound(nn.Module):
    """A forward function with its further arguments, as a module of one input."""

    def __init__(self, forward_func: Callable[..., Tensor], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.forward_func = forward_func  # registered as a part where it is a module
        self.arguments = arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_func(x, *self.arguments)


class GuidedAbsGrad(_Attribution):
    """Guided AbsoluteGrad (Eq. 3.2-3.4) as a `captum.attr.Attribution`.

    Args:
        forward_func: a module, or a function, from images `[N,C,H,W]` to logits `[N,K]`.

    Example:
        attributions = GuidedAbsGrad(model).attribute(inputs, target=3, percentile=85)
    """

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        if not callable(forward_func):
            raise TypeError(f"forward_func must be a module or function, got {forward_func!r}")
        super().__init__(forward_func)

    @_wrappable
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        n_samples: int = SAMPLES,
        stdevs: float | tuple[float, ...] | None = None,
        percentile: float = 85.0,
        n_samples_batch_size: int | None = None,
        seed: int = 0,
    ) -> Any:
        """Guide times absgrad of every input value, raw: not summed, not normalised.

        Args:
            inputs: `[B,C,H,W]`, or a tuple of that one tensor.
            target: class, or one for each example (a list or a tensor `[B]`); None: the predicted
                class, where Captum would take the output as it is.
            additional_forward_args: passed on to the model after the images; no tensors, since what
                to do with them when samples are folded into the batch cannot be known.
            n_samples: noisy copies of each example.
            stdevs: standard deviation of the noise in the inputs' unit, as in Captum's NoiseTunnel;
                None: 0.15 of each example's own range, as in the paper.
            percentile: p of the variance guide, in [0, 100]; 0 is plain AbsoluteGrad.
            n_samples_batch_size: copies of each example in one pass; None: by a memory bound.
            seed: of the noise. All examples meet the same, so a perturbed copy of an example
                differs from it in the perturbation alone.

        Returns:
            Attributions of the shape, and in the tuple, of the inputs.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(given) != 1:
            raise ValueError(f"inputs must be one tensor [B,C,H,W], got a tuple of {len(given)}")
        (images,) = given
        if isinstance(stdevs, tuple):
            if len(stdevs) != 1:
                raise ValueError(f"stdevs must be one number, got a tuple of {len(stdevs)}")
            stdevs = stdevs[0]
        if n_samples_batch_size is not None and n_samples_batch_size < 1:
            raise ValueError(f"n_samples_batch_size must be positive, got {n_samples_batch_size}")
        batch = None if n_samples_batch_size is None else n_samples_batch_size * len(images)
        attributions = explain(
            self._module(additional_forward_args),
            images,
            target,
            method="guided_absgrad",
            n=n_samples,
            stdevs=stdevs,
            p=percentile,
            seed=seed,
            batch_size=batch,
            channels="keep",
        )
        attributions = attributions.to(images.dtype)
        return (attributions,) if isinstance(inputs, tuple) else attributions

    def _module(self, arguments: Any) -> nn.Module:
        if arguments is None and isinstance(self.forward_func, nn.Module):
            return self.forward_func
        if arguments is None:
            arguments = ()
        elif not isinstance(arguments, tuple):
            arguments = (arguments,)
        for argument in arguments:
            if isinstance(argument, Tensor):
                raise TypeError(f"additional_forward_args cannot hold {describe(argument)}")
        return _Bound(self.forward_func, arguments)
