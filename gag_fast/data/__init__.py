"""Data sets: folders, tables; what is in them, not the pixels.

open_dataset("val/")         a folder, with a sub-folder for each class or none
open_dataset("labels.csv")   a table of paths, labels and masks (CSV, TSV, Parquet)
open_dataset("shard-0.tar")  a WebDataset archive; a folder may hold many
open_dataset("0.parquet")    a table of pictures, Parquet or Arrow; a folder may hold many
open_dataset("saved/test")   a split of a folder of such tables, as `datasets` and the Hub have them
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gag_fast.data import saved, shards
from gag_fast.data.archive import read_archives
from gag_fast.data.classes import class_of, label_index
from gag_fast.data.dataset import DataError, Dataset, Item, skipped_notes
from gag_fast.data.folder import read_folder
from gag_fast.data.reading import PlaceReader
from gag_fast.data.table import read_table

__all__ = ["DataError", "Dataset", "Item", "PlaceReader", "class_of", "label_index", "open_dataset"]

_TABLES = (".csv", ".tsv", ".tab", ".parquet")


def open_dataset(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Lists the images of a data set.

    Args:
        path: a folder of images, of .tar or .parquet shards, or that `datasets` saved; a table
            (.csv, .tsv, .parquet, .arrow), or a .tar.
        num_classes: K of the model; labels are checked against it.
        labels: the model's K class names, so that labels may be names.

    Raises:
        DataError: nothing there, no images, labels that do not fit the model.
    """
    path = Path(path)
    if path.is_dir():
        dataset = _of_folder(path, num_classes, labels)
    elif not path.exists():
        dataset = _of_split(path, num_classes, labels)
    elif not path.is_file():
        raise DataError(f"{path}: is neither a folder nor a regular file")
    else:
        dataset = _of_file(path, num_classes, labels)
    if num_classes is not None:
        dataset.check_targets(num_classes)
    return dataset


def _of_folder(path: Path, num_classes: int | None, labels: Sequence[str] | None) -> Dataset:
    if saved.is_saved(path):
        return saved.read_saved(path, saved.files_of(path), num_classes, labels)
    # Regular files only: opening a pipe would block, and a folder holds no archive to read.
    named = sorted(path.glob("*.tar"))
    if archives := [file for file in named if file.is_file()]:
        dataset = read_archives(path, archives, num_classes, labels)
    elif files := shards.shards_in(path):
        dataset = shards.read_shards(path, shards.files_of(path, files), num_classes, labels)
    else:
        dataset = read_folder(path, num_classes, labels)
    others = [f"{file.name} is no file" for file in named if not file.is_file()]
    return replace(dataset, notes=(*dataset.notes, *skipped_notes(others)))


def _of_split(path: Path, num_classes: int | None, labels: Sequence[str] | None) -> Dataset:
    """FOLDER/validation, of a folder whose shards have their split in their names."""
    files = shards.splits_of(shards.shards_in(path.parent)).get(path.name)
    if not files:
        raise DataError(f"{path}: no such file or folder")
    return shards.read_shards(path, files, num_classes, labels)


def _of_file(path: Path, num_classes: int | None, labels: Sequence[str] | None) -> Dataset:
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return read_archives(path, [path], num_classes, labels)
    if suffix == ".arrow":
        return saved.read_saved(path, [path], num_classes, labels)
    if suffix == ".parquet" and shards.holds_pictures(path):
        return shards.read_shards(path, [path], num_classes, labels)
    if suffix in _TABLES:
        return read_table(path, num_classes, labels)
    raise DataError(
        f"{path}: data must be a folder of images, a table ({', '.join(_TABLES)}, .arrow) or a .tar"
    )
