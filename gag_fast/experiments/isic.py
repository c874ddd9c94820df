"""ISIC 2018 to 2020 with the winning EfficientNet-B4 of the SIIM-ISIC challenge (Ha et al. 2020).

Two structures of the data are read:

- the resized copies that the winning solution was trained on: `jpeg-melanoma-512x512/` (2020) and
  `jpeg-isic2019-512x512/` (2018 and 2019), each with `train.csv` (image_name, diagnosis, tfrecord
  among its columns) and `train/<image_name>.jpg`. Only the images of one fold are listed, those
  that the published weights of that fold were not trained on.
- the archive's own: `ISIC_2019_Training_GroundTruth.csv` (one column a class, 1.0 in one of them)
  with `ISIC_2019_Training_Input/`, and/or `ISIC_2020_Training_GroundTruth.csv` (v2 or not; image
  name and diagnosis) with `train/`. It has no folds: every image is listed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from gag_fast.data import DataError, Item
from gag_fast.models import ModelError, fill_state, read_state, seeded

FETCH = """\
Data: from Kaggle, cdeotte/jpeg-melanoma-512x512 and cdeotte/jpeg-isic2019-512x512, unpacked side by
  side into DATA (each has train.csv and train/); or from https://challenge.isic-archive.com/data
  the 2019 and 2020 training images and ground-truth CSVs, unpacked side by side into DATA.
Weights: 9c_b4ns_448_ext_15ep-newfold_best_fold0.pth of the winning solution, from the Kaggle data
  set boliu0/melanoma-winning-models (--weights FILE). See
  https://github.com/haqishen/SIIM-ISIC-Melanoma-Classification-1st-Place-Solution."""

# The classifier's outputs, in order: the diagnoses of the training data, sorted as strings.
CLASSES = ("AK", "BCC", "BKL", "DF", "SCC", "VASC", "melanoma", "nevus", "unknown")

# What the CSVs call them. 2020 writes names, 2019 abbreviations.
_DIAGNOSES = {
    **{name: name for name in CLASSES},
    "NV": "nevus",
    "MEL": "melanoma",
    "UNK": "unknown",
    "seborrheic keratosis": "BKL",
    "lichenoid keratosis": "BKL",
    "solar lentigo": "BKL",
    "lentigo NOS": "BKL",
    "cafe-au-lait macule": "unknown",
    "atypical melanocytic proliferation": "unknown",
}

# The winners' "newfold" split: which of the 15 shards of the resized data belong to which fold.
_FOLDS = {0: {8, 5, 11}, 1: {7, 0, 6}, 2: {10, 12, 13}, 3: {9, 1, 3}, 4: {14, 2, 4}}


def items(root: Path, fold: int = 0) -> list[Item]:
    """The images below `root`, 2020's before 2019's, in their CSV's order.

    Args:
        root: a folder of either structure (module docstring).
        fold: 0 to 4, for the resized copies; the published figures are fold 0's.

    Raises:
        DataError: neither structure, a column that is missing, a diagnosis that has no class, an
            image that is missing.
    """
    if fold not in _FOLDS:
        raise DataError(f"fold must be 0 to {len(_FOLDS) - 1}, got {fold}")
    resized = [
        folder
        for pattern in ("jpeg-melanoma-*x*", "jpeg-isic2019-*x*")
        for folder in sorted(root.glob(pattern))
        if folder.is_dir()
    ]
    if len(resized) > 2:
        raise DataError(
            f"{root} has copies of several sizes ({', '.join(f.name for f in resized)}); keep one"
        )
    if resized:
        found = [item for folder in resized for item in _resized(root, folder, fold)]
    else:
        found = [*_archive2020(root), *_archive2019(root)]
    if not found:
        raise DataError(
            f"{root} has neither jpeg-melanoma-512x512/ and jpeg-isic2019-512x512/ "
            "nor ISIC_2019_Training_GroundTruth.csv nor ISIC_2020_Training_GroundTruth.csv"
        )
    return found


def _rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a CSV that has these columns."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {', '.join(missing)}")
        yield from enumerate(reader, start=2)


def _item(root: Path, path: Path, diagnosis: str, where: str) -> Item:
    if diagnosis not in _DIAGNOSES:
        raise DataError(f"{where}: diagnosis {diagnosis!r} is none of the nine classes'")
    if not path.is_file():
        raise DataError(f"{where}: no image {path}")
    target = CLASSES.index(_DIAGNOSES[diagnosis])
    return Item(path.relative_to(root).as_posix(), path, target)


def _resized(root: Path, folder: Path, fold: int) -> Iterator[Item]:
    table = folder / "train.csv"
    if not table.is_file():
        raise DataError(f"{folder} has no train.csv")
    for line, row in _rows(table, "image_name", "diagnosis", "tfrecord"):
        # -1 marks duplicates that belong to no shard; 2019's shards 15 to 29 repeat the split.
        shard = int(float(row["tfrecord"]))
        if shard < 0 or shard % 15 not in _FOLDS[fold]:
            continue
        path = folder / "train" / f"{row['image_name']}.jpg"
        yield _item(root, path, row["diagnosis"], f"{table}:{line}")


def _archive2020(root: Path) -> Iterator[Item]:
    tables = sorted(root.glob("ISIC_2020_Training_GroundTruth*.csv"))
    for table in tables[-1:]:  # where both GroundTruth and GroundTruth_v2 are there, the latter
        for line, row in _rows(table, "image_name", "diagnosis"):
            path = root / "train" / f"{row['image_name']}.jpg"
            yield _item(root, path, row["diagnosis"], f"{table}:{line}")


def _archive2019(root: Path) -> Iterator[Item]:
    table = root / "ISIC_2019_Training_GroundTruth.csv"
    if not table.is_file():
        return
    names = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    for line, row in _rows(table, "image", *names):
        hot = [name for name in names if float(row[name]) == 1]
        if len(hot) != 1:
            raise DataError(f"{table}:{line}: one class must be 1, got {hot or 'none'}")
        path = root / "ISIC_2019_Training_Input" / f"{row['image']}.jpg"
        yield _item(root, path, hot[0], f"{table}:{line}")


def efficientnet_b4(weights: str | Path = "none") -> nn.Module:
    """The winners' EfficientNet-B4 with nine outputs, without patient data.

    Args:
        weights: their state dict (`enet.*` as in timm's tf_efficientnet_b4_ns, and `myfc.*`), or
            "none" (random, seed 0).

    Raises:
        ModelError: a file that cannot be read or does not fit.
    """
    from gag_fast.experiments.tf_efficientnet import from_timm_names, tf_efficientnet_b4

    if str(weights) == "default":
        raise ModelError(
            "the isic case has no download of its own: give --weights FILE "
            "(9c_b4ns_448_ext_15ep-newfold_best_fold0.pth; docs/reproduction.md says from where)"
        )
    with seeded():
        module = tf_efficientnet_b4(num_classes=len(CLASSES))
    if str(weights) != "none":
        state = read_state(Path(weights))
        if any(key.startswith("meta.") for key in state):
            raise ModelError(
                f"{weights} takes patient data beside the image; the case needs a model "
                "without, such as 9c_b4ns_448_ext_15ep-newfold_best_fold0.pth"
            )
        # Five dropouts share the one layer `myfc`; in eval mode their mean is that layer.
        names = {key.replace("myfc.", "classifier."): value for key, value in state.items()}
        names = {key.removeprefix("enet."): value for key, value in names.items()}
        fill_state(module, from_timm_names(names), str(weights))
    return module
