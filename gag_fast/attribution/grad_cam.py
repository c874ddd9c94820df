"""Grad-CAM (Selvaraju et al. 2017) and Grad-CAM++ (Chattopadhay et al. 2018).

`relu(sum_k w_k A_k)` of one layer's output A, scaled up to the image; the two differ in the
channels' weights w. A is `[B,C,h,w]`, or is laid out so: channels last `[B,h,w,C]`, and tokens
`[B,N,C]` of h·w patches behind class and register tokens, which have no place in the image and are
left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gag_fast._errors import GagFastError
from gag_fast.attribution.gradients import GradientEngine, module_engine, target_score
from gag_fast.attribution.source import GradientSource

log = logging.getLogger("gag_fast")
_EXTRA_TOKENS = 16
"""At most so many class and register tokens stand before those of the patches."""


Weigh = Callable[[Tensor, Tensor], Tensor]
"""Weights `[B,C,1,1]` of a layer's channels, from its output and the gradient, `[B,C,h,w]` each."""


def grad_cam(
    source: GradientSource,
    images: Tensor,
    targets: Tensor,
    *,
    layer: str | nn.Module | None = None,
    score: str = "logit",
) -> Tensor:
    """Raw Grad-CAM at the layer's own resolution, before ReLU and upsampling.

    `w_k = mean_hw(d score / d A_k)`. One forward and backward pass an image.

    Args:
        source: an engine with a module.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        layer: a module of the model, or its name as in `model.named_modules()` (`layer4`,
            `features.7`, `blocks[6]`); None: `last_stage`. Which one it was is logged, stands in
            `engine.layer`, in what `gag-fast explain` prints and in a run's manifest.
        score: see `GradientEngine`.

    Returns:
        `[B,1,h,w]` float32 (float64 for a float64 model).
    """
    engine = module_engine(source, "grad_cam")
    return _cam(engine, images, targets, _layer_name("grad_cam", engine, layer, images), score)


def grad_cam_pp(
    source: GradientSource,
    images: Tensor,
    targets: Tensor,
    *,
    layer: str | nn.Module | None = None,
    eps: float = 1e-6,
    score: str = "logit",
) -> Tensor:
    """Raw Grad-CAM++ at the layer's own resolution, before ReLU and upsampling.

    `w_k = sum_hw(a_k relu(g_k))` with `g = d score / d A` and, for a score behind an exponential,
    `a = g^2 / (2 g^2 + g^3 sum_hw(A_k) + eps)`, 0 where g is 0. So a small part of the map with a
    gradient counts as much as a large one. One forward and backward pass an image.

    The weights are not homogeneous in the score: eps, pytorch-grad-cam's, is compared with g^2, so
    that gradients far below its root hardly weigh at all, and twice the logit is another map.

    Args:
        source, images, targets, layer, score: as for `grad_cam`.
        eps: keeps the quotient finite, not negative.

    Returns:
        `[B,1,h,w]`, likewise.
    """
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not 0 <= eps < float("inf"):
        raise GagFastError(f"eps must be a finite number of 0 or more, got {eps!r}")
    engine = module_engine(source, "grad_cam_pp")
    name = _layer_name("grad_cam_pp", engine, layer, images)
    return _cam(engine, images, targets, name, score, lambda a, g: _weights_pp(a, g, eps))


def _mean_gradients(features: Tensor, grad: Tensor) -> Tensor:
    return grad.mean((2, 3), keepdim=True)


def _weights_pp(features: Tensor, grad: Tensor, eps: float) -> Tensor:
    square = grad * grad
    total = features.sum((2, 3), keepdim=True)
    shares = square / (2 * square + total * square * grad + eps)
    shares = torch.where(grad != 0, shares, 0)
    return (shares * grad.relu()).sum((2, 3), keepdim=True)


def _layer_name(
    method: str, engine: GradientEngine, layer: str | nn.Module | None, images: Tensor
) -> str:
    """The layer's name: the one that was asked for, or the last stage's."""
    if layer is not None:
        name = _known(engine, layer)
    else:
        name = last_stage(engine, images[:1])
        log.info("%s looks at %s, the last stage; name another with layer=", method, name)
    engine.layer = name
    return name


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Positive part of raw maps `[B,1,h,w]`, scaled bilinearly to `[B,H,W]`."""
    return F.interpolate(maps.relu(), size=size, mode="bilinear", align_corners=False)[:, 0]


@dataclass
class _Seen:
    """What the modules of a model gave in one pass.

    Attributes:
        finished: names of the modules that gave a feature map `[1,C,h,w]`, in order of their end.
        convolutions: those of them that are convolutions.
        grids: (h, w) of the convolutions' maps, in order.
        norms: names of normalisations that gave tokens or channels last, in order.
        share: how much of the pass was over when the last spatial convolution ended.
    """

    finished: list[str] = field(default_factory=list)
    convolutions: list[str] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    share: float = 1.0


def _look(engine: GradientEngine, image: Tensor) -> _Seen:
    seen, order, spatial = _Seen(), [0], [0]

    def note(name: str, module: nn.Module, output: Any) -> None:
        order[0] += 1
        output = _first(output)
        if not isinstance(output, Tensor):
            return
        if output.dim() == 4 and output[0, 0].numel() > 1:
            seen.finished.append(name)
            if isinstance(module, nn.Conv2d):
                seen.convolutions.append(name)
                seen.grids.append((output.shape[2], output.shape[3]))
                if max(module.kernel_size) > 1:
                    spatial[0] = order[0]
        if _of_patches(module, output):
            seen.norms.append(name)

    with _watching(engine.module, note), torch.no_grad():
        engine.forward(image.to(engine.dtype or image.dtype), plain=True)
    seen.share = spatial[0] / max(order[0], 1)
    return seen


def _of_patches(module: nn.Module, output: Tensor) -> bool:
    """Whether a module normalises tokens `[B,N,C]` or channels last, not convolutions' maps."""
    kind = type(module).__name__
    if output.dim() == 4:
        return isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and not kind.endswith("2d")
    return output.dim() == 3 and "norm" in kind.lower()


def last_stage(engine: GradientEngine, image: Tensor) -> str:
    """Name of the last convolutional stage, or of a transformer's last normalisation that counts.

    A stage is the largest module that holds the last convolution with a kernel larger than 1x1 but
    not all convolutions, and whose output is a feature map `[B,C,h,w]` with more than one pixel:
    `layer4` of a ResNet, `features.denseblock4` of a DenseNet, the last block of an EfficientNet
    (whose 1x1 head mixes channels only). Networks of 1x1 convolutions alone: the last of those.

    Where the convolutions only cut the image into patches, as in transformers, it is the last
    normalisation whose patches the score still depends on: that before the last attention where a
    class token is read, the final one where the patches are averaged.

    Args:
        engine: the model.
        image: `[1,C,H,W]`, sent through it.
    """
    seen = _look(engine, image)
    if seen.share < 0.5 and seen.norms:
        for name in reversed(seen.norms):
            if _reaches(engine, image, name, seen):
                return name
    if not seen.convolutions:
        raise GagFastError(
            "the model has no convolution whose output is a feature map; name a layer with layer="
        )
    modules = dict(engine.module.named_modules())
    spatial = [name for name in seen.convolutions if max(modules[name].kernel_size) > 1]
    last = (spatial or seen.convolutions)[-1]
    everything = set(seen.convolutions)
    holding = [
        name
        for name in seen.finished
        if (last == name or last.startswith(name + "."))
        and name
        and not _holds_all(name, everything)
    ]
    return min(holding, key=len, default=last)


def _reaches(engine: GradientEngine, image: Tensor, name: str, seen: _Seen) -> bool:
    """Whether the best class's score depends on the patches of a layer's output."""
    try:
        _, grad, _ = _features(engine, image, None, name, "logit")
        return bool(_laid_out(grad, engine, name, image, seen).any())
    except GagFastError:
        return False


def _holds_all(name: str, convolutions: set[str]) -> bool:
    return len(convolutions) > 1 and all(
        c == name or c.startswith(name + ".") for c in convolutions
    )


def _known(engine: GradientEngine, layer: str | nn.Module) -> str:
    if isinstance(layer, nn.Module):
        found = engine.name_of(layer)
        if not found:
            raise GagFastError(f"layer is a {type(layer).__name__} that is no part of the model")
        return found
    name = re.sub(r"\[(\d+)\]", r".\1", layer)
    names = [known for known, _ in engine.module.named_modules() if known]
    if name not in names:
        few = ", ".join(known for known in names if known.count(".") == 0)
        raise GagFastError(f"layer {layer!r} is not a module of the model; it has {few}, ...")
    return name


def _cam(
    engine: GradientEngine,
    images: Tensor,
    targets: Tensor,
    name: str,
    score: str,
    weigh: Weigh = _mean_gradients,
) -> Tensor:
    """The weighted sum of a layer's channels `[B,1,h,w]`, batch by batch."""
    step = engine.batch_size(images[0])
    parts = []
    for part, chosen in zip(images.split(step), targets.split(step), strict=True):
        features, grad, seen = _features(engine, part, chosen, name, score)
        maps = _laid_out(features, engine, name, part, seen)
        weights = weigh(maps, _laid_out(grad, engine, name, part, seen))
        parts.append((weights * maps).sum(1, keepdim=True))
    raw = torch.cat(parts)
    return raw.to(torch.promote_types(raw.dtype, torch.float32))


def _features(
    engine: GradientEngine, images: Tensor, targets: Tensor | None, name: str, score: str
) -> tuple[Tensor, Tensor, _Seen]:
    """A layer's output, and the gradient by it of the targets' scores (None: the best class's)."""
    outputs: list[Any] = []
    seen = _Seen()

    def note(which: str, module: nn.Module, output: Any) -> None:
        output = _first(output)
        if which == name:
            outputs.append(output)
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor) and output.dim() == 4:
            seen.grids.append((output.shape[2], output.shape[3]))

    with torch.inference_mode(False), torch.enable_grad():
        # The weights are frozen: only through the images does autograd reach the layer.
        x = images.detach().to(engine.dtype or images.dtype, copy=True).requires_grad_()
        with _watching(engine.module, note):
            logits = engine.forward(x, plain=True)
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].dim() < 3:
            raise GagFastError(
                f"layer {name!r} must give one feature map [B,C,h,w], or tokens [B,N,C], in a "
                f"pass, gave {len(outputs)} outputs"
            )
        chosen = logits.argmax(1) if targets is None else targets
        value = target_score(logits, chosen, score, engine.reading)
        (grad,) = torch.autograd.grad(value, outputs[0], allow_unused=True)
    features = outputs[0].detach()
    return features, torch.zeros_like(features) if grad is None else grad, seen


def _first(output: Any) -> Any:
    """The first member of what a block returns with attention weights or states beside it."""
    return output[0] if isinstance(output, tuple) and output else output


def _laid_out(
    value: Tensor, engine: GradientEngine, name: str, images: Tensor, seen: _Seen
) -> Tensor:
    """A layer's output, or its gradient, as `[B,C,h,w]`.

    Raises:
        GagFastError: its axes could be read in more than one way, or in none.
    """
    height, width = images.shape[-2:]
    if value.dim() == 4 and len(value) == len(images):
        module = dict(engine.module.named_modules())[name]
        first = _alike(value.shape[2:], height, width)
        last = _alike(value.shape[1:3], height, width)
        if type(module).__name__.endswith("2d") or (first and not last):
            return value
        if last and not first:
            return value.permute(0, 3, 1, 2)
    if value.dim() == 3 and len(value) == len(images):
        tokens = value.shape[1]
        grids = [g for g in reversed(seen.grids) if 0 <= tokens - g[0] * g[1] <= _EXTRA_TOKENS]
        h, w = grids[0] if grids else _square_of(tokens)
        if h:
            patches = value[:, tokens - h * w :]
            return patches.unflatten(1, (h, w)).permute(0, 3, 1, 2)
    raise GagFastError(
        f"layer {name!r} gives {list(value.shape)} for {len(images)} images of {height}x{width}: "
        "not plainly one feature map [B,C,h,w], [B,h,w,C] or tokens [B,N,C] (windows of an "
        "attention are none); name another with layer="
    )


def _alike(side: Any, height: int, width: int) -> bool:
    """Whether (h, w) may be a picture of height x width made smaller."""
    h, w = side
    return h <= height and w <= width and abs(h * width - w * height) <= max(height, width)


def _square_of(tokens: int) -> tuple[int, int]:
    """(h, w) of a square of patches behind as few other tokens as possible; (0, 0): none fits."""
    for extra in range(min(_EXTRA_TOKENS, tokens - 1) + 1):
        side = int((tokens - extra) ** 0.5 + 0.5)
        if side * side == tokens - extra and side > 1:
            return side, side
    return 0, 0


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
