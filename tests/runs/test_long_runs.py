"""What only long runs show: memory that does not grow, a pipeline as fast as its engines."""

import os
import statistics
import subprocess
import sys
import threading
import time

import pytest

from tests import ROOT
from tests.runs.run_rows import rows, same_bits
from tests.runs.test_kill import KILLS, killed_run, quiet_run

pytestmark = pytest.mark.slow

MEMORY = """
import sys
from gag_fast.attribution.explanation import Explanation
from gag_fast.runs.folder import RunFolder
from gag_fast.runs.request import Request
from gag_fast.runs.run import run

write, resident, done = RunFolder.write_part, {}, 0

def watched(self, index, table, *more):
    global done
    write(self, index, table, *more)
    done += len(set(table["image"].to_pylist()))
    with open("/proc/self/statm") as file:
        resident[done] = int(file.read().split()[1]) * 4096

RunFolder.write_part = watched
data, out, onnx = sys.argv[1:]
run(Request(data, out, "tests.tiny_classifier:build", onnx=onnx, chunk=10, providers="cpu",
            explanation=Explanation(n=4),
            methods=("guided_absgrad", "vanilla"), keep_maps=True), quiet=True)
print(resident[100], resident[1000], resident[2000])
"""


def test_resident_memory_is_flat(photos, onnx, tmp_path):
    data = photos(2000)
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(data), str(tmp_path / "run"), str(onnx)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, middle, last = map(int, out.stdout.split())
    assert middle <= first * 1.05
    assert last <= first * 1.05
    assert last >= first * 0.95


LITE0 = "efficientnet_lite0"


@pytest.mark.photos
def test_the_pipeline_is_as_fast_as_its_engines(labelled_samples, lite0_onnx):
    """Whole run (decode, gradients, scores) against gradients alone plus scores alone."""
    from gag_fast.data import open_dataset
    from gag_fast.presets import preset
    from gag_fast.runs.chunks import cut
    from gag_fast.runs.decoding import Decoder
    from gag_fast.runs.local import LocalExecutor
    from gag_fast.runs.worker import Work, open_worker

    methods = ("guided_absgrad", "absgrad", "smoothgrad")
    metrics = ("rcap", "dauc", "iauc")
    work = Work(LITE0, "default", str(lite0_onnx), methods, metrics, preset("paper"))
    with open_worker(work) as worker:
        chunks = cut(open_dataset(labelled_samples, 1000).first(16), 8)
        with Decoder(worker.spec.preprocessing) as decoder:
            decoded = list(decoder.stream(chunks))
        worker.score(worker.explain(*decoded[0]))  # warm-up
        engines, pipeline = [], []
        for _ in range(3):
            begin = time.perf_counter()
            explained = [worker.explain(*pair) for pair in decoded]
            for one in explained:
                worker.score(one)
            engines.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            list(LocalExecutor(worker).run(iter(chunks), threading.Event()))
            pipeline.append(time.perf_counter() - begin)
    assert statistics.median(engines) / statistics.median(pipeline) >= 0.9


@pytest.mark.photos
def test_photographs_killed_again_and_again(labelled_samples, lite0_onnx, tmp_path):
    """The real classifier; small n, since it is the restarts that count."""
    words = ("--model", LITE0, "--methods", "guided_absgrad,smoothgrad,vanilla", "--n", "2")
    words = (*words, "--limit", os.environ.get("GAG_FAST_KILL_IMAGES", "244"))
    out = tmp_path / "killed"
    pace = quiet_run(
        lambda: _process(labelled_samples, tmp_path / "quiet", lite0_onnx, words),
        tmp_path / "quiet",
    )
    total = len(list((tmp_path / "quiet").glob("results/*.parquet")))
    hits = killed_run(lambda: _process(labelled_samples, out, lite0_onnx, words), out, total, *pace)
    print(f"{hits} kills, {total} parts")
    assert hits >= KILLS - 2
    assert same_bits(rows(tmp_path / "killed"), rows(tmp_path / "quiet"))


def _process(data, out, onnx, words):
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "gag_fast", "evaluate", str(data), "--out", str(out)),
            *("--onnx", str(onnx), "--providers", "cpu", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
