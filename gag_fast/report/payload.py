"""The rows of a run packed for the page's table: columns as small integers, deflated, base64.

Scores are stored as the integers of their printed form (0.4377 as 4377 with four decimals), so the
page shows what the other tables show, and half a million rows take a few megabytes.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

import numpy as np
from markupsafe import Markup

from gag_fast.report.reading import Run
from gag_fast.report.tables import DIGITS

MAX_ROWS = 1_000_000
"""Rows embedded in a page; of a larger run, evenly spaced images, all their methods."""

_MISSING = -(2**31)


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a `<script>` element, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _classes(run: Run, index: np.ndarray) -> dict[str, str]:
    """Names of the classes that occur, by number; none where the run does not tell them."""
    labels = run.setting("labels")
    if not isinstance(labels, list):
        return {}
    used = np.unique(index[(index >= 0) & (index < len(labels))])
    return {str(int(k)): str(labels[int(k)]) for k in used}


def pack(run: Run, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """What report.js needs to show, sort and filter the rows.

    Returns:
        a JSON-ready dict: `images`, `methods` (names), `rows` and `total` (numbers of them),
        `classes` (number -> name) and `columns`: each with `name`, `kind` ("image", "method",
        "class", "status", "number"),
        `digits` and `data`, the base64 of deflated little-endian int32 (a value times 10^digits;
        -2^31 where there is none).
    """
    rows = np.arange(run.rows)
    if run.rows > max_rows:
        share = max(1, int(len(run.images) * max_rows / run.rows))
        chosen = np.unique(np.linspace(0, len(run.images) - 1, share).round().astype(np.int64))
        rows = np.flatnonzero(np.isin(run.image, chosen))
    # Only the names that occur travel with the rows.
    present, image = np.unique(run.image[rows], return_inverse=True)
    target = np.where(run.target[rows] < 0, np.nan, run.target[rows])
    predicted = run.columns.get("predicted")
    columns = [
        _column("image", "image", image),
        _column("method", "method", run.method[rows]),
        _column("target", "class", target),
        _column("confidence", "number", run.confidence[rows], DIGITS),
    ]
    columns += [
        _column(f"{m.label} {m.arrow}", "number", run.scores[m.column][rows], DIGITS)
        for m in run.metrics
    ]
    occurring = [run.target[rows]]
    if predicted is not None:
        columns.insert(3, _column("predicted", "class", predicted[rows]))
        occurring.append(np.nan_to_num(predicted[rows], nan=-1).astype(np.int64))
    columns.append(_column("status", "status", run.ok[rows]))
    return {
        "images": [run.images[i] for i in present],
        "methods": run.methods,
        "rows": int(rows.size),
        "total": run.rows,
        "classes": _classes(run, np.concatenate(occurring)),
        "columns": columns,
    }


def _column(name: str, kind: str, values: np.ndarray, digits: int = 0) -> dict[str, Any]:
    values = np.asarray(values, dtype=np.float64)
    limit = 2**31 - 1
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if largest * 10**digits > limit:
        digits = max(0, math.floor(math.log10(limit / largest)))
    fits = np.isfinite(values) & (np.abs(values) * 10**digits <= limit)
    scaled = np.full(values.shape, _MISSING, np.dtype("<i4"))
    scaled[fits] = np.rint(values[fits] * 10**digits)
    # Bytes of equal weight side by side: the high ones are nearly all alike and deflate to little.
    planes = scaled.view(np.uint8).reshape(-1, 4).T.tobytes()
    data = base64.b64encode(zlib.compress(planes, 6)).decode()
    return {"name": name, "kind": kind, "digits": digits, "data": data}
