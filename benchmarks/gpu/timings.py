"""Times on the GPU, as shares of the copy bandwidth measured in the same run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import gag_fast
from benchmarks import competitors
from benchmarks.gpu import checks
from benchmarks.gpu.device import Gpu, pipeline
from benchmarks.gpu.log import Log
from benchmarks.material import SWEEP, Stack
from gag_fast import ops

QUICK = (Stack(64), Stack(8), Stack(1))
FULL = (
    *QUICK, Stack(8, side=448), Stack(1, side=1024), Stack(64, n=50),
    Stack(64, channels_last=True), Stack(64, dtype=torch.float16),
    Stack(64, dtype=torch.bfloat16), Stack(64, dtype=torch.float16, channels_last=True),
)  # fmt: skip
TINY = (Stack(2, 3, 16), Stack(1, 3, 16, channels_last=True))


def copy_bandwidth(log: Log, device: Gpu) -> float:
    """Bytes a second of a copy on the device; bytes read and bytes written are both counted."""
    size = device.rotating_bytes // 4
    sources = [torch.zeros(size, dtype=torch.uint8, device=device.name) for _ in range(2)]
    target = torch.empty_like(sources[0])
    ms = device.milliseconds(lambda i: target.copy_(sources[i % 2]))
    bandwidth = 2 * size / (ms * 1e-3)
    log.timing(f"copy, {size >> 20} MiB", ms, GB_per_s=bandwidth / 1e9)
    log.fact("copy_bytes_per_s", bandwidth)
    return bandwidth


def aggregation(log: Log, device: Gpu, bandwidth: float, quick: bool) -> None:
    """guided_absgrad beside plain torch and torch.compile: bits, time and memory."""
    stacks = TINY if device.rehearsal else QUICK if quick else FULL
    for stack in stacks:
        with log.section(f"aggregation {stack}"):
            copies = max(1, min(8, device.rotating_bytes // stack.bytes))
            inputs = [stack.make(device.name, seed) for seed in range(copies)]
            # What is timed is checked, in this very layout.
            ours = gag_fast.guided_absgrad(inputs[0], p=85)
            checks.same(log, f"timed {stack}", ours, gag_fast.guided_absgrad(inputs[0].cpu(), p=85))
            for name, call in calls(stack, device).items():
                ms = device.milliseconds(
                    lambda i, call=call, inputs=inputs: call(inputs[i % len(inputs)])
                )
                extra = device.extra_bytes(lambda i, call=call, inputs=inputs: call(inputs[0]))
                share = stack.bytes / (ms * 1e-3) / bandwidth
                log.timing(f"{name} {stack}", ms, share=share, extra_MiB=extra / 2**20)
            if stack.batch <= 8:
                replayed(log, device, bandwidth, stack, inputs)


def calls(stack: Stack, device: Gpu) -> dict[str, Callable[[Tensor], object]]:
    """What is timed on a stack: ours, the floor, and others' ways where they take the dtype."""
    found: dict[str, Callable[[Tensor], object]] = {
        "gag_fast": lambda g: gag_fast.guided_absgrad(g, p=85),
        "gag_fast, one kernel": one_kernel,
        "gag_fast, nine p": lambda g: gag_fast.guided_absgrad(g, p=SWEEP),
        "one read (sum)": lambda g: g.sum(),
    }
    if stack.dtype == torch.float32 and not stack.channels_last:
        if not device.rehearsal:
            found["torch.compile"] = competitors.compiled(competitors.plain_torch)
        found["plain torch"] = competitors.plain_torch
    return found


def one_kernel(grads: Tensor) -> Tensor:
    """The call with the one kernel that makes the maps of many images, where that pays."""
    with pipeline("auto"):
        return gag_fast.guided_absgrad(grads, p=85)


def replayed(log: Log, device: Gpu, bandwidth: float, stack: Stack, inputs: list[Tensor]) -> None:
    """The same call as CUDA graphs, one for each input: a small batch without Python's share."""
    graphs = [device.captured(lambda g=g: gag_fast.guided_absgrad(g, p=85)) for g in inputs]
    ms = device.milliseconds(lambda i: graphs[i % len(graphs)][0]())
    graphs[0][0]()
    device.synchronize()
    expected = gag_fast.guided_absgrad(inputs[0], p=85)
    checks.same(log, f"replayed {stack}", graphs[0][1], expected)
    share = stack.bytes / (ms * 1e-3) / bandwidth
    log.timing(f"gag_fast, graph replay {stack}", ms, share=share)


def elementwise(log: Log, device: Gpu, bandwidth: float) -> None:
    """Noise, ranks and masked copies: the bytes that each must move over the copy bandwidth."""
    side, count, samples, masked = (16, 2, 2, 4) if device.rehearsal else (224, 32, 16, 256)
    images = torch.randn(count, 3, side, side, device=device.name)
    keys, std = ops.image_keys(images), torch.ones(count, device=device.name)

    def share(moved: int, ms: float) -> float:
        return moved / (ms * 1e-3) / bandwidth

    ms = device.milliseconds(
        lambda i: ops.gaussian_noise(images, keys, std, seed=i, first_sample=0, samples=samples)
    )
    moved = bytes_of(images) * (1 + samples)
    log.timing(f"gaussian_noise {count} x {samples}", ms, share=share(moved, ms))
    shape = (count, samples, 3, side, side)
    ms = device.milliseconds(lambda i: images[:, None] + torch.randn(shape, device=device.name))
    log.timing(f"torch.randn + add {count} x {samples}", ms)
    maps = torch.rand(count, side, side, device=device.name)
    ms = device.milliseconds(lambda i: ops.saliency_ranks(maps))
    log.timing(f"saliency_ranks {count} maps", ms)
    ms = device.milliseconds(lambda i: maps.flatten(1).sort(dim=1, stable=True))
    log.timing(f"torch.sort {count} maps", ms)
    ranks, _ = ops.saliency_ranks(maps)
    out = torch.empty(masked, 3, side, side, device=device.name)
    slots = torch.tensor(
        [[i % count, 10 * (i // count + 1), i % count, -1] for i in range(masked)],
        dtype=torch.int32, device=device.name,
    )  # fmt: skip
    fill = torch.zeros(3, device=device.name)
    ms = device.milliseconds(lambda i: ops.compose_(out, images, fill, ranks, slots))
    # Written once; images and ranks are read from memory once, and from the cache after that.
    moved = bytes_of(out) + bytes_of(images) + bytes_of(ranks)
    log.timing(f"compose_ {masked} copies", ms, share=share(moved, ms))
    plain = torch.empty_like(out)
    ms = device.milliseconds(lambda i: plain.copy_(out))
    log.timing(f"plain copy of {masked}", ms, share=share(2 * bytes_of(out), ms))


def bytes_of(values: Tensor) -> int:
    """Bytes of a tensor's values."""
    return values.numel() * values.element_size()


def explaining(log: Log, device: Gpu) -> None:
    """explain() on ResNet-50 beside the authors' loop, forward+backward a second."""
    count, side, n = (1, 64, 2) if device.rehearsal else (32, 224, 20)
    model, _ = gag_fast.load_model("resnet50", weights="none")
    model = model.to(device.name)
    images = torch.randn(count, 3, side, side, device=device.name)
    targets = torch.arange(count, device=device.name)
    ways = {
        "explain ResNet-50": lambda i: gag_fast.explain(model, images, targets, n=n),
        "authors' loop ResNet-50": lambda i: competitors.authors_loop(model, images, targets, n),
    }
    for name, call in ways.items():
        ms = device.milliseconds(call, rounds=3, warmup=1)
        log.timing(name, ms, passes_per_s=count * n / (ms * 1e-3))
