"""Runs of the methods that need no gradient: explained by the session that scores."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.attribution.inputs import id_of_name
from gag_fast.cli import main
from gag_fast.data import open_dataset
from gag_fast.runs.folder import RunError
from gag_fast.runs.forecast import forecast
from gag_fast.runs.request import Request
from tests import ROOT
from tests.runs.run_rows import parts, rows, same_bits
from tests.runs.test_run import wait_for_parts
from tests.tiny_classifier import MODEL

FEW = {"masks": 30, "coalitions": 60, "window": 12}
BOTH = ("rise", "grad_cam_pp")


@pytest.fixture
def no_gradients(monkeypatch):
    def no(*_, **__):
        raise AssertionError("nobody asked for gradients")

    monkeypatch.setattr(GradientEngine, "__enter__", no)


def test_killed_and_restarted_the_rows_are_those_of_a_quiet_run(photos, start, onnx, tmp_path):
    data = photos(24)
    asked = {"methods": BOTH, "options": {"masks": 200}}
    quiet = start(data, out="quiet", **asked)
    assert quiet.complete
    assert set(rows(quiet.out)["method"].to_pylist()) == set(BOTH)
    program = (
        "import gag_fast, sys; gag_fast.run(sys.argv[1], sys.argv[2], ('rise', 'grad_cam_pp'), "
        "sys.argv[3], onnx=sys.argv[4], n=3, chunk=4, workers=1, providers='cpu', masks=200)"
    )
    words = [sys.executable, "-c", program, str(data), MODEL, str(tmp_path / "killed"), str(onnx)]
    running = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    wait_for_parts(tmp_path / "killed", 1, running)
    running.kill()
    running.communicate()
    done = len(parts(tmp_path / "killed"))
    summary = start(data, out="killed", **asked)
    assert summary.computed == 24 - 4 * done
    assert rows(summary.out).num_rows == 48
    assert same_bits(rows(summary.out), rows(quiet.out))
    with pytest.raises(RunError, match=r"options\.masks: 200 in the folder, 100 now"):
        start(data, out="killed", methods=BOTH, options={"masks": 100})


def test_all_three_without_gradients(photos, start, onnx, no_gradients):
    data = photos(5)
    methods = ("rise", "occlusion", "kernel_shap", "rise/R")
    summary = start(data, methods=methods, options=FEW, keep_maps=True, chunk=5)
    assert summary.complete
    manifest = json.loads((summary.out / "manifest.json").read_text())
    assert manifest["passes"] == {"rise": 30, "occlusion": 26, "kernel_shap": 62, "rise/R": 30}
    assert manifest["settings"]["options"] == FEW
    # The maps are those of explain, by the images' ids.
    spec = gag_fast.load_model(MODEL)[1]
    items = open_dataset(data, 5, spec.labels).items
    images = gag_fast.load_images([item.path for item in items], spec)
    ids = [id_of_name(item.image) for item in items]
    targets = [item.target for item in items]
    classifier = gag_fast.Classifier(onnx, "cpu")
    kept = np.load(next(summary.out.rglob("maps/*.npz")))
    for method, options in (
        ("rise", {"masks": 30}), ("occlusion", {"window": 12}), ("kernel_shap", {"coalitions": 60}),
    ):  # fmt: skip
        expected = gag_fast.explain(classifier, images, targets, method, image_ids=ids, **options)
        found = torch.from_numpy(kept[method].astype(np.float32))
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.slow
def test_xrai_and_input_x_gradient_by_exported_gradients(photos, start):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    methods = ("xrai", "input_x_gradient", "rise")
    asked = {"methods": methods, "options": {"base": "smoothgrad", "masks": 10}}
    summary = start(photos(4), **asked, gradients="onnx")
    assert summary.complete
    manifest = json.loads((summary.out / "manifest.json").read_text())
    assert manifest["passes"] == {"xrai": 3, "input_x_gradient": 1, "rise": 10}
    torchs = rows(start(photos(4), out="torch", **asked).out)
    for column in ("rcap", "dauc"):
        ours = np.array(rows(summary.out)[column].to_pylist())
        np.testing.assert_allclose(ours, torchs[column].to_pylist(), atol=0.05)


def test_measures_that_explain_again(photos, start):
    found = start(
        photos(3),
        methods=("occlusion",),
        metrics=("max_sensitivity", "mprt"),
        options={"window": 8},
    )
    assert found.complete
    for column in ("max_sensitivity", "mprt"):
        values = rows(found.out, ("image", "method", column))[column].to_pylist()
        assert np.isfinite(values).all()
        assert len(set(values)) == 3


def test_a_report_of_them(photos, start, tmp_path, capsys):
    summary = start(photos(6), methods=BOTH, options={"masks": 20})
    assert main(["report", str(summary.out)]) == 0
    text = capsys.readouterr().out
    assert "rise" in text
    assert "grad_cam_pp" in text


def test_the_dry_run_says_what_they_cost(photos, tmp_path, onnx, no_gradients):
    asked = Request(
        data=photos(3), out=tmp_path / "run", model=MODEL, onnx=onnx, providers="cpu",
        methods=("rise", "occlusion", "kernel_shap"),
    )  # fmt: skip
    found = forecast(asked)
    assert found.costs == {"rise": (4000, 0), "occlusion": (226, 0), "kernel_shap": (1002, 0)}
    assert found.explain_seconds > (4000 - 64) / found.rate
    assert "explaining an image by rise: 4,000 pictures" in str(found)


def test_on_the_command_line(photos, tmp_path, onnx, capsys):
    data = photos(2)
    words = ["evaluate", str(data), "--model", MODEL, "--onnx", str(onnx), "--providers", "cpu"]
    words += ["--out", str(tmp_path / "run"), "--workers", "1"]
    words += ["--methods", "occlusion,input_x_gradient"]
    assert main([*words, "--option", "window=[8,16]", "--option", "baseline=0.5"]) == 0
    assert "input_x_gradient" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]
    assert settings["options"] == {"window": [8, 16], "baseline": 0.5}
    assert main([*words, "--option", "masks=8"]) != 0
    assert "unknown option 'masks'; it is an option of rise" in capsys.readouterr().err
    image = next(data.rglob("*.png"))
    words = ["explain", str(image), "--model", MODEL, "--out", str(tmp_path / "pictures")]
    assert main([*words, "--method", "rise", "--n", "9"]) == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1
    with pytest.raises(SystemExit):
        main([*words, "--option", "window"])
    assert "must be NAME=VALUE, got 'window'" in capsys.readouterr().err
