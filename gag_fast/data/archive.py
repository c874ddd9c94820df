"""WebDataset archives: .tar files in which files of one name are one sample.

    0001.jpg  0001.cls      the picture and its class index (.cls, .txt, or "label" in .json)

Nothing is unpacked: a picture is a range of bytes of the archive.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gag_fast.data.classes import class_of, label_index
from gag_fast.data.dataset import DataError, Dataset, Item
from gag_fast.images import SUFFIXES

_LABELS = (".cls", ".txt", ".json")
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
    items = []
    for archive in archives:
        pictures, texts = _members(archive)
        prefix = "" if archive == source else f"{archive.name}/"
        for name, member in pictures.items():
            try:
                target = class_of(texts.get(_key(name), ""), by_label, num_classes)
            except DataError as error:
                raise DataError(f"{archive}: {name}: {error}") from None
            span = (member.offset_data, member.size)
            items.append(Item(f"{prefix}{name}", archive, target, span=span))
    notes = []
    if items and all(item.target is None for item in items):
        notes.append("no labels: the class that the classifier predicts is explained")
    return Dataset(source, tuple(items), tuple(notes))


def _members(archive: Path) -> tuple[dict[str, tarfile.TarInfo], dict[str, str]]:
    """name -> member of the pictures, and key -> text of the labels."""
    pictures: dict[str, tarfile.TarInfo] = {}
    texts: dict[str, str] = {}
    try:
        # "r:" is uncompressed only: a range of bytes of a compressed archive means nothing.
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                suffix = PurePosixPath(member.name).suffix.lower()
                if not member.isfile():
                    continue
                if suffix in SUFFIXES:
                    pictures[member.name] = member
                elif suffix in _LABELS:
                    file = tar.extractfile(member)
                    assert file is not None
                    text = file.read().decode("utf-8", "replace").strip()
                    text = _from_json(text) if suffix == ".json" else text
                    if text:
                        texts.setdefault(_key(member.name), text)
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{archive}: not a plain .tar archive: {error}") from None
    return pictures, texts


def _from_json(text: str) -> str:
    try:
        facts = json.loads(text)
    except ValueError:
        return ""
    facts = facts if isinstance(facts, dict) else {}
    return next((str(facts[key]) for key in _JSON_KEYS if key in facts), "")


def _key(name: str) -> str:
    """What the files of a sample have in common: the name up to its last part's first dot."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))
