"""One file of a run's rows to compare by: `scores.parquet`, which `read_run` takes like a folder.

A row for each (run, image, method) with every measure and curve, and the SHA-256 of the manifest
that they were made under; the manifests themselves travel in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gag_fast._files import replacing
from gag_fast.report.reading import MANIFESTS_KEY, Run


def manifest_hash(run: Run) -> str:
    """SHA-256 of the manifest in canonical form; the same whatever the file's line breaks."""
    text = json.dumps(run.manifest, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def export_scores(runs: Sequence[Run], names: Sequence[str], path) -> Path:
    """Writes the rows of runs as one Parquet file, whole or not at all.

    Args:
        runs: at least one.
        names: of the runs, for the column `run`; all different.
        path: the file.

    Returns the path.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    tables = [_table(run, name) for run, name in zip(runs, names, strict=True)]
    manifests = {name: run.manifest for run, name in zip(runs, names, strict=True)}
    table = pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata(
        {MANIFESTS_KEY: json.dumps(manifests).encode()}  # escapes: a name may be no UTF-8
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")
    return path


def _table(run: Run, name: str) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "run": _repeated(name, run.rows),
        "manifest_sha256": _repeated(manifest_hash(run), run.rows),
        "image": _named(run.images, run.image),
        "method": _named(run.methods, run.method),
        "target": pa.array(run.target, mask=run.target < 0),
        "confidence": _numbers(run.confidence),
    }
    for measure, values in run.scores.items():
        columns[measure] = _numbers(values)
    for curve, values in run.curves.items():
        columns[curve] = _lists(values)
    columns["status"] = pa.array(np.where(run.ok, "ok", "failed"))
    columns["error"] = pa.array([run.errors.get(row) for row in range(run.rows)], pa.string())
    for other, values in run.columns.items():
        if other not in columns:
            columns[other] = _numbers(values)
    return pa.table(columns)


def _repeated(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def _named(names: Sequence[str], index: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(index.astype(np.int32)), pa.array(names, pa.string())
    )


def _numbers(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _lists(values: np.ndarray) -> pa.Array:
    """Curves `[rows, steps]` as lists; rows without one are null."""
    missing = np.isnan(values).all(axis=1)
    lengths = np.where(missing, 0, values.shape[1])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.array(values[~missing].reshape(-1))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(missing))
