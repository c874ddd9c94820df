"""The bytes of a picture, wherever it lies.

Imports no torch, and pyarrow only where a cell is read: the processes that decode start quickly.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gag_fast.data.places import Cell, Fault, Place, below
from gag_fast.images import ImageError, read_bytes

if TYPE_CHECKING:
    from gag_fast.data.cells import Column


class NullError(ImageError):
    """A null where a picture could be: of an image it is a fault, of a mask it is none."""


class PlaceReader:
    """Reads pictures from their places; of Parquet files it keeps what it read last."""

    def __init__(self) -> None:
        self._columns: dict[str, Column] = {}

    def __enter__(self) -> PlaceReader:
        return self

    def __exit__(self, *_: object) -> None:
        for column in self._columns.values():
            column.close()
        self._columns.clear()

    def read(self, path: str | os.PathLike[str], place: Place) -> bytes | Path:
        """The picture's bytes, or the file that its row names instead.

        Raises:
            NullError: the cell is a null.
            ImageError: it cannot be read; with the file and the reason.
        """
        if isinstance(place, Fault):
            raise ImageError(f"{path}: {place.reason}")
        if not isinstance(place, Cell):
            return read_bytes(path, place)
        data, name = self._column(path, place.column).at(place.row)
        if data is not None:
            return data
        if not name:
            raise NullError(f"{path}: row {place.row} has no picture")
        return below(place.folder, name)

    def _column(self, path: str | os.PathLike[str], name: str) -> Column:
        """By name: images and masks are read in turn."""
        from gag_fast.data.cells import Column

        column = self._columns.get(name)
        if column is None or not column.is_of(path):
            if column is not None:
                self._columns.pop(name).close()
            column = self._columns[name] = Column(path, name)
        return column
