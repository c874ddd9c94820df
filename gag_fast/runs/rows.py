"""The columns of a result row: one row for each (image, method)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from gag_fast import measures
from gag_fast.measures import Measure


def under(measure: Measure, preset: str) -> str:
    """The column of a measure's values under a further preset."""
    return f"{measure.column}@{preset}"


def schema_of(chosen: Iterable[Measure] = (), further: Iterable[str] = ()) -> pa.Schema:
    """The columns of a run: those that every run has, and those of the measures `chosen`.

    `further` are columns of scores beside them: measures under other presets.
    """
    chosen = tuple(chosen)
    scores, curves = measures.columns(chosen)
    return pa.schema(
        [
            pa.field("image", pa.string(), nullable=False),  # path relative to the data set
            pa.field("method", pa.string(), nullable=False),
            pa.field("target", pa.int32()),  # the class explained: the label, or the one predicted
            pa.field("predicted", pa.int32()),
            pa.field("confidence", pa.float32()),  # probability of `target`
            *(pa.field(m.column, pa.float32()) for m in scores),
            *(pa.field(name, pa.float32()) for name in further),
            # The curves: the probability of `target` at each point.
            *(pa.field(c.name, pa.list_(pa.float32())) for c in curves),
            pa.field("status", pa.string(), nullable=False),  # ok, failed
            pa.field("error", pa.string()),  # why it failed
            pa.field("seed", pa.int64()),
            pa.field("image_id", pa.int64()),  # explain(..., image_ids=[it]) meets the same noise
            pa.field("chunk", pa.int32()),
            pa.field("decode_seconds", pa.float32()),  # of this image
            pa.field("explain_seconds", pa.float32()),  # of the chunk, divided by its rows
            # What the method would take alone, its gradients included: of the chunk, per image.
            pa.field("method_seconds", pa.float32()),
            pa.field("score_seconds", pa.float32()),  # of the chunk, divided by its rows
            pa.field("image_sha256", pa.string()),  # of the file's bytes
            pa.field("image_bytes", pa.int64()),
            pa.field("image_mtime_ns", pa.int64()),
            pa.field("mask_sha256", pa.string()),  # of the mask's, where there is one
            pa.field("mask_bytes", pa.int64()),
            pa.field("mask_mtime_ns", pa.int64()),
        ]
    )


SCHEMA = schema_of()
"""Of a run with the paper's measures."""

METRIC_COLUMNS = tuple(SCHEMA.names[SCHEMA.names.index("target") : SCHEMA.names.index("status")])
"""What a restart or another engine must reproduce bit for bit."""

OK, FAILED = "ok", "failed"


def table_of(
    rows: Sequence[dict[str, Any]], chosen: Iterable[Measure] = (), further: Iterable[str] = ()
) -> pa.Table:
    """Rows as an Arrow table of `schema_of(...)`; columns that a row lacks are null."""
    return pa.Table.from_pylist(list(rows), schema=schema_of(chosen, further))
