"""Gradients through ONNX Runtime and OpenVINO beside the torch engine, network by network.

"auto" is the one of them that `--gradients auto` takes, by its own measure of a second. All but
EfficientNet-Lite0 have random weights, which cost the same. The graphs are exported once and kept
in the cache folder: `python -m benchmarks.suites.onnx_gradients` does it beforehand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch

from benchmarks import material
from benchmarks.suites import Cases, Group
from gag_fast._errors import ClassifierError
from gag_fast._progress import Progress
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.classifier import OnnxGradients
from gag_fast.classifier.openvino import OPENVINO
from gag_fast.classifier.providers import why_not
from gag_fast.explainer import explain
from gag_fast.onnx_explanation import OnnxExplanation
from gag_fast.runs.gradients import AUTO, choose

NETWORKS = {
    "efficientnet_lite0": 16,
    "efficientnet_b0": 16,
    "vit_b_16": 4,
    "resnet50": 8,
    "densenet161": 4,
}
"""Name -> gradients a call."""
BUDGET = 15.0
PROVIDERS = {"cpu": "ONNX Runtime, CPU", "openvino": "OpenVINO", "cuda": "ONNX Runtime, CUDA"}


def rates(name: str, count: int, device: str = "cpu") -> Group:
    """`count` gradients of one network."""
    notes: list[str] = []

    def setup() -> Cases:
        module, spec = material.network(name)
        file = material.gradient_file(name)
        size = spec.preprocessing.size
        images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
        images, targets = images.to(device), torch.arange(count, device=device)
        engine = GradientEngine(module.to(device)).__enter__()  # for as long as the process lives
        cases: Cases = {}
        for provider in providers(device):
            try:
                source = OnnxGradients(file, provider)
            except ClassifierError as error:  # one that computes these gradients wrong
                print(error)
                continue
            cases[PROVIDERS[provider]] = partial(source.gradients, images, targets)
        chosen = choose(
            *(AUTO, None, file, (module, spec), engine),
            provider=None,
            device=device,
            threads=torch.get_num_threads(),
            progress=Progress(0, quiet=True),
        )
        assert chosen.source is not None
        notes[:] = [f"auto takes {chosen.name}"]
        cases["auto"] = partial(chosen.source.gradients, images, targets)
        return {**cases, "torch engine": partial(engine.gradients, images, targets)}

    names = (*(PROVIDERS[provider] for provider in providers(device)), "auto", "torch engine")
    return Group(
        name=f"{name}, {count} images",
        names=names,
        setup=setup,
        part="auto",  # one of the others, not another way
        units=count,
        unit="gradient",
        notes=notes,
    )


def explanations(device: str = "cpu") -> Group:
    """guided_absgrad in one graph, beside the same from gradients."""
    ways = [(kind, provider) for provider in providers(device) for kind in ("stream", "one file")]
    names = [f"{PROVIDERS[provider]}, {kind}" for kind, provider in ways]

    def setup() -> Cases:
        _, spec = material.network("efficientnet_lite0")
        size = spec.preprocessing.size
        images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        images, targets = images.to(device), torch.arange(4, device=device)
        file = material.gradient_file("efficientnet_lite0")
        whole = material.explanation_file("efficientnet_lite0")
        calls: list[Callable[[], object]] = []
        for kind, provider in ways:
            if kind == "stream":
                calls.append(partial(explain, OnnxGradients(file, provider), images, targets, n=20))
            else:
                calls.append(partial(OnnxExplanation(whole, provider), images, targets, n=20))
        return dict(zip(names, calls))

    name = "efficientnet_lite0, guided_absgrad of 4 images, n = 20"
    return Group(name, tuple(names), setup, units=4, unit="image")


def providers(device: str) -> list[str]:
    """Those that can run here, the likely fastest first."""
    if device == "cuda":
        return ["cuda"]
    return ["openvino", "cpu"] if why_not(OPENVINO) is None else ["cpu"]


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [
        *(rates(name, count, device) for name, count in NETWORKS.items()),
        explanations(device),
    ]


if __name__ == "__main__":
    for network in sys.argv[1:] or NETWORKS:
        print(material.gradient_file(network))
    print(material.explanation_file("efficientnet_lite0"))
