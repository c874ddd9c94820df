"""The Ray engine on a local cluster: the local engine's rows, and workers that die."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from gag_fast.report.deciding import Rule
from gag_fast.runs.on_ray import RayExecutor
from tests.runs.run_rows import rows, same_bits

ray = pytest.importorskip("ray", reason="needs gag-fast[ray]")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """A cluster of two CPUs in this machine, gone afterwards."""
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


both_sources = pytest.mark.parametrize("gradients", ["torch", "onnx"])


@both_sources
def test_the_rows_are_those_of_the_local_engine(photos, start, gradients):
    data = photos(30)
    local = start(data, out="local", gradients=gradients).out
    remote = start(data, out="ray", engine="ray", workers=2, gradients=gradients)
    assert remote.complete
    assert same_bits(rows(local), rows(remote.out))


def test_a_run_may_change_engines(photos, start):
    data = photos(20)
    out = start(data, engine="ray", workers=1).out
    whole = rows(out)
    (out / "results" / "part-000002.parquet").unlink()
    assert start(data, engine="local").computed == 4
    (out / "results" / "part-000001.parquet").unlink()
    assert start(data, engine="ray", workers=2).computed == 4
    assert same_bits(rows(out), whole)


def test_a_run_until_decided_stops_at_the_same_image(photos, start):
    """Chunks come in any order from workers; what is decided, and the rows kept, do not depend."""
    data = photos(60)
    rule = Rule("rcap", 0.4, seed=3)
    local = start(data, out="local", until_decided=rule)
    remote = start(data, out="ray", engine="ray", workers=2, until_decided=rule)
    assert local.settled
    assert remote.done == local.done < 60
    assert same_bits(rows(local.out), rows(remote.out))


def test_bad_images_and_maps(photos, start):
    data = photos(6)
    (data / "blue" / "000.png").write_bytes(b"no picture")
    summary = start(data, engine="ray", workers=1, keep_maps=True)
    assert list(summary.failures) == ["blue/000.png"]
    assert (summary.out / "maps" / "part-000000.npz").is_file()


@both_sources
def test_a_worker_that_is_killed_loses_nothing(photos, start, tmp_path, monkeypatch, gradients):
    data = photos(400)
    killed = []
    actors = []
    new_actor = RayExecutor._new_actor

    def remember(self):
        actors.append(new_actor(self))
        return actors[-1]

    monkeypatch.setattr(RayExecutor, "_new_actor", remember)

    def kill():
        results = tmp_path / "ray" / "results"
        for count in (3, 20):
            while not results.exists() or len(list(results.iterdir())) < count:
                time.sleep(0.01)
            pid = ray.get(actors[-1].__ray_call__.remote(lambda self: os.getpid()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    summary = start(data, out="ray", engine="ray", workers=2, gradients=gradients)
    thread.join(timeout=1)
    assert len(set(killed)) == 2
    assert summary.complete
    assert summary.computed == 400
    quiet = start(data, out="local", gradients=gradients).out
    assert same_bits(rows(summary.out), rows(quiet))


def test_a_worker_that_cannot_begin_says_why(photos, start, monkeypatch):
    make = RayExecutor.__init__

    def with_other_weights(self, work, workers):
        make(self, replace(work, weights="/nowhere/gone.pt"), workers)

    monkeypatch.setattr(RayExecutor, "__init__", with_other_weights)
    with pytest.raises(RuntimeError, match=r"3 Ray workers died .*gone\.pt"):
        start(photos(4), engine="ray", workers=1)


def test_a_chunk_that_kills_every_worker_ends_the_run(photos, start):
    data = photos(12)
    with pytest.raises(RuntimeError, match=r"3 Ray workers died over part \d"):
        start(data, engine="ray", workers=1, model="tests.runs.deadly_classifier:build", onnx=None)
