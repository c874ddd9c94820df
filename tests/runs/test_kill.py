"""The plug pulled: SIGKILL at random moments, a full disk."""

import random
import shutil
import subprocess
import time

import pytest

from gag_fast.export import export_gradients
from gag_fast.models import load_model
from gag_fast.runs.folder import DiskFullError
from tests.runs.run_rows import parts, process, rows, same_bits
from tests.tiny_classifier import MODEL

KILLS = 25


def quiet_run(begin, out):
    """Runs a command undisturbed; seconds until its first part, seconds a part after it."""
    start = time.monotonic()
    running = begin()
    while running.poll() is None and not parts_of(out):
        time.sleep(0.01)
    first = time.monotonic() - start
    _, err = running.communicate()
    assert running.returncode == 0, err
    return first, (time.monotonic() - start - first) / len(parts_of(out))


def parts_of(out):
    return list(out.glob("results/*.parquet"))


def killed_run(begin, out, total, first, pace):
    """Starts a command again and again, kills it KILLS times, then lets it end.

    A third of the kills come while it loads, the others at a random moment of the part after a
    random number of new ones; few enough that work is left for the last kill.

    Args:
        begin: starts the command.
        out: its run folder.
        total: parts of the whole run.
        first, pace: from `quiet_run`.

    Returns how many kills hit a running process.
    """
    rng = random.Random(0)
    hits = 0
    for kill in range(KILLS):
        have = len(parts_of(out))
        running = begin()
        if kill % 3 == 0:
            time.sleep(rng.uniform(0, first))
        else:
            more = rng.randint(1, max(1, (total - have) // (KILLS - kill)))
            while running.poll() is None and len(parts_of(out)) < min(have + more, total - 1):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, pace))
        hits += running.poll() is None
        running.kill()
        running.communicate()
    running = begin()
    _, err = running.communicate()
    assert running.returncode == 0, err
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("gradients", ["torch", "onnx"])
def test_killed_again_and_again_the_rows_are_those_of_a_quiet_run(
    photos, start, onnx, tmp_path, gradients
):
    """With "onnx" the first kills come while the gradients are exported."""
    data = photos(4 * 150)
    out, quiet = tmp_path / "killed", tmp_path / "quiet"
    if gradients == "onnx":  # there already in the quiet run: its pace is that of the others
        quiet.mkdir()
        module, spec = load_model(MODEL)
        export_gradients(module, quiet / "gradients.onnx", spec, providers=["cpu"])

    def begin(folder):
        return process(data, folder, onnx, "--gradients", gradients)

    pace = quiet_run(lambda: begin(quiet), quiet)
    assert killed_run(lambda: begin(out), out, 150, *pace) >= KILLS - 2
    assert same_bits(rows(out), rows(quiet))
    assert start(data, out="killed", gradients=gradients).computed == 0


def test_killed_in_the_middle_of_parts(photos, start, onnx, tmp_path):
    data = photos(4 * 40)
    out = tmp_path / "run"
    for more in (1, 3, 9):
        running = process(data, out, onnx)
        goal = len(parts(out)) + more if (out / "results").exists() else more
        while len(list((out / "results").glob("*.parquet"))) < goal:
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.001)
        running.kill()
        running.communicate()
    before = parts(out)
    assert 13 <= len(before) < 40
    summary = start(data)
    assert summary.complete
    assert summary.computed == 4 * (40 - len([n for n in before if n.startswith("part")]))
    assert same_bits(rows(out), rows(start(data, out="quiet").out))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB; skipped where one may not be mounted."""
    where = tmp_path / "small"
    where.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(where)], capture_output=True
        ).returncode
    ):
        pytest.skip("a tmpfs may not be mounted here (needs root)")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_a_full_disk_stops_clearly_and_the_folder_goes_on(photos, start, small_disk, onnx):
    data = photos(160)
    out = small_disk / "run"
    with pytest.raises(DiskFullError, match="no space left on the disk of"):
        start(data, out=out)
    done = parts(out)
    assert 0 < len(done) < 40
    assert all(name.startswith("part-") for name in done), "a half-written file was left"
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    summary = start(data, out=out)
    assert summary.complete
    assert summary.computed == 160 - 4 * len(done)
    assert same_bits(rows(out), rows(start(data, out="quiet").out))


def test_a_full_disk_on_the_command_line(photos, small_disk, onnx):
    running = process(photos(160), small_disk / "run", onnx)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 1
    line = next(x for x in err.splitlines() if x.startswith("gag-fast: error:"))
    assert "no space left" in line
    assert "run the same command again" in line
    assert "Traceback" not in err
