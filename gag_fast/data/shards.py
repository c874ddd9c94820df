"""Parquet files whose rows hold the pictures, one or a folder of shards as the Hub lays them out.

    data/validation-00000-of-00014.parquet    the split `validation`, with 13 more

Nothing is unpacked, and of the pictures nothing is read before their turn: a picture is a cell.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gag_fast._errors import first_line
from gag_fast.data.dataset import DataError, Dataset
from gag_fast.data.pictured import (
    Address,
    Rows,
    columns_of,
    dataset_of,
    has_paths,
    has_pictures,
    holds_bytes,
    rows_of,
    the_split,
)
from gag_fast.data.places import Cell

_SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]+)?$")
_NUMBER = re.compile(r"(^|[-_.])\d+$")


def shards_in(folder: Path) -> list[Path]:
    """The Parquet files with pictures of a folder, or of its folder `data`; empty: it has none."""
    for place in (folder, folder / "data"):
        found = sorted(place.glob("*.parquet")) if place.is_dir() else []
        files = [file for file in found if file.is_file()]
        if any(holds_pictures(file) for file in files):
            return files
    return []


def holds_pictures(path: Path) -> bool:
    """Whether a Parquet file has a column of pictures; one that cannot be read, by its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as stream:
            return has_pictures(pq.read_schema(stream))
    except (OSError, ValueError, MemoryError, pa.ArrowException):
        return _SHARD.search(path.stem) is not None


def splits_of(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files by what their names say without the number of the shard."""
    found: dict[str, list[Path]] = {}
    for file in files:
        name = _SHARD.sub("", file.stem)
        found.setdefault(_NUMBER.sub("", name) if name == file.stem else name, []).append(file)
    return found


def files_of(folder: Path, files: Sequence[Path]) -> list[Path]:
    """The files of a folder's only split.

    Raises:
        DataError: it has several.
    """
    splits = splits_of(files)
    return splits[the_split(folder, list(splits))]


def read_shards(
    source: Path,
    files: Sequence[Path],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """The pictures of Parquet files.

    Raises:
        DataError: a file that is no Parquet file, without pictures, or a label that names no class.
    """
    folder = os.path.abspath(source if source.is_dir() else files[0].parent)
    return dataset_of(source, (_rows(file, folder) for file in files), num_classes, labels)


def _rows(file: Path, folder: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as stream:  # a name that is no UTF-8 is none for pyarrow
            parquet = pq.ParquetFile(stream, pre_buffer=False)
            schema, count = parquet.schema_arrow, parquet.metadata.num_rows
            columns = columns_of(file, schema)
            wanted = [
                f"{field.name}.path" if has_paths(field.type) else field.name
                for field in schema
                if field.name in columns.names
                and (has_paths(field.type) or not holds_bytes(field.type))
            ]
            if count > os.fstat(stream.fileno()).st_size:  # before memory is asked for by it
                raise DataError(f"{file}: not a Parquet file of pictures: it says {count:,} rows")
            table = parquet.read(columns=wanted, use_threads=False)
            if wanted and table.num_rows != count:
                raise DataError(f"{file}: not a Parquet file: {table.num_rows:,} rows of {count:,}")

            def addresses(name: str) -> list[Address | None]:
                null = [False] * count
                if name in table.column_names:
                    null = table.column(name).is_null().to_pylist()
                return [
                    None if null[row] else Address(file, Cell(name, row, folder))
                    for row in range(count)
                ]

            return rows_of(file, folder, columns, table, addresses)
    except (OSError, ValueError, KeyError, MemoryError, pa.ArrowException) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file}: not a Parquet file: {first_line(error)}") from None
