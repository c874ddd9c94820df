"""Everything the GPU computes against the CPU's operators, which must give the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

import gag_fast
from benchmarks.gpu.device import Gpu, pipeline
from benchmarks.gpu.log import Log
from benchmarks.material import SWEEP, Stack
from gag_fast import ops

SMALL = (Stack(1, 2, 7), Stack(2, 3, 33), Stack(2, 3, 33, torch.float16))
FULL = (
    *SMALL, Stack(3, 20, 96), Stack(8, 20, 224), Stack(2, 33, 448), Stack(1, 20, 1024),
    Stack(2, 20, 224, torch.float16), Stack(2, 20, 224, torch.bfloat16),
    Stack(2, 20, 224, torch.float64), Stack(2, 20, 225, channels_last=True),
    Stack(2, 20, 224, torch.float16, channels_last=True),
)  # fmt: skip


def same(log: Log, name: str, ours: Tensor, theirs: Tensor) -> None:
    """Holds if both have the same bits, NaN where NaN is; says how far off they are otherwise."""
    ours, theirs = ours.cpu(), theirs.cpu()
    ok = ours.shape == theirs.shape and ours.dtype == theirs.dtype
    ok = ok and torch.equal(ours.isnan(), theirs.isnan())
    ok = ok and torch.equal(ours.nan_to_num(), theirs.nan_to_num())
    log.check(name, ok, "same bits" if ok else f"off by {relative(ours, theirs):.1e}")


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest value; NaN where a value is not a number."""
    if ours.shape != theirs.shape:
        return float("nan")
    ours, theirs = ours.double(), theirs.double()
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-300)).item()


def aggregation(log: Log, device: Gpu) -> None:
    """Every shape, dtype and layout, one-shot and streamed."""
    for stack in SMALL if device.rehearsal else FULL:
        cpu = stack.make()
        gpu = cpu.to(device.name)
        for p in (0, 85, SWEEP, 100):
            for options in ({}, {"normalize": False}, {"channels": "keep"}):
                ours = gag_fast.guided_absgrad(gpu, p=p, **options)
                theirs = gag_fast.guided_absgrad(cpu, p=p, **options)
                label = "nine p" if p is SWEEP else f"p = {p}"
                same(log, f"guided_absgrad {stack}, {label} {options or ''}".strip(), ours, theirs)
        streamed = []
        for grads in (gpu, cpu):
            stats = gag_fast.GradientStats()
            for sample in grads.unbind(1):
                stats.update(sample)
            streamed.append((stats.variance(), stats.absmean(), stats.guided_absgrad(p=85)))
        for name, ours, theirs in zip(("variance", "absmean", "map"), *streamed, strict=True):
            same(log, f"GradientStats {stack}, {name}", ours, theirs)


def not_finite(log: Log, device: Gpu) -> None:
    """One NaN spoils the map of its image and no other."""
    bad = Stack(2, 4, 32).make()
    bad[1, 2, 0, 5, 5] = float("nan")
    ours, theirs = (gag_fast.guided_absgrad(x, p=85) for x in (bad.to(device.name), bad))
    same(log, "a gradient that is not finite", ours, theirs)
    log.check("the other image", not bool(ours[0].isnan().any()), "is untouched")


def one_kernel_or_four(log: Log, device: Gpu) -> None:
    """Many images in one kernel and in launches one after another."""
    small = (Stack(3, 2, 33),)
    for stack in small if device.rehearsal else (Stack(40, 20, 224), Stack(70, 5, 96), Stack(1)):
        cpu = stack.make()
        theirs = gag_fast.guided_absgrad(cpu, p=85)
        for choice, name in (("1", "one kernel"), ("0", "four launches")):
            with pipeline(choice):
                ours = gag_fast.guided_absgrad(cpu.to(device.name), p=85)
            same(log, f"{name}, {stack}", ours, theirs)


def elementwise(log: Log, device: Gpu) -> None:
    """Keys, noise, ranks and masked copies."""
    images, std = torch.randn(3, 3, 37, 41), torch.tensor([0.1, 0.5, 2.0])
    keys = ops.image_keys(images)
    same(log, "image_keys", ops.image_keys(images.to(device.name)), keys)
    counter = {"seed": 7, "first_sample": 3, "samples": 5}
    there = [t.to(device.name) for t in (images, keys, std)]
    noise = ops.gaussian_noise(images, keys, std, **counter)
    same(log, "gaussian_noise", ops.gaussian_noise(*there, **counter), noise)
    maps = (torch.rand(4, 96, 96) * 50).round()
    ranks, order = ops.saliency_ranks(maps)
    on_device = ops.saliency_ranks(maps.to(device.name))
    same(log, "saliency_ranks, ranks with ties", on_device[0], ranks)
    same(log, "saliency_ranks, order with ties", on_device[1], order)
    sources, fill = torch.randn(2, 3, 96, 96), torch.tensor([-1.0, 0.5, 2.0])
    slots = torch.tensor(
        [[0, 100, 0, -1], [1, 4000, -1, 1], [3, 9216, 1, 0], [2, 0, 0, 1]], dtype=torch.int32
    )
    results = []
    for name in (device.name, "cpu"):
        out = torch.empty(4, 3, 96, 96, device=name)
        ops.compose_(out, *(t.to(name) for t in (sources, fill, ranks, slots)))
        results.append(out)
    same(log, "compose_", *results)


def streams_and_graphs(log: Log, device: Gpu) -> None:
    """The current stream is used, and the call can be captured in a CUDA graph."""
    grads = Stack(4, 20, 33 if device.rehearsal else 224).make(device.name)
    expected = gag_fast.guided_absgrad(grads, p=85)
    late = torch.zeros_like(grads)

    def copied() -> Tensor:
        late.copy_(grads)
        return gag_fast.guided_absgrad(late, p=85)

    same(log, "on a side stream, behind a wait", device.on_a_side_stream(copied), expected)
    static = torch.rand_like(grads)
    replay, result = device.captured(lambda: gag_fast.guided_absgrad(static, p=85))
    static.copy_(grads)
    replay()
    device.synchronize()
    same(log, "replayed as a CUDA graph on new data", result, expected)


CHECKS = (aggregation, not_finite, one_kernel_or_four, elementwise, streams_and_graphs)
