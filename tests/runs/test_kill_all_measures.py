"""A run of every measure, with masks, killed twice: the rows are those of a quiet run."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from gag_fast.measures import MEASURES
from tests import ROOT
from tests.runs.run_rows import CLASSES, process, rows, same_bits

COLUMNS = ("image", "method", *MEASURES, "status", "error")


@pytest.fixture
def masked(photos, tmp_path):
    """Twelve images in a table, all but one with a mask."""
    photos(12)
    lines = ["path,label,mask"]
    for i in range(12):
        mask = np.zeros((40, 36), np.uint8)
        mask[5 + i : 30, 8 : 20 + i] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{i}.png")
        name = f"mask{i}.png" if i != 5 else ""
        lines.append(f"data/{CLASSES[i % 3]}/{i:03d}.png,{i % 3},{name}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    return tmp_path / "data.csv"


@pytest.fixture
def real(tmp_path):
    """Four photographs that come with scikit-image in a table, all but one with a mask."""
    data = pytest.importorskip("skimage.data")
    lines = ["path,label,mask"]
    for number, name in enumerate(("coffee", "chelsea", "rocket", "astronaut")):
        pixels = getattr(data, name)()
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        bright = pixels.mean(axis=2) > np.median(pixels)
        Image.fromarray((bright * 255).astype(np.uint8)).save(tmp_path / f"{name}_mask.png")
        lines.append(f"{name}.png,{number},{name}_mask.png" if number else f"{name}.png,0,")
    (tmp_path / "real.csv").write_text("\n".join(lines))
    return tmp_path / "real.csv"


FEW = """
import sys, gag_fast
from gag_fast.presets import preset

few = dict(mufidelity_samples=12, infidelity_samples=3, sensitivity_samples=2, randomise_groups=2)
few["information_shares"] = (0.1, 0.5)
data, out, onnx = sys.argv[1:]
done = gag_fast.run(
    data, "efficientnet_lite0", ("grad_cam", "vanilla"), out, metrics=("all",), onnx=onnx,
    preset=preset("paper", **few), chunk=1, workers=1, providers="cpu", quiet=True,
)
sys.exit(not done.complete)
"""
"""A run of EfficientNet-Lite0 and every measure, with fewer samples of those that take many."""


def few_of_lite0(data, out, onnx):
    return subprocess.Popen(
        [sys.executable, "-c", FEW, str(data), str(out), str(onnx)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def parts_of(out):
    return list(out.glob("results/*.parquet"))


def finished(running):
    _, err = running.communicate()
    assert running.returncode == 0, err


def killed_at(goal, running, out, total):
    """SIGKILL in the middle of the part after the `goal`-th."""
    while len(parts_of(out)) < goal:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.005)
    running.kill()
    running.communicate()
    assert goal <= len(parts_of(out)) < total


def missing_values_are_those_without_a_mask(table, without):
    """Of the measures that are defined for every map."""
    defined = {name for name, m in MEASURES.items() if not m.undefined}
    for row in table:
        for name in defined:
            needs_mask = "masks=" in {need.value for need in MEASURES[name].needs}
            lacks = without in row["image"] and needs_mask
            assert (row[name] is None) == lacks, (row["image"], name)


@pytest.mark.slow
def test_killed_twice_all_measures_are_those_of_a_quiet_run(masked, onnx, tmp_path):
    asked = ("--metrics", "all", "--chunk", "1")
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    finished(process(masked, quiet, onnx, *asked))
    for goal in (2, 7):
        killed_at(goal, process(masked, killed, onnx, *asked), killed, 12)
    finished(process(masked, killed, onnx, *asked))
    assert same_bits(rows(killed, COLUMNS), rows(quiet, COLUMNS))
    table = rows(killed, COLUMNS).to_pylist()
    assert len(table) == 24
    missing_values_are_those_without_a_mask(table, "005")


@pytest.mark.slow
def test_photographs_and_lite0_too(real, lite0_onnx, tmp_path):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    finished(few_of_lite0(real, quiet, lite0_onnx))
    for goal in (1, 2):
        killed_at(goal, few_of_lite0(real, killed, lite0_onnx), killed, 4)
    finished(few_of_lite0(real, killed, lite0_onnx))
    assert same_bits(rows(killed, COLUMNS), rows(quiet, COLUMNS))
    table = rows(killed, COLUMNS).to_pylist()
    assert [row["status"] for row in table] == ["ok"] * 8
    missing_values_are_those_without_a_mask(table, "coffee")
