"""What the tests of runs share: photographs to write, rows to read back and compare."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from gag_fast.runs.folder import RunFolder
from gag_fast.runs.rows import METRIC_COLUMNS

MODEL = "tiny_classifier:build"
CLASSES = ("blue", "green", "red")


def save_photo(path: Path, seed: int, height: int = 40, width: int = 36) -> None:
    """Smooth random colours: a real gradient everywhere."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)


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
