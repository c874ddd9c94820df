"""What a data set is to the rest of the package: a list of files with labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gag_fast._errors import GagFastError
from gag_fast._text import storable
from gag_fast.data.places import Place


class DataError(GagFastError):
    """A data set that cannot be used; one line that says what was found."""


class SkippedError(DataError):
    """An entry that cannot belong to a data set; it is left out, with a note that says why."""


def skipped_notes(reasons: Sequence[str]) -> tuple[str, ...]:
    """The notes on entries that were left out: each of the first few, and how many more."""
    more = (f"and {len(reasons) - 5} entries more are left out",) if len(reasons) > 5 else ()
    return (*(f"left out: {reason}" for reason in reasons[:5]), *more)


@dataclass(frozen=True)
class Item:
    """One image of a data set.

    Attributes:
        image: its name, the path relative to the data set, with "/" between folders; bytes that
            are no UTF-8 become \\x.. escapes, so that it can be stored.
        path: the file.
        target: class index, or None: the class that the classifier predicts.
        mask: file of the object's mask, or None.
        place: of the image in `path`, an archive or a table; None: the file is the image.
        mask_place: likewise of the mask in `mask`.
    """

    image: str
    path: Path
    target: int | None = None
    mask: Path | None = None
    place: Place = None
    mask_place: Place = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", storable(self.image))


@dataclass(frozen=True)
class Dataset:
    """A list of images with labels; nothing is read yet.

    Attributes:
        source: what the user named.
        items: the images, in the order that runs keep; no name occurs twice.
        notes: one line for each thing that a user should know of how the data set was understood.
    """

    source: Path
    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.items:
            raise DataError(f"{self.source}: no images")
        seen: set[str] = set()
        for item in self.items:
            if item.image in seen:
                raise DataError(f"{self.source}: {item.image} is there twice")
            seen.add(item.image)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_masks(self) -> bool:
        """Whether any image has a mask."""
        return any(item.mask is not None for item in self.items)

    def first(self, limit: int | None) -> Dataset:
        """The first `limit` images; all for None."""
        if limit is None or limit >= len(self.items):
            return self
        if limit < 1:
            raise DataError(f"the number of images must be 1 or more, got {limit}")
        return Dataset(self.source, self.items[:limit], self.notes)

    def check_targets(self, num_classes: int) -> None:
        """Raises DataError unless every label is a class of the model."""
        wrong = [
            item
            for item in self.items
            if item.target is not None and not 0 <= item.target < num_classes
        ]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise DataError(
                f"{self.source}: label {wrong[0].target} of {wrong[0].image} is out of range for "
                f"a model of {num_classes} classes (0 to {num_classes - 1}){more}"
            )

    def fingerprint(self) -> str:
        """SHA-256 over names, labels and masks, in order. The pixels have hashes of their own."""
        digest = hashlib.sha256()
        for item in self.items:
            mask = "" if item.mask is None else item.mask.name
            digest.update(f"{item.image}\0{item.target}\0{mask}\n".encode("utf-8", "replace"))
        return digest.hexdigest()
