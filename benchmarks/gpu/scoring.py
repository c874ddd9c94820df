"""The scoring engine against the bare session: the paper's three classifiers, fp32 and fp16."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.device import Gpu
from benchmarks.gpu.log import Log
from benchmarks.material import smooth_maps

NETWORKS = (("resnet50", 224), ("efficientnet_b4", 448), ("densenet161", 224))
# Beside the defaults, on ResNet-50. cuDNN's choice of an algorithm: since ONNX Runtime 1.20
# EXHAUSTIVE takes heuristic mode B, HEURISTIC mode A, DEFAULT the list of fallbacks.
VARIANTS: dict[str, dict[str, Any]] = {
    "HEURISTIC": {"conv_search": "HEURISTIC"},
    "DEFAULT": {"conv_search": "DEFAULT"},
    "channels last": {"prefer_nhwc": True},
    "CUDA graph": {"cuda_graph": True},
    "arena as requested": {"providers": [("cuda", {"arena_extend_strategy": "kSameAsRequested"})]},
}


def why_not(device: Gpu) -> str | None:
    """Why scoring cannot be measured here, or None."""
    try:
        import onnxruntime
    except ImportError as error:
        return str(error)
    try:
        import gag_fast.export  # noqa: F401
    except ImportError:
        return "gag_fast.export is not installed; pip install --no-deps --no-build-isolation ."
    if device.rehearsal or "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return f"onnxruntime {onnxruntime.__version__} has no CUDA provider"


def run(log: Log, device: Gpu) -> None:
    """Every network; the variants of the session on the first."""
    reason = why_not(device)
    if reason is not None:
        log.skip("scoring", reason)
        return
    networks = (("efficientnet_b0", 64),) if device.rehearsal else NETWORKS
    with tempfile.TemporaryDirectory() as folder:
        for name, size in networks:
            with log.section(f"scoring {name}"):
                network(log, device, Path(folder), name, size, variants=name == networks[0][0])


def network(log: Log, device: Gpu, folder: Path, name: str, size: int, *, variants: bool) -> None:
    """One network: the engine, the bare session and torch.compile."""
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model

    module, spec = load_model(name, "none")
    shape = dataclasses.replace(spec.preprocessing, size=size, resize=size)
    path = folder / f"{name}.onnx"
    export_onnx(module, dataclasses.replace(spec, preprocessing=shape), path)
    provider = "cpu" if device.rehearsal else "cuda"
    plain: dict[str, dict[str, Any]] = {"fp32": {}}
    if not device.rehearsal:
        plain["fp16"] = {"fp16": True}
    for kind, options in {**plain, **(VARIANTS if variants else {})}.items():
        with log.section(f"scoring {name}, {kind}"):
            if device.rehearsal:
                options = {k: v for k, v in options.items() if k != "providers"}
            engine(log, device, path, size, kind, {"providers": provider, **options})
    for dtype in (torch.float32,) if device.rehearsal else (torch.float32, torch.float16):
        with log.section(f"torch.compile {name}"):
            compiled(log, device, module, name, size, dtype)


def engine(
    log: Log, device: Gpu, path: Path, size: int, kind: str, options: dict[str, Any]
) -> None:
    """evaluate() and as many batches of the session alone, in turn.

    Idle is the share of the engine's time that the session's own rate does not account for.
    """
    from gag_fast.classifier import Classifier
    from gag_fast.metrics import evaluate

    count = 1 if device.rehearsal else 16
    clf = Classifier(path, batch_size=4 if device.rehearsal else None, **options)
    x = torch.randn(count, 3, size, size, device=device.name)
    maps = smooth_maps(count, size).to(device.name)
    targets = torch.zeros(count, dtype=torch.long, device=device.name)
    found = evaluate(clf, x, maps, targets)  # warm-up, and the number of forwards
    jobs = -(-found.forwards // clf.batch_size)
    alone, ours = [], []
    for _ in range(1 if device.rehearsal else 3):
        alone.append(seconds(device, partial(bare, clf, jobs, size)))
        ours.append(seconds(device, partial(evaluate, clf, x, maps, targets)))
    rate = found.forwards / median(ours)
    limit = jobs * clf.batch_size / median(alone)
    log.timing(
        f"scoring {path.stem} {size} {kind}",
        1e3 * median(ours),
        batch=clf.batch_size,
        forwards_per_s=rate,
        bare_images_per_s=limit,
        share_of_bare=rate / limit,
        idle=max(0.0, 1 - rate / limit),
    )


def bare(clf: Any, jobs: int, size: int) -> None:
    """The session alone: nothing is written into its buffers or read from them."""
    clf.drive(jobs, (3, size, size), lambda buffer, job: len(buffer), lambda scores, job: None)


def compiled(
    log: Log, device: Gpu, module: torch.nn.Module, name: str, size: int, dtype: torch.dtype
) -> None:
    """torch.compile's rate at batch 64."""
    count = 2 if device.rehearsal else 64
    module = module.to(device.name, dtype)
    fast = module if device.rehearsal else torch.compile(module)
    batch = torch.randn(count, 3, size, size, device=device.name, dtype=dtype)

    def forward(i: int) -> Tensor:
        with torch.inference_mode():
            return fast(batch)

    ms = device.milliseconds(forward, rounds=20, warmup=3)
    kind = str(dtype).removeprefix("torch.")
    log.timing(f"torch.compile {name} {size} {kind}", ms, images_per_s=count / (ms * 1e-3))
    module.float().cpu()


def seconds(device: Gpu, call: Any) -> float:
    """Wall time of one call, until everything it queued is computed."""
    device.synchronize()
    begin = time.perf_counter()
    call()
    device.synchronize()
    return time.perf_counter() - begin
