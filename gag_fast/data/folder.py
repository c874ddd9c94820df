"""Folders of images, with or without a sub-folder for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gag_fast.data.classes import named_classes
from gag_fast.data.dataset import DataError, Dataset, Item
from gag_fast.images import SUFFIXES


def read_folder(
    root: Path, num_classes: int | None = None, labels: Sequence[str] | None = None
) -> Dataset:
    """The images of a folder.

    With sub-folders that hold images (ImageFolder) each is a class; see `named_classes` for
    which. Without sub-folders the images have no labels, and the class that the classifier predicts
    is explained. Here the suffix decides what is a picture; when a file is read, its content does.
    """
    classes = {
        folder.name: files
        for folder in sorted(root.iterdir())
        if folder.is_dir()
        and not folder.name.startswith(".")
        and (files := _images_below(folder, _identity(root)))
    }
    loose = sorted(f for f in root.iterdir() if _is_image(f))
    if not classes:
        if not loose:
            raise DataError(f"{root}: no images ({', '.join(sorted(SUFFIXES)[:6])}, …) in it")
        tables = sorted(f.name for f in root.iterdir() if f.suffix in (".csv", ".tsv", ".parquet"))
        notes: tuple[str, ...] = (
            "no class folders: the class that the classifier predicts is explained",
        )
        if tables:
            notes += (f"for labels from {tables[0]}, give {root / tables[0]} as the data",)
        return Dataset(root, tuple(Item(f.name, f) for f in loose), notes)
    index, notes = named_classes(sorted(classes), num_classes, labels)
    if loose:
        notes = (*notes, f"{len(loose)} images beside the class folders are left out")
    items = tuple(
        Item(file.relative_to(root).as_posix(), file, index[name])
        for name, files in classes.items()
        for file in files
    )
    return Dataset(root, items, notes)


def _images_below(folder: Path, root: tuple[int, int]) -> list[Path]:
    """Pictures at any depth.

    Links are followed, but no folder is entered twice, as links may form circles.
    """
    found = []
    seen = {root}
    for parent, folders, files in os.walk(folder, followlinks=True):
        here = _identity(parent)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found += [f for name in files if _is_image(f := Path(parent) / name)]
    return sorted(found)


def _identity(folder: str | Path) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
