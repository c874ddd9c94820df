"""What of a run is still to be done: the parts on disk against the images on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gag_fast.data import Item, PlaceReader
from gag_fast.data.places import Place, size_of
from gag_fast.images import ImageError
from gag_fast.runs.chunks import Chunk
from gag_fast.runs.folder import RunFolder
from gag_fast.runs.rows import FAILED

_COLUMNS = [
    *("image", "method", "status", "error"),
    *("image_sha256", "image_bytes", "image_mtime_ns"),
    *("mask_sha256", "mask_bytes", "mask_mtime_ns"),
]


@dataclass
class Todo:
    """The state of a run folder.

    Attributes:
        chunks: those to compute.
        done: images of the others.
        failures: image -> reason, of the others.
        changed: images whose file, or whose mask's, is another than the one their rows were
            computed from; their chunks are to compute again.
        gone: images whose rows are there and whose file no longer is.
        broken: parts that cannot be read, or hold other rows; likewise to compute again.
        foreign: parts whose numbers are none of the plan's.
    """

    chunks: list[Chunk] = field(default_factory=list)
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)


def find_todo(
    folder: RunFolder,
    chunks: Sequence[Chunk],
    methods: Sequence[str],
    settings_hash: str,
    retry_failed: bool = False,
) -> Todo:
    """Compares a run's chunks with what a folder holds.

    Args:
        folder: the run.
        chunks: all of the run's.
        methods: every image needs a row for each.
        settings_hash: of the manifest; parts of another are not counted.
        retry_failed: chunks with failed rows are to be computed again.
    """
    todo = Todo()
    parts = folder.parts()
    planned = {chunk.index for chunk in chunks}
    todo.foreign = [path for index, path in parts.items() if index not in planned]
    with PlaceReader() as reader:
        for chunk in chunks:
            path = parts.get(chunk.index)
            if path is None:
                todo.chunks.append(chunk)
                continue
            table = folder.read_part(path, settings_hash, _COLUMNS)
            rows = [] if table is None else table.to_pylist()
            wanted = {(item.image, method) for item in chunk.items for method in methods}
            if len(rows) != len(wanted) or {(r["image"], r["method"]) for r in rows} != wanted:
                todo.broken.append(path)
                todo.chunks.append(chunk)
                continue
            by_image = {row["image"]: row for row in rows}
            states = {
                item.image: _state(item, by_image[item.image], reader) for item in chunk.items
            }
            changed = [image for image, state in states.items() if state == "changed"]
            failures = {row["image"]: row["error"] for row in rows if row["status"] == FAILED}
            todo.changed += changed
            if changed or (failures and retry_failed):
                todo.chunks.append(chunk)
                continue
            todo.gone += [image for image, state in states.items() if state == "gone"]
            todo.failures |= failures
            todo.done += len(chunk.items)
    return todo


def _state(item: Item, row: dict[str, Any], reader: PlaceReader) -> str:
    """Whether a row was computed from the files there are now: "same", "changed" or "gone"."""
    image = _file_state(item.path, item.place, row, "image", reader)
    if image != "same" or item.mask is None or "mask_sha256" not in row:
        return image  # rows of before masks had hashes know nothing of theirs
    return _file_state(item.mask, item.mask_place, row, "mask", reader)


def _file_state(
    path: Path, place: Place, row: dict[str, Any], what: str, reader: PlaceReader
) -> str:
    """The state of one file, the row's "image" or "mask".

    The size and the time of the last change tell it for most; the content decides where they
    differ, since copying a data set changes every time.
    """
    known = row[f"{what}_sha256"]
    try:
        facts = os.stat(path)
    except (OSError, ValueError):
        return "same" if known is None else "gone"
    size = size_of(place, facts)
    if facts.st_mtime_ns == row[f"{what}_mtime_ns"] and size in (None, row[f"{what}_bytes"]):
        return "same"
    try:
        data = reader.read(path, place)
    except ImageError:  # a null among them
        return "same" if known is None else "changed"
    if isinstance(data, Path):
        return _file_state(data, None, row, what, reader)
    return "same" if hashlib.sha256(data).hexdigest() == known else "changed"
