"""Long runs: nothing grows, and whatever ends them, they go on to the same bits. Slow."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import ROOT
from tests.photographs import save_photo
from tests.runs.run_rows import rows, same_bits
from tests.tiny_classifier import MODEL

pytestmark = pytest.mark.slow
IMAGES = int(os.environ.get("GAG_FAST_SOAK_IMAGES", "2000"))
ENDS = 25


@pytest.fixture
def data(tmp_path):
    """A table of IMAGES photographs, every second one with a mask."""
    mask = np.zeros((40, 36), np.uint8)
    mask[10:30, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    lines = ["path,label,mask"]
    for i in range(IMAGES):
        save_photo(tmp_path / "data" / f"{i:05d}.png", i)
        lines.append(f"data/{i:05d}.png,{i % 5},{'mask.png' * (i % 2)}")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    return tmp_path / "data.csv"


def temporary(data):
    """A folder for the runs' temporary files alone: others make theirs in /tmp meanwhile."""
    folder = data.parent / "temporary"
    folder.mkdir(exist_ok=True)
    return folder


def begin(data, out, onnx):
    words = ["evaluate", data, "--model", MODEL, "--onnx", onnx, "--out", out, "--keep-maps"]
    words += ["--methods", "guided_absgrad,vanilla", "--n", "2", "--providers", "cpu"]
    words += ["--metrics", "rcap,mae", "--chunk", "8"]
    return subprocess.Popen(
        [sys.executable, "-m", "gag_fast", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary(data))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def use(pid):
    """(resident MiB, descriptors, threads) of a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    resident = int(status["VmRSS"].split()[0]) / 1024
    return resident, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def watched(running, out):
    """What a run uses whenever a part is done, until it ends."""
    seen, done = [], 0
    while running.poll() is None:
        parts = len(list((out / "results").glob("part-*"))) if (out / "results").is_dir() else 0
        if parts > done:
            done = parts
            try:
                seen.append(use(running.pid))
            except (OSError, KeyError):
                break
        time.sleep(0.02)
    return seen


def test_two_thousand_images_and_twenty_five_ends(data, onnx, tmp_path):
    running = begin(data, tmp_path / "quiet", onnx)
    seen = watched(running, tmp_path / "quiet")
    assert running.wait() == 0
    early, late = np.array(seen[len(seen) // 4 : len(seen) // 2]), np.array(seen[-len(seen) // 4 :])
    growth = late.mean(0) - early.mean(0)
    print(f"{len(seen)} looks; MiB, descriptors, threads: {early.mean(0)} -> {late.mean(0)}")
    assert growth[0] < 20
    assert abs(growth[1]) < 2
    assert abs(growth[2]) < 2

    draw, out, ends = random.Random(9), tmp_path / "ended", []
    parts = len(list((tmp_path / "quiet" / "results").iterdir()))
    for _ in range(200):
        if len(ends) == ENDS:
            break
        have = len(list((out / "results").glob("part-*"))) if out.exists() else 0
        running = begin(data, out, onnx)
        goal = have + draw.randrange(1, max(2, parts // (ENDS + 5)))
        while running.poll() is None:
            if len(list((out / "results").glob("part-*"))) >= goal:
                time.sleep(draw.random() * 0.05)
                number = draw.choice((signal.SIGTERM, signal.SIGINT, signal.SIGKILL))
                running.send_signal(number)
                ends.append(number)
                break
            time.sleep(0.005)
        running.wait(timeout=120)
        if running.returncode == 0:
            break
    print(f"{len(ends)} ends: {sorted(int(e) for e in ends)}")
    assert len(ends) >= ENDS - 2
    running = begin(data, out, onnx)
    assert running.wait() == 0
    assert same_bits(rows(out), rows(tmp_path / "quiet"))
    for shard in sorted((out / "maps").iterdir()):
        assert shard.name.startswith("part-")
        with np.load(shard) as mine, np.load(tmp_path / "quiet" / "maps" / shard.name) as theirs:
            assert mine.files == theirs.files
            assert all(np.array_equal(mine[name], theirs[name]) for name in mine.files)
    assert not list(out.rglob("*.tmp"))
    # `.ses` is ONNX Runtime's: one small file for all sessions of a machine.
    assert {path.name for path in temporary(data).iterdir()} <= {".ses"}
    assert threading.active_count() < 50
