"""The base of this package's errors, and the one line that an error of others is told in.

Imports nothing of the package, and little else: the processes that decode images start quickly and
stay small.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class GagFastError(ValueError):
    """Something asked of gag_fast that cannot be done; one line that names what was received."""


class InputTypeError(GagFastError, TypeError):
    """An argument of the wrong type or dtype."""


class ClassifierError(GagFastError):
    """A classifier that cannot be loaded or used as asked; one line with the reason."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something; its kind where none does."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


class OutOfMemoryError(GagFastError, MemoryError, RuntimeError):
    """The system or the device gave no memory; a RuntimeError too, as torch's own is."""


_OF_MEMORY = re.compile(
    r"not enough memory|can't allocate memory|out of memory|failed to allocate|unable to allocate"
    r"|bad[ _]alloc|ALLOC_FAILED|storage size calculation overflowed"
    r'|"aten::(new_)?empty.*API call failed',  # all that torch 2.10 says of an allocation
    re.IGNORECASE,
)


def memory_fault(error: BaseException) -> OutOfMemoryError | None:
    """The error in one line where it says that there was no memory, whoever raised it; else None.

    NumPy raises MemoryError, torch RuntimeError (on the CPU by its words alone), ONNX Runtime what
    derives from Exception alone. Errors of this package are left as they are.
    """
    if isinstance(error, GagFastError) or not isinstance(error, Exception):
        return None
    foreign = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    if not isinstance(error, MemoryError) and not (foreign and _OF_MEMORY.search(str(error))):
        return None
    said = first_line(error)
    return OutOfMemoryError(
        f"out of memory{'' if said == 'MemoryError' else f': {said}'}; smaller batches, or fewer "
        "images at a time, need less"
    )


def within_memory(door: Callable[P, R]) -> Callable[P, R]:
    """A function of the package whose callers learn in one line that memory was not to be had."""

    @functools.wraps(door)
    def opened(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return door(*args, **kwargs)
        except Exception as error:
            fault = memory_fault(error)
            if fault is None:
                raise
            raise fault from error

    return opened
