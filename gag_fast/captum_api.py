"""Guided AbsoluteGrad in the shape of a Captum attribution; works with or without Captum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast._errors import GagFastError, InputTypeError
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
    """A forward function with its further arguments, as a module of one input and flat outputs.

    Args:
        forward_func: from images and the arguments to outputs `[N,K]` or `[N,d1,d2,...]`.
        arguments: passed on; of a tensor `[1,...]` a copy for each image.
    """

    def __init__(self, forward_func: Callable[..., Tensor], arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.forward_func = forward_func  # registered as a part where it is a module
        self.arguments = arguments

    def outputs(self, x: Tensor) -> Any:
        """What the function returns."""
        given = (
            argument.expand(len(x), *argument.shape[1:]) if _of_examples(argument) else argument
            for argument in self.arguments
        )
        return self.forward_func(x, *given)

    def forward(self, x: Tensor) -> Any:
        found = self.outputs(x)
        return found.flatten(1) if isinstance(found, Tensor) and found.dim() > 2 else found


def _of_examples(argument: Any) -> bool:
    """Whether an argument has an entry for each example, as Captum sees every tensor."""
    return isinstance(argument, Tensor) and argument.dim() > 0


class GuidedAbsGrad(_Attribution):
    """Guided AbsoluteGrad (Eq. 3.2-3.4) as a `captum.attr.Attribution`.

    Args:
        forward_func: a module, or a function, from images `[N,C,H,W]` to logits `[N,K]`.

    Example:
        attributions = GuidedAbsGrad(model).attribute(inputs, target=3, percentile=85)
    """

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        if not callable(forward_func):
            raise InputTypeError(f"forward_func must be a module or function, got {forward_func!r}")
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
            target: class, or one for each example (a list or a tensor `[B]`); for outputs
                `[N,d1,d2,...]` a tuple of indexes, or a list of a tuple for each example. None: the
                predicted class, where Captum would take the output as it is.
            additional_forward_args: passed on to the model after the images, each noisy copy with
                its example's entry of the tensors `[B,...]` among them. With such tensors the
                examples are explained one after another.
            n_samples: noisy copies of each example.
            stdevs: standard deviation of the noise in the inputs' unit, as in Captum's NoiseTunnel;
                None: 0.15 of each example's own range, as in the paper.
            percentile: p of the variance guide, in [0, 100]; 0 is plain AbsoluteGrad.
            n_samples_batch_size: copies of each example in one pass; None: by a memory bound.
            seed: of the noise. All examples meet the same, so a perturbed copy of an example
                differs from it in the perturbation alone.

        Returns:
            Attributions of the shape, and in the tuple, of the inputs.

        Raises:
            TypeError, ValueError: one line that names what was received.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(given) != 1:
            raise GagFastError(f"inputs must be one tensor [B,C,H,W], got a tuple of {len(given)}")
        (images,) = given
        if isinstance(stdevs, tuple):
            if len(stdevs) != 1:
                raise GagFastError(f"stdevs must be one number, got a tuple of {len(stdevs)}")
            stdevs = stdevs[0]
        if n_samples_batch_size is not None and n_samples_batch_size < 1:
            raise GagFastError(f"n_samples_batch_size must be positive, got {n_samples_batch_size}")
        parts = []
        for rows, module in self._modules(images, additional_forward_args):
            some = images[rows]
            batch = None if n_samples_batch_size is None else n_samples_batch_size * len(some)
            parts.append(
                explain(
                    module,
                    some,
                    _classes(_target_of(target, rows, len(images)), module, some),
                    method="guided_absgrad",
                    n=n_samples,
                    stdevs=stdevs,
                    p=percentile,
                    seed=seed,
                    batch_size=batch,
                    channels="keep",
                )
            )
        attributions = torch.cat(parts).to(images.dtype)
        return (attributions,) if isinstance(inputs, tuple) else attributions

    def _modules(self, images: Tensor, arguments: Any) -> Iterator[tuple[slice, nn.Module]]:
        """Which examples go together, and the module of one input that explains them."""
        if arguments is None:
            arguments = ()
        elif not isinstance(arguments, tuple):
            arguments = (arguments,)
        count = len(images)
        for argument in arguments:
            if _of_examples(argument) and len(argument) != count:
                raise GagFastError(
                    f"tensors among additional_forward_args must have an entry for each of {count} "
                    f"examples, got {describe(argument)}; bind a constant into forward_func"
                )
        if not any(map(_of_examples, arguments)):
            yield slice(0, count), _Bound(self.forward_func, arguments)
            return
        for i in range(count):
            own = tuple(a.detach()[i : i + 1] if _of_examples(a) else a for a in arguments)
            yield slice(i, i + 1), _Bound(self.forward_func, own)


def _target_of(target: Any, rows: slice, count: int) -> Any:
    """The targets of some of the examples."""
    if isinstance(target, list) and len(target) == count:
        return target[rows]
    if isinstance(target, Tensor) and target.dim() == 1 and len(target) == count:
        return target[rows]
    return target


def _classes(target: Any, module: nn.Module, images: Tensor) -> Any:
    """Targets as classes of the flat outputs: those that are tuples of indexes are raveled."""
    tuples = [target] if isinstance(target, tuple) else target
    if not (isinstance(tuples, list) and any(isinstance(one, tuple) for one in tuples)):
        return target
    with torch.no_grad():
        shape = tuple(module.outputs(images[:1]).shape[1:])  # type: ignore[operator]
    found = []
    for one in tuples:
        indexes = one if isinstance(one, tuple) else (one,)
        fits = len(indexes) == len(shape) and all(
            isinstance(i, (int, np.integer)) and 0 <= i < size for i, size in zip(indexes, shape)
        )
        if not fits:
            raise GagFastError(f"target {one!r} is no index of the outputs {['N', *shape]}")
        found.append(int(np.ravel_multi_index(indexes, shape)))
    return found[0] if isinstance(target, tuple) else found
