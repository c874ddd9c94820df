"""A whole run: decode, explain, score, write; beside its two engines on the same work."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.suites import Cases, Group
from gag_fast.explainer import explain_many
from gag_fast.images import denormalise, load_image, preprocess
from gag_fast.metrics import evaluate
from gag_fast.runs.request import Request
from gag_fast.runs.run import run

BUDGET = 60.0  # seconds: one run takes ten
IMAGES, METHODS = 8, ("guided_absgrad", "smoothgrad", "vargrad")


def whole() -> Group:
    """8 photographs x 3 methods from files to Parquet."""

    def setup() -> Cases:
        module, spec = material.lite0()
        folder = tempfile.TemporaryDirectory()
        photos = Path(folder.name) / "photos"
        photos.mkdir()
        images, _, _ = material.scored_images(IMAGES, 1)
        for i, image in enumerate(images):
            denormalise(image, spec.preprocessing).save(photos / f"{i}.png")
        files = sorted(photos.iterdir())
        loaded = torch.stack([preprocess(load_image(f), spec.preprocessing) for f in files])
        clf, onnx = material.classifier(), material.lite0_onnx()
        targets = torch.as_tensor(clf(loaded)).argmax(1)
        number = itertools.count()

        def ours():
            request = Request(
                data=photos, out=Path(folder.name) / f"run{next(number)}",
                model="efficientnet_lite0",
                onnx=onnx, methods=METHODS, providers="cpu", device="cpu",
            )  # fmt: skip
            run(request, quiet=True)

        def engines():
            maps = explain_many(module, loaded, targets, methods=METHODS)
            evaluate(clf, loaded, torch.stack(list(maps.values()), 1), targets)

        return {"gag-fast evaluate": ours, "its two engines alone": engines}

    return Group(
        f"{IMAGES} photographs x {len(METHODS)} methods",
        ("gag-fast evaluate", "its two engines alone"),
        setup,
        floor="its two engines alone",
        units=IMAGES,
        unit="image",
    )


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [whole()]
