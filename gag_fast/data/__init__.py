"""Data sets: folders, tables; what is in them, not the pixels.

open_dataset("val/")         a folder, with a sub-folder for each class or none
open_dataset("labels.csv")   a table of paths, labels and masks (CSV, TSV, Parquet)
open_dataset("shard-0.tar")  a WebDataset archive; a folder may hold many
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gag_fast.data.archive import read_archives
from gag_fast.data.classes import class_of, label_index
from gag_fast.data.dataset import DataError, Dataset, Item, skipped_notes
from gag_fast.data.folder import read_folder
from gag_fast.data.table import read_table

__all__ = ["DataError", "Dataset", "Item", "class_of", "label_index", "open_dataset"]

_TABLES = (".csv", ".tsv", ".tab", ".parquet")


def open_dataset(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """Lists the images of a data set.

    Args:
        path: a folder of images or of .tar shards, a table (.csv, .tsv, .parquet), or a .tar.
        num_classes: K of the model; labels are checked against it.
        labels: the model's K class names, so that labels may be names.

    Raises:
        DataError: nothing there, no images, labels that do not fit the model.
    """
    path = Path(path)
    if path.is_dir():
        # Regular files only: opening a pipe would block, and a folder holds no archive to read.
        named = sorted(path.glob("*.tar"))
        shards = [shard for shard in named if shard.is_file()]
        if shards:
            dataset = read_archives(path, shards, num_classes, labels)
        else:
            dataset = read_folder(path, num_classes, labels)
        others = [f"{name.name} is no file" for name in named if not name.is_file()]
        dataset = replace(dataset, notes=(*dataset.notes, *skipped_notes(others)))
    elif not path.exists():
        raise DataError(f"{path}: no such file or folder")
    elif not path.is_file():
        raise DataError(f"{path}: is neither a folder nor a regular file")
    elif path.suffix.lower() == ".tar":
        dataset = read_archives(path, [path], num_classes, labels)
    elif path.suffix.lower() in _TABLES:
        dataset = read_table(path, num_classes, labels)
    else:
        raise DataError(
            f"{path}: data must be a folder of images, a table ({', '.join(_TABLES)}) or a .tar"
        )
    if num_classes is not None:
        dataset.check_targets(num_classes)
    return dataset
