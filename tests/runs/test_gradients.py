"""Runs whose gradients ONNX Runtime computes: the same guarantees as with torch's."""

import json
import shutil
import time

import numpy as np
import pytest

from gag_fast.export import ExportError, export_gradients
from gag_fast.models import load_model
from gag_fast.runs import gradients
from gag_fast.runs.folder import RunError
from tests.runs.run_rows import process, rows, same_bits
from tests.tiny_classifier import MODEL


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The tiny classifier's gradients, exported once for all tests here."""
    path = tmp_path_factory.mktemp("graph") / "gradients.onnx"
    module, spec = load_model(MODEL)
    export_gradients(module, path, spec, providers=["cpu"])
    return path


@pytest.fixture
def ready(graph, tmp_path):
    """ready(out) puts the graph where a run looks for it."""

    def put(out="run"):
        (tmp_path / out).mkdir(exist_ok=True)
        shutil.copy(graph, tmp_path / out / "gradients.onnx")

    return put


def parts_of(out):
    return list(out.glob("results/*.parquet"))


def settings(out):
    return json.loads((out / "manifest.json").read_text())["settings"]


def test_scores_are_those_of_torch(photos, start, ready):
    data = photos(8)
    ready()
    onnx = start(data, gradients="onnx")
    assert onnx.complete
    torchs = start(data, out="torch").out
    for name in ("rcap", "dauc", "iauc"):
        a, b = (rows(out, ("image", "method", name))[name].to_numpy() for out in (onnx.out, torchs))
        np.testing.assert_allclose(a, b, atol=2e-3)
    chosen = settings(onnx.out)
    assert chosen["gradients"] == "onnx:cpu"
    assert len(chosen["gradients_sha256"]) == 64
    assert settings(torchs)["gradients"] == "torch"


def test_the_graph_is_exported_where_there_is_none(photos, start):
    out = start(photos(2), gradients="onnx", methods=("vanilla",)).out
    assert (out / "gradients.onnx").is_file()


def test_a_run_that_goes_on_keeps_its_source(photos, start, ready, monkeypatch):
    data = photos(12)
    ready()
    out = start(data, gradients="onnx").out
    whole = rows(out)
    (out / "results" / "part-000001.parquet").unlink()
    monkeypatch.setattr(gradients, "_fastest", lambda *rest: pytest.fail("measured again"))
    assert start(data, gradients="auto").computed == 4
    assert same_bits(rows(out), whole)
    with pytest.raises(RunError, match="gradients: onnx:cpu in the folder, torch now"):
        start(data)


def test_auto_takes_the_faster_one(photos, start, ready, monkeypatch):
    seconds = {"OnnxGradients": 1.0, "GradientEngine": 2.0}
    monkeypatch.setattr(gradients, "_seconds", lambda source, *_: seconds[type(source).__name__])
    monkeypatch.setattr(gradients, "_SECONDS", 0.01)
    data = photos(2)
    ready("a")
    assert settings(start(data, out="a", gradients="auto").out)["gradients"] == "onnx:cpu"
    seconds["GradientEngine"] = 0.5
    ready("b")
    assert settings(start(data, out="b", gradients="auto").out)["gradients"] == "torch"


def test_without_an_export_auto_goes_on_and_onnx_says_why(photos, start, monkeypatch):
    def fails(*rest, **more):
        raise ExportError("the gradient of it needs aten.odd, which has no ONNX form yet")

    monkeypatch.setattr("gag_fast.export.export_gradients", fails)
    data = photos(2)
    assert settings(start(data, gradients="auto").out)["gradients"] == "torch"
    with pytest.raises(ExportError, match=r"aten\.odd"):
        start(data, out="other", gradients="onnx")


def test_what_needs_the_module_stays_with_torch(photos, start, ready):
    data = photos(4)
    ready()
    methods = ("guided_backprop", "vanilla")
    mixed = start(data, gradients="onnx", methods=methods)
    assert mixed.complete
    torchs = start(data, out="torch", methods=methods).out

    def backprop(out):
        table = rows(out)
        return table.filter([m == "guided_backprop" for m in table["method"].to_pylist()])

    assert same_bits(backprop(mixed.out), backprop(torchs))


def test_killed_the_rows_are_those_of_a_quiet_run(photos, start, onnx, ready, tmp_path):
    data = photos(4 * 12)
    ready("killed")
    out = tmp_path / "killed"
    how = ("--gradients", "onnx")
    for goal in (2, 6):
        running = process(data, out, onnx, *how)
        while len(parts_of(out)) < goal:
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.002)
        running.kill()
        running.communicate()
    assert start(data, out="killed", gradients="onnx").complete
    ready("quiet")
    assert same_bits(rows(out), rows(start(data, out="quiet", gradients="onnx").out))


def test_a_wrong_word_is_refused(start, photos):
    with pytest.raises(ValueError, match="gradients must be one of torch, onnx, auto, got 'tf'"):
        start(photos(1), gradients="tf")
