"""Reads a run folder (manifest and Parquet parts) into arrays, whatever optional columns it has.

Only `image` and `method` must be there. Strings become indices at once, so that half a million
rows take some tens of megabytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gag_fast import _run_files as files
from gag_fast._errors import GagFastError, first_line
from gag_fast._text import storable
from gag_fast.measures import MEASURES, Measure, curves_of

MANIFESTS_KEY = b"gag_fast.manifests"
"""Of an exported file's metadata: JSON, run name -> its manifest."""


class ReportError(GagFastError):
    """A folder that cannot be read as a run; one line that names it and the reason."""


@dataclass
class Run:
    """The rows of one run as parallel arrays.

    Attributes:
        path: the folder.
        manifest: what manifest.json holds, {} when there is none.
        images: names of the images, in order of first appearance.
        methods: names of the methods; those that differ only in p read `name@p`.
        image, method: `[rows]` indices into the two.
        target: `[rows]` class index, −1 where unknown.
        confidence: `[rows]` probability of the target, NaN where unknown.
        ok: `[rows]` whether the row has status "ok".
        scores: metric column -> `[rows]`, NaN for rows that failed.
        curves: name -> `[rows, steps]` probabilities, NaN for rows without.
        errors: row -> reason, of the rows that are not ok.
        columns: every further numeric column, `[rows]` (timings, p, seed, ...).
        notes: one line for each part that was left out, and why; and for pictures that are.
        allow_outside: show pictures that lie outside the data set's folder too.
    """

    path: Path
    manifest: dict[str, Any]
    images: list[str]
    methods: list[str]
    image: np.ndarray
    method: np.ndarray
    target: np.ndarray
    confidence: np.ndarray
    ok: np.ndarray
    scores: dict[str, np.ndarray]
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    allow_outside: bool = False

    @property
    def name(self) -> str:
        """The folder's own name."""
        return storable(self.path.resolve().name)

    @property
    def rows(self) -> int:
        """Number of (image, method) rows."""
        return int(self.image.size)

    @property
    def metrics(self) -> list[Measure]:
        """The metrics that at least one row has a value for, in the order of their table."""
        return [m for m in MEASURES.values() if m.column in self.scores]

    def matrix(self, column: str) -> np.ndarray:
        """A metric as `[images, methods]`, NaN where a pair has no value."""
        table = np.full((len(self.images), len(self.methods)), np.nan)
        table[self.image, self.method] = self.scores[column]
        return table

    def of_methods(self, chosen: Sequence[int]) -> Run:
        """The run of some of its methods, by their numbers; the images are the same."""
        place = np.full(len(self.methods), -1, np.int64)
        place[list(chosen)] = np.arange(len(chosen))
        rows = np.flatnonzero(place[self.method] >= 0)
        row_of = {int(row): new for new, row in enumerate(rows)}
        return replace(
            self,
            methods=[self.methods[k] for k in chosen],
            image=self.image[rows],
            method=place[self.method[rows]],
            target=self.target[rows],
            confidence=self.confidence[rows],
            ok=self.ok[rows],
            scores={name: values[rows] for name, values in self.scores.items()},
            curves={name: values[rows] for name, values in self.curves.items()},
            errors={row_of[r]: text for r, text in self.errors.items() if r in row_of},
            columns={name: values[rows] for name, values in self.columns.items()},
        )

    def setting(self, name: str, default: Any = None) -> Any:
        """A value of the manifest by key, wherever it is nested; the shallowest one."""
        return next((v for v in self._values(name) if not isinstance(v, dict)), default)

    def section(self, name: str) -> dict[str, Any] | None:
        """A dict of the manifest by key, wherever it is nested; the shallowest one."""
        return next((v for v in self._values(name) if isinstance(v, dict)), None)

    def _values(self, name: str) -> Iterator[Any]:
        level = [self.manifest]
        while level:
            yield from (node[name] for node in level if name in node)
            level = [v for node in level for v in node.values() if isinstance(v, dict)]


def is_outside(image: str) -> bool:
    """Whether an image's name leads out of the data set's folder.

    A run folder of others may name any file of this machine, and its picture would go into a page
    that is passed on.
    """
    path = PurePosixPath(image)
    return path.is_absolute() or ".." in path.parts


def read_run(path, *, allow_outside: bool = False) -> Run:
    """Reads a run folder, or a file that `export_scores` wrote of one run.

    Where (image, method) occurs more than once (a retry of a failure), the last row that is ok
    counts, or the last one if none is.

    Raises:
        ReportError: no such folder, no results in it, or a part that is not readable.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        table, manifest, notes = *_exported(path), list[str]()
    else:
        table, manifest, notes = _folder(path)
    for column in ("image", "method"):
        if column not in table.column_names:
            raise ReportError(f"{path}: results have no column {column!r}")
    if not table.num_rows:
        raise ReportError(f"{path}: results have no rows")
    image, images = _indices(table["image"])
    method, methods = _indices(_method_names(table))
    ok = _status(table)
    keep = _latest(image * len(methods) + method, ok)
    if keep is not None:
        table = table.take(pa.array(keep))
        image, method, ok = image[keep], method[keep], ok[keep]
    scores = {}
    for metric in MEASURES.values():
        if metric.column in table.column_names:
            values = np.where(ok, _floats(table[metric.column]), np.nan)
            if np.isfinite(values).any():
                scores[metric.column] = values
    curves = {}
    for name in (c.name for c in curves_of(MEASURES.values())):
        if name in table.column_names and (curve := _curves(table[name], ok)) is not None:
            curves[name] = curve
    outside = 0 if allow_outside else sum(map(is_outside, images))
    if outside:
        notes.append(
            f"{outside} images lie outside the data set's folder; their pictures are left out "
            "(--allow-outside shows them)"
        )
    return Run(
        path=path,
        manifest=manifest,
        images=images,
        methods=methods,
        image=image,
        method=method,
        target=_integers(table, "target"),
        confidence=_numbers(table, "confidence"),
        ok=ok,
        scores=scores,
        curves=curves,
        errors=_errors(table, ok),
        columns=_others(table),
        notes=notes,
        allow_outside=allow_outside,
    )


def _folder(path: Path) -> tuple[pa.Table, dict[str, Any], list[str]]:
    if not path.is_dir():
        raise ReportError(f"{path}: no such run folder")
    parts = sorted((path / "results").rglob("*.parquet"))
    if not parts:
        raise ReportError(f"{path}: no results/*.parquet in it; is it a run folder?")
    manifest = _manifest(path)
    tables, notes = _believed(path, parts, manifest)
    try:
        return pa.concat_tables(tables, promote_options="permissive"), manifest, notes
    except pa.ArrowException as error:
        raise ReportError(f"{path}: its parts do not go together: {first_line(error)}") from None


def _exported(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    table = _read_part(path)
    metadata = table.schema.metadata or {}
    try:
        manifests = json.loads(metadata.get(MANIFESTS_KEY, b"{}"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: its manifests cannot be read: {first_line(error)}") from None
    if not isinstance(manifests, dict) or len(manifests) > 1:
        raise ReportError(f"{path}: holds {len(manifests)} runs; export each to a file of its own")
    manifest: Any = next(iter(manifests.values()), None)
    return _plain(table), manifest if isinstance(manifest, dict) else {}


_UNUSED = frozenset(  # of use to a restart only
    f"{what}_{fact}" for what in ("image", "mask") for fact in ("sha256", "bytes", "mtime_ns")
)


def _believed(
    path: Path, parts: list[Path], manifest: dict[str, Any]
) -> tuple[list[pa.Table], list[str]]:
    """The tables of the parts that are of this run, and a line for each that is not.

    Raises:
        ReportError: a part that cannot be read; or none, or all of several runs, would be left.
    """
    settings = manifest.get("settings")
    tables, notes, marks = [], [], set()
    for part in parts:
        table = _read_part(part)
        reason = files.misplaced(part, table, settings) if isinstance(settings, dict) else None
        if reason is None:
            marks.add(files.mark_of(table))
            tables.append(_plain(table))
        else:
            notes.append(f"{part.name} is left out: {reason}")
    if not tables:
        raise ReportError(
            f"{path}: no part is of the run that manifest.json tells of; was it edited? "
            f"({notes[0]})"
        )
    if not isinstance(settings, dict) and len(marks - {None}) > 1:
        raise ReportError(f"{path}: its parts are of {len(marks)} runs, and no manifest says which")
    return tables, notes


def _read_part(part: Path) -> pa.Table:
    try:
        return files.read_part(part)
    except files.RunError as error:
        raise ReportError(str(error)) from None


def _plain(table: pa.Table) -> pa.Table:
    """Without what only a restart needs, strings as strings."""
    unused = [name for name in table.column_names if name in _UNUSED]
    table = table.drop_columns(unused).replace_schema_metadata(None)
    for position, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):  # parts may differ in how they encode strings
            decoded = pc.cast(column, column.type.value_type)
            table = table.set_column(position, table.column_names[position], decoded)
    return table


def _manifest(path: Path) -> dict[str, Any]:
    try:
        return files.read_manifest(path / "manifest.json") or {}
    except files.RunError as error:
        raise ReportError(str(error)) from None


def _indices(column) -> tuple[np.ndarray, list[str]]:
    """A string column as indices into its distinct values, in order of first appearance."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = pc.dictionary_encode(pc.fill_null(pc.cast(column, pa.string()), "(none)"))
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _method_names(table: pa.Table):
    """Method names, with `@p` where one name was run with several p."""
    names = pc.cast(table["method"].combine_chunks(), pa.string())
    if "p" not in table.column_names:
        return names
    index, distinct = _indices(names)
    p = _floats(table["p"])
    labels = names.to_pylist()
    for position, name in enumerate(distinct):
        rows = np.flatnonzero(index == position)
        values = p[rows]
        if "@" not in name and np.unique(values[np.isfinite(values)]).size > 1:
            for row in rows:
                labels[row] = f"{name}@{p[row]:g}"
    return pa.array(labels)


def _status(table: pa.Table) -> np.ndarray:
    if "status" not in table.column_names:
        return np.ones(table.num_rows, bool)
    same = pc.equal(pc.cast(table["status"].combine_chunks(), pa.string()), "ok")
    return pc.fill_null(same, False).to_numpy(zero_copy_only=False)


def _latest(key: np.ndarray, ok: np.ndarray) -> np.ndarray | None:
    """Rows to keep so that every key is there once; None when it already is."""
    if np.unique(key).size == key.size:
        return None
    order = np.lexsort((np.arange(key.size), ok, key))  # ok rows, and later rows, sort last
    last = np.append(key[order][1:] != key[order][:-1], True)
    return np.sort(order[last])


def _floats(column) -> np.ndarray:
    """A column as float64; nulls, and values that are no numbers, are NaN."""
    kind = column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return np.full(len(column), np.nan)
    column = pc.cast(column, pa.float64(), safe=False)
    return pc.fill_null(column, float("nan")).to_numpy().astype(np.float64)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    return _floats(table[name])


def _integers(table: pa.Table, name: str) -> np.ndarray:
    values = _numbers(table, name)
    return np.where(np.isfinite(values), values, -1).astype(np.int64)


def _curves(column, ok: np.ndarray) -> np.ndarray | None:
    """A list column as `[rows, steps]`; None without lists, or with lists of several lengths."""
    column = column.combine_chunks()
    kind = column.type
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return None
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    present = ok & (lengths > 0)
    distinct = np.unique(lengths[present])
    if distinct.size != 1:
        return None
    chosen = column.filter(pa.array(present))
    values = pc.fill_null(pc.cast(pc.list_flatten(chosen), pa.float32()), float("nan"))
    curves = np.full((len(column), int(distinct[0])), np.nan, np.float32)
    curves[present] = values.to_numpy().reshape(-1, int(distinct[0]))
    return curves


def _errors(table: pa.Table, ok: np.ndarray) -> dict[int, str]:
    rows = np.flatnonzero(~ok)
    if "error" not in table.column_names:
        return {int(row): "no reason was recorded" for row in rows}
    texts = pc.cast(table["error"].combine_chunks(), pa.string()).take(pa.array(rows)).to_pylist()
    return {int(r): text or "no reason was recorded" for r, text in zip(rows, texts, strict=True)}


def _others(table: pa.Table) -> dict[str, np.ndarray]:
    known = {"image", "method", "target", "confidence", *(m.column for m in MEASURES.values())}
    others = {}
    for name in table.column_names:
        kind = table[name].type
        if name not in known and (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            others[name] = _floats(table[name])
    return others
