"""What of a plan is still to be done: the parts on disk against the images on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gag_fast.data import Item
from gag_fast.images import ImageError, read_bytes
from gag_fast.runs.folder import RunFolder
from gag_fast.runs.plan import Chunk
from gag_fast.runs.rows import FAILED

_COLUMNS = [
    *("image", "method", "status", "error"),
    *("image_sha256", "image_bytes", "image_mtime_ns"),
]


@dataclass
class Todo:
    """The state of a run folder.

    Attributes:
        chunks: those to compute.
        done: images of the others.
        failures: image -> reason, of the others.
        changed: images whose file is another than the one their rows were computed from; their
            chunks are to compute again.
        gone: images whose rows are there and whose file no longer is.
        broken: parts that cannot be read, or are not of this run; likewise to compute again.
    """

    chunks: list[Chunk] = field(default_factory=list)
    done: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)


def find_todo(
    folder: RunFolder,
    chunks: Sequence[Chunk],
    methods: Sequence[str],
    settings_hash: str,
    retry_failed: bool = False,
) -> Todo:
    """Compares a plan with what a folder holds.

    Args:
        folder: the run.
        chunks: the whole plan.
        methods: every image needs a row for each.
        settings_hash: of the manifest; parts of another are not counted.
        retry_failed: chunks with failed rows are to be computed again.
    """
    todo = Todo()
    parts = folder.parts()
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
        states = {item.image: _state(item, by_image[item.image]) for item in chunk.items}
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


def _state(item: Item, row: dict[str, Any]) -> str:
    """Whether a file is the one that a row was computed from: "same", "changed" or "gone".

    The size and the time of the last change tell it for most; the content decides where they
    differ, since copying a data set changes every time.
    """
    try:
        facts = os.stat(item.path)
    except OSError:
        return "same" if row["image_sha256"] is None else "gone"
    size = facts.st_size if item.span is None else item.span[1]
    if (size, facts.st_mtime_ns) == (row["image_bytes"], row["image_mtime_ns"]):
        return "same"
    try:
        digest = hashlib.sha256(read_bytes(item.path, item.span)).hexdigest()
    except ImageError:
        digest = None
    return "same" if digest == row["image_sha256"] else "changed"
