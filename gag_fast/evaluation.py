"""`gag_fast.evaluate`: the metrics with methods of explanation by name.

The metrics know no explainer. Where a measure explains again (max_sensitivity, mprt, emprt, adcc),
this is the room that turns a method's name into the function that they call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from torch import Tensor, nn

from gag_fast import metrics as _metrics
from gag_fast._errors import within_memory
from gag_fast._inputs import Array, Foreign
from gag_fast._progress import Report
from gag_fast.classifier import Classifier
from gag_fast.explainer import explain as _explain
from gag_fast.measures import MeasureName
from gag_fast.metrics import Scores
from gag_fast.presets import Preset, PresetName

Method = str | Callable[..., Tensor]
Metrics = MeasureName | Literal["all"] | Sequence[MeasureName | Literal["all"]]
"""One measure, several, or all that what is given allows."""


@overload
def evaluate(  # type: ignore[overload-overlap]  # NumPy speaks DLPack too
    clf: Classifier | nn.Module | str | Path,
    images: Array,
    maps: Any,
    targets: Any,
    metrics: Metrics = ("rcap", "dauc", "iauc"),
    preset: PresetName | Preset | Mapping[str, Any] = "paper",
    masks: Any = None,
    *,
    model: Any = None,
    explain: Method | Sequence[Method] = "guided_absgrad",
    image_ids: Any = None,
    max_bytes: int = 2**30,
    progress: Report = False,
) -> Scores[Array]: ...
@overload
def evaluate(
    clf: Classifier | nn.Module | str | Path,
    images: Tensor | Foreign,
    maps: Any,
    targets: Any,
    metrics: Metrics = ("rcap", "dauc", "iauc"),
    preset: PresetName | Preset | Mapping[str, Any] = "paper",
    masks: Any = None,
    *,
    model: Any = None,
    explain: Method | Sequence[Method] = "guided_absgrad",
    image_ids: Any = None,
    max_bytes: int = 2**30,
    progress: Report = False,
) -> Scores[Tensor]: ...
@within_memory
def evaluate(
    clf: Classifier | nn.Module | str | Path,
    images: Tensor | Array | Foreign,
    maps: Any,
    targets: Any,
    metrics: Metrics = ("rcap", "dauc", "iauc"),
    preset: PresetName | Preset | Mapping[str, Any] = "paper",
    masks: Any = None,
    *,
    model: Any = None,
    explain: Method | Sequence[Method] = "guided_absgrad",
    image_ids: Any = None,
    max_bytes: int = 2**30,
    progress: Report = False,
) -> Scores:
    """Scores saliency maps with a classifier.

    Args:
        clf: what scores; also a module that gives logits, or the path of an ONNX file.
        images: [B, C, H, W], normalised for the model; torch (CPU or CUDA), NumPy or an array that
            speaks DLPack (JAX, CuPy, TensorFlow), like the maps, targets and masks.
        maps: [B, H, W], or [B, M, H, W] for M maps of each image; the larger the more salient.
        targets: [B] class indexes.
        metrics: names of the measures, or "all": every one that what is given allows.
        preset: "paper", "official", "rise", "torchcam", a `Preset` or a dict of its fields.
        masks: [B, H, W] ground truth in [0, 1], or None.
        model: what made the maps, for the measures that explain again.
        explain: the method that made them: a name that `explain` takes, with its defaults, an
            attribution class of Captum, or a function (model, images, targets) -> maps [B, H, W];
            for M maps one or M of them.
        image_ids: those that the maps were made with [B], None without.
        max_bytes: bound on the memory for sources, ranks and sorted values.
        progress: True for a bar on stderr or in the notebook, counted in maps (plain lines where
            neither is there); or a function that is called with (done, total).

    Returns:
        `Scores`: a measure is an attribute by its name, [B] or [B, M], float32; NumPy arrays where
        the images were NumPy, else tensors on the images' device.

    Raises:
        TypeError, ValueError: naming what was received.
    """
    again = _function(explain)
    if isinstance(explain, (list, tuple)):
        again = [_function(each) for each in explain]
    return _metrics.evaluate(
        _classifier(clf),
        images,
        maps,
        targets,
        metrics,
        preset,
        masks,
        model=model,
        explain=again,
        image_ids=image_ids,
        max_bytes=max_bytes,
        progress=progress,
    )


def _function(method: Any) -> Any:
    if isinstance(method, (str, type)):  # a class is one of Captum's
        return functools.partial(_by_name, method=method)
    return method


def _by_name(
    model: Any, images: Tensor, targets: Tensor, image_ids: Tensor | None = None, *, method: Any
) -> Tensor:
    return _explain(model, images, targets, method=method, image_ids=image_ids)


def _classifier(given: Any) -> Any:
    if isinstance(given, (str, Path)):
        return Classifier(given)
    return Classifier.from_torch(given) if isinstance(given, nn.Module) else given
