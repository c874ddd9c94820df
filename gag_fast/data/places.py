"""Where in a file a picture lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from gag_fast.images import ImageError


class Span(NamedTuple):
    """Bytes of an archive or of an Arrow file.

    Attributes:
        first: the first one's place in the file.
        size: how many.
    """

    first: int
    size: int


class Cell(NamedTuple):
    """A cell of a Parquet file: binary, or a struct of `bytes` and `path`.

    Attributes:
        column: its name.
        row: counted from 0 through the whole file.
        folder: absolute; a path that stands there instead of bytes lies below it.
    """

    column: str
    row: int
    folder: str


class Fault(NamedTuple):
    """No place: a row of a data set without a picture that could be read.

    Attributes:
        reason: why; the row of the run says it.
    """

    reason: str


Place = Span | Cell | Fault | None
"""None: the whole file."""

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Span, Cell, Fault)}


def place_to_json(place: Place) -> list[Any] | None:
    """The place as a list that JSON can hold."""
    return None if place is None else [type(place).__name__, *place]


def place_from_json(values: list[Any] | None) -> Place:
    """The place of `place_to_json`'s list."""
    return None if values is None else _KINDS[values[0]](*values[1:])


def size_of(place: Place, facts: os.stat_result) -> int | None:
    """Bytes of the picture, as far as they are known before it is read."""
    if isinstance(place, Span):
        return place.size
    return facts.st_size if place is None else None


def below(folder: str, path: str) -> Path:
    """The file that a row names by `path`, relative to `folder` (absolute) or absolute.

    Raises:
        ImageError: it does not lie below the folder; rows of others must not name any file.
    """
    full = os.path.normpath(os.path.join(folder, path))
    if not full.startswith(os.path.join(folder, "")):
        raise ImageError(f"{path}: lies outside of the data set's folder {folder}")
    return Path(full)
