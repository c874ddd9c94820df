"""Files that appear whole or not at all, and the user's cache folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A name to write `path` under; it takes its own when the block ends well, else it goes.

    Two processes may write the same path: each has a name of its own, and the last one stays.

    Args:
        path: what is written, replaced if it exists; its folder must be there.
        durable: the bytes and the new name are on the disk before the block is left.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        if durable:
            _sync(aside)
        os.replace(aside, path)
        if durable:
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def native_source(path: str | os.PathLike[str]) -> str | bytes:
    """A file as libraries of C++ take it: its name, or its bytes where the name is no UTF-8."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return Path(text).read_bytes()
    return text


def cache_folder() -> Path:
    """Where this package keeps what it may lose; the folder need not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "gag_fast"
