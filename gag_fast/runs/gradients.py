"""What computes a run's gradients: torch, or ONNX Runtime with an exported gradient graph."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gag_fast._errors import ClassifierError
from gag_fast._progress import Progress
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.registry import base_of, parse
from gag_fast.attribution.source import GradientSource
from gag_fast.classifier import OnnxGradients
from gag_fast.classifier.openvino import OPENVINO
from gag_fast.classifier.providers import why_not
from gag_fast.models import ModelSpec

TORCH, ONNX, AUTO = "torch", "onnx", "auto"
FILE = "gradients.onnx"
_SECONDS = 1.0  # of measuring a source for "auto"


@dataclass(frozen=True)
class Chosen:
    """A source that is at work, and how another process gets the same.

    Attributes:
        source: it; None where no method needs any.
        name: "torch", or "onnx:" and the provider.
        file: the gradient graph, None for torch.
    """

    source: GradientSource | None
    name: str
    file: str | None = None


def choose(
    asked: str,
    stored: str | None,
    path: Path,
    loaded: tuple[nn.Module, ModelSpec],
    engine: GradientSource | None,
    *,
    provider: str | None,
    device: str,
    threads: int,
    progress: Progress,
) -> Chosen:
    """What "torch", "onnx" or "auto" comes to here.

    "onnx" takes the best provider that computes the file's gradients right, or fails; "auto" the
    fastest of torch and those, measured on a few images. A run that goes on keeps what its first
    start took.

    Args:
        asked: one of request.GRADIENTS.
        stored: the name that the run's first start chose, None where this is it.
        path: of the gradient graph, exported where there is none.
        loaded: the module and its spec.
        engine: torch's source for it, None where no method needs gradients.
        provider: that was asked for, None: the best.
        device: of the gradients, "cpu" or "cuda".
        threads: torch's.
        progress: where notes go.
    """
    torchs = Chosen(engine, TORCH)
    if engine is None or asked == TORCH or (asked == AUTO and stored == TORCH):
        return torchs
    if stored is not None and stored != TORCH:
        names = [stored.partition(":")[2]]
    else:
        names = _providers(provider, device)
    try:
        _export(path, loaded, progress)
        found = [_opened(path, name, threads, progress) for name in names]
    except ClassifierError:
        raise
    except ValueError as error:  # the export's: one line
        if asked == ONNX:
            raise
        progress.note(f"gradients by torch: {error}")
        return torchs
    right = [one for one in found if one is not None]
    if asked == ONNX or (stored is not None and right):
        if not right:
            raise ClassifierError(f"{path.name}: no provider computes these gradients right here")
        return right[0]
    return _fastest([torchs, *right], loaded[1], device, progress)


def again(file: str, name: str, threads: int | None) -> OnnxGradients:
    """The same source in another process."""
    return OnnxGradients(file, name.partition(":")[2], threads=threads)


def needs_module(method: str, how: Explanation, source: GradientSource) -> bool:
    """Whether a method looks into the module, or differentiates what the source cannot."""
    recipe = parse(method)
    if recipe.forward_only:
        return False
    if base := base_of(recipe, how.options):
        return any(needs_module(name, how, source) for name in base)
    score = how.score or how.case.scores.get(recipe.modification, "logit")
    return recipe.rectified or recipe.whole is not None or score not in source.scores


def _providers(asked: str | None, device: str) -> list[str]:
    """Short names, the likely fastest first."""
    if asked is not None:
        return [asked]
    if device == "cuda":
        return ["cuda"]
    return ["openvino", "cpu"] if why_not(OPENVINO) is None else ["cpu"]


def _export(path: Path, loaded: tuple[nn.Module, ModelSpec], progress: Progress) -> None:
    if path.exists():
        return
    from gag_fast.export import export_gradients

    module, spec = loaded
    progress.note(f"exporting the gradients of {spec.name} to {path}")
    # Every other provider is compared with the CPU's when it is opened.
    export_gradients(module, path, spec, providers=["cpu"])


def _opened(path: Path, provider: str, threads: int, progress: Progress) -> Chosen | None:
    """The source on a provider; None, and a note, where it cannot be had or is wrong."""
    try:
        source = OnnxGradients(path, provider, threads=threads)
    except ClassifierError as error:
        progress.note(f"not taken for gradients: {error}")
        return None
    return Chosen(source, f"onnx:{provider}", str(path.absolute()))


def _fastest(candidates: list[Chosen], spec: ModelSpec, device: str, progress: Progress) -> Chosen:
    """By the time of a few gradients, measured in turn; the one named first where equal."""
    p = spec.preprocessing
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(16, len(p.mean), p.size, p.size, generator=generator).to(device)
    targets = torch.arange(16, device=device) % spec.num_classes
    for one in candidates:
        _seconds(one.source, images, targets)  # warm-up
    best = [float("inf")] * len(candidates)
    begin = time.perf_counter()
    while time.perf_counter() - begin < _SECONDS * len(candidates):
        for i, one in enumerate(candidates):
            best[i] = min(best[i], _seconds(one.source, images, targets))
    rates = ", ".join(
        f"{one.name} {len(images) / seconds:.0f}/s" for one, seconds in zip(candidates, best)
    )
    taken = candidates[min(range(len(best)), key=best.__getitem__)]
    progress.note(f"gradients by {taken.name} ({rates})")
    return taken


def _seconds(source: GradientSource | None, images: Tensor, targets: Tensor) -> float:
    assert source is not None
    begin = time.perf_counter()
    source.gradients(images, targets)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - begin
