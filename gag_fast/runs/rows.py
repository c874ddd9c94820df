"""The columns of a result row: one row for each (image, method)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # path relative to the data set
        pa.field("method", pa.string(), nullable=False),
        pa.field("target", pa.int32()),  # the class explained: the label, or the one predicted
        pa.field("predicted", pa.int32()),
        pa.field("confidence", pa.float32()),  # probability of `target`
        pa.field("rcap", pa.float32()),
        pa.field("dauc", pa.float32()),
        pa.field("iauc", pa.float32()),
        pa.field("log_cosh_dice", pa.float32()),
        pa.field("mae", pa.float32()),
        pa.field("deletion", pa.list_(pa.float32())),  # curves: probability of `target` a step
        pa.field("insertion", pa.list_(pa.float32())),
        pa.field("recover", pa.list_(pa.float32())),
        pa.field("status", pa.string(), nullable=False),  # ok, failed
        pa.field("error", pa.string()),  # why it failed
        pa.field("seed", pa.int64()),
        pa.field("chunk", pa.int32()),
        pa.field("decode_seconds", pa.float32()),  # of this image
        pa.field("explain_seconds", pa.float32()),  # of the chunk, divided by its rows
        pa.field("score_seconds", pa.float32()),  # of the chunk, divided by its rows
        pa.field("image_sha256", pa.string()),  # of the file's bytes
        pa.field("image_bytes", pa.int64()),
        pa.field("image_mtime_ns", pa.int64()),
    ]
)

METRIC_COLUMNS = (
    *("target", "predicted", "confidence", "rcap", "dauc", "iauc", "log_cosh_dice", "mae"),
    *("deletion", "insertion", "recover"),
)
"""What a restart or another engine must reproduce bit for bit."""

OK, FAILED = "ok", "failed"


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of SCHEMA; columns that a row lacks are null."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)
