"""The cells of one column of a Parquet file, read row by row.

Of a row group so much is decoded as the rows that are asked for need, and the last KEPT bytes are
kept: a row group of the usual size is read once, whatever the order, one of gigabytes once where
its rows are asked for in their order.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gag_fast._errors import first_line
from gag_fast.data.pictured import holds_bytes
from gag_fast.images import ImageError, regular

BATCH = 8 << 20
"""Bytes that are decoded at a time, by the mean size of a row; one page at least."""

ROWS = 16
"""Rows that are decoded at a time at most: some may be much larger than the mean."""

KEPT = 128 << 20
"""Bytes of decoded rows that stay."""

_BUFFER = 1 << 20


class Column:
    """A column of binary cells, or of structs of `bytes` and perhaps `path`.

    Args:
        path: the Parquet file.
        name: of the column.

    Raises:
        ImageError: the file is no Parquet file now, or has no such column.
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self._identity = _identity(path)
        self._path, self._name = path, name
        # A name that is no UTF-8 is none for pyarrow.
        self._stream = Path(path).open("rb")  # noqa: SIM115 - open as long as this is
        try:
            self._file = pq.ParquetFile(self._stream, buffer_size=_BUFFER, pre_buffer=False)
            kind = self._file.schema_arrow.field(name).type
            facts = self._file.metadata
            counts = [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]
        except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
            self._stream.close()
            raise ImageError(f"{path}: cannot be read: {first_line(error)}") from None
        if not holds_bytes(kind):
            self._stream.close()
            raise ImageError(f"{path}: cannot be read: its column {name} holds {kind}")
        self._starts = [0, *accumulate(counts)]
        self._group = -1
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._kept: deque[tuple[int, pa.Array]] = deque()
        self._next = 0

    def close(self) -> None:
        """Closes the file."""
        self._kept.clear()
        self._stream.close()

    def is_of(self, path: str | os.PathLike[str]) -> bool:
        """Whether this is a column of the file that has the path now."""
        return self._path == path and self._identity == _identity(path)

    def at(self, row: int) -> tuple[bytes | None, str | None]:
        """The bytes of a row, counted through the file; where they are null, its path, if any.

        Raises:
            ImageError: there is no such row, it cannot be read, or it has no bytes.
        """
        try:
            data, name = self._at(row)
        except (MemoryError, pa.ArrowMemoryError):
            self._group = -1
            raise ImageError(f"{self._path}: not enough memory to read row {row}") from None
        except (OSError, ValueError, pa.ArrowException) as error:
            self._group = -1
            if isinstance(error, ImageError):
                raise
            raise ImageError(
                f"{self._path}: row {row} cannot be read: {first_line(error)}"
            ) from None
        if data == b"":
            raise ImageError(f"{self._path}: row {row} is empty (0 bytes)")
        return data, name

    def _at(self, row: int) -> tuple[bytes | None, str | None]:
        if not 0 <= row < self._starts[-1]:
            raise ImageError(f"{self._path}: row {row} is not there, it has {self._starts[-1]}")
        group = bisect_right(self._starts, row) - 1
        offset = row - self._starts[group]
        if group != self._group or (self._kept and offset < self._kept[0][0]):
            self._enter(group)
        while offset >= self._next:
            self._decode(row)
        for first, cells in self._kept:
            if first <= offset < first + len(cells):
                return _values(cells, offset - first)
        raise ImageError(f"{self._path}: row {row} is not there")

    def _enter(self, group: int) -> None:
        """Starts at the first row of a row group."""
        facts = self._file.metadata.row_group(group)
        rows = max(1, min(ROWS, BATCH * facts.num_rows // max(facts.total_byte_size, 1)))
        self._kept.clear()
        self._batches = self._file.iter_batches(
            rows, row_groups=[group], columns=[self._name], use_threads=False
        )
        self._group, self._next = group, 0

    def _decode(self, row: int) -> None:
        """The next rows of the row group; the oldest give way."""
        batch = next(self._batches, None)
        if batch is None:
            raise ImageError(f"{self._path}: row {row} is not there, its row group ends before")
        self._kept.append((self._next, batch.column(0)))
        self._next += batch.num_rows
        while len(self._kept) > 1 and sum(cells.nbytes for _, cells in self._kept) > KEPT:
            self._kept.popleft()


def _identity(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """What tells a file from another that has its path later."""
    facts = regular(path)
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _values(cells: pa.Array, place: int) -> tuple[bytes | None, str | None]:
    fields: dict[str, Any] = {"bytes": cells}
    if pa.types.is_struct(cells.type):
        # Flattened, the fields of a null struct are null.
        fields = dict(zip((field.name for field in cells.type), cells.flatten()))
    data, name = fields["bytes"][place], fields["path"][place] if "path" in fields else None
    if data.is_valid:
        return data.as_py(), None
    if name is None or not name.is_valid:
        return None, None
    return None, os.fsdecode(name.as_buffer().to_pybytes())
