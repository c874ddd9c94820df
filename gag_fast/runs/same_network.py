"""Whether the ONNX file that scores is the network whose gradients explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast._errors import GagFastError
from gag_fast.classifier import Classifier
from gag_fast.data import Dataset
from gag_fast.images import normalise
from gag_fast.models import ModelSpec
from gag_fast.runs.decoding import Decoder
from gag_fast.scores import read, scores_of

IMAGES = 4
"""So many pictures are compared."""
TRIED = 16
"""So many of the data set's first images are tried for them."""
DIFFERENCE = 0.25
"""Largest difference between the logarithms of the two networks' probabilities, as a share of how
far each network's classes are apart: 1e-5 between float32 libraries, 0.02 in float16, about 1
between networks that have nothing to do with one another, untrained ones too. In logarithms, since
two networks that are both sure of the right class give nearly the same probabilities."""

_LEAST = 1e-6
"""Probabilities below this count as this: less, half precision cannot say."""


@dataclass(frozen=True)
class Pictures:
    """What two networks are compared on.

    Attributes:
        names: of the images.
        images: `[N,C,size,size]`, normalised.
    """

    names: Sequence[str]
    images: Tensor


def first_images(dataset: Dataset, spec: ModelSpec) -> Pictures:
    """The first images of a data set that can be decoded; noise where none can."""
    names, pixels = [], []
    with Decoder(spec.preprocessing, 1) as decoder:
        for item in dataset.items[:TRIED]:
            decoded = decoder.submit(item).result()
            if decoded.pixels is not None:
                names.append(item.image)
                pixels.append(decoded.pixels)
            if len(names) == IMAGES:
                break
    if not names:
        return noise(spec)
    return Pictures(names, normalise(np.stack(pixels), spec.preprocessing))


def check_same_network(
    classifier: Classifier,
    module: nn.Module,
    spec: ModelSpec,
    first: Callable[[], Pictures] | None = None,
) -> str:
    """Compares the weights' hashes where the file has one, else probabilities on a few pictures.

    Args:
        classifier: of the file.
        module: what explains.
        spec: its own.
        first: gives the pictures, asked only where they are needed; None: noise.

    Returns:
        What was compared, in one line.

    Raises:
        GagFastError: the two differ; with both numbers and what to do.
    """
    if classifier.weights_sha256 and classifier.weights_sha256 == spec.weights_sha256:
        return f"{classifier.path} has the weights of {spec.name}"
    pictures = noise(spec) if first is None else first()
    with torch.inference_mode():
        like = next((p for p in module.parameters() if p.is_floating_point()), pictures.images)
        raw = scores_of(module(pictures.images.to(like)), len(pictures.images)).float().cpu()
    ours = read(raw, spec.score).probabilities(raw)
    theirs = classifier(pictures.images)
    finite = (ours.isfinite() & theirs.isfinite()).all(1)
    if not finite.any():  # the rows will say so
        return f"{classifier.path} and {spec.name}: no finite probabilities to compare"
    apart = difference(ours[finite], theirs[finite])
    if apart <= DIFFERENCE:
        return (
            f"{classifier.path} gives what {spec.name} gives for {len(ours)} images "
            f"(apart by {apart:.2g} of {DIFFERENCE:g})"
        )
    gaps = (ours - theirs).abs().where(finite[:, None], torch.zeros(()))
    row = int(gaps.amax(1).argmax())
    best = int(gaps[row].argmax())
    raise GagFastError(
        f"{classifier.path} is not the network {spec.name}: for class {best} of "
        f"{pictures.names[row]} it gives {float(theirs[row, best]):.4g}, {spec.name} "
        f"{float(ours[row, best]):.4g}; score with the model's own export (leave --onnx out), or "
        "insist with --trust-onnx"
    )


def noise(spec: ModelSpec) -> Pictures:
    """Noise in blocks of four sizes, the same at every call: a network answers to it as to any."""
    p, generator = spec.preprocessing, torch.Generator().manual_seed(0)
    rows = []
    blocks = (1, 4, 16, 64)[:IMAGES]
    for block in blocks:
        side = -(-p.size // block)
        coarse = torch.randn(len(p.mean), side, side, generator=generator)
        fine = coarse.repeat_interleave(block, 1).repeat_interleave(block, 2)
        rows.append(fine[:, : p.size, : p.size])
    return Pictures([f"noise in blocks of {block}" for block in blocks], torch.stack(rows))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Sum of |a - b| over half the sums of |a - mean| and |b - mean| of each row's classes.

    Args:
        ours: probabilities `[N,K]`; a and b are logarithms.
        theirs: likewise.
    """
    a, b = (p.double().clamp_min(_LEAST).log() for p in (ours, theirs))
    spread = sum((v - v.mean(1, keepdim=True)).abs().sum() for v in (a, b)) / 2
    # Nothing is read from what float32 cannot tell from no difference between the classes.
    return float((a - b).abs().sum() / max(float(spread), 1e-4 * a.numel()))
