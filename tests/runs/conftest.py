"""Small data sets, a tiny real classifier, and runs over them in milliseconds."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from tiny_classifier import SIZE

from gag_fast.runs.folder import RunFolder
from gag_fast.runs.request import Request
from gag_fast.runs.rows import METRIC_COLUMNS
from gag_fast.runs.run import run

MODEL = "tiny_classifier:build"
CLASSES = ("blue", "green", "red")


def save_photo(path: Path, seed: int, height: int = 40, width: int = 36) -> None:
    """Smooth random colours: a real gradient everywhere."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path):
    """Makes DATA: `count` images in folders called after the classifier's labels."""

    def make(count=20, name="data"):
        for i in range(count):
            save_photo(tmp_path / name / CLASSES[i % 3] / f"{i:03d}.png", i)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def onnx(tmp_path_factory):
    """The tiny classifier, exported once."""
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model

    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(*load_model(MODEL), path)
    return path


@pytest.fixture
def start(tmp_path, onnx):
    """Starts (or goes on with) a run in RUN, and returns its summary."""

    def go(data, out="run", **changes):
        request = {
            "data": data,
            "out": tmp_path / out,
            "model": MODEL,
            "onnx": onnx,
            "methods": ("guided_absgrad", "vanilla"),
            "n": 3,
            "chunk": 4,
            "workers": 1,
            "providers": "cpu",
        }
        return run(Request(**{**request, **changes}), quiet=True)

    return go


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


assert SIZE == 32
sys.path.insert(0, str(Path(__file__).parent))
