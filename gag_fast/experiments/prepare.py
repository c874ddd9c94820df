"""The steps before a reproduction's first map: model, exported classifier, images, masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from gag_fast._progress import Progress
from gag_fast.classifier import Classifier
from gag_fast.data import DataError, Dataset, Item, open_dataset
from gag_fast.experiments.cases import CASES, Case, object_mask
from gag_fast.experiments.experiment import Experiment
from gag_fast.images import normalise
from gag_fast.models import ModelSpec, load_model
from gag_fast.runs.chunks import cut
from gag_fast.runs.decoding import Decoded, Decoder

_BATCH = 32


@dataclass(frozen=True)
class Ready:
    """A model, its exported classifier and the images that take part.

    Attributes:
        name, weights: by which any process can load the model.
        module, spec: the model.
        onnx: the classifier that scores.
        dataset: the chosen images.
        candidates: how many were looked at for them.
    """

    name: str
    weights: str
    module: nn.Module
    spec: ModelSpec
    onnx: Path
    dataset: Dataset
    candidates: int


def prepare(asked: Experiment, quiet: bool = False) -> Ready:
    """Loads and exports the model, lists and selects the images; what exists already is kept.

    Raises:
        ValueError: data, weights or a selection that cannot be had; one line.
    """
    asked.out.mkdir(parents=True, exist_ok=True)
    case = CASES[asked.case] if asked.case else None
    name, weights, (module, spec) = _model(asked, case)
    if case is not None:
        dataset = case.dataset(asked.data)
    else:
        dataset = open_dataset(asked.data, spec.num_classes, spec.labels)
    if asked.classes is not None:
        few = tuple(i for i in dataset.items if i.target is not None and i.target < asked.classes)
        if not few:
            raise DataError(f"{dataset.source}: no image of the first {asked.classes} classes")
        dataset = Dataset(dataset.source, few, dataset.notes)
    onnx = export(asked.out, module, spec)
    chosen, candidates = _select(asked, dataset, spec, onnx, quiet)
    chosen = _with_masks(asked.out, case, chosen)
    return Ready(name, weights, module, spec, onnx, chosen, candidates)


def _model(asked: Experiment, case: Case | None) -> tuple[str, str, tuple[nn.Module, ModelSpec]]:
    """NAME and weights that every process of the run can load, and the module itself.

    A case's published weights name their parameters in their own way, so they are stored once more
    under the names of the case's module.
    """
    if case is None:
        assert asked.model is not None
        return asked.model, asked.weights, load_model(asked.model, asked.weights)
    module, spec = case.load_model(asked.weights)
    stored = asked.out / "weights.pt"
    torch.save(module.state_dict(), stored)
    return case.module_name, str(stored.resolve()), (module, spec)


def export(out: Path, module: nn.Module, spec: ModelSpec) -> Path:
    """OUT/model.onnx, made anew when it was made from other weights."""
    from gag_fast.export import export_onnx

    path, stamp = out / "model.onnx", out / "model.json"
    wanted = {"weights_sha256": spec.weights_sha256, "preprocessing": asdict(spec.preprocessing)}
    wanted = json.loads(json.dumps(wanted))
    if not (path.is_file() and stamp.is_file() and json.loads(stamp.read_text()) == wanted):
        export_onnx(module, spec, path)
        stamp.write_text(json.dumps(wanted, indent=1) + "\n")
    return path


def _select(
    asked: Experiment, dataset: Dataset, spec: ModelSpec, onnx: Path, quiet: bool
) -> tuple[Dataset, int]:
    """The images whose label has at least the asked confidence, in the data set's order.

    Candidates are looked at in an order drawn by the seed, until there are enough.

    Returns:
        the data set of the chosen images, and how many candidates were looked at.
    """
    path = asked.out / "selection.json"
    settings = {
        "data": dataset.fingerprint(),
        "weights_sha256": spec.weights_sha256,
        "confidence": asked.confidence,
        "images": asked.images,
        "seed": asked.seed,
    }
    by_name = {item.image: item for item in dataset.items}
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored["settings"] == settings:
            items = tuple(by_name[name] for name in stored["chosen"])
            return Dataset(dataset.source, items), stored["candidates"]
    order = np.random.default_rng(asked.seed).permutation(len(dataset))
    shuffled = Dataset(dataset.source, tuple(dataset.items[i] for i in order))
    classifier = Classifier(onnx, providers=asked.providers)
    confident: list[str] = []
    looked = 0
    goal = len(dataset) if asked.images is None else asked.images
    with (
        Progress(len(dataset), "candidates", quiet=quiet) as progress,
        Decoder(spec.preprocessing) as decoder,
    ):
        for chunk, decoded in decoder.stream(cut(shuffled, _BATCH)):
            readable = [pair for pair in zip(chunk.items, decoded) if pair[1].pixels is not None]
            if readable:
                scores = classifier(as_input([d for _, d in readable], spec)).float().cpu()
                for (item, _), row in zip(readable, scores):
                    target = int(row.argmax()) if item.target is None else item.target
                    looked += len(confident) < goal
                    if row[target] >= asked.confidence and len(confident) < goal:
                        confident.append(item.image)
            progress.add(len(chunk.items))
            if len(confident) == goal:
                break
    if not confident:
        raise DataError(
            f"{dataset.source}: none of {looked} images has its label at a confidence of "
            f"{asked.confidence:g} or more (another model, or labels of another order?)"
        )
    names = set(confident)
    items = tuple(item for item in dataset.items if item.image in names)
    record = {
        "settings": settings,
        "candidates": looked,
        "chosen": [item.image for item in items],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return Dataset(dataset.source, items), looked


def as_input(decoded: Sequence[Decoded], spec: ModelSpec) -> torch.Tensor:
    """Decoded images, none of which failed, as the model's input `[B, C, H, W]`."""
    pixels = [d.pixels for d in decoded if d.pixels is not None]
    return normalise(np.stack(pixels), spec.preprocessing)


def _with_masks(out: Path, case: Case | None, dataset: Dataset) -> Dataset:
    """For a case whose masks hold ids: the same images with black and white masks."""
    if case is None or case.object_id is None:
        return dataset
    items = []
    for item in dataset.items:
        name = hashlib.sha256(item.image.encode()).hexdigest()[:16]
        path = out / "masks" / f"{name}.png"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            assert item.mask is not None
            assert item.target is not None
            mask = object_mask(item.mask, case.object_id(item.target))
            Image.fromarray(mask).save(path)
        items.append(Item(item.image, item.path, item.target, path))
    return Dataset(dataset.source, tuple(items))
