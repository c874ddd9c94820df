"""What the tests of runs share: runs to start, rows to read back and compare."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa

from gag_fast.runs.folder import RunFolder
from gag_fast.runs.rows import METRIC_COLUMNS
from tests import ROOT
from tests.tiny_classifier import MODEL

CLASSES = ("blue", "green", "red")


def rows(path, columns=("image", "method", *METRIC_COLUMNS, "status", "error")) -> pa.Table:
    """The rows of a run, sorted, as one table that compares bit for bit."""
    table = RunFolder(path).read(list(columns))
    return table.sort_by([("image", "ascending"), ("method", "ascending")]).combine_chunks()


def same_bits(first: pa.Table, second: pa.Table) -> bool:
    """Whether two tables hold the same bytes; NaN equals NaN."""

    def plain(table):
        return [
            [None if v is None else np.asarray(v, np.float32).tobytes() for v in column.to_pylist()]
            if "float" in str(column.type)
            else column.to_pylist()
            for column in table.columns
        ]

    return first.schema == second.schema and plain(first) == plain(second)


def parts(out):
    return {p.name: p.stat().st_mtime_ns for p in sorted((out / "results").iterdir())}


def process(data, out, onnx, *more):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "gag_fast", "evaluate", str(data), "--model", MODEL),
            *("--onnx", str(onnx), "--out", str(out), "--methods", "guided_absgrad,vanilla"),
            *("--n", "3", "--chunk", "4", "--workers", "1", "--providers", "cpu", *more),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
