"""Whether the ONNX file that scores is the network whose gradients explain."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gag_fast._errors import GagFastError
from gag_fast.classifier import Classifier
from gag_fast.models import ModelSpec
from gag_fast.scores import read, scores_of

IMAGES = 4
DIFFERENCE = 0.25
"""Largest difference between the two networks' probabilities, as a share of how far each is from
giving every class the same: 1e-6 between float32 libraries, 0.02 in float16, about 1 between
networks that have nothing to do with one another, however untrained."""


def check_same_network(classifier: Classifier, module: nn.Module, spec: ModelSpec) -> None:
    """Compares the weights' hashes where the file has one, else probabilities on a few pictures.

    The pictures are noise of four coarsenesses: a network answers to them as to any other.

    Raises:
        GagFastError: the two differ; with both numbers and what to do.
    """
    if classifier.weights_sha256 and classifier.weights_sha256 == spec.weights_sha256:
        return
    images = pictures(spec)
    with torch.inference_mode():
        weight = next((p for p in module.parameters() if p.is_floating_point()), images)
        raw = scores_of(module(images.to(weight)), len(images)).float().cpu()
    ours = read(raw, spec.score).probabilities(raw)
    theirs = classifier(images)
    finite = (ours.isfinite() & theirs.isfinite()).all(1)
    if not finite.any():  # nothing to compare: the rows will say so
        return
    ours, theirs = ours[finite], theirs[finite]
    apart = difference(ours, theirs)
    if apart <= DIFFERENCE:
        return
    row = int((ours - theirs).abs().amax(1).argmax())
    best = int(ours[row].argmax())
    raise GagFastError(
        f"{classifier.path} is not the network {spec.name}: for class {best} of the same picture "
        f"it gives {float(theirs[row, best]):.4f}, {spec.name} {float(ours[row, best]):.4f}; score "
        "with the model's own export (leave --onnx out), or insist with --trust-onnx"
    )


def pictures(spec: ModelSpec) -> Tensor:
    """Noise in blocks of four sizes, `[4,C,size,size]`, the same at every call."""
    p, generator = spec.preprocessing, torch.Generator().manual_seed(0)
    rows = []
    for block in (1, 4, 16, 64)[:IMAGES]:
        side = -(-p.size // block)
        coarse = torch.randn(len(p.mean), side, side, generator=generator)
        fine = coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)
        rows.append(fine[:, : p.size, : p.size])
    return torch.stack(rows)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Sum of |p - q| over half the sums of |p - mean| and |q - mean| of each row's classes."""
    ours, theirs = ours.double(), theirs.double()
    spread = sum((p - p.mean(1, keepdim=True)).abs().sum() for p in (ours, theirs)) / 2
    return float((ours - theirs).abs().sum() / max(float(spread), 1e-12))
