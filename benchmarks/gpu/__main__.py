"""One run on a GPU machine: build, correctness, sanitizer, then every CUDA figure.

    python -m benchmarks.gpu [--out DIR] [--quick] [--parts build,correctness,…] [--rehearse]

Needs a checkout, torch with CUDA, numpy, torchvision, cmake and nvcc; nothing has to be installed.
Where the CUDA library does not load it is built for this GPU. Scoring is the last part, and skips
itself: it needs an onnxruntime with CUDA and the project installed (pip install --no-deps .). The
others take under eight minutes; `--parts scoring` runs it alone.

Times are by CUDA events after warm-up, over inputs that take turns and are larger than the L2
cache; the copy bandwidth is measured in the same run, so that shares of it are shares of what this
card can do. Without a GPU everything is skipped and named; --rehearse runs every line on the CPU at
tiny sizes instead. Exits with 1 when a check failed or a part broke.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.gpu.device import Gpu, Rehearsal, full_precision
from benchmarks.gpu.log import Log

PARTS = ("build", "correctness", "sanitizer", "aggregation", "elementwise", "explaining", "scoring")


def perform(part: str, log: Log, device: Gpu, quick: bool) -> None:
    """One part; an error ends it and is written down."""
    # Imported here: the libraries may have been built a moment ago, in the first part.
    if part == "build":
        from benchmarks.gpu import build

        if device.rehearsal:
            log.skip("build", f"rehearsal; would run {' '.join(build.command()[0][1:])}")
        else:
            build.ensure(log)
    elif part == "correctness":
        from benchmarks.gpu import checks

        for check in checks.CHECKS:
            with log.section(f"correctness, {check.__name__}"):
                check(log, device)
    elif part == "sanitizer":
        from benchmarks.gpu import sanitized

        sanitized.run(log, device)
    elif part == "scoring":
        from benchmarks.gpu import scoring

        scoring.run(log, device)
    else:
        timed(part, log, device, quick)


def timed(part: str, log: Log, device: Gpu, quick: bool) -> None:
    """A part of the timings; the first one measures the copy bandwidth."""
    from benchmarks.gpu import timings

    if part == "explaining":
        timings.explaining(log, device)
        return
    bandwidth = log.data["facts"].get("copy_bytes_per_s") or timings.copy_bandwidth(log, device)
    if part == "aggregation":
        timings.aggregation(log, device, bandwidth, quick)
    else:
        timings.elementwise(log, device, bandwidth)


def main(argv: list[str] | None = None) -> int:
    """Runs the parts asked for; 1 when a check failed or a part broke."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--quick", action="store_true", help="three stack sizes only")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rehearse", action="store_true", help="every line, on the CPU, tiny")
    args = parser.parse_args(argv)
    parts = args.parts.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"unknown parts {unknown}; there are {', '.join(PARTS)}")
    begin = time.perf_counter()
    there = torch.cuda.is_available()
    device = Rehearsal() if args.rehearse else Gpu()
    log = Log(args.out, machine.stamp("cuda" if there and not args.rehearse else "cpu"))
    log.fact("rehearsal", args.rehearse)
    print(json.dumps(log.data["stamp"]), flush=True)
    with full_precision():
        for part in parts:
            start = time.perf_counter()
            if there or args.rehearse:
                with log.section(part):
                    perform(part, log, device, args.quick)
            else:
                log.skip(part, "no CUDA device")
            log.fact(f"seconds_{part}", time.perf_counter() - start)
    log.fact("seconds", time.perf_counter() - begin)
    failed = log.failed
    print(
        f"{len(log.data['checks'])} checks, {len(log.data['broken'])} parts broken, "
        f"{len(failed)} failures, {log.data['facts']['seconds']:.0f} s"
    )
    for name in failed:
        print(f"failed: {name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
