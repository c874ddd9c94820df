"""Small data sets, a tiny real classifier, and runs over them in milliseconds."""

from dataclasses import fields

import pytest

from gag_fast.attribution.explanation import Explanation
from gag_fast.runs.request import Request
from gag_fast.runs.run import run
from tests.photographs import save_photo
from tests.runs.run_rows import CLASSES
from tests.tiny_classifier import MODEL

HOW = {field.name for field in fields(Explanation)}


@pytest.fixture
def photos(tmp_path):
    """Makes DATA: `count` images in folders called after the classifier's labels."""

    def make(count=20, name="data"):
        for i in range(count):
            save_photo(tmp_path / name / CLASSES[i % 3] / f"{i:03d}.png", i)
        return tmp_path / name

    return make


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
            "chunk": 4,
            "workers": 1,
            "providers": "cpu",
        }
        how = {k: changes.pop(k) for k in HOW if k in changes}
        request["explanation"] = Explanation(**{"n": 3, **how})
        return run(Request(**{**request, **changes}), quiet=True)

    return go
