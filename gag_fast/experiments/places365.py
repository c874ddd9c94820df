"""Places365-Standard's validation images with CSAIL's DenseNet-161."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from gag_fast.data import DataError, Item
from gag_fast.models import ModelError, fill_state, read_state, seeded

FETCH = """\
Data: http://places2.csail.mit.edu/download.html, "small images (256 * 256)": val_256.tar and the
  list of labels filelist_places365-standard.tar, both unpacked into DATA: val_256/*.jpg,
  places365_val.txt, categories_places365.txt.
Weights: http://places2.csail.mit.edu/models_places365/densenet161_places365.pth.tar
  (--weights FILE)."""

_CLASSES = 365
_LIST = "places365_val.txt"
_FOLDERS = ("val_256", "val_large", "val")


def items(root: Path) -> list[Item]:
    """The images of the validation list, in its order.

    Args:
        root: the folder with places365_val.txt (`<file> <class>` a line) and val_256/ (or
            val_large/).

    Raises:
        DataError: another structure, a malformed line, a class that is not 0 to 364, an image
            that is missing.
    """
    table = root / _LIST
    if not table.is_file():
        raise DataError(f"{root} has no {_LIST} (it is in filelist_places365-standard.tar)")
    images = next((root / f for f in _FOLDERS if (root / f).is_dir()), None)
    if images is None:
        raise DataError(f"{root} has none of the folders {', '.join(_FOLDERS)}")
    found = []
    for line, text in enumerate(table.read_text().splitlines(), start=1):
        if not text.strip():
            continue
        match = re.fullmatch(r"\s*(\S+)\s+(\d+)\s*", text)
        if not match:
            raise DataError(f"{table}:{line}: a line is `<file> <class>`, got {text!r}")
        path, target = images / match[1].lstrip("/"), int(match[2])
        if target >= _CLASSES:
            raise DataError(f"{table}:{line}: classes are 0 to {_CLASSES - 1}, got {target}")
        if not path.is_file():
            raise DataError(f"{table}:{line}: no image {path}")
        found.append(Item(path.relative_to(root).as_posix(), path, target))
    return found


def categories(root: Path) -> tuple[str, ...]:
    """The names of the classes, from categories_places365.txt (`/a/airfield 0` a line).

    Raises:
        DataError: the file is missing, or its classes are not 0 to 364 in order.
    """
    table = root / "categories_places365.txt"
    if not table.is_file():
        raise DataError(f"{root} has no {table.name} (it is in filelist_places365-standard.tar)")
    pairs = [line.rsplit(" ", 1) for line in table.read_text().splitlines() if line.strip()]
    if [pair[-1] for pair in pairs] != [str(i) for i in range(_CLASSES)]:
        raise DataError(f"{table} does not list the classes 0 to {_CLASSES - 1} in order")
    # "/a/apartment_building/outdoor" -> "apartment_building/outdoor"
    return tuple(re.sub(r"^/[a-z]/", "", name) for name, _ in pairs)


def densenet161(weights: str | Path = "none") -> nn.Module:
    """torchvision's DenseNet-161 with 365 outputs.

    Args:
        weights: CSAIL's checkpoint (`{"state_dict": ...}`, names with "module." and, from before
            torch 0.4, `norm.1` and `conv.1` for `norm1` and `conv1`), or "none" (random, seed 0).

    Raises:
        ModelError: a file that cannot be read or does not fit.
    """
    from torchvision.models import densenet161 as build

    if str(weights) == "default":
        raise ModelError(
            "the places365 case has no download of its own: give --weights FILE "
            "(densenet161_places365.pth.tar; docs/reproduction.md says from where)"
        )
    with seeded():
        module = build(weights=None, num_classes=_CLASSES)
    if str(weights) != "none":
        old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
        state = {old.sub(r"\1\2", key): value for key, value in read_state(Path(weights)).items()}
        fill_state(module, state, str(weights))
    return module
