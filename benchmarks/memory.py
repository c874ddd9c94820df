"""Peak memory of aggregation beside plain torch's, each case in a process of its own.

python -m benchmarks.memory [CASE]   without CASE: all of them, as JSON
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

import gag_fast
from benchmarks import competitors
from benchmarks.suites.aggregation import SWEEP, Stack

STACK = Stack(batch=8, n=20, side=224)
CALLS = {
    "gag_fast": lambda g: gag_fast.guided_absgrad(g, p=85),
    "gag_fast, nine p": lambda g: gag_fast.guided_absgrad(g, p=SWEEP),
    "plain torch": competitors.plain_torch,
    "authors' recipe": lambda g: competitors.authors_recipe(list(g.unbind(1))),
}


def peak() -> int:
    """Largest resident size of this process so far, bytes.

    VmHWM, not getrusage: on Linux a child's ru_maxrss begins at its parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.M)
        if found:
            return int(found.group(1)) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def extra_bytes(name: str) -> int:
    """Bytes by which the call raises this process's peak, after a warm-up on a tiny stack."""
    CALLS[name](Stack(batch=2, n=2, side=16).make())
    grads = STACK.make()
    before = peak()
    CALLS[name](grads)
    return peak() - before


def measure() -> dict[str, float]:
    """name -> peak above the stack itself, MiB."""
    result = {}
    for name in CALLS:
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        result[name] = json.loads(run.stdout) / 2**20
    return result


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    print(json.dumps(extra_bytes(sys.argv[1]) if len(sys.argv) > 1 else measure()))
