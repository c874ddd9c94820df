"""What bf16 and fp16 do to scores and maps: EfficientNet-Lite0 under OpenVINO, photographs.

    python -m benchmarks.precision --photos FOLDER [--images 36]

Four methods' maps, from float32 gradients and from those of each precision, scored by a float32
classifier and by one of each precision; and all of it by ONNX Runtime in float32, which says how
much two float32 libraries differ. Printed for each score: the mean over all maps, how far a map's
score moves (mean and largest), Spearman's rank correlation of the maps' scores, how many
photographs rank the methods as in float32, and the ranking by the means. A precision that
OpenVINO does not compute in here is left out and said so; what it does compute in is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks import machine, material
from gag_fast._errors import ClassifierError
from gag_fast.classifier import Classifier, OnnxGradients
from gag_fast.explainer import explain_many
from gag_fast.metrics import evaluate

METHODS = ("guided_absgrad", "smoothgrad", "vargrad", "vanilla")
SCORES = {"rcap": True, "dauc": False, "iauc": True}
"""Score -> whether more is better."""
F32, OTHER = "f32", "f32, ONNX Runtime"
HALVES = ("bf16", "fp16")

Case = tuple[str, str]
"""What computes the gradients, and what the scores."""


def opened(kind: str) -> tuple[OnnxGradients, Classifier]:
    """The gradients and the classifier in one of F32, OTHER and HALVES.

    Raises:
        ClassifierError: a precision that this processor does not have.
    """
    provider, precision = ("cpu", F32) if kind == OTHER else ("openvino", kind)
    graph, forward = material.gradient_file("efficientnet_lite0"), material.lite0_onnx()
    clf = Classifier(forward, provider, precision=precision)
    return OnnxGradients(graph, provider, precision=precision), clf


def scores(images: Tensor) -> dict[Case, dict[str, Tensor]]:
    """{case: {score: [B, methods]}}, float32's first."""
    kinds = {F32: opened(F32), OTHER: opened(OTHER)}
    for kind in HALVES:
        try:
            kinds[kind] = opened(kind)
        except ClassifierError as error:
            print(error)
    targets = kinds[F32][1](images).argmax(1)
    maps = {
        kind: torch.stack(list(explain_many(source, images, targets, METHODS).values()), 1)
        for kind, (source, _) in kinds.items()
    }
    halves = [kind for kind in kinds if kind in HALVES]
    cases = [(F32, F32), (OTHER, OTHER)]
    cases += [case for half in halves for case in ((F32, half), (half, F32), (half, half))]
    found = {}
    for gradients, scoring in cases:
        result = evaluate(kinds[scoring][1], images, maps[gradients], targets)
        found[gradients, scoring] = {name: getattr(result, name) for name in SCORES}
    return found


def figures(name: str, found: Tensor, right: Tensor) -> dict[str, Any]:
    """Of one score [B, methods] beside float32's."""
    off = (found - right).abs()
    order = found.mean(0).argsort(descending=SCORES[name])
    return {
        "mean": float(found.mean()),
        "mean_move": float(off.mean()),
        "largest_move": float(off.max()),
        "rank_correlation": float(spearmanr(found.flatten(), right.flatten()).statistic),
        "same_order": int((found.argsort(1) == right.argsort(1)).all(1).sum()),
        "ranking": [METHODS[i] for i in order],
    }


def compared(found: Mapping[Case, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """A row for each case and score."""
    right = found[F32, F32]
    return [
        {"gradients": gradients, "scoring": scoring, "score": name}
        | figures(name, values[name], right[name])
        for (gradients, scoring), values in found.items()
        for name in SCORES
    ]


def executed() -> dict[str, dict[str, int]]:
    """{precision: {OpenVINO's kernel: products of the gradient graph that it computes}}."""
    import openvino

    core, kernels = openvino.Core(), {}
    graph = str(material.gradient_file("efficientnet_lite0"))
    for kind, hint in ((F32, "f32"), ("bf16", "bf16"), ("fp16", "f16")):
        compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        infos = [op.rt_info for op in compiled.get_runtime_model().get_ordered_ops()]
        kinds = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
        kernels[kind] = dict(
            Counter(i["primitiveType"].value for i in infos if i["layerType"].value in kinds)
        )
    return kernels


def table(rows: list[dict[str, Any]], images: int) -> str:
    """Markdown."""
    lines = [
        "| gradients | scoring | score | mean | mean move | largest | rank correlation | "
        "same order of methods | ranking by the means |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [
        f"| {row['gradients']} | {row['scoring']} | {row['score'].upper()} | {row['mean']:.4f} | "
        f"{row['mean_move']:.1e} | {row['largest_move']:.1e} | {row['rank_correlation']:.4f} | "
        f"{row['same_order']} of {images} | {', '.join(row['ranking'])} |"
        for row in rows
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder (default: scikit-image's pictures)")
    parser.add_argument("--images", type=int, default=36)
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args(argv)
    preprocessing = material.lite0()[1].preprocessing
    images = material.photographs(args.photos, args.images, preprocessing)
    rows = compared(scores(images))
    stamp, kernels = machine.stamp(), executed()
    print(f"{len(images)} photographs x {len(METHODS)} methods, {machine.describe(stamp)}\n")
    print(table(rows, len(images)))
    for precision, counts in kernels.items():
        print(f"\n{precision}: " + ", ".join(f"{n} x {name}" for name, n in counts.items()))
    if args.json:
        result = {"stamp": stamp, "images": len(images), "rows": rows, "kernels": kernels}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
