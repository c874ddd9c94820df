"""The run on a GPU machine, without one: skipped and named, or rehearsed in full on the CPU."""

import json
import subprocess
import sys

import pytest
import torch

import gag_fast
from benchmarks.gpu import build, checks, timings
from benchmarks.gpu.__main__ import PARTS, main
from benchmarks.gpu.device import full_precision
from benchmarks.gpu.log import Log
from tests import ROOT

STAMP = {"device": "none", "commit": "0"}


def run_of(*words, out):
    """A run as a process of its own: its exit status and its results."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--out", str(out), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return run, json.loads((out / "gpu.json").read_text())


def test_gpu_script_runs_to_its_end_without_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: the script itself is the test")
    run, found = run_of(out=tmp_path)
    assert run.returncode == 0, run.stderr
    assert {"correctness", "aggregation", "scoring"} <= {s["name"] for s in found["skipped"]}
    assert {s["name"] for s in found["skipped"]} == set(PARTS)


def test_a_rehearsal_runs_every_part_to_its_end(tmp_path):
    pytest.importorskip("torchvision")
    run, found = run_of("--rehearse", out=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert found["broken"] == []
    assert [s["name"] for s in found["skipped"]] == ["build"]
    assert all(check["ok"] for check in found["checks"])
    names = " ".join(row["name"] for row in found["timings"])
    for part in ("copy", "guided_absgrad", "graph replay", "compose_", "explain", "scoring"):
        assert part in names + " ".join(c["name"] for c in found["checks"]), part
    for variant in ("HEURISTIC", "DEFAULT", "CUDA graph", "arena"):
        assert variant in names
    assert "| case | ms |" in (tmp_path / "gpu.md").read_text()


def test_a_part_that_breaks_ends_nothing_but_itself(tmp_path, monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("planted")

    monkeypatch.setattr(timings, "aggregation", broken)
    words = ["--rehearse", "--parts", "aggregation,elementwise", "--out", str(tmp_path)]
    assert main(words) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    (section,) = found["broken"]
    assert section["name"] == "aggregation"
    assert section["error"] == "RuntimeError: planted"
    assert any("compose_" in row["name"] for row in found["timings"])
    assert "failed: aggregation" in capsys.readouterr().out


def test_rows_are_on_disk_as_they_come(tmp_path):
    log = Log(tmp_path, STAMP)
    log.timing("one", 1.0, share=0.5)
    assert json.loads((tmp_path / "gpu.json").read_text())["timings"][0]["name"] == "one"
    log.check("two", False, "off")
    assert log.failed == ["two"]
    assert "0 of 1 checks held" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize("wrong", ["nan", "last bit", "dtype", "shape"])
def test_a_mismatch_is_seen(wrong):
    theirs = torch.rand(3, 4)
    ours = theirs.clone()
    if wrong == "nan":
        ours[1, 1] = torch.nan
    elif wrong == "last bit":
        ours[2, 3] = torch.nextafter(ours[2, 3], torch.tensor(2.0))
    else:
        ours = ours.double() if wrong == "dtype" else ours[:2]
    log = Log(None, STAMP)
    checks.same(log, "planted", ours, theirs)
    checks.same(log, "fine", theirs.clone(), theirs)
    assert log.failed == ["planted"]


def test_what_is_timed_is_checked_in_its_layout(monkeypatch):
    """A kernel that is wrong for channels_last alone is found where that layout is timed."""
    right = gag_fast.guided_absgrad
    calls = []

    def wrong(grads, *arguments, **options):
        last = grads.stride(2) == 1
        calls.append(last)
        found = right(grads, *arguments, **options)
        return found * (0.5 if last and calls.count(True) == 1 else 1)

    monkeypatch.setattr(gag_fast, "guided_absgrad", wrong)
    assert main(["--rehearse", "--parts", "aggregation"]) == 1


def test_the_build_is_for_the_gpu_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    words, asked = build.command()
    assert asked == {"GAG_FAST_CUDA": "1", "GAG_FAST_CUDA_ARCHS": "90-real"}
    assert words[1:] == ["setup.py", "-q", "build_ext", "--inplace"]


def test_a_build_that_fails_is_a_failed_check(monkeypatch):
    monkeypatch.setattr(build, "cuda_library", lambda: "built without nvcc")
    monkeypatch.setattr(build, "command", lambda: ([sys.executable, "-c", "exit('error: no')"], {}))
    log = Log(None, STAMP)
    build.ensure(log)
    assert log.data["checks"] == [{"name": "build", "ok": False, "detail": "error: no"}]


def test_no_tensorfloat_on_either_side():
    torch.backends.cudnn.allow_tf32 = True
    with full_precision():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
