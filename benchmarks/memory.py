"""Peak memory of aggregation and scoring beside others' ways, each case in a process of its own.

python -m benchmarks.memory [CASE]   without CASE: all of them, as JSON
"""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import gag_fast
from benchmarks import competitors
from benchmarks.material import SWEEP, Stack

STACK = Stack(batch=8, n=20, side=224)
IMAGES, MAPS = 8, 2

Call = Callable[[], object]


def aggregation(call: Callable[[Tensor], object]) -> Call:
    """A call on STACK, after a warm-up on a tiny one."""
    call(Stack(batch=2, n=2, side=16).make())
    grads = STACK.make()
    return lambda: call(grads)


def scoring(preset: str) -> Call:
    """Three metrics of IMAGES x MAPS maps by the engine, after a warm-up on one image."""
    from benchmarks import material

    clf = gag_fast.Classifier(material.lite0_onnx(), "cpu", batch_size=16)
    images, maps, targets = material.scored_images(IMAGES, MAPS)
    gag_fast.evaluate(clf, images[:1], maps[:1], targets[:1])
    return lambda: gag_fast.evaluate(clf, images, maps, targets, preset=preset)


def scoring_authors() -> Call:
    """The same by the authors' way in torch, after a warm-up on one image."""
    from benchmarks import material
    from benchmarks.competitors import authors_way

    module, spec = material.lite0()
    images, maps, targets = material.scored_images(IMAGES, MAPS)
    authors_way(module, images[:1], maps[:1, :1], targets[:1], spec.preprocessing)
    return lambda: authors_way(module, images, maps, targets, spec.preprocessing)


CASES: dict[str, Callable[[], Call]] = {
    "aggregation: gag_fast": lambda: aggregation(lambda g: gag_fast.guided_absgrad(g, p=85)),
    "aggregation: gag_fast, nine p": lambda: aggregation(
        lambda g: gag_fast.guided_absgrad(g, p=SWEEP)
    ),
    "aggregation: plain torch": lambda: aggregation(competitors.plain_torch),
    "aggregation: authors' recipe": lambda: aggregation(
        lambda g: competitors.authors_recipe(list(g.unbind(1)))
    ),
    "scoring: gag_fast, paper": lambda: scoring("paper"),
    "scoring: gag_fast, rise (450 forwards a map)": lambda: scoring("rise"),
    "scoring: authors' way, paper": scoring_authors,
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
    """Bytes by which the call raises this process's peak; its inputs are there before."""
    call = CASES[name]()
    before = peak()
    call()
    return peak() - before


def measure() -> dict[str, float]:
    """name -> peak above the inputs, MiB."""
    result = {}
    for name in CASES:
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        result[name] = json.loads(run.stdout.splitlines()[-1]) / 2**20
    return result


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    print(json.dumps(extra_bytes(sys.argv[1]) if len(sys.argv) > 1 else measure()))
