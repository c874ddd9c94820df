"""The paper's three cases (Section 5): data set, classifier, preprocessing, settings.

A case knows how to list the images of its real folder structure and how to build the classifier
from the weights file that is published for it. `CASES` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from gag_fast.data import DataError, Dataset, Item
from gag_fast.experiments import imagenet_s, isic, places365
from gag_fast.images import load_image
from gag_fast.models import ModelSpec, Preprocessing, imagenet_labels, state_hash


@dataclass(frozen=True)
class Case:
    """One case of Section 5.

    Attributes:
        name: "imagenet-s", "isic" or "places365".
        preprocessing: from an image file to the classifier's input.
        num_classes: K.
        labels: the classes, in the order of the classifier's outputs, or None.
        grad_cam_layer: the module that Grad-CAM reads.
        settings: the name of the authors' method settings for this case.
        items: folder -> the images with their classes, in a fixed order.
        build: weights file, "default" (torchvision's download, imagenet-s only) or "none"
            (random) -> the classifier.
        fetch: where the data and the weights come from, for people.
        object_id: class -> the id of its objects in the masks, or None where a mask's object is
            every pixel that is not black.
    """

    name: str
    preprocessing: Preprocessing
    num_classes: int
    labels: tuple[str, ...] | None
    grad_cam_layer: str
    settings: str
    items: Callable[[Path], list[Item]]
    build: Callable[[str | Path], nn.Module]
    fetch: str
    object_id: Callable[[int], int] | None = None

    @property
    def module_name(self) -> str:
        """The NAME by which `gag_fast.load_model` builds the case's module."""
        return f"{__name__}:{self.name.replace('-', '_')}_module"

    def module(self, weights: str | Path = "none") -> nn.Module:
        """The classifier, with its preprocessing and labels as `gag_fast.load_model` reads them.

        Raises:
            ModelError: the weights cannot be had, read, or do not fit.
        """
        module = self.build(weights).eval()
        module.preprocessing = self.preprocessing  # type: ignore[assignment]
        module.labels = self.labels  # type: ignore[assignment]
        return module

    def dataset(self, root: str | Path) -> Dataset:
        """The images below a folder of the case's structure.

        Raises:
            DataError: no such folder, or another structure.
        """
        root = Path(root)
        if not root.is_dir():
            raise DataError(
                f"{root}: no such folder (docs/reproduction.md says where {self.name} comes from)"
            )
        return Dataset(root, tuple(self.items(root)))

    def load_model(self, weights: str | Path = "default") -> tuple[nn.Module, ModelSpec]:
        """The case's classifier, in eval mode, and what is known of it, like `gag_fast.load_model`.

        Raises:
            ModelError: the weights cannot be had, read, or do not fit.
        """
        module = self.module(weights)
        source = {"default": "pretrained", "none": "random, seed 0"}.get(str(weights))
        spec = ModelSpec(
            name=self.name,
            preprocessing=self.preprocessing,
            num_classes=self.num_classes,
            labels=self.labels,
            weights=source or Path(weights).name,
            weights_sha256=state_hash(module),
        )
        return module, spec


CASES: dict[str, Case] = {
    "imagenet-s": Case(
        name="imagenet-s",
        # Section 5: "256×256 resolution"; the whole image, without a crop.
        preprocessing=Preprocessing(size=256, resize=256, crop=False),
        num_classes=1000,
        labels=imagenet_labels(),
        grad_cam_layer="layer4",
        settings="official:imagenet",
        items=imagenet_s.items,
        build=imagenet_s.resnet50_v1,
        fetch=imagenet_s.FETCH,
        object_id=imagenet_s.object_id,
    ),
    "isic": Case(
        name="isic",
        preprocessing=Preprocessing(size=448, resize=448, crop=False),
        num_classes=len(isic.CLASSES),
        labels=isic.CLASSES,
        grad_cam_layer="features.7",  # `blocks[6]` in the authors' naming of the same network
        settings="official:isic",
        items=isic.items,
        build=isic.efficientnet_b4,
        fetch=isic.FETCH,
    ),
    "places365": Case(
        name="places365",
        preprocessing=Preprocessing(size=224, resize=256, crop=True),
        num_classes=365,
        labels=None,  # they are in the data set's own categories_places365.txt
        grad_cam_layer="features.denseblock4",
        settings="official:places365",
        items=places365.items,
        build=places365.densenet161,
        fetch=places365.FETCH,
    ),
}


def imagenet_s_module() -> nn.Module:
    """ResNet-50 of the imagenet-s case with random weights, for `gag_fast.load_model`."""
    return CASES["imagenet-s"].module()


def isic_module() -> nn.Module:
    """EfficientNet-B4 of the isic case with random weights, for `gag_fast.load_model`."""
    return CASES["isic"].module()


def places365_module() -> nn.Module:
    """DenseNet-161 of the places365 case with random weights, for `gag_fast.load_model`."""
    return CASES["places365"].module()


def object_mask(path: str | Path, object_id: int | None = None) -> np.ndarray:
    """The object's pixels of a ground-truth segmentation.

    Args:
        path: image file.
        object_id: the object's pixels are those with R + 256·G equal to this (ImageNet-S), or,
            for None, all that are not black.

    Returns:
        bool `[H, W]`, as large as the file's picture.

    Raises:
        DataError: no pixel is the object's.
    """
    pixels = np.asarray(load_image(path), dtype=np.int32)
    if object_id is None:
        mask = (pixels != 0).any(axis=-1)
    else:
        mask = np.equal(pixels[..., 0] + 256 * pixels[..., 1], object_id)
    if not mask.any():
        wanted = "that is not black" if object_id is None else f"of object {object_id}"
        raise DataError(f"{path}: the mask has no pixel {wanted}")
    return mask
