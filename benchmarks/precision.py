"""What bf16 and fp16 do to scores and maps: EfficientNet-Lite0 under OpenVINO, photographs.

    python -m benchmarks.precision --photos FOLDER [--images 24]

Four methods' maps, from float32 gradients and from those of each precision, scored by a float32
classifier and by one of each precision. Printed for each score: the mean over all maps, how far a
map's score moves (mean and largest), Spearman's rank correlation of the maps' scores, and how many
photographs still rank the methods as in float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks import machine, material
from gag_fast.classifier import Classifier, OnnxGradients
from gag_fast.explainer import explain_many
from gag_fast.metrics import evaluate

METHODS = ("guided_absgrad", "smoothgrad", "vargrad", "vanilla")
SCORES = ("rcap", "dauc", "iauc")
PRECISIONS = ("f32", "bf16", "fp16")


def scores(images: Tensor) -> dict[tuple[str, str], dict[str, Tensor]]:
    """{(precision of the gradients, of the scoring): {score: [B, methods]}}."""
    graph, forward = material.gradient_file("efficientnet_lite0"), material.lite0_onnx()
    classifiers = {p: Classifier(forward, "openvino", precision=p) for p in PRECISIONS}
    targets = classifiers["f32"](images).argmax(1)
    found = {}
    for gradients in PRECISIONS:
        source = OnnxGradients(graph, "openvino", precision=gradients)
        maps = torch.stack(list(explain_many(source, images, targets, METHODS).values()), 1)
        for scoring in PRECISIONS if gradients == "f32" else ("f32",):
            result = evaluate(classifiers[scoring], images, maps, targets)
            found[gradients, scoring] = {name: getattr(result, name) for name in SCORES}
    return found


def line(case: tuple[str, str], name: str, found: Tensor, right: Tensor) -> str:
    """One row of the table."""
    off = (found - right).abs()
    ranks = spearmanr(found.flatten(), right.flatten()).statistic
    same = (found.argsort(1) == right.argsort(1)).all(1).sum()
    return (
        f"| {case[0]} | {case[1]} | {name.upper()} | {found.mean():.4f} | {off.mean():.1e} | "
        f"{off.max():.1e} | {ranks:.4f} | {same} of {len(found)} |"
    )


def table(found: Mapping[tuple[str, str], Mapping[str, Tensor]]) -> str:
    """Markdown."""
    lines = [
        "| gradients | scoring | score | mean | mean move | largest | rank correlation | "
        "same order of methods |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    right = found["f32", "f32"]
    for case, values in found.items():
        lines += [line(case, name, values[name], right[name]) for name in SCORES]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder (default: scikit-image's pictures)")
    parser.add_argument("--images", type=int, default=24)
    args = parser.parse_args(argv)
    preprocessing = material.lite0()[1].preprocessing
    found = scores(material.photographs(args.photos, args.images, preprocessing))
    print(f"{args.images} photographs x {len(METHODS)} methods,")
    print(machine.describe(machine.stamp()), end="\n\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
