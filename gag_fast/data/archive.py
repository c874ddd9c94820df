"""WebDataset archives: .tar files in which files of one name are one sample.

    0001.jpg  0001.cls      the picture and its class index (.cls, .txt, or "label" in .json)

Nothing is unpacked: a picture is a range of bytes of the archive.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gag_fast._errors import first_line
from gag_fast.data.classes import class_of, label_index
from gag_fast.data.dataset import DataError, Dataset, Item, SkippedError, skipped_notes
from gag_fast.data.places import Span
from gag_fast.images import SUFFIXES

_LABELS = (".cls", ".txt", ".json")
_LABEL_BYTES = 1 << 16
_JSON_KEYS = ("target", "class_index", "label", "cls", "class", "class_name")


def read_archives(
    source: Path,
    archives: Sequence[Path],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """The pictures of one or more archives, in the order in which they lie there.

    Raises:
        DataError: a file that is no plain .tar, or a label that names no class.
    """
    by_label = label_index(labels or ())
    items, skipped = [], []
    for archive in archives:
        pictures, texts, hidden = _members(archive)
        if hidden:
            skipped.append(f"{len(hidden)} hidden entries of {archive.name} ({hidden[0]}, …)")
        prefix = "" if archive == source else f"{archive.name}/"
        for name, member in pictures.items():
            try:
                target = class_of(texts.get(_key(name), ""), by_label, num_classes)
            except SkippedError as error:
                skipped.append(f"{archive.name}: {name}: {error}")
                continue
            except DataError as error:
                raise DataError(f"{archive}: {name}: {error}") from None
            place = Span(member.offset_data, member.size)
            items.append(Item(f"{prefix}{name}", archive, target, place=place))
    notes = []
    if items and all(item.target is None for item in items):
        notes.append("no labels: the class that the classifier predicts is explained")
    return Dataset(source, tuple(items), (*notes, *skipped_notes(skipped)))


def _members(archive: Path) -> tuple[dict[str, tarfile.TarInfo], dict[str, str], list[str]]:
    """name -> member of the pictures, key -> text of the labels; and what is hidden.

    macOS puts a file `._cat.jpg` beside each `cat.jpg`; it is no picture.
    """
    hidden: list[str] = []
    pictures: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, str] = {}
    try:
        # "r:" is uncompressed only: a range of bytes of a compressed archive means nothing.
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isfile():
                    continue
                if PurePosixPath(member.name).name.startswith("."):
                    if suffix in SUFFIXES:
                        hidden.append(member.name)
                elif suffix in SUFFIXES:
                    pictures[member.name] = member
                elif suffix in _LABELS:
                    file = tar.extractfile(member)
                    assert file is not None
                    text = file.read(_LABEL_BYTES).decode("utf-8", "replace").strip()
                    text = _from_json(text) if suffix == ".json" else text
                    if text:
                        texts.setdefault(_key(member.name), text)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{archive}: not a plain .tar archive: {first_line(error)}") from None
    return pictures, texts, hidden


def _from_json(text: str) -> str:
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    facts = facts if isinstance(facts, dict) else {}
    return next((str(facts[key]) for key in _JSON_KEYS if key in facts), "")


def _key(name: str) -> str:
    """What the files of a sample have in common: the name up to its last part's first dot."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))
