"""The CUDA library for this GPU, built in the checkout where none loads yet."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

from benchmarks.gpu.log import Log
from benchmarks.machine import ROOT

LOADS = """
import torch
from gag_fast import _library
print(_library.cuda_status)
"""


def cuda_library() -> str:
    """ "loaded", or why the CUDA library is not; asked of a new process."""
    run = subprocess.run([sys.executable, "-c", LOADS], cwd=ROOT, capture_output=True, text=True)
    lines = (run.stdout or run.stderr or "no answer").strip().splitlines()
    return lines[-1]


def architectures() -> str:
    """What to build for: this GPU alone, for a fast build; Hopper where there is none."""
    if not torch.cuda.is_available():
        return "90-real"
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}-real"


def command() -> tuple[list[str], dict[str, str]]:
    """The build, and what it needs in its environment."""
    asked = {"GAG_FAST_CUDA": "1", "GAG_FAST_CUDA_ARCHS": architectures()}
    return [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], asked


def ensure(log: Log) -> None:
    """Builds both libraries where the CUDA one does not load; `log` has the seconds."""
    status = cuda_library()
    if status == "loaded":
        log.check("CUDA library", True, "loads")
        return
    begin = time.perf_counter()
    words, asked = command()
    run = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True
    )
    log.fact("build_seconds", time.perf_counter() - begin)
    if run.returncode != 0:
        wrong = (run.stderr or run.stdout).strip().splitlines()
        log.check("build", False, next((x for x in wrong if "error" in x.lower()), wrong[-1]))
        return
    status = cuda_library()
    log.check("CUDA library", status == "loaded", status)
