"""Text that comes from others (names of files, labels, messages) made fit to be shown and stored.

Imports nothing of the package: the processes that decode images start quickly and stay small.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def one_line(text: object) -> str:
    r"""The text as one line that a terminal shows and does not obey.

    Line breaks, escape sequences, marks that turn the direction of writing and bytes that are no
    UTF-8 appear as they are written in Python: \n, \x1b, \u202e, \xff.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte of a file's name
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that may have been meant by another; None where none is near."""
    near = difflib.get_close_matches(str(name), list(known), 1)
    return near[0] if near and near[0] != name else None


def meant(name: object, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with the nearest of the known names, or nothing where none is near."""
    near = nearest(name, known)
    return "" if near is None else f"; did you mean {near}?"


def storable(text: str) -> str:
    r"""The text as UTF-8 can hold it: bytes of a file's name that are none become \x.. escapes."""
    try:
        return os.fsencode(text).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
