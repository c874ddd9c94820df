"""Small data sets, a tiny real classifier, and runs over them in milliseconds."""

import sys
from pathlib import Path

import pytest
from run_rows import CLASSES, MODEL, save_photo

from gag_fast.runs.request import Request
from gag_fast.runs.run import run


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


sys.path.insert(0, str(Path(__file__).parent))
