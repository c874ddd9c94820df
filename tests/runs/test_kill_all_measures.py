"""A run of every measure, with masks, killed twice: the rows are those of a quiet run."""

import time

import numpy as np
import pytest
from PIL import Image

from gag_fast.measures import MEASURES
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


def parts_of(out):
    return list(out.glob("results/*.parquet"))


@pytest.mark.slow
def test_killed_twice_all_measures_are_those_of_a_quiet_run(masked, onnx, tmp_path):
    asked = ("--metrics", "all", "--chunk", "1")
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    running = process(masked, quiet, onnx, *asked)
    _, err = running.communicate()
    assert running.returncode == 0, err
    for goal in (2, 7):  # SIGKILL in the middle of the next part
        running = process(masked, killed, onnx, *asked)
        while len(parts_of(killed)) < goal:
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.005)
        running.kill()
        running.communicate()
        assert goal <= len(parts_of(killed)) < 12
    running = process(masked, killed, onnx, *asked)
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert same_bits(rows(killed, COLUMNS), rows(quiet, COLUMNS))
    table = rows(killed, COLUMNS).to_pylist()
    assert len(table) == 24
    defined = {name for name, m in MEASURES.items() if not m.undefined}
    for row in table:
        lacks = "005" in row["image"]
        for name in defined:
            needs_mask = "masks=" in {need.value for need in MEASURES[name].needs}
            assert (row[name] is None) == (lacks and needs_mask), (row["image"], name)
