"""Tables whose rows hold the pictures themselves: what their columns mean, and their items.

The form of Hugging Face's `datasets`: a column of `struct<bytes: binary, path: string>` (or plain
binary), class indices in another, and in the schema's metadata `huggingface` the classes' names.
`saved` finds such rows in Arrow files, `shards` in Parquet files.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gag_fast.data.classes import class_of, label_index, named_classes
from gag_fast.data.dataset import DataError, Dataset, Item, SkippedError, skipped_notes
from gag_fast.data.places import Fault, Place, below
from gag_fast.data.table import COLUMNS, first_named
from gag_fast.images import ImageError

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class Columns:
    """The columns of a table with pictures.

    Attributes:
        image: of the pictures.
        label: of the classes, or None.
        mask: of masks, pictures likewise or paths of files; or None.
        classes: names of the classes that the labels are indices of; None: the schema names none.
    """

    image: str
    label: str | None
    mask: str | None
    classes: tuple[str, ...] | None

    @property
    def names(self) -> set[str]:
        """Of the columns that there are."""
        return {name for name in (self.image, self.label, self.mask) if name is not None}


class Address(NamedTuple):
    """A file, and where in it a picture lies."""

    path: Path
    place: Place


@dataclass(frozen=True)
class Rows:
    """The rows of one file; of the pictures only where they are.

    Attributes:
        file: its path.
        columns: what they mean.
        images: where the pictures lie; None for a null.
        names: the paths that stand beside the pictures; empty where there are none.
        labels: as they are; empty where there are none.
        masks: where they lie; empty where there are none.
    """

    file: Path
    columns: Columns
    images: Sequence[Address | None]
    names: Sequence[str | None]
    labels: Sequence[Any]
    masks: Sequence[Address | None]


def has_pictures(schema: pa.Schema) -> bool:
    """Whether a table of that schema holds pictures, not only their paths.

    Binary columns beside a column of paths are checksums and the like.
    """
    import pyarrow as pa

    mask = first_named(schema.names, COLUMNS["mask"])
    kinds = [schema.field(n).type for n in _pictures(schema, _features(schema)) if n != mask]
    if any(pa.types.is_struct(kind) for kind in kinds):
        return True
    text = [field.name for field in schema if _is_text(field.type)]
    return bool(kinds) and first_named(text, COLUMNS["path"]) is None


def columns_of(path: Path, schema: pa.Schema) -> Columns:
    """What the columns of a table mean.

    Raises:
        DataError: there is no column of pictures, or several and none is called `image`.
    """
    import pyarrow as pa

    features = _features(schema)
    pictures = _pictures(schema, features)
    mask = first_named(schema.names, COLUMNS["mask"])
    candidates = [name for name in pictures if name != mask]
    image = first_named(candidates, _IMAGE)
    if image is None:
        structs = [name for name in candidates if pa.types.is_struct(schema.field(name).type)]
        several = structs or candidates
        if len(several) > 1:
            raise DataError(
                f"{path}: several columns of pictures ({', '.join(several)}): call one image"
            )
        if not several:
            raise DataError(
                f"{path}: no column of pictures (struct<bytes, path> or binary), found "
                f"{', '.join(schema.names) or 'no columns'}"
            )
        image = several[0]
    if mask is not None and mask not in pictures and not _is_text(schema.field(mask).type):
        mask = None
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    plain = [name for name in plain if name not in (image, mask, *pictures)]
    classes = {name: _class_names(features.get(name)) for name in plain}
    label = first_named(plain, COLUMNS["label"])
    if label is None:
        of_classes = [name for name, names in classes.items() if names is not None]
        label = of_classes[0] if len(of_classes) == 1 else None
    return Columns(image, label, mask, classes.get(label) if label is not None else None)


def dataset_of(
    source: Path,
    files: Iterable[Rows],
    num_classes: int | None = None,
    labels: Sequence[str] | None = None,
) -> Dataset:
    """The rows of one or more files, in their order.

    A row is called by its path where it has one that no other row has, else FILE#ROW, counted
    from 0. A null label and `datasets`' -1 stand for the class that is predicted.

    Raises:
        DataError: a label that names no class of the model.
    """
    files = list(files)
    counts = Counter(name for rows in files for name in rows.names if name)
    items, notes, skipped = [], dict[str, None](), []
    for rows in files:
        target_of, said = _targets(rows, num_classes, labels)
        notes |= dict.fromkeys(said)
        each = zip_longest(rows.images, rows.names, rows.labels, rows.masks)
        for number, (address, name, label, mask) in enumerate(each):
            if address is None:
                address = Address(rows.file, Fault(f"row {number} has no picture"))
            try:
                target = target_of(label)
            except SkippedError as error:
                skipped.append(f"{rows.file.name}: row {number}: {error}")
                continue
            except DataError as error:
                raise DataError(f"{rows.file}: row {number}: {error}") from None
            if isinstance(target, Fault):
                address = Address(rows.file, Fault(f"row {number}: {target.reason}"))
                target = None
            items.append(
                Item(
                    image=name if name and counts[name] == 1 else f"{rows.file.name}#{number}",
                    path=address.path,
                    target=target,
                    mask=None if mask is None else mask.path,
                    place=address.place,
                    mask_place=None if mask is None else mask.place,
                )
            )
    if items and all(item.target is None for item in items):
        notes["no labels: the class that the classifier predicts is explained"] = None
    return Dataset(source, tuple(items), (*notes, *skipped_notes(skipped)))


def the_split(folder: Path, splits: Sequence[str]) -> str:
    """The only split of a folder.

    Raises:
        DataError: there are several, or none.
    """
    if not splits:
        raise DataError(f"{folder}: no images: it has no split")
    if len(splits) > 1:
        raise DataError(
            f"{folder}: holds the splits {', '.join(splits)}: name one, as in {folder / splits[0]}"
        )
    return splits[0]


def rows_of(
    file: Path,
    folder: str,
    columns: Columns,
    table: pa.Table,
    addresses: Callable[[str], Sequence[Address | None]],
) -> Rows:
    """The rows of a file.

    Args:
        file: its path.
        folder: of the data set, absolute.
        columns: what they mean.
        table: labels, masks that are paths of files, and the paths beside pictures.
        addresses: from the name of a column of pictures to where they lie.
    """
    image, mask = columns.image, columns.mask
    masks: Sequence[Address | None] = ()
    table.select([c for c in (columns.label,) if c]).validate(full=True)
    if mask is not None and mask in table.column_names and _is_text(table.schema.field(mask).type):
        paths = enumerate(texts(table.column(mask)))
        masks = [beside(file, folder, row, path) if path else None for row, path in paths]
    elif mask is not None:
        masks = addresses(mask)
    return Rows(
        file,
        columns,
        images=addresses(image),
        names=paths_of(table.column(image)) if image in table.column_names else (),
        labels=() if columns.label is None else table.column(columns.label).to_pylist(),
        masks=masks,
    )


def beside(file: Path, folder: str, row: int, path: str) -> Address:
    """The address of a picture that a row names by its path, `folder` being the data set's."""
    try:
        return Address(below(folder, path), None)
    except ImageError as error:
        return Address(file, Fault(f"row {row}: {error}"))


def paths_of(column: pa.ChunkedArray) -> list[str | None]:
    """The paths that stand beside pictures; empty where the column has none."""
    if not has_paths(column.type):
        return []
    place = [field.name for field in column.type].index("path")
    # Flattened, the path of a null struct is null.
    return [path for chunk in column.chunks for path in texts(chunk.flatten()[place])]


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column of that type can hold pictures."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and holds_bytes(f.type) for f in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def has_paths(kind: pa.DataType) -> bool:
    """Whether paths stand beside the pictures of a column of that type."""
    import pyarrow as pa

    return pa.types.is_struct(kind) and any(f.name == "path" and _is_text(f.type) for f in kind)


def texts(column: pa.Array | pa.ChunkedArray) -> list[str | None]:
    """The cells of a column of strings; bytes that are no UTF-8 as in the names of files."""
    import pyarrow as pa

    kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    cells = column.cast(kind)
    cells.validate(full=True)
    return [None if v is None else os.fsdecode(v) for v in cells.to_pylist()]


def _targets(
    rows: Rows, num_classes: int | None, labels: Sequence[str] | None
) -> tuple[Callable[[Any], int | Fault | None], tuple[str, ...]]:
    """From a label to the model's class, and notes for the user.

    A label that its own table does not know costs its row: a fault.
    """
    names = rows.columns.classes
    if names is None:
        by_label = label_index(labels or ())

        def of_any(label: Any) -> int | Fault | None:
            missing = label is None or label != label
            return class_of("" if missing else str(label), by_label, num_classes)

        return of_any, ()
    try:
        index, notes = named_classes(names, num_classes, labels, f"classes of {rows.columns.label}")
    except DataError as error:
        raise DataError(f"{rows.file}: {error}") from None
    classes = [index[name] for name in names]

    def of_index(label: Any) -> int | Fault | None:
        if label is None or label == -1:
            return None
        if not isinstance(label, int) or not 0 <= label < len(classes):
            return Fault(f"label {label} is none of its {len(classes)} classes")
        return classes[label]

    return of_index, notes


def _pictures(schema: pa.Schema, features: dict[str, Any]) -> list[str]:
    """The columns that can hold pictures: `datasets` stores sounds and films in the same form."""
    import pyarrow as pa

    found = []
    for field in schema:
        of = features.get(field.name)
        said = of.get("_type") if isinstance(of, dict) else None
        other = pa.types.is_struct(field.type) and said not in (None, "Image")
        if holds_bytes(field.type) and not other:
            found.append(field.name)
    return found


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What `datasets` says of the columns; empty where it says nothing that can be read."""
    try:
        said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        found = said["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel's classes, in the order of their indices."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if not isinstance(names, list) or not names or len({str(n) for n in names}) != len(names):
        return None
    return tuple(str(name) for name in names)
