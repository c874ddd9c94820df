"""The base of this package's errors, and the one line that an error of others is told in.

Imports nothing: the processes that decode images start quickly and stay small.
"""

from __future__ import annotations


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
