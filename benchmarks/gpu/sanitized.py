"""compute-sanitizer over every kernel: `memcheck` for memory, `racecheck` for shared memory.

python -m benchmarks.gpu.sanitized SIDE [DEVICE]   runs every kernel once on images of that side
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import torch

from benchmarks.gpu.device import Gpu
from benchmarks.gpu.log import Log
from benchmarks.machine import ROOT

TOOLS = ("memcheck", "racecheck")
SIDES = (96, 224)
SECONDS = 90  # for one tool at one side
FOUND = 9  # the exit status that says so


def every_kernel(side: int, device: str) -> None:
    """All operators once, for every dtype and both layouts; small batches, few samples."""
    import gag_fast
    from benchmarks.material import Stack
    from gag_fast import ops

    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for last in (False, True):
            grads = Stack(2, 3, side, dtype, last).make(device)
            gag_fast.guided_absgrad(grads, p=(0, 50, 85))
            stats = gag_fast.GradientStats()
            for sample in grads.unbind(1):
                stats.update(sample)
            stats.guided_absgrad(p=85)
    images = torch.randn(2, 3, side, side, device=device)
    keys = ops.image_keys(images)
    std = torch.ones(2, device=device)
    ops.gaussian_noise(images, keys, std, seed=0, first_sample=1, samples=3)
    ranks, _ = ops.saliency_ranks((torch.rand(2, side, side, device=device) * 9).round())
    slots = torch.tensor([[0, side, 0, -1], [1, 7, 1, 0]], dtype=torch.int32, device=device)
    out = torch.empty(2, 3, side, side, device=device)
    ops.compose_(out, images, torch.zeros(3, device=device), ranks, slots)


def run(log: Log, device: Gpu) -> None:
    """Every tool at every side, where compute-sanitizer is there."""
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "/usr/local/cuda/bin/compute-sanitizer"
    )
    plain = [sys.executable, "-m", "benchmarks.gpu.sanitized"]
    if device.rehearsal:
        done = subprocess.run([*plain, "33", device.name], cwd=ROOT, capture_output=True, text=True)
        log.check("every kernel, no sanitizer", done.returncode == 0, last_line(done.stderr))
        return
    if sanitizer is None:
        log.skip("compute-sanitizer", "not on PATH nor in /usr/local/cuda/bin")
        return
    # Without torch's caching each tensor is an allocation of its own, whose ends are watched.
    env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    for tool in TOOLS:
        for side in SIDES:
            name = f"compute-sanitizer {tool}, {side}²"
            words = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), *plain, str(side)]
            try:
                done = subprocess.run(
                    words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=SECONDS
                )
            except subprocess.TimeoutExpired:
                log.skip(name, f"took more than {SECONDS} s")
                continue
            log.check(name, done.returncode == 0, last_line(done.stdout + done.stderr))


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


if __name__ == "__main__":
    every_kernel(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "cuda")
