"""Methods of the user's own: functions and attribution classes of Captum, by `package.module:name`
or as they are.

A function gets (model, images `[B,C,H,W]`, targets `[B]`) and returns maps `[B,H,W]`, which stay as
they are, or attributions `[B,C,H,W]`, whose magnitudes are summed over the channels. A class, as
Captum's are, is made of a model and has `attribute(images, target=targets)`, which returns
attributions.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gag_fast._errors import GagFastError, first_line
from gag_fast._inputs import as_numbers, describe
from gag_fast._named import import_named
from gag_fast.attribution.gradients import module_engine
from gag_fast.attribution.source import GradientSource

Function = Callable[[Any, Tensor, Tensor], Any]
Method = str | Callable[..., Any]
"""One of a registered name, one to import by `package.module:name`, or the thing itself."""


def is_own(method: Method) -> bool:
    """Whether a method is something to import, or the thing itself."""
    return not isinstance(method, str) or ":" in method


def name_of(method: Method) -> str:
    """What a method is called, in messages and in what `explain_many` returns."""
    if isinstance(method, str):
        return method
    named = getattr(method, "func", method)  # of functools.partial
    name = getattr(named, "__qualname__", type(named).__qualname__)
    return f"{getattr(named, '__module__', '')}:{name}"


def importable(method: Method) -> str:
    """The name by which a method of the user's own can be had again, in another process too.

    Raises:
        GagFastError: there is none, as for functions within functions.
    """
    name = name_of(method)
    if isinstance(method, str):
        return name
    if "<" in name or import_named(name, "method") is not method:
        raise GagFastError(
            f"a run calls its methods by name, so that it can go on, and {name} is none that gives "
            "this one; put it into a module, as a function or class of its own"
        )
    return name


def function_of(method: Method) -> Function:
    """A method of the user's own as a function of (model, images, targets).

    Raises:
        GagFastError: it cannot be imported or is nothing that explains.
    """
    found = import_named(method, "method") if isinstance(method, str) else method
    name = name_of(method)
    if isinstance(found, type):
        if not callable(getattr(found, "attribute", None)):
            raise GagFastError(
                f"method {name!r} is a class without attribute(images, target=...); "
                "give a function (model, images, targets) -> maps"
            )

        def attribute(model: Any, images: Tensor, targets: Tensor) -> Any:
            given = found(model).attribute(images.requires_grad_(), target=targets)
            return given[0] if isinstance(given, tuple) and len(given) == 1 else given

        return attribute
    if not callable(found):
        raise GagFastError(f"method {name!r} is a {type(found).__name__}, not a function")
    return found


def fingerprint(name: str) -> str:
    """SHA-256 of the source file behind a name: a run goes on only with the same one."""
    found = import_named(name, "method")
    path = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    # Typed into a notebook, it has no file of its own.
    source = Path(path).read_bytes() if path else inspect.getsource(found).encode()
    return hashlib.sha256(source).hexdigest()


def maps_of(
    method: Method, source: GradientSource, images: Tensor, targets: Tensor, score: str
) -> Tensor:
    """What the method gives for all images, in the source's batches.

    Returns:
        `[B,H,W]` or `[B,C,H,W]`, on the images' device.

    Raises:
        RuntimeError: the method failed, or gave something else.
    """
    function, name = function_of(method), name_of(method)
    if score != "logit":
        raise GagFastError(f"{name} decides by itself what it differentiates, got score={score!r}")
    engine = module_engine(source, name)
    step = engine.batch_size(images[0])
    parts = []
    for part, chosen in zip(images.split(step), targets.split(step), strict=True):
        with torch.inference_mode(False), torch.enable_grad():
            try:
                given = function(engine.module, part.clone(), chosen.clone())
            except Exception as error:
                why = f"{type(error).__name__}: {first_line(error)}"
                raise RuntimeError(f"{name} failed: {why}") from error
        parts.append(_checked(name, given, part))
    if len({part.dim() for part in parts}) > 1:
        raise RuntimeError(f"{name} gave maps for some images and attributions for others")
    return torch.cat(parts)


def _checked(name: str, given: Any, images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    try:
        maps = as_numbers(given, "maps").to(images.device)
    except TypeError:
        maps = torch.empty(0)
    fits = maps.dim() in (3, 4) and len(maps) == count and maps.shape[-2:] == images.shape[-2:]
    if not fits:
        raise RuntimeError(
            f"{name} must give maps [{count}, {height}, {width}] or attributions "
            f"[{count}, C, {height}, {width}] for these images, gave {describe(given)}"
        )
    return maps.to(torch.float64 if maps.dtype == torch.float64 else torch.float32)


def finish(given: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `[B,H,W]` of what `maps_of` returns."""
    return given if given.dim() == 3 else given.abs().sum(1)
