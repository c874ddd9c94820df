"""Tables of images: CSV, TSV or Parquet with a path, a label and perhaps a mask a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gag_fast._errors import first_line
from gag_fast.data.classes import class_of, label_index
from gag_fast.data.dataset import DataError, Dataset, Item, SkippedError, skipped_notes

COLUMNS = {
    "path": ("path", "image", "file", "filename", "file_name", "image_path", "filepath"),
    "label": (
        *("target", "class_index", "class_id", "label_id", "label", "class", "wnid", "synset"),
        *("category", "name", "class_name"),
    ),
    "mask": ("mask", "mask_path", "segmentation"),
}
"""What columns may be called. The first that there is counts: an index says more than a name."""


def read_table(
    path: Path, num_classes: int | None = None, labels: Sequence[str] | None = None
) -> Dataset:
    """The images that a table lists.

    Paths are relative to the table's folder (or absolute). A label is a class index, a label of
    the model or an ImageNet WordNet id; an empty one stands for the class that is predicted.
    A CSV may come without a header: then its columns are path, label, mask.

    Raises:
        DataError: no column of paths, an unreadable table, a label that names no class.
    """
    header, rows = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    columns = _find_columns(path, header)
    by_label = label_index(labels or ())
    items, skipped = [], []
    for number, row in enumerate(rows, start=1):
        cells = {what: row[i].strip() if i < len(row) else "" for what, i in columns.items()}
        if not any(cells.values()):
            continue
        if not cells["path"]:
            raise DataError(f"{path}: row {number} has no path")
        try:
            target = class_of(cells.get("label", ""), by_label, num_classes)
        except SkippedError as error:
            skipped.append(f"row {number} ({cells['path']}): {error}")
            continue
        except DataError as error:
            raise DataError(f"{path}: row {number} ({cells['path']}): {error}") from None
        mask = cells.get("mask")
        items.append(
            Item(
                image=Path(cells["path"]).as_posix(),
                path=path.parent / cells["path"],
                target=target,
                mask=path.parent / mask if mask else None,
            )
        )
    notes = []
    if items and all(item.target is None for item in items):
        notes.append("no labels: the class that the classifier predicts is explained")
    return Dataset(path, tuple(items), (*notes, *skipped_notes(skipped)))


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a {path.suffix[1:].upper()} in UTF-8: {error}") from None
    if not rows:
        raise DataError(f"{path}: is empty")
    known = {name for names in COLUMNS.values() for name in names}
    if {cell.strip().lower() for cell in rows[0]} & known:
        return rows[0], rows[1:]
    if _is_file(path.parent / rows[0][0].strip()):  # no header
        return ["path", "label", "mask"][: len(rows[0])], rows
    return rows[0], rows[1:]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        values = [column.to_pylist() for column in table.columns]
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a Parquet file: {first_line(error)}") from None
    columns = [
        ["" if value is None or value != value else str(value) for value in column]
        for column in values
    ]
    return list(table.column_names), [list(row) for row in zip(*columns)]


def _find_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    found = {}
    for what, accepted in COLUMNS.items():
        name = first_named(header, accepted)
        if name is not None:
            found[what] = list(header).index(name)
    if "path" not in found:
        raise DataError(
            f"{path}: no column of paths ({', '.join(COLUMNS['path'][:3])}, …), "
            f"found {', '.join(header) or 'no columns'}"
        )
    return found


def first_named(header: Sequence[str], accepted: Sequence[str]) -> str | None:
    """The column whose name, in any case, comes first among those accepted; None: none has one."""
    by_name = {name.strip().lower(): name for name in reversed(header)}
    return next((by_name[name] for name in accepted if name in by_name), None)
