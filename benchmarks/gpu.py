"""One run on a GPU machine: correctness first, then every CUDA figure, one JSON and one table.

    python -m benchmarks.gpu [--out DIR] [--quick]

Builds nothing. Times with CUDA events after warm-up, over rotating inputs larger than the L2 cache,
and measures the copy bandwidth in the same run: fractions of it are fractions of what this device
can do. Without a GPU it checks what it can, says what it skipped, and exits 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import gag_fast
from benchmarks import competitors, machine
from benchmarks.material import SWEEP, Stack
from gag_fast import ops

ROTATING_BYTES = 2 << 30


class Log:
    """Collects results and prints each as it comes: a run cut short still leaves its figures."""

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.data: dict[str, Any] = {"checks": [], "timings": [], "skipped": []}

    def check(self, name: str, ok: bool, detail: str) -> None:
        self.data["checks"].append({"name": name, "ok": bool(ok), "detail": detail})
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}", flush=True)

    def timing(self, name: str, milliseconds: float, **facts: Any) -> None:
        self.data["timings"].append({"name": name, "ms": milliseconds, **facts})
        text = "  ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()
        )
        print(f"{milliseconds:10.4f} ms  {name}  {text}", flush=True)

    def skip(self, name: str, why: str) -> None:
        self.data["skipped"].append({"name": name, "why": why})
        print(f"skip {name}: {why}", flush=True)

    def save(self) -> None:
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "gpu.json").write_text(json.dumps(self.data, indent=1) + "\n")
            (self.out / "gpu.md").write_text(self.markdown())

    def markdown(self) -> str:
        lines = [
            f"Measured on {self.data['stamp']['device']}, commit {self.data['stamp']['commit']}.",
            "",
        ]
        lines += ["| case | ms | share of copy bandwidth |", "| --- | ---: | ---: |"]
        for row in self.data["timings"]:
            share = f"{100 * row['share']:.0f} %" if "share" in row else ""
            lines.append(f"| {row['name']} | {row['ms']:.4f} | {share} |")
        return "\n".join(lines) + "\n"


def cuda_ms(call: Callable[[int], object], rounds: int = 30, warmup: int = 5) -> float:
    """Median milliseconds of call(i), by events; i runs on, so that inputs can rotate."""
    for i in range(warmup):
        call(i)
    torch.cuda.synchronize()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for i, (start, end) in enumerate(events):
        start.record()
        call(i)
        end.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in events)


def copy_bandwidth() -> float:
    """Bytes a second of a device-to-device copy, read and written bytes both counted."""
    sources = [torch.empty(ROTATING_BYTES // 4, dtype=torch.uint8, device="cuda") for _ in range(2)]
    target = torch.empty_like(sources[0])
    ms = cuda_ms(lambda i: target.copy_(sources[i % 2]))
    return 2 * target.numel() / ms * 1e3


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    ours, theirs = ours.double().cpu(), theirs.double().cpu()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300)).item()


def check_aggregation(log: Log) -> None:
    """Every shape, dtype and layout on the GPU against the CPU operators."""
    cases = [
        Stack(1, 2, 7), Stack(2, 3, 33), Stack(3, 20, 96), Stack(8, 20, 224), Stack(2, 33, 448),
        Stack(1, 20, 1024), Stack(2, 20, 224, torch.float16), Stack(2, 20, 224, torch.bfloat16),
        Stack(2, 20, 224, torch.float64), Stack(2, 20, 225, channels_last=True),
    ]  # fmt: skip
    for case in cases:
        cpu = case.make()
        gpu = cpu.cuda()
        for p in (0, 85, SWEEP, 100):
            for options in ({}, {"normalize": False}, {"channels": "keep"}):
                ours = gag_fast.guided_absgrad(gpu, p=p, **options)
                theirs = gag_fast.guided_absgrad(cpu, p=p, **options)
                error = relative(ours, theirs)
                equal = torch.equal(ours.cpu(), theirs)
                if error > 1e-5 or (p == 85 and not options):
                    name = f"guided_absgrad {case}, p = {p} {options or ''}"
                    log.check(name, error <= 1e-5, f"relative error {error:.1e}, same bits {equal}")
        stats = {}
        for device, grads in (("cpu", cpu), ("cuda", gpu)):
            stats[device] = gag_fast.GradientStats()
            for sample in grads.unbind(1):
                stats[device].update(sample)
        error = relative(stats["cuda"].variance(), stats["cpu"].variance())
        log.check(f"GradientStats {case}", error <= 1e-5, f"relative error {error:.1e}")
    bad = Stack(2, 4, 32).make()
    bad[1, 2, 0, 5, 5] = float("nan")
    ours, theirs = (gag_fast.guided_absgrad(x, p=85) for x in (bad.cuda(), bad))
    same = torch.equal(ours.isnan().cpu(), theirs.isnan())
    log.check("non-finite policy", same and not ours[0].isnan().any(), "same NaN as on the CPU")


def check_elementwise(log: Log) -> None:
    """Noise, keys, ranks and composition against the CPU operators: all must be the same bits."""
    images = torch.randn(3, 3, 37, 41)
    std = torch.tensor([0.1, 0.5, 2.0])
    keys = ops.image_keys(images)
    log.check("image_keys", torch.equal(ops.image_keys(images.cuda()).cpu(), keys), "same bits")
    counter = {"seed": 7, "first_sample": 3, "samples": 5}
    noise = ops.gaussian_noise(images, keys, std, **counter)
    other = ops.gaussian_noise(images.cuda(), keys.cuda(), std.cuda(), **counter).cpu()
    difference = (other - noise).abs().max().item()
    same = torch.equal(other, noise)
    log.check("gaussian_noise", difference < 1e-6, f"same bits {same}, off by {difference:.1e}")
    maps = (torch.rand(4, 96, 96) * 50).round()
    ranks, order = ops.saliency_ranks(maps)
    on_gpu = ops.saliency_ranks(maps.cuda())
    same = torch.equal(on_gpu[0].cpu(), ranks) and torch.equal(on_gpu[1].cpu(), order)
    log.check("saliency_ranks", same, "same order, ties included")
    sources, fill = torch.randn(2, 3, 96, 96), torch.tensor([-1.0, 0.5, 2.0])
    slots = torch.tensor(
        [[0, 100, 0, -1], [1, 4000, -1, 1], [3, 9216, 1, 0], [2, 0, 0, 1]], dtype=torch.int32
    )
    results = []
    for device in ("cpu", "cuda"):
        out = torch.empty(4, 3, 96, 96, device=device)
        ops.compose_(out, *(t.to(device) for t in (sources, fill, ranks, slots)))
        results.append(out.cpu())
    log.check("compose_", torch.equal(*results), "same bits")


def check_streams_and_graphs(log: Log) -> None:
    """The current stream is used, and the call can be captured in a CUDA graph."""
    grads = Stack(4, 20, 224).make("cuda")
    expected = gag_fast.guided_absgrad(grads, p=85)
    side = torch.cuda.Stream()
    late = torch.zeros_like(grads)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        late.copy_(grads)
        result = gag_fast.guided_absgrad(late, p=85)
    side.synchronize()
    log.check("side stream", torch.equal(result, expected), "waits for work queued on its stream")
    graph = torch.cuda.CUDAGraph()
    static = torch.zeros_like(grads)
    with torch.cuda.graph(graph):
        captured = gag_fast.guided_absgrad(static, p=85)
    static.copy_(grads)
    graph.replay()
    torch.cuda.synchronize()
    log.check("CUDA graph", torch.equal(captured, expected), "captured and replayed on new data")


def time_aggregation(log: Log, bandwidth: float, quick: bool) -> None:
    """guided_absgrad beside plain torch and torch.compile: time and memory."""
    stacks = [Stack(64), Stack(8), Stack(1), Stack(8, side=448), Stack(1, side=1024)]
    stacks += [Stack(64, n=50), Stack(64, channels_last=True)]
    stacks += [Stack(64, dtype=dtype) for dtype in (torch.float16, torch.bfloat16)]
    for stack in stacks[:3] if quick else stacks:
        copies = max(1, min(8, ROTATING_BYTES // stack.bytes))
        inputs = [stack.make("cuda", seed) for seed in range(copies)]
        calls: dict[str, Callable] = {
            "gag_fast": lambda g: gag_fast.guided_absgrad(g, p=85),
            "gag_fast, nine p": lambda g: gag_fast.guided_absgrad(g, p=SWEEP),
            "one read (sum)": lambda g: g.sum(),
        }
        if stack.dtype == torch.float32 and not stack.channels_last:
            calls["torch.compile"] = competitors.compiled(competitors.plain_torch)
            calls["plain torch"] = competitors.plain_torch
        for name, call in calls.items():
            ms = cuda_ms(lambda i, call=call, inputs=inputs: call(inputs[i % len(inputs)]))
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call(inputs[0])
            extra = torch.cuda.max_memory_allocated() - before
            share = stack.bytes / (ms * 1e-3) / bandwidth
            log.timing(f"{name} {stack}", ms, share=share, extra_MiB=extra / 2**20)
        inputs.clear()


def time_elementwise(log: Log, bandwidth: float) -> None:
    """Noise and composition: bytes written over the copy bandwidth."""
    images = torch.randn(32, 3, 224, 224, device="cuda")
    keys, std = ops.image_keys(images), torch.ones(32, device="cuda")
    ms = cuda_ms(
        lambda i: ops.gaussian_noise(images, keys, std, seed=i, first_sample=0, samples=16)
    )
    size = images.numel() * 16 * 4
    log.timing("gaussian_noise 32 x 16", ms, share=size / (ms * 1e-3) / bandwidth)
    ms = cuda_ms(lambda i: images[:, None] + torch.randn(32, 16, 3, 224, 224, device="cuda"))
    log.timing("torch.randn + add 32 x 16", ms)
    ranks, _ = ops.saliency_ranks(torch.rand(32, 224, 224, device="cuda"))
    ms = cuda_ms(lambda i: ops.saliency_ranks(torch.rand(32, 224, 224, device="cuda")))
    log.timing("saliency_ranks 32 maps", ms)
    out = torch.empty(256, 3, 224, 224, device="cuda")
    slots = torch.tensor([[i % 32, 1000 * (i // 32 + 1), i % 32, -1] for i in range(256)],
                         dtype=torch.int32, device="cuda")  # fmt: skip
    fill = torch.zeros(3, device="cuda")
    ms = cuda_ms(lambda i: ops.compose_(out, images, fill, ranks, slots))
    log.timing("compose_ 256 copies", ms, share=2 * out.numel() * 4 / (ms * 1e-3) / bandwidth)


def time_explain(log: Log) -> None:
    """explain() on ResNet-50 beside the authors' loop, forward+backward a second."""
    model, _ = gag_fast.load_model("resnet50", weights="none")
    model = model.cuda()
    images = torch.randn(32, 3, 224, 224, device="cuda")
    targets = torch.arange(32, device="cuda")
    for name, call in {
        "explain ResNet-50": lambda i: gag_fast.explain(model, images, targets, n=20),
        "authors' loop ResNet-50": lambda i: competitors.authors_loop(model, images, targets, 20),
    }.items():
        ms = cuda_ms(call, rounds=3, warmup=1)
        log.timing(name, ms, passes_per_s=32 * 20 / (ms * 1e-3))


def time_scoring(log: Log, folder: Path) -> None:
    """The engine against the bare session, fp32 and fp16, for the paper's three classifiers."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        log.skip("scoring", f"onnxruntime {onnxruntime.__version__} has no CUDA provider")
        return
    from benchmarks import scoring

    scoring.measure_gpu(log, folder)


def main(argv: list[str] | None = None) -> int:
    """Run all checks, then all timings; 1 when a check failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    parser.add_argument("--quick", action="store_true", help="three stack sizes only")
    args = parser.parse_args(argv)
    begin = time.perf_counter()
    cuda = torch.cuda.is_available()
    log = Log(args.out)
    log.data["stamp"] = machine.stamp("cuda" if cuda else "cpu")
    log.data["build"] = gag_fast.build_info()
    print(json.dumps(log.data["stamp"]), flush=True)
    if not cuda:
        loaded = torch._C._dispatch_has_kernel_for_dispatch_key("gag_fast::guided_absgrad", "CUDA")
        if loaded:
            log.check("CUDA library", True, "loads and registers its kernels without a device")
        else:
            log.skip("CUDA library", log.data["build"]["cuda_library"])
        for name in ("correctness", "copy bandwidth", "aggregation", "noise", "explain", "scoring"):
            log.skip(name, "no CUDA device")
    else:
        for check in (check_aggregation, check_elementwise, check_streams_and_graphs):
            check(log)
            log.save()
        bandwidth = copy_bandwidth()
        log.data["copy_bytes_per_s"] = bandwidth
        log.timing(
            "copy, 512 MiB", 2 * ROTATING_BYTES / 4 / bandwidth * 1e3, GB_per_s=bandwidth / 1e9
        )
        time_aggregation(log, bandwidth, args.quick)
        log.save()
        time_elementwise(log, bandwidth)
        log.save()
        time_explain(log)
        time_scoring(log, args.out or Path("."))
    log.data["seconds"] = time.perf_counter() - begin
    log.save()
    failed = [check["name"] for check in log.data["checks"] if not check["ok"]]
    print(f"{len(log.data['checks'])} checks, {len(failed)} failed, {log.data['seconds']:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
