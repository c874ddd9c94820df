"""The paper's Table 1, image by image: 20 gradients, nine p, RCAP, DAUC and IAUC of each map."""

from __future__ import annotations

import torch

from benchmarks import material
from benchmarks.competitors import authors_loop, authors_recipe, authors_way
from benchmarks.material import SWEEP
from benchmarks.suites import Cases, Group
from gag_fast.classifier import Classifier, OnnxGradients
from gag_fast.classifier.openvino import OPENVINO
from gag_fast.classifier.providers import why_not
from gag_fast.explainer import explain_many
from gag_fast.metrics import evaluate

BUDGET = 60.0  # seconds: the authors' way takes ten an image
IMAGES, N = 1, 20
METHODS = tuple(f"guided_absgrad@{p:g}" for p in SWEEP)
OURS = {
    "openvino": "gag_fast, OpenVINO",
    "bf16": "gag_fast, OpenVINO, bf16 scoring",
    "cpu": "gag_fast",
    "cuda": "gag_fast, CUDA",
}


def table1(device: str = "cpu") -> Group:
    """Photographs through the whole of it, under the `official` preset: the authors' numbers."""
    names = [OURS[way] for way in ways(device)] + ["the authors' way"]

    def setup() -> Cases:
        module, spec = material.lite0()
        module = module.to(device)
        images, _, targets = material.scored_images(IMAGES, 1)
        images, targets = images.to(device), targets.to(device)

        def ours(source, clf):
            def run():
                maps = explain_many(source, images, targets, METHODS, n=N)
                stacked = torch.stack(list(maps.values()), 1)
                return evaluate(clf, images, stacked, targets, preset="official")

            return run

        def theirs():
            samples = authors_loop(module, images, targets, N)
            maps = torch.stack([authors_recipe(samples, p) for p in SWEEP], 1)
            return authors_way(module, images, maps, targets, spec.preprocessing)

        cases: Cases = {}
        for way in ways(device):
            if way in ("openvino", "bf16"):
                source = OnnxGradients(material.gradient_file("efficientnet_lite0"), "openvino")
                precision = "bf16" if way == "bf16" else "f32"
                clf = Classifier(material.lite0_onnx(), "openvino", precision=precision)
            else:
                source, clf = module, Classifier(material.lite0_onnx(), way)
            cases[OURS[way]] = ours(source, clf)
        return {**cases, "the authors' way": theirs}

    name = f"EfficientNet-Lite0, {IMAGES} photograph x {len(SWEEP)} p"
    return Group(name, tuple(names), setup, units=IMAGES, unit="image")


def ways(device: str) -> list[str]:
    """What computes, the likely fastest first."""
    if device == "cuda":
        return ["cuda"]
    return ["openvino", "bf16", "cpu"] if why_not(OPENVINO) is None else ["cpu"]


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [table1(device)]
