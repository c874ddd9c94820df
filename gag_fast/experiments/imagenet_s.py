"""ImageNet-S919 with torchvision's ResNet-50 V1.

ImageNet-S (Gao et al. 2022) has 919 of ImageNet's 1000 classes, so the order of its folders is not
the order of the classifier's outputs: they differ from the 406th class on. A folder's class index
is therefore looked up by its WordNet id. Masks are RGB PNGs whose pixels hold an id R + 256·G:
0 other, 1000 to be ignored, and c + 1 for the c-th of the 919 classes in sorted order.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from gag_fast.data import DataError, Item
from gag_fast.data.imagenet import WNIDS
from gag_fast.models import ModelError, fill_state, read_state, seeded

FETCH = """\
Data: the ILSVRC2012 validation images (https://image-net.org, after registration), then the tools
  of https://github.com/LUSSeg/ImageNet-S (datapreparation/data_preparation.sh, split 919), which
  also download the masks. DATA is the resulting folder ImageNetS919, with validation/ and
  validation-segmentation/.
Weights: torchvision's ResNet50_Weights.IMAGENET1K_V1, downloaded by itself (--weights default), or
  the file resnet50-0676ba61.pth from https://download.pytorch.org/models/ (--weights FILE)."""

# The 81 classes of ImageNet that ImageNet-S919 leaves out, as places in ImageNet's own order. The
# 919 others, sorted, are its classes 1, 2, ... as the ids in the masks count them.
_LEFT_OUT = (
    *(406, 415, 416, 421, 424, 433, 442, 445, 454, 455, 460, 467, 476, 479, 480, 485, 490, 498),
    *(500, 506, 508, 509, 525, 527, 535, 536, 537, 538, 548, 562, 580, 581, 582, 598, 619, 620),
    *(624, 634, 638, 639, 646, 692, 700, 706, 730, 744, 762, 766, 782, 788, 799, 801, 810, 819),
    *(837, 838, 844, 848, 860, 865, 876, 877, 884, 908, 911, 916, 918, 921, 926, 960, 966, 967),
    *(970, 974, 975, 976, 977, 978, 979, 980, 982),
)


_KEPT = [index for index in range(len(WNIDS)) if index not in _LEFT_OUT]
_OBJECT_ID = {index: place for place, index in enumerate(_KEPT, start=1)}


def object_id(target: int) -> int:
    """The id that the masks have for the objects of an ImageNet class, 1 to 919."""
    return _OBJECT_ID[target]


def items(root: Path) -> list[Item]:
    """The validation images below ImageNetS919, sorted, each with its mask.

    Args:
        root: the folder with `validation/<wnid>/*.JPEG` and
            `validation-segmentation/<wnid>/*.png`, or the one that holds ImageNetS919.

    Raises:
        DataError: another structure, a folder that is no ImageNet-S class, an image whose mask
            is missing.
    """
    root = root / "ImageNetS919" if (root / "ImageNetS919").is_dir() else root
    images, masks = root / "validation", root / "validation-segmentation"
    for folder, files in ((images, "*.JPEG"), (masks, "*.png")):
        if not folder.is_dir():
            raise DataError(f"{root}: ImageNetS919 has a folder {folder.name}/<wnid>/{files}")
    class_index = {WNIDS[index]: index for index in _KEPT}
    found = []
    for folder in sorted(p for p in images.iterdir() if p.is_dir()):
        if folder.name not in class_index:
            raise DataError(f"{folder}: {folder.name} is not a class of ImageNet-S919")
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in {".jpeg", ".jpg"}:
                continue
            mask = masks / folder.name / f"{path.stem}.png"
            if not mask.is_file():
                raise DataError(f"{path}: its mask {mask} is missing")
            name = path.relative_to(root).as_posix()
            found.append(Item(name, path, class_index[folder.name], mask))
    return found


def resnet50_v1(weights: str | Path = "default") -> nn.Module:
    """torchvision's ResNet-50 with the first set of ImageNet weights ("V1", 76.1 % top-1).

    Args:
        weights: "default" (torchvision downloads them), a file, or "none" (random, seed 0).

    Raises:
        ModelError: no download, or a file that cannot be read or does not fit.
    """
    from torchvision import models

    if str(weights) == "default":
        try:
            return models.resnet50(weights=models.ResNet50_Weights.IMAGENET1K_V1)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"torchvision cannot download ResNet-50's weights ({error}); fetch "
                "resnet50-0676ba61.pth yourself and give it with --weights"
            ) from None
    with seeded():
        module = models.resnet50(weights=None)
    if str(weights) != "none":
        fill_state(module, read_state(Path(weights)), str(weights))
    return module
