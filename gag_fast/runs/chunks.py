"""The unit of work: a chunk of images, always the same ones for the same data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gag_fast._errors import GagFastError
from gag_fast.data import Dataset, Item

CHUNK = {"cpu": 8, "cuda": 64}
"""Images a chunk: seconds of work, so a killed run loses little; enough to fill a GPU's batches."""

MAX_PARTS = 4096
"""Beyond this many parts the chunks grow: a folder should stay readable in seconds."""


@dataclass(frozen=True)
class Chunk:
    """Some images of a data set, computed together and written as one part.

    Attributes:
        index: number of the chunk, which is also that of its part.
        items: its images, in the order of the data set.
    """

    index: int
    items: tuple[Item, ...]


def chunk_size(images: int, device: str = "cpu", asked: int | None = None) -> int:
    """Images a chunk: `asked`, or CHUNK as long as that makes no more than MAX_PARTS parts."""
    if asked is not None:
        if asked < 1:
            raise GagFastError(f"a chunk must have 1 image or more, got {asked}")
        return asked
    needed = -(-images // MAX_PARTS)
    return max(1, -(-needed // CHUNK[device])) * CHUNK[device]


def cut(dataset: Dataset, size: int, shuffled: int | None = None) -> list[Chunk]:
    """The data set cut into chunks of `size` images, the last perhaps smaller.

    Args:
        dataset: all of it.
        size: images a chunk.
        shuffled: seed of a random order to take the images in; None: in their own.
    """
    items = dataset.items
    if shuffled is not None:
        order = np.random.default_rng(shuffled).permutation(len(items))
        items = tuple(items[k] for k in order)
    return [
        Chunk(number, items[start : start + size])
        for number, start in enumerate(range(0, len(dataset), size))
    ]
