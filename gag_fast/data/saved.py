"""Folders that `datasets.Dataset.save_to_disk` wrote, and their Arrow files.

    state.json          which files, in which order
    data-*.arrow        the rows: streams of record batches
    dataset_dict.json   of a DatasetDict instead: its splits, a folder each

Nothing is unpacked: a picture is a range of bytes of its Arrow file.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gag_fast._errors import first_line
from gag_fast.data.dataset import DataError, Dataset
from gag_fast.data.pictured import (
    Address,
    Rows,
    beside,
    columns_of,
    dataset_of,
    paths_of,
    rows_of,
    the_split,
)
from gag_fast.data.places import Span
from gag_fast.images import regular

if TYPE_CHECKING:
    import pyarrow as pa

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    if (folder / _SPLITS).is_file():
        return True
    return (folder / _STATE).is_file() and any(folder.glob("*.arrow"))


def files_of(folder: Path) -> list[Path]:
    """The Arrow files of a folder, in the order of their rows; of its split where it has but one.

    Raises:
        DataError: it has several splits, or does not say which files are its own.
    """
    if (folder / _SPLITS).is_file():
        splits = _listed(folder / _SPLITS, lambda said: said["splits"])
        return files_of(folder / the_split(folder, splits))
    named = _listed(
        folder / _STATE, lambda said: [file["filename"] for file in said["_data_files"]]
    )
    return [folder / name for name in named]


def read_saved(
    source: Path,
    files: Sequence[Path],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """The pictures of Arrow files.

    Raises:
        DataError: a file that is no stream of Arrow's, is compressed or without pictures, or a
            label that names no class.
    """
    return dataset_of(source, map(_rows, files), num_classes, labels)


def _listed(path: Path, of: Callable[[Any], Any]) -> list[str]:
    """Names that a file of JSON lists; each of something in the file's own folder."""
    try:
        names = of(json.loads(path.read_text(encoding="utf-8")))
        right = all(name and Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from None
    if not right or not isinstance(names, list):
        raise DataError(f"{path}: must list names of its own folder, got {names!r:.80}")
    return names


def _rows(file: Path) -> Rows:
    import pyarrow as pa

    folder = os.path.abspath(file.parent)
    try:
        regular(file)
        with file.open("rb") as stream:
            whole = pa.py_buffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        schema = pa.ipc.open_stream(whole).schema
        columns = columns_of(file, schema)
        wanted = [i for i, name in enumerate(schema.names) if name in columns.names]
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        table = pa.ipc.open_stream(whole, options=options).read_all()
        table.validate()  # what is read of it below is looked at in full before

        def addresses(name: str) -> list[Address | None]:
            return list(_addresses(file, folder, table.column(name), whole))

        return rows_of(file, folder, columns, table, addresses)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not a stream of Arrow's: {first_line(error)}") from None


def _addresses(
    file: Path, folder: str, column: pa.ChunkedArray, whole: pa.Buffer
) -> Iterator[Address | None]:
    """Where the pictures of a column lie, row by row; None for a null."""
    import pyarrow as pa

    paths = paths_of(column)
    row = 0
    for chunk in column.chunks:
        cells = chunk
        if pa.types.is_struct(chunk.type):
            names = [field.name for field in chunk.type]
            cells = chunk.flatten()[names.index("bytes")]
        cells.validate(full=True)
        for span in _spans(file, cells, whole):
            if span is not None:
                yield Address(file, span)
            elif paths and (path := paths[row]):
                yield beside(file, folder, row, path)
            else:
                yield None
            row += 1


def _spans(file: Path, cells: pa.Array, whole: pa.Buffer) -> Iterator[Span | None]:
    """The bytes of binary cells as ranges of their file; None for a null."""
    import pyarrow as pa

    _, offsets, data = cells.buffers()
    kind = np.int64 if pa.types.is_large_binary(cells.type) else np.int32
    ends = np.zeros(len(cells) + 1, kind)
    if len(cells) and offsets is not None and offsets.size:
        ends = np.frombuffer(offsets, kind, count=cells.offset + len(cells) + 1)[cells.offset :]
    begin = data.address - whole.address if data is not None and data.size else 0
    if begin < 0 or begin + int(ends[-1]) > whole.size:
        raise DataError(
            f"{file}: its columns are compressed, so no picture can be read in place: save it "
            "again by save_to_disk"
        )
    for null, first, end in zip(cells.is_null().to_pylist(), ends[:-1].tolist(), ends[1:].tolist()):
        yield None if null else Span(begin + first, end - first)
