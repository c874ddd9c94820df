"""RUN on disk. Files appear whole or not at all, whenever the plug is pulled.

RUN/manifest.json                every setting, hashes of model and data, versions, machine
RUN/model.onnx                   the exported classifier, where the run made it
RUN/results/part-000000.parquet  the rows of one chunk
RUN/maps/part-000000.npz         saliency maps, float16: those of the images that the report shows,
                                 with the statistics behind its sliders; everybody's if asked for
RUN/sessions/0000.json           one for each start: when, with what
RUN/.lock                        held by the process that writes

A file is written under another name, synced, renamed, and the folder synced. Maps are compressed
.npz shards, one a chunk like the rows: NumPy reads them without another package, a shard can be
renamed into place (a Zarr chunk store is many files, and another dependency), and nobody reads
less than a few maps at a time.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from gag_fast import _run_files as files
from gag_fast._files import replacing
from gag_fast._run_files import PART, RunError

# What a run makes, by the folder that it lies in ("" is RUN itself). Nothing else is ever deleted
# or replaced, and a folder that holds anything else before its first start is not taken.
_OURS = {
    "": re.compile(
        r"results|maps|sessions|report|manifest\.json|model\.onnx|gradients\.onnx|\.lock"
        r"|\.(manifest\.json|model\.onnx|gradients\.onnx)(\.\d+)?\.tmp|\.model-\w+\.onnx"
    ),
    "results": re.compile(r"part-\d{6,}\.parquet|\.part-\d{6,}\.parquet(\.\d+)?\.tmp"),
    "maps": re.compile(r"part-\d{6,}\.npz|\.part-\d{6,}\.npz(\.\d+)?\.tmp"),
    "sessions": re.compile(r"\d{4,}\.json|\.\d{4,}\.json(\.\d+)?\.tmp"),
}
_SHARD = re.compile(r"part-(\d{6,})\.npz")
_HALF_WRITTEN = re.compile(r"\..*\.tmp|\.model-\w+\.onnx")


class DiskFullError(RuntimeError):
    """No space left for a part; what is there stays valid."""


class RunFolder:
    """A run's files.

    Args:
        path: the folder RUN, made when it is not there.

    Raises:
        RunError: `path` is a file, cannot be made, or is neither empty nor a run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.results = self.path / "results"
        self.maps = self.path / "maps"
        self.manifest_path = self.path / "manifest.json"
        try:
            if self.path.is_dir():
                self._check_ours()
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be a run folder: {error.strerror}") from None

    def _check_ours(self) -> None:
        """Raises RunError for a folder with files and no run: they would be in danger here."""
        with contextlib.suppress(RunError):
            if files.read_manifest(self.manifest_path) is not None:
                return
        foreign = [
            name if folder == "" else f"{folder}/{name}"
            for folder, ours in _OURS.items()
            for name in _names(self.path / folder)
            if not ours.fullmatch(name)
        ]
        if self.manifest_path.exists() and not self.parts():
            foreign.append(self.manifest_path.name)  # of something else: a run's can be read
        if foreign:
            more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
            raise RunError(
                f"{self.path} is not a run folder, and not empty: it holds "
                f"{', '.join(sorted(foreign)[:3])}{more}; give another folder"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing here. Raises RunError when one does."""
        import fcntl

        with (self.path / ".lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    yield  # a file system without locks: better to run than not
                    return
                lock.seek(0)
                raise RunError(
                    f"{self.path}: another process ({lock.read().strip() or 'unknown'}) is "
                    "writing here"
                ) from None
            lock.truncate(0)
            lock.write(f"pid {os.getpid()}")
            lock.flush()
            yield

    # ---- manifest --------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """What manifest.json holds, None without one. Raises RunError for a broken one."""
        return files.read_manifest(self.manifest_path)

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Writes manifest.json, once for a run."""
        content = _json(manifest)
        self._put(self.manifest_path, lambda file: file.write(content))

    def write_session(self, session: Mapping[str, Any]) -> None:
        """Notes a start of the run."""
        folder = self.path / "sessions"
        folder.mkdir(exist_ok=True)
        number = len(list(folder.glob("*.json")))
        content = _json(session)
        self._put(folder / f"{number:04d}.json", lambda file: file.write(content))

    # ---- parts -----------------------------------------------------------------------------

    def write_part(
        self,
        index: int,
        table: pa.Table,
        settings_hash: str,
        maps: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes the rows of chunk `index`, and its maps before them.

        Args:
            index: the chunk's number.
            table: its rows, of rows.SCHEMA.
            settings_hash: stored in the file, so that a part of another run is recognised.
            maps: arrays to keep in the maps' shard, by name; None: no shard.

        Raises:
            DiskFullError: there is no space; no partial file is left.
        """
        self.write_shard(index, maps)
        content = files.write_part(table, settings_hash)
        self._put(self.results / f"part-{index:06d}.parquet", lambda file: file.write(content))

    def write_shard(self, index: int, maps: Mapping[str, np.ndarray] | None) -> None:
        """Writes the maps of chunk `index` in the place of those there are; None: takes them away.

        Raises:
            DiskFullError: there is no space; no partial file is left.
        """
        path = self._shard(index)
        if maps is None:
            path.unlink(missing_ok=True)
            return
        self.maps.mkdir(exist_ok=True)
        # In memory first: a ZipFile that a full disk interrupts complains again when it is freed.
        # NumPy 1 has no `allow_pickle` to say here, and nothing in a shard needs a pickle.
        assert not any(array.dtype.hasobject for array in maps.values())
        content = io.BytesIO()
        np.savez_compressed(content, **maps)  # type: ignore[arg-type]
        self._put(path, lambda file: file.write(content.getbuffer()))

    def read_shard(self, index: int) -> dict[str, np.ndarray] | None:
        """The arrays of a chunk's shard; None where there is none, or it cannot be read."""
        try:
            with np.load(self._shard(index)) as shard:
                return {name: shard[name] for name in shard.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def shard_images(self, index: int, *members: str) -> set[str]:
        """The names in a shard: of its images, and in the further lists of names `members`."""
        try:
            with np.load(self._shard(index)) as shard:
                lists = [shard[name] for name in ("images", *members) if name in shard.files]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return set()
        return {str(name) for names in lists for name in names}

    def shards(self) -> list[int]:
        """Numbers of the chunks that have a shard of maps."""
        found = (_SHARD.fullmatch(name) for name in _names(self.maps))
        return sorted(int(match[1]) for match in found if match)

    def _shard(self, index: int) -> Path:
        return self.maps / f"part-{index:06d}.npz"

    def parts(self) -> dict[int, Path]:
        """The parts there are, by number of the chunk."""
        return {
            int(match[1]): self.results / name
            for name in sorted(_names(self.results))
            if (match := PART.fullmatch(name))
        }

    def read_part(
        self, path: Path, settings_hash: str | None = None, columns: list[str] | None = None
    ) -> pa.Table | None:
        """A part's rows, or None for one that is broken or belongs to other settings."""
        try:
            table = files.read_part(path, columns)
        except RunError:
            return None
        return table if settings_hash in (None, files.mark_of(table)) else None

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows of the run, in the order of the parts. Raises RunError for a broken part."""
        settings = (self.manifest() or {}).get("settings")
        tables = []
        for path in self.parts().values():
            table = files.read_part(path, columns)
            if settings is None or files.misplaced(path, table, settings) is None:
                tables.append(table.replace_schema_metadata(None))
        if not tables:
            raise RunError(f"{self.path}: no results in it")
        return pa.concat_tables(tables, promote_options="default")

    def remove_leftovers(self) -> int:
        """Deletes what a killed process left half written; returns how many files.

        Only files of a run's own making, by their whole names, in the folders that it writes to.
        """
        found = [p for p in self._own_files() if _HALF_WRITTEN.fullmatch(p.name)]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def clear(self) -> None:
        """Deletes the run: its files, and its folders where nothing else lies in them."""
        for path in self._own_files():
            path.unlink(missing_ok=True)
        for folder in ("results", "maps", "sessions"):
            with contextlib.suppress(OSError):  # not there, or a user's files are in it
                (self.path / folder).rmdir()

    def _own_files(self) -> list[Path]:
        return [
            path
            for folder, ours in _OURS.items()
            for name in _names(self.path / folder)
            if ours.fullmatch(name) and not (path := self.path / folder / name).is_dir()
        ]

    def _put(self, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
        """Makes `path` appear with all its bytes on the disk, or not at all."""
        try:
            with replacing(path, durable=True) as aside, aside.open("wb") as file:
                write(file)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFullError(
                    f"no space left on the disk of {self.path} to write {path.name}"
                ) from None
            raise


def _json(content: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8; names of files that are no UTF-8 as escapes, which are the names when read."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return (json.dumps(content, indent=2) + "\n").encode()


def claim(path: str | os.PathLike[str], *marks: str) -> None:
    """Makes a folder for a command's files, or takes one that such a command made before.

    Args:
        path: the folder.
        marks: names of files that tell such a folder too; those made now hold a file `.gag-fast`.

    Raises:
        RunError: it holds files and no mark, so they may be anybody's.
    """
    path = Path(path)
    mark = path / ".gag-fast"
    try:
        path.mkdir(parents=True, exist_ok=True)
        names = set(os.listdir(path))
        if names and not names & {mark.name, *marks}:
            raise RunError(
                f"{path} is not empty, and no earlier call made it: it holds "
                f"{', '.join(sorted(names)[:3])}{', …' * (len(names) > 3)}; give another folder"
            )
        mark.touch()
    except OSError as error:
        raise RunError(f"{path}: cannot be written to: {error.strerror}") from None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
