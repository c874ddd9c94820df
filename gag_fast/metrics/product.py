"""The image dimmed by its map: average_drop, increase, adcc.

The picture is rest + M (x - rest), M as it is given: a map in [0, 1], as `explain` gives it, leaves
its most salient pixel untouched. `product_base` says what rest is: "mean" (0 after normalisation,
as grad-cam and torch-cam multiply the normalised image) or "black" (the pixels themselves are
dimmed).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast.metrics.case import Case
from gag_fast.metrics.correlation import pearson
from gag_fast.perturb import Made, Masked, Picture


def whole(case: Case) -> Masked:
    """The image itself."""
    counts = torch.zeros(case.ranked.ranks.shape[0], 1, dtype=torch.int64)
    return Masked(counts.to(case.images.device), "image", "image")


def dimmed(case: Case) -> Made:
    """The image dimmed by its map."""
    images, maps = case.images, case.maps.float()
    rest = case.black[:, None, None] * (case.preset.product_base == "black")

    def write(out: Tensor, image: int, m: int) -> None:
        out.copy_(rest + maps[image, m] * (images[image] - rest))

    finite = case.finite.tolist()
    return Made(
        [
            [[Picture(m, (i, m))] if good else None for m, good in enumerate(row)]
            for i, row in enumerate(finite)
        ],
        write,
    )


def _before_after(case: Case) -> tuple[Tensor, Tensor]:
    before, after = (case.curves[name].probabilities[..., 0].double() for name in _CURVES)
    return before, after


_CURVES = ("whole", "dimmed")


def average_drop(case: Case) -> Tensor:
    """max(0, p - q) / p, p the probability of the image and q of the dimmed one.

    Chattopadhay et al., "Grad-CAM++", 2018; the mean over images is their Average Drop (x 100).
    Rewards maps that let everything through: a map of ones has 0. 0 where p is 0. grad-cam's
    DropInConfidence is the same without the division.
    """
    before, after = _before_after(case)
    return torch.where(before > 0, (before - after).clamp(min=0) / before, 0.0)


def increase(case: Case) -> Tensor:
    """1 if the dimmed image has the higher probability, q > p, else 0.

    Chattopadhay et al., "Grad-CAM++", 2018: Increase in Confidence. A map of ones has 0.
    """
    before, after = _before_after(case)
    return torch.where(before.isnan() | after.isnan(), torch.nan, (after > before).double())


def adcc(case: Case) -> Tensor:
    """3 / (1 / coherency + 1 / (1 - complexity) + 1 / (1 - average drop)).

    Poppi et al., "Revisiting The Evaluation of Class Activation Mapping for Explainability", 2021.
    Coherency is (1 + r) / 2 with Pearson's r of the map and the dimmed image's own map by the same
    method (0 where either is constant), so the method is run once more; complexity is mean M. One
    term of 0 makes it 0. Needs maps in [0, 1]: above, complexity may pass 1, which counts as 1.
    """
    again = torch.empty_like(case.maps)
    write = dimmed(case).write
    buffer = torch.empty_like(case.images)
    for m in range(case.maps.shape[1]):
        for i in range(len(buffer)):
            write(buffer[i], i, m)
        again[:, m] = case.explain(m, buffer)
    coherency = (1 + pearson(case.maps.flatten(2), again.flatten(2))) / 2
    complexity = case.maps.double().mean(dim=(2, 3)).clamp(0, 1)
    terms = torch.stack([coherency, 1 - complexity, 1 - average_drop(case)])
    return torch.where((terms > 0).all(dim=0), 3 / (1 / terms).sum(dim=0), terms.sum(dim=0) * 0)
