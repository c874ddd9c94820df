"""The files of a run folder as those who write and those who read them agree on: manifest, parts.

A part is believed when
  its seal fits: no bit of the file is another than when it was written;
  it carries the hash of the manifest's settings: it is of this run, not copied from another;
  its number is that of its rows, and one of the plan's: it stands where it belongs.
Parts of before there were seals, and Parquet files of others without a hash, are taken as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gag_fast._errors import GagFastError, first_line

PART = re.compile(r"part-(\d{6,})\.parquet")
"""The name of a part; its number is that of the chunk whose rows it holds."""

_SETTINGS_KEY = b"gag_fast.settings"
_SEAL_KEY = b"gag_fast.sha256"
_NO_SEAL = b"0" * 64
_MANIFEST_BYTES = 64 << 20


class RunError(GagFastError):
    """A run folder that cannot be used as asked; one line that says why."""


# ---- the manifest ------------------------------------------------------------------------------


def read_manifest(path: Path) -> dict[str, Any] | None:
    """What a run's manifest.json holds, None without one.

    Raises:
        RunError: it cannot be read, or it is not what a run wrote.
    """
    try:
        if path.stat().st_size > _MANIFEST_BYTES:
            raise RunError(f"{path}: is no run's manifest: {path.stat().st_size:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"{path}: cannot be read: {first_line(error)}") from None
    reason = _fault(content)
    if reason is not None:
        raise RunError(f"{path}: is no run's manifest, or was edited: {reason}")
    return content


def _fault(manifest: Any) -> str | None:
    """What keeps JSON from being a manifest; None when nothing does."""
    if not isinstance(manifest, dict):
        return f"it holds a {type(manifest).__name__}"
    for key, kind in (("format", int), ("settings", dict)):
        if key not in manifest:
            return f"it has no {key!r}"
        if not isinstance(manifest[key], kind) or isinstance(manifest[key], bool):
            return f"{key!r} is {_shown(manifest[key])}"
    for key in ("resolved", "versions"):
        if not isinstance(manifest.get(key, {}), dict):
            return f"{key!r} is {_shown(manifest[key])}"
    for key, value in manifest.get("resolved", {}).items():
        if key == "layer" and isinstance(value, str):
            continue
        if value is not None and (type(value) is not int or not 0 < value < 1 << 20):
            return f"'resolved.{key}' is {_shown(value)}"
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def canonical(settings: Mapping[str, Any]) -> str:
    """The settings as JSON that is the same for equal settings."""
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of the settings; every part carries it."""
    return hashlib.sha256(canonical(settings).encode("utf-8", "surrogatepass")).hexdigest()


def parts_planned(settings: Mapping[str, Any]) -> int | None:
    """How many parts a run of these settings has; None where they do not say."""
    images, chunk = settings.get("images"), settings.get("chunk")
    if type(images) is not int or type(chunk) is not int or images < 1 or chunk < 1:
        return None
    return -(-images // chunk)


def flat_settings(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings within settings by their whole names: {"preset.interval": 10, ...}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


# ---- parts -------------------------------------------------------------------------------------


def write_part(table: pa.Table, mark: str) -> bytes:
    """The bytes of a part: the rows, the hash of their run's settings, and a seal over all of it.

    The pages carry checksums of their own, for any reader; the seal holds for what lies around
    them too. It is the SHA-256 of the file with zeros in its place.
    """
    table = table.replace_schema_metadata({_SETTINGS_KEY: mark.encode(), _SEAL_KEY: _NO_SEAL})
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", write_page_checksum=True)
    content = file.getvalue()
    place = content.index(_NO_SEAL, content.index(_SEAL_KEY))
    seal = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + seal + content[place + len(seal) :]


def read_part(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A part's rows; the schema's metadata says of which run: see `mark_of`.

    Raises:
        RunError: it cannot be read, or its seal is broken.
    """
    try:
        content = path.read_bytes()
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        if columns is not None:
            columns = [name for name in columns if name in file.schema_arrow.names]
        table = file.read(columns=columns)
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise RunError(f"{path}: not a readable Parquet file: {first_line(error)}") from None
    seal = (table.schema.metadata or {}).get(_SEAL_KEY)
    if seal is not None:
        place = content.find(seal)
        opened = content[:place] + _NO_SEAL + content[place + len(seal) :]
        if hashlib.sha256(opened).hexdigest().encode() != seal:
            raise RunError(f"{path}: its bytes are not those that were written (a broken seal)")
    return table


def mark_of(table: pa.Table) -> str | None:
    """The hash of the settings that a part's rows were computed with; None where it has none."""
    mark = (table.schema.metadata or {}).get(_SETTINGS_KEY)
    return None if mark is None else mark.decode("ascii", "replace")


def misplaced(path: Path, table: pa.Table, settings: Mapping[str, Any]) -> str | None:
    """Why a readable part is not one of the run with these settings; None when it is."""
    mark = mark_of(table)
    if mark is None:
        return None
    if mark != settings_hash(settings):
        return "of a run with other settings"
    match = PART.fullmatch(path.name)
    number, planned = int(match[1]) if match else -1, parts_planned(settings)
    if planned is not None and not 0 <= number < planned:
        return f"beyond the {planned} parts of the run"
    if "chunk" in table.column_names and {*table["chunk"].unique().to_pylist()} - {number}:
        return "the rows of another part"
    return None
