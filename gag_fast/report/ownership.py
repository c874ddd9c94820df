"""A folder given with --out may be anybody's: a report replaces only files that a report wrote.

`.gag-fast-report` in the folder lists them as sha256sum does, a line `HASH  NAME` for each. A file
that is not listed, or has been changed since, is not a report's to replace.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from gag_fast._errors import GagFastError
from gag_fast._files import replacing
from gag_fast._run_files import RunError, read_manifest

MARK = ".gag-fast-report"


@contextlib.contextmanager
def owning(folder: Path, contents: Mapping[str, bytes]) -> Iterator[None]:
    """Inside, files of these names may be written into the folder.

    A folder that is this package's as a whole needs no list: RUN/report, and one that another
    command has claimed.

    Args:
        folder: is there.
        contents: name, with `/` between folders, to the bytes that will be written.

    Raises:
        GagFastError: the folder holds a file of such a name that no report wrote; nothing is
            touched.
    """
    if _whole(folder):
        yield
        return
    mine = _noted(folder)
    coming = {(hashlib.sha256(content).hexdigest(), name) for name, content in contents.items()}
    foreign = [name for name in contents if not _is_ours(folder / name, name, mine)]
    if foreign:
        raise GagFastError(
            f"{folder / foreign[0]} was not written by a report, or was changed since"
            f"{f' (so were {len(foreign) - 1} more)' * (len(foreign) > 1)}; give another folder"
        )
    # Both the old and the new are ours while one takes the place of the other.
    _note(folder, mine | coming)
    yield
    _note(folder, {(digest, name) for digest, name in mine if name not in contents} | coming)


def _whole(folder: Path) -> bool:
    """Whether all that lies here is this package's: a folder claimed, or RUN/report."""
    if (folder / ".gag-fast").is_file():
        return True
    with contextlib.suppress(RunError):
        return (
            folder.name == "report" and read_manifest(folder.parent / "manifest.json") is not None
        )
    return False


def _is_ours(path: Path, name: str, mine: set[tuple[str, str]]) -> bool:
    """Whether nothing is in a file's place, or what a report has put there."""
    if not path.exists() and not path.is_symlink():
        return True
    if not path.is_file():
        return False
    return (hashlib.sha256(path.read_bytes()).hexdigest(), name) in mine


def _noted(folder: Path) -> set[tuple[str, str]]:
    """(hash, name) of what reports wrote here."""
    try:
        text = (folder / MARK).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return set()
    pairs = (line.partition("  ") for line in text.splitlines())
    return {(digest, name) for digest, _, name in pairs if name}


def _note(folder: Path, files: set[tuple[str, str]]) -> None:
    lines = sorted(f"{digest}  {name}\n" for digest, name in files)
    with replacing(folder / MARK) as aside:
        aside.write_text("".join(lines), encoding="utf-8")
