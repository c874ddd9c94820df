"""EfficientNet-Lite0 with its ImageNet weights, exported once, and photographs to go with it."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.scoring import photographs, smooth_maps
from gag_fast.classifier import Classifier
from gag_fast.export import export_onnx
from gag_fast.models import ModelSpec, load_model


@functools.cache
def model() -> tuple[nn.Module, ModelSpec]:
    """The torch module and its spec."""
    return load_model("efficientnet_lite0")


@functools.cache
def onnx_file() -> Path:
    """The module as an ONNX file, in a folder that goes with the process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "efficientnet_lite0.onnx"
    export_onnx(*model(), path)
    return path


@functools.cache
def classifier(device: str = "cpu") -> Classifier:
    """The file in an ONNX Runtime session."""
    return Classifier(onnx_file(), providers=device)


def scored_images(count: int, maps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs [B, 3, 224, 224], maps [B, maps, 224, 224], predicted classes [B]."""
    preprocessing = model()[1].preprocessing
    images = photographs(None, count, preprocessing)
    saliency = smooth_maps(count, preprocessing.size)[:, :maps]
    return images, saliency, torch.as_tensor(classifier()(images)).argmax(1)
