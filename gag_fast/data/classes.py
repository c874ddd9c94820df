"""From the names of classes (of folders, in a table) to a model's class indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from gag_fast.data.dataset import DataError, SkippedError
from gag_fast.data.imagenet import WNIDS

_DIGITS = 18  # a class index has at most so many; a longer number is a mistake
_WNID = re.compile(r"n\d{8}")
_WNID_INDEX = {wnid: index for index, wnid in enumerate(WNIDS)}


def named_classes(
    names: Sequence[str],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
    what: str = "class folders",
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Class indices of a data set's own classes.

    As torchvision's ImageFolder does it, the place in the list; but a data set that has only some
    of the model's classes goes by what their names say:
      1. ImageNet's WordNet ids (n01440764, ...) for a model of 1000 classes: ImageNet's indices;
      2. names that are all labels of the model: those classes;
      3. fewer names than classes, and all are numbers: the names are the indices;
      4. otherwise the place in the list.

    Args:
        names: the classes' names in their order: folders are sorted.
        num_classes: K of the model, None for unknown (then 4, or 2 with labels).
        labels: K names, None for unknown.
        what: what bears the names, for messages.

    Returns:
        name -> index, and notes for the user.

    Raises:
        DataError: there are more names than the model has classes.
    """
    if num_classes is not None and len(names) > num_classes:
        raise DataError(
            f"{len(names)} {what} ({_some(names)}) do not fit a model of {num_classes} classes"
        )
    places = {name: index for index, name in enumerate(names)}
    if num_classes == len(WNIDS) and all(name in _WNID_INDEX for name in names):
        return {name: _WNID_INDEX[name] for name in names}, ()
    if labels is not None and [*map(_key, names)] == [*map(_key, labels)]:
        return places, ()  # ImageNet's two cranes too
    by_label = label_index(labels or ())
    if by_label and all(_key(name) in by_label for name in names):
        return {name: _unique(by_label, name) for name in names}, ()
    if num_classes is None or len(names) == num_classes:
        return places, ()
    if all(name.isascii() and name.isdigit() and int(name) < num_classes for name in names):
        return {name: int(name) for name in names}, ()
    note = (
        f"{what} {_some(names)} are no labels of the model: taken as its classes 0 to "
        f"{len(names) - 1} of {num_classes}, in that order"
    )
    return places, (note,)


def label_index(labels: Iterable[str]) -> dict[str, list[int]]:
    """Label -> the classes called so; ImageNet has two of some ("crane", "maillot")."""
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(_key(label), []).append(index)
    return found


def class_of(
    text: str, by_label: Mapping[str, list[int]], num_classes: int | None = None
) -> int | None:
    """The class that a table's cell or an option names.

    Args:
        text: a class index, a label of the model, or an ImageNet WordNet id; empty: None.
        by_label: from `label_index`.
        num_classes: K, for WordNet ids, which need a model of 1000 classes.

    Raises:
        DataError: it names no class, or two.
        SkippedError: no model can have such a class.
    """
    text = text.strip()
    if not text:
        return None
    if re.fullmatch(r"[+-]?\d+(\.0*)?", text):
        digits = text.partition(".")[0]
        if len(digits) > _DIGITS:
            raise SkippedError(f"a label of {len(digits)} digits is no class index")
        return int(digits)
    if _key(text) in by_label:
        return _unique(by_label, text)
    if text in _WNID_INDEX and num_classes in (None, len(WNIDS)):
        return _WNID_INDEX[text]
    if not by_label and not _WNID.fullmatch(text):
        raise DataError(f"label {text!r} is not a class index, and the model has no labels")
    raise DataError(f"label {text!r} is neither a class index nor a label of the model")


def _unique(by_label: Mapping[str, list[int]], name: str) -> int:
    found = by_label[_key(name)]
    if len(found) > 1:
        raise DataError(
            f"label {name!r} is that of the classes {', '.join(map(str, found))}: give the index"
        )
    return found[0]


def _key(label: str) -> str:
    return label.strip().casefold().replace("_", " ")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown + (", …" if len(names) > 3 else "")
