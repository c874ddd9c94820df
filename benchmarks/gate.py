"""The regression gate: ratios of medians against benchmarks/bounds.json.

    python -m benchmarks.gate                 check; exit 1 when a ratio is over its bound
    python -m benchmarks.gate --calibrate 10  repeat the measurement and print what the ratios are

Each case is timed beside a yardstick that does the least the job can cost (one read of the same
bytes, a copy, the bare session), interleaved in one process, so that a slow machine slows both.
One thread: what else runs then has the other cores to itself, where two threads of ours would wait
for the one that shares a core. A bound is the typical ratio times the square root of two: the same
distance, as a factor, to the typical run on one side and to a kernel made twice as slow on the
other. SIMD levels have bounds of their own, since their kernels are others.

GAG_FAST_GATE_HANDICAP=2 runs our side twice: the gate must then fail (tests/benchmarks does this).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import onnxruntime
import torch

import gag_fast
from benchmarks import material
from benchmarks.material import SWEEP, Stack
from benchmarks.timing import interleave
from gag_fast import ops
from gag_fast.metrics import evaluate, plan

BOUNDS = Path(__file__).with_name("bounds.json")

Pair = tuple[Callable[[], object], Callable[[], object]]


def aggregation() -> Pair:
    """One map per image: one read of the stack."""
    grads = Stack().make()
    return lambda: gag_fast.guided_absgrad(grads, p=85), lambda: grads.sum()


def sweep() -> Pair:
    """Nine percents of one stack, against reading it and counting in its variances nine times."""
    grads = Stack(batch=4).make()
    variance = grads.var(1)

    def read_and_count() -> None:
        grads.sum()
        for percent in SWEEP:
            variance.lt(percent / 1e4).sum()

    return lambda: gag_fast.guided_absgrad(grads, p=SWEEP), read_and_count


def streaming() -> Pair:
    """GradientStats over 20 updates against reading and writing its four maps 20 times."""
    grads = Stack().make()
    samples = list(grads.unbind(1))
    maps = torch.zeros(4, *samples[0].shape)

    def stream() -> object:
        stats = gag_fast.GradientStats()
        for sample in samples:
            stats.update(sample)
        return stats.guided_absgrad(p=85)

    def move() -> None:
        for _ in samples:
            maps.add_(1)

    return stream, move


def noise() -> Pair:
    """Noisy copies against torch's own normal numbers."""
    images = torch.randn(8, 3, 224, 224)
    keys, std = ops.image_keys(images), torch.ones(8)
    ours = {"seed": 0, "first_sample": 0, "samples": 4}
    shape = (8, 4, 3, 224, 224)
    return lambda: ops.gaussian_noise(images, keys, std, **ours), lambda: torch.randn(shape)


def compose() -> Pair:
    """Masked copies against plain copies of the same size."""
    images = torch.randn(4, 3, 224, 224)
    ranks, _ = ops.saliency_ranks(torch.rand(4, 224, 224))
    slots = [[i % 4, 700 * (i + 1), i % 4, -1] for i in range(64)]
    table = torch.tensor(slots, dtype=torch.int32)
    out, fill = torch.empty(64, 3, 224, 224), torch.zeros(3)
    plain = images.repeat(16, 1, 1, 1)
    return lambda: ops.compose_(out, images, fill, ranks, table), lambda: out.copy_(plain)


def ranks() -> Pair:
    """Ranks of saliency maps against torch.sort of the same values."""
    maps = torch.rand(8, 224, 224)
    return lambda: ops.saliency_ranks(maps), lambda: torch.sort(maps.flatten(1), dim=1)


def gradients() -> Pair:
    """16 noisy gradients of a network, and their maps, against its bare passes."""
    model, _ = material.lite0()
    images, targets = torch.randn(2, 3, 224, 224), torch.tensor([1, 2])
    bare = copy.deepcopy(model).requires_grad_(False).to(memory_format=torch.channels_last)
    batch = torch.randn(8, 3, 224, 224).to(memory_format=torch.channels_last)

    def passes() -> None:
        for _ in range(2):
            x = batch.clone().requires_grad_(True)
            torch.autograd.grad(bare(x)[:, 1].sum(), x)

    return lambda: gag_fast.explain(model, images, targets, n=8, batch_size=8), passes


def onnx_gradients() -> Pair:
    """The same 16 gradients through ONNX Runtime against as many bare runs of their graph."""
    file = material.gradient_file("efficientnet_lite0")
    source = gag_fast.OnnxGradients(file, "cpu", threads=1)
    images, targets = torch.randn(2, 3, 224, 224), torch.tensor([1, 2])
    session = one_thread(file)
    feed = {"images": images[:1].numpy(), "targets": targets[:1].numpy()}

    def passes() -> None:
        for _ in range(16):
            session.run(["gradients"], feed)

    return lambda: gag_fast.explain(source, images, targets, n=8), passes


def one_thread(file: Path) -> onnxruntime.InferenceSession:
    """A bare session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def scoring() -> Pair:
    """Three metrics of 2 images x 2 maps against as many batches of the bare session."""
    clf = gag_fast.Classifier(material.lite0_onnx(), "cpu", batch_size=16, threads=1)
    session = one_thread(material.lite0_onnx())
    images, maps, targets = material.scored_images(2, 2)
    batches = -(-len(plan(clf, images, maps, targets)) // 16)
    feed = {session.get_inputs()[0].name: torch.randn(16, 3, 224, 224).numpy()}

    def bare() -> None:
        for _ in range(batches):
            session.run(None, feed)

    return lambda: evaluate(clf, images, maps, targets), bare


CASES = {
    case.__name__: case
    for case in (
        *(aggregation, sweep, streaming, noise, compose, ranks),
        *(gradients, onnx_gradients, scoring),
    )
}
ROUNDS = {case.__name__: 7 for case in (gradients, onnx_gradients, scoring)}  # a second a call


def simd_level() -> str:
    """Which of the CPU kernels run here: avx512, avx2 or baseline (csrc/cpu/simd.cpp)."""
    features = gag_fast.build_info()["cpu_features"]
    widest = "avx512" if "avx512vl" in features else "avx2" if "avx2" in features else "baseline"
    return os.environ.get("GAG_FAST_SIMD") or widest


def measure(name: str, handicap: int = 1, rounds: int | None = None) -> float:
    """Ratio of the medians, ours over the yardstick, of one case, in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, yardstick = CASES[name]()

        def slowed() -> None:
            for _ in range(handicap):
                ours()

        rounds = rounds or ROUNDS.get(name, 41)
        times = interleave({"ours": slowed, "yardstick": yardstick}, rounds=rounds, warmup=2)
    finally:
        torch.set_num_threads(threads)
    return times["ours"].median / times["yardstick"].median


def check(handicap: int = 1, rounds: int | None = None) -> list[str]:
    """Measure every case, print a line each; the names of those over their bounds.

    A case over its bound is measured twice more, and the median of the three decides: one burst of
    somebody else's work is not a regression, a slow kernel is slow three times.
    """
    typical = json.loads(BOUNDS.read_text())["typical"][simd_level()]
    over = []
    for name in CASES:
        bound = typical[name] * math.sqrt(2)
        ratios = [measure(name, handicap, rounds)]
        if ratios[0] > bound:
            ratios += [measure(name, handicap, rounds) for _ in range(2)]
        ratio = median(ratios)
        verdict = "ok" if ratio <= bound else "OVER"
        print(f"{name:14} {ratio:6.2f} x yardstick, bound {bound:5.2f}  {verdict}", flush=True)
        if ratio > bound:
            over.append(name)
    return over


def calibrate(repeats: int) -> None:
    """Print each case's ratio over repeated runs, and the medians as bounds.json has them."""
    typical = {}
    for name in CASES:
        ratios = sorted(measure(name) for _ in range(repeats))
        typical[name] = round(median(ratios), 3)
        print(f"{name:14} {ratios[0]:.3f} … {typical[name]:.3f} … {ratios[-1]:.3f}", flush=True)
    print(json.dumps({simd_level(): typical}, indent=1))


def main(argv: list[str] | None = None) -> int:
    """Check or calibrate; 1 when a case is over its bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--calibrate", type=int, metavar="N", help="repeat N times, check nothing")
    args = parser.parse_args(argv)
    if args.calibrate:
        calibrate(args.calibrate)
        return 0
    over = check(int(os.environ.get("GAG_FAST_GATE_HANDICAP", "1")))
    print(f"gate: {len(CASES)} cases, {len(over)} over their bounds {', '.join(over)}".rstrip())
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
