"""RCAP, deletion and insertion: pictures that show some pixels of the image, by saliency."""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast.metrics.case import Case
from gag_fast.perturb import Masked, Ranked
from gag_fast.presets import Preset

# ---- curves --------------------------------------------------------------------------------------


def recover(case: Case) -> Masked:
    """The image restored from its most salient pixels."""
    counts = perturb.recover_counts(case.ranked, case.preset)
    return Masked(counts, "image", case.preset.recover_base)


def deletion(case: Case) -> Masked:
    """The most salient pixels deleted first."""
    counts = perturb.curve_counts(case.ranked, case.preset)
    return Masked(counts, case.preset.deletion_base, "image")


def insertion(case: Case) -> Masked:
    """The most salient pixels inserted first."""
    counts = perturb.curve_counts(case.ranked, case.preset)
    return Masked(counts, "image", case.preset.insertion_base)


def lerf(case: Case) -> Masked:
    """The least salient pixels deleted first: what is left are the most salient ones."""
    counts = case.pixels - perturb.curve_counts(case.ranked, case.preset)
    return Masked(counts, "image", case.preset.deletion_base)


# ---- measures ------------------------------------------------------------------------------------


def rcap(case: Case) -> Tensor:
    """Eq. 4.1: mean over the percentiles of (share of the saliency kept) x (probability)."""
    points = case.curves["recover"]
    assert points.pixels is not None
    share = case.by_map(_shares(case.ranked, points.pixels.flatten(0, 1)))
    case.extras["partitions"] = share
    # No saliency at all: 0, whatever is predicted. Not so for NaN, which stays NaN.
    return (share * points.probabilities.double()).mean(dim=-1)


def dauc(case: Case) -> Tensor:
    """Area under p while the most salient pixels are deleted first: the smaller, the better.

    Petsiuk et al., "RISE: Randomized Input Sampling for Explanation", 2018. Only ranks count; ties
    by pixel index. A deleted image is unlike any the classifier knows, and p may fall for that.
    """
    return area(case, "deletion")


def iauc(case: Case) -> Tensor:
    """Area under p while the most salient pixels are inserted first: the larger, the better.

    Petsiuk et al., 2018. Only ranks count. What the blurred image shows counts for every map.
    """
    return area(case, "insertion")


def srg(case: Case) -> Tensor:
    """Symmetric relevance gain: area of the LeRF deletion curve - area of the MoRF one.

    Bluecher et al., "Decoupling Pixel Flipping and Occlusion Strategy for Consistent XAI
    Benchmarks", 2024; the same as the area between perturbation curves (AbPC) of Arras et al. on
    one base. Both orders meet the same base, so what deleting does to any image cancels. A map and
    its reverse have opposite values (in exact shares and without ties); only ranks count.
    """
    points = case.curves["lerf"]
    assert points.pixels is not None
    deleted = case.pixels - points.pixels
    kept = _area(points.probabilities.double(), deleted, case.pixels, case.preset)
    return kept - area(case, "deletion")


def area(case: Case, curve: str) -> Tensor:
    """Trapezoid area under a curve, its x axis as the preset says: float64 [B, M]."""
    points = case.curves[curve]
    assert points.pixels is not None
    return _area(points.probabilities.double(), points.pixels, case.pixels, case.preset)


def _area(curve: Tensor, counts: Tensor, pixels: int, preset: Preset) -> Tensor:
    if preset.area_width is None:
        return torch.trapezoid(curve, counts.double() / pixels, dim=-1)
    inner = curve.sum(dim=-1) - (curve[..., 0] + curve[..., -1]) / 2
    return preset.area_width * inner / (curve.shape[-1] - 1)


def _shares(ranked: Ranked, counts: Tensor) -> Tensor:
    """Sum of the `count` largest values over the sum of all: float64; 0 where the sum is 0."""
    shares = torch.empty(counts.shape, dtype=torch.float64, device=counts.device)
    for row, values in enumerate(ranked.descending):
        sums = values.double().cumsum(0)
        count = counts[row]
        part = torch.where(count > 0, sums[(count - 1).clamp(min=0)], 0.0)
        shares[row] = torch.where(sums[-1] > 0, part / sums[-1], 0.0)
    shares[~ranked.finite] = torch.nan
    return shares
