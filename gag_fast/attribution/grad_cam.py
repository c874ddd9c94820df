"""Grad-CAM (Selvaraju et al. 2017): feature maps weighted by their mean gradients.

`relu(sum_k mean_hw(d score / d A_k) * A_k)` of one layer's output A, scaled up to the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gag_fast.attribution.gradients import GradientEngine, module_engine, target_score
from gag_fast.attribution.source import GradientSource


def grad_cam(
    source: GradientSource,
    images: Tensor,
    targets: Tensor,
    *,
    layer: str | None = None,
    score: str = "logit",
) -> Tensor:
    """Raw Grad-CAM at the layer's own resolution, before ReLU and upsampling.

    Args:
        source: an engine with a module.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        layer: name of a module as in `model.named_modules()` (`layer4`, `features.7`,
            `blocks[6]`); None: `last_stage`.
        score: see `GradientEngine`.

    Returns:
        `[B,1,h,w]` float32 (float64 for a float64 model).
    """
    engine = module_engine(source, "grad_cam")
    name = last_stage(engine, images[:1]) if layer is None else _known(engine.module, layer)
    step = engine.batch_size(images[0])
    parts = [
        _grad_cam(engine, part, chosen, name, score)
        for part, chosen in zip(images.split(step), targets.split(step), strict=True)
    ]
    return torch.cat(parts)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Positive part of raw maps `[B,1,h,w]`, scaled bilinearly to `[B,H,W]`."""
    return F.interpolate(maps.relu(), size=size, mode="bilinear", align_corners=False)[:, 0]


def last_stage(engine: GradientEngine, image: Tensor) -> str:
    """Name of the last convolutional stage: where Grad-CAM looks by default.

    It is the largest module that holds the last convolution with a kernel larger than 1x1 but not
    all convolutions, and whose output is a feature map `[B,C,h,w]` with more than one pixel:
    `layer4` of a ResNet, `features.denseblock4` of a DenseNet, the last block of an EfficientNet
    (whose 1x1 head mixes channels only). Networks of 1x1 convolutions alone: the last of those.

    Args:
        engine: the model.
        image: `[1,C,H,W]`, sent through it once.
    """
    finished: list[str] = []  # modules that gave a feature map, in order of their end
    convolutions: list[str] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1:
            finished.append(name)
            if isinstance(module, nn.Conv2d):
                convolutions.append(name)

    with _watching(engine.module, note), torch.no_grad():
        engine.forward(image, plain=True)
    modules = dict(engine.module.named_modules())
    spatial = [name for name in convolutions if max(modules[name].kernel_size) > 1]
    if not convolutions:
        raise ValueError(
            "grad_cam found no convolution whose output is a feature map; name one with layer="
        )
    last = (spatial or convolutions)[-1]
    everything = set(convolutions)
    holding = [
        name
        for name in finished
        if (last == name or last.startswith(name + "."))
        and name
        and not _holds_all(name, everything)
    ]
    return min(holding, key=len, default=last)


def _holds_all(name: str, convolutions: set[str]) -> bool:
    return len(convolutions) > 1 and all(
        c == name or c.startswith(name + ".") for c in convolutions
    )


def _known(module: nn.Module, layer: str) -> str:
    name = re.sub(r"\[(\d+)\]", r".\1", layer)
    names = [known for known, _ in module.named_modules() if known]
    if name not in names:
        few = ", ".join(known for known in names if known.count(".") == 0)
        raise ValueError(f"layer {layer!r} is not a module of the model; it has {few}, ...")
    return name


def _grad_cam(
    engine: GradientEngine, images: Tensor, targets: Tensor, name: str, score: str
) -> Tensor:
    features: list[Tensor] = []

    def note(which: str, module: nn.Module, output: Any) -> None:
        if which == name:
            features.append(output)

    with torch.inference_mode(False), torch.enable_grad():
        # The weights are frozen: only through the images does autograd reach the layer.
        x = images.detach().clone().requires_grad_()
        with _watching(engine.module, note, name):
            logits = engine.forward(x, plain=True)
        if len(features) != 1 or not isinstance(features[0], Tensor) or features[0].dim() != 4:
            raise ValueError(
                f"layer {name!r} must give one feature map [B,C,h,w] in a pass, "
                f"gave {len(features)} outputs"
            )
        value = target_score(logits, targets, score)
        (grad,) = torch.autograd.grad(value, features[0])
    weights = grad.mean((2, 3), keepdim=True)
    raw = (weights * features[0].detach()).sum(1, keepdim=True)
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


@contextmanager
def _watching(module: nn.Module, note: Any, only: str | None = None) -> Iterator[None]:
    """Calls `note(name, module, output)` after each module's forward; hooks go at the end."""
    handles = [
        part.register_forward_hook(lambda m, _, output, name=name: note(name, m, output))
        for name, part in module.named_modules()
        if only is None or name == only
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
