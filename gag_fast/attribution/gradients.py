"""Gradients of the target score with respect to batches of modified images.

The model is never changed: the engine works on a private copy that shares its weights (converted
where another memory format is faster), in eval mode and with every parameter frozen. So no weight
gradient is computed, and no hook, flag, memory format or `.grad` of the caller's model moves. A
model that cannot be copied is frozen in place for the time of the call and restored afterwards.

What was tried for speed: EfficientNet-Lite0 at 224x224 on 2 cores, forward+backward/s, medians of
runs on a shared machine (the order is stable, the figures move by a quarter):

    NCHW, weights take gradients (`backward()`), batch 8                    13-16
    NCHW, frozen (or `autograd.grad` for the input alone), batch 8          22
    channels_last, frozen, batch 4 / 8 / 16                                 36 / 30 / 18
    + batch norm folded into the convolution, forward and backward          44-48
    + oneDNN's fused convolution and clip in the forward pass               44-50
    + the same forward numbers, batch norm folded backward only (`fusion`)  45
    torch.compile of any of these                                           16-18

Folding forward is no faster than `fusion` beyond the spread, and changes roundings: a ReLU turned
over moved one image's gradient by 9e-4 of its maximum, where `fusion` stays within 7e-7. Batches
of 12 and more fall behind because each activation is then fresh memory from the system.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._inputs import describe
from gag_fast.attribution.fusion import fuse as fused_module
from gag_fast.attribution.guided_backprop import Rectifiers
from gag_fast.attribution.source import SCORES, GradientSource
from gag_fast.scores import LOGITS, Reading, check_score, read, scores_of

log = logging.getLogger("gag_fast")


def target_score(logits: Tensor, targets: Tensor, score: str, reading: Reading = LOGITS) -> Tensor:
    """Sum of the scores that are differentiated.

    Args:
        logits: `[N,K]`, N at least the number of targets; rows beyond are padding.
        targets: int64 `[B]`.
        score: "logit": the class's logit, the negative of a single output for class 0, the log odds
            where the model gives probabilities (`scores` says why); or "nll": the negative
            logarithm of its probability, as in the authors' IG.
        reading: what the scores are.
    """
    if score not in SCORES:
        raise GagFastError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    logits = logits[: len(targets)]
    if score == "nll":
        return reading.negative_log(logits, targets)
    return reading.logits(logits).gather(1, targets[:, None]).sum()


FEW = 32
"""Passes below which a model is not fused: tracing and checking it costs about three of them."""


@dataclass(frozen=True)
class EngineOptions:
    """The keywords of `GradientEngine`, where they travel as one value."""

    batch_size: int | None = None
    memory: int | None = None
    channels_last: bool | None = None
    fuse: bool | None = None
    compile: bool = False
    score: str | None = None

    def given(self) -> list[str]:
        """Those that were said."""
        return [f.name for f in fields(self) if getattr(self, f.name) != f.default]


class GradientEngine:
    """Computes gradients of one torch module for as long as its `with` block lasts.

    A `GradientSource`, and more: it has the module itself, so methods can look into it.

    Args:
        model: gives scores `[N,K]` for images `[N,C,H,W]`, as `scores.scores_of` finds them in its
            output; a single output makes two classes.
        batch_size: modified images per forward and backward pass; None: as many as `memory`
            holds, 8 at most on the CPU (larger batches leave the caches) and 256 on CUDA.
        memory: bytes that one pass may keep for its backward; measured on one image. None: 1 GiB
            on the CPU, half of what is free on CUDA.
        channels_last: memory format of the passes; None: channels_last for convolutional models
            on the CPU, and on CUDA in half precision.
        fuse: let the backward pass fold batch norms into convolutions (see `fusion`) where the
            model can be traced and one image's gradient stays equal to 1e-4; None: on the CPU.
        compile: run the model through `torch.compile`; on CUDA with CUDA graphs. Pays from
            thousands of passes on, so keep the engine between calls.
        score: what the model gives, "logits", "probabilities" or "sigmoid"; None: what the first
            images show (`gag_fast.scores`).

    Attributes:
        layer: where the last Grad-CAM looked, by the layer's name; None before.
    """

    scores: tuple[str, ...] = SCORES
    memory_format: torch.memory_format = torch.contiguous_format
    device: torch.device | None = None
    dtype: torch.dtype | None = None

    @classmethod
    def of(cls, model: nn.Module, options: EngineOptions, passes: int) -> GradientEngine:
        """An engine with these options for so many images to differentiate at.

        Where that is few it does not look for fusions unasked, for one nor for the batch's size.
        """
        keywords = asdict(options)
        if passes < FEW and options.fuse is None:
            keywords["fuse"] = False
        if passes == 1 and options.batch_size is None:
            keywords["batch_size"] = 1
        return cls(model, **keywords)

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_size: int | None = None,
        memory: int | None = None,
        channels_last: bool | None = None,
        fuse: bool | None = None,
        compile: bool = False,
        score: str | None = None,
    ) -> None:
        check_score(score)
        if not isinstance(model, nn.Module):
            raise InputTypeError(f"model must be a torch.nn.Module, got {describe(model)}")
        for name, value in (("batch_size", batch_size), ("memory", memory)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise GagFastError(f"{name} must be a positive integer, got {value!r}")
        self._model = model
        self._asked_batch = batch_size
        self._batches: dict[torch.Size, int] = {}  # chosen, by the images' shape
        self._memory = memory
        self._classes: int | None = None
        self._reading: Reading | None = None
        self._channels_last = channels_last
        self._fuse = fuse
        self._compile = compile
        self._declared = score
        self._stack = contextlib.ExitStack()
        self._plain: nn.Module | None = None  # the frozen copy
        self._chosen: Any = None  # it, or what it was fused to
        self._run: Any = None  # that, compiled if asked
        self.rectifiers: int | None = None  # met by the last rectified pass
        self.layer: str | None = None

    def __enter__(self) -> GradientEngine:
        """Copies and freezes the model."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        self.device = tensors[0].device if tensors else None
        self.dtype = next((t.dtype for t in tensors if t.is_floating_point()), None)
        channels_last = self._channels_last
        if channels_last is None:
            channels_last = any(isinstance(m, nn.Conv2d) for m in self._model.modules()) and (
                self.device is None
                or self.device.type == "cpu"
                or self.dtype in (torch.float16, torch.bfloat16)
            )
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        # Weights that are moved in inference mode could never be part of a gradient.
        with torch.inference_mode(False):
            self._plain = _private_copy(self._model, self.memory_format)
        if self._plain is None:
            self._plain = self._stack.enter_context(_frozen_in_place(self._model))
        if self._fuse is None:
            self._fuse = self.device is None or self.device.type == "cpu"
        self._choose(self._plain)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restores a model that was frozen in place; drops the copy otherwise."""
        self._stack.close()
        self._plain = self._chosen = self._run = None

    def name_of(self, part: nn.Module) -> str | None:
        """The name of a part of the model that was given, or None where it is no part of it."""
        return next((name for name, own in self._model.named_modules() if own is part), None)

    @property
    def module(self) -> nn.Module:
        """What runs, before any fusion: the frozen copy of the model."""
        if self._plain is None:
            raise RuntimeError("this GradientEngine is not at work: use it in its `with` block")
        return self._plain

    def check(self, images: Tensor) -> None:
        """Refuses images on another device than the model's."""
        if self.device is not None and images.device != self.device:
            raise GagFastError(
                f"images are on {images.device}, but the model is on {self.device}; "
                "move one of them with .to(...)"
            )

    def batch_size(self, image: Tensor) -> int:
        """Modified images per pass for images like `image` `[C,H,W]`."""
        self._measure(image)
        return self._asked_batch or self._batches[image.shape]

    @property
    def forward_batch(self) -> int:
        """Images in a pass that keeps nothing for gradients."""
        return self._asked_batch or 16

    def classes(self, image: Tensor) -> int:
        """Number K of the model's classes."""
        self._measure(image)
        if self._classes is None:
            self.logits(image[None])
        assert self._classes is not None
        return self._classes

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits `[B,K]` of images `[B,C,H,W]`."""
        step = self.batch_size(images[0])
        parts = [
            self.forward(self._prepare(part))[: len(part)].clone() for part in images.split(step)
        ]
        return torch.cat(parts)

    def gradients(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        score: str = "logit",
        rectified: bool = False,
    ) -> Tensor:
        """Gradients of the targets' scores at images.

        Args:
            images: `[N,C,H,W]`, however many.
            targets: int64 `[N]`.
            score: `"logit"`, or `"nll"`: the negative log-softmax, as the authors' IG has it.
            rectified: guided backpropagation's rule in the backward pass.

        Returns:
            `[N,C,H,W]` float32 (float64 for a float64 model), any strides.
        """
        step = self.batch_size(images[0])
        parts = [
            self._gradient(part, chosen, score, rectified)
            for part, chosen in zip(images.split(step), targets.split(step), strict=True)
        ]
        grads = parts[0] if len(parts) == 1 else torch.cat(parts)
        return grads.float() if grads.dtype in (torch.float16, torch.bfloat16) else grads

    def _gradient(self, points: Tensor, targets: Tensor, score: str, rectified: bool) -> Tensor:
        # inference_mode(False): callers may well be inside one, which forbids autograd.
        with torch.inference_mode(False), torch.enable_grad():
            if points.is_inference():  # such tensors cannot be part of a gradient; their copies can
                points, targets = points.clone(), targets.clone()
            x = self._prepare(points.detach()).requires_grad_()
            if rectified:
                with Rectifiers() as mode:
                    logits = self.forward(x, plain=True)
                self.rectifiers = mode.met
            else:
                logits = self.forward(x)
            value = target_score(logits, targets, score, self.reading)
            grad = _differentiate(value, x)[: len(points)]
        return (
            grad.clone() if self._compile else grad
        )  # the next pass may overwrite a graph's output

    def _prepare(self, images: Tensor) -> Tensor:
        images = images.to(dtype=self.dtype or images.dtype)
        missing = self.batch_size(images[0]) - len(images) if self._compile else 0
        if missing > 0:  # one shape only, or every new one is compiled again
            images = torch.cat([images, images[-1:].expand(missing, *images.shape[1:])])
        return images.contiguous(memory_format=self.memory_format)

    def forward(self, x: Tensor, plain: bool = False) -> Tensor:
        """Logits of a batch as it is; `plain`: without the fusions that hide activations."""
        module = self.module  # raises where the engine is not at work
        return self._logits(module if plain else self._run, x)

    def _logits(self, module: Any, x: Tensor) -> Tensor:
        raw = scores_of(module(x), len(x))
        if self._reading is None:
            self._reading = self._read(module, raw, x)
        logits = self._reading.wide(raw)
        self._classes = logits.shape[1]
        return logits

    def _read(self, module: Any, raw: Tensor, x: Tensor) -> Reading:
        """What the scores are, by those of the first images and of others far away."""

        @torch.no_grad()
        def far() -> Tensor:
            few = x[:1].detach()
            return scores_of(module(torch.cat([few * 30, few * -30])), 2)

        reading = read(raw, self._declared, far)
        if reading != LOGITS:
            log.info("the model's scores are read as %s; say otherwise with score=", reading)
        return reading

    @property
    def reading(self) -> Reading:
        """What the model's scores are; known once it has run."""
        return self._reading or LOGITS

    def _measure(self, image: Tensor) -> None:
        """Chooses what runs by the first image, and how many at once by the first of each shape."""
        if self._fuse:
            self._fuse = False
            self._try_fused(image)
        if self._asked_batch is None and image.shape not in self._batches:
            on_cpu = image.device.type == "cpu"
            bound = self._memory
            if bound is None:
                bound = (1 << 30) if on_cpu else torch.cuda.mem_get_info(image.device)[0] // 2
            kept = self._trial(self._chosen, image)[1]
            self._batches[image.shape] = max(1, min(8 if on_cpu else 256, bound // max(kept, 1)))

    def _try_fused(self, image: Tensor) -> None:
        with torch.inference_mode(False):
            fused = fused_module(self.module)
        if fused is None:
            return
        expected, _ = self._trial(self.module, image)
        try:
            found, _ = self._trial(fused, image)
        except Exception:  # a model that traces, but not to what it does
            return
        if (found - expected).abs().amax() <= 1e-4 * expected.abs().amax():
            self._choose(fused)

    def _choose(self, module: nn.Module) -> None:
        self._chosen = self._run = module
        if self._compile:
            on_cuda = self.device is not None and self.device.type == "cuda"
            self._run = torch.compile(module, mode="reduce-overhead" if on_cuda else None)

    def _trial(self, module: nn.Module, image: Tensor) -> tuple[Tensor, int]:
        """The gradient of one image's best class, and the bytes kept for it, weights aside."""
        weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            x = image[None].clone().to(dtype=self.dtype or image.dtype)
            x = x.contiguous(memory_format=self.memory_format).requires_grad_()
            # All that is kept is alive at the end, so no two storages share an address.
            return _differentiate(self._logits(module, x).amax(), x), sum(kept.values())


def module_engine(source: GradientSource, what: str) -> GradientEngine:
    """The source as an engine with a module; refuses one without, for the method `what`."""
    if not isinstance(source, GradientEngine):
        raise GagFastError(
            f"{what} looks into the torch module, which a {type(source).__name__} does not have; "
            "explain the module itself"
        )
    return source


def _differentiate(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        raise GagFastError("the model's logits do not depend on the images")
    return torch.autograd.grad(value, x)[0]


def _private_copy(model: nn.Module, memory_format: torch.memory_format) -> nn.Module | None:
    """A frozen eval copy of the model; None if it cannot be copied.

    Parameters share memory with the model's unless the format moves them; buffers are copied,
    since a module may write to them even in eval mode.
    """
    memo: dict[int, Any] = {}
    try:
        for parameter in model.parameters():
            memo[id(parameter)] = nn.Parameter(_laid_out(parameter, memory_format), False)
        clone = copy.deepcopy(model, memo)
    except Exception:
        return None
    clone.requires_grad_(False)
    return clone.eval()


def _laid_out(parameter: Tensor, memory_format: torch.memory_format) -> Tensor:
    value = parameter.detach()
    if parameter.dim() == 4 and memory_format == torch.channels_last:
        return value.contiguous(memory_format=memory_format)
    return value


@contextlib.contextmanager
def _frozen_in_place(model: nn.Module) -> Iterator[nn.Module]:
    """The model itself, frozen and in eval mode; every flag as before afterwards."""
    training = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in gradients:
            parameter.requires_grad_(False)
        yield model
    finally:
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag
