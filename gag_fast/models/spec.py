"""What is known of a classifier beside its weights, and small tools for modules."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from numbers import Integral

import torch
from torch import nn

from gag_fast._errors import GagFastError

MAX_SIZE = 9_000
"""Of an input's side in pixels; its square is the most that a picture may have."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


class ModelError(GagFastError):
    """A model name, a weights file or a module that cannot be used; one line that says why."""


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the tensor a classifier takes.

    Attributes:
        size: side in pixels of the square input.
        resize: with `crop`, the length in pixels the shorter side is resized to before cropping;
            0: 256 for a size of 224, as ImageNet's classifiers have it, else `size` itself.
        crop: True: centre crop of `size` from the resized image; False: resize to size x size,
            whatever the aspect ratio.
        mean: per channel, in [0, 1] pixel units, subtracted.
        std: per channel, in [0, 1] pixel units, divided by.
        interpolation: "bilinear", "bicubic" or "lanczos", with antialiasing.

    Raises:
        ModelError: sizes, means, deviations or an interpolation that cannot be, with what was
            received.
    """

    size: int = 224
    resize: int = 0
    crop: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            given = getattr(self, name)
            try:
                object.__setattr__(self, name, tuple(float(v) for v in given))
            except (TypeError, ValueError):
                raise ModelError(f"{name} must be numbers, one a channel, got {given!r}") from None
        for name in ("size", "resize"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, Integral):
                raise ModelError(f"{name} must be a whole number of pixels, got {given!r}")
        if self.resize == 0:
            object.__setattr__(self, "resize", 256 if self.size == 224 else self.size)
        if self.size < 1 or self.resize < 1 or max(self.size, self.resize) > MAX_SIZE:
            raise ModelError(
                f"sizes must be from 1 to {MAX_SIZE}, got size={self.size}, resize={self.resize}"
            )
        if self.crop and self.resize < self.size:
            raise ModelError(f"cannot crop {self.size} pixels from {self.resize}")
        if not self.mean or len(self.mean) != len(self.std):
            raise ModelError(
                f"mean and std must have one value a channel, got {self.mean}, {self.std}"
            )
        if any(s <= 0 for s in self.std):
            raise ModelError(f"std must be positive, got {self.std}")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ModelError(f"mean and std must be finite, got {self.mean}, {self.std}")
        if self.interpolation not in INTERPOLATIONS:
            raise ModelError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, "
                f"got {self.interpolation!r}"
            )

    @property
    def black(self) -> tuple[float, ...]:
        """The value of a black pixel, per channel, after normalisation: (0 - mean) / std."""
        return tuple(-m / s for m, s in zip(self.mean, self.std, strict=True))


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a classifier beside its weights.

        spec = ModelSpec("mine", Preprocessing(size=28, mean=[0.13], std=[0.31]), num_classes=10)

    Attributes:
        name: the name it was loaded by, or any.
        preprocessing: how its input is made from an image.
        num_classes: K, two for a model of one output; 0: the number of labels.
        labels: K class names, or None where they are not known.
        weights: where the parameters come from, in words ("random, seed 0", a file's name, ...).
        weights_sha256: hash of the parameters and buffers themselves; see `state_hash`.
        score: what the output is, one of `scores.SCORES`; None: what the first images show.

    Raises:
        ModelError: neither `num_classes` nor `labels` is given.
    """

    name: str = "model"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    num_classes: int = 0
    labels: tuple[str, ...] | None = None
    weights: str = "unknown"
    weights_sha256: str = ""
    score: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
        if self.num_classes == 0:
            object.__setattr__(self, "num_classes", len(self.labels or ()))
        if self.num_classes < 1:
            raise ModelError(
                f"{self.name}: say how many classes there are, with num_classes= or labels="
            )


def state_hash(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if not isinstance(value, torch.Tensor):
            continue
        tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def device_of(asked: str | None, default: str = "cuda") -> str:
    """Where a module computes: as asked for, or on the GPU where there is one and `default` is it.

    Raises:
        ModelError: neither "cpu" nor "cuda", or there is no CUDA device.
    """
    there = torch.cuda.is_available()
    if asked is None:
        return "cuda" if there and default == "cuda" else "cpu"
    if asked not in ("cpu", "cuda"):
        raise ModelError(f"device must be cpu or cuda, got {asked!r}")
    if asked == "cuda" and not there:
        raise ModelError("device cuda was asked for, but torch finds no CUDA device here")
    return asked


@contextlib.contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Random initialisation that is the same at every call and leaves torch's generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def imagenet_labels() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)
