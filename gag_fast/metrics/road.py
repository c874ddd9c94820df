"""ROAD: pixels removed by filling them in from their neighbours, in both orders."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast.metrics.case import Case
from gag_fast.perturb import Made, Picture
from gag_fast.perturb.impute import impute


def imputed(case: Case) -> Made:
    """MoRF at every share of `road_shares`, then LeRF at every one.

    A share of 20 % removes the pixels whose saliency is at or above the 80th percentile (linear),
    so many of them as there are without ties; ties go by pixel index.
    """
    ranked, preset = case.ranked, case.preset
    counts = [_removed(case.pixels, share) for share in preset.road_shares]
    rows, pixels = ranked.order.shape
    ends = torch.tensor([*counts, *(pixels - c for c in counts)]).expand(rows, -1)
    sets = perturb.set_numbers(ranked.order, ends.to(ranked.order.device)).tolist()
    maps = case.given.shape[1]
    keys = perturb.image_numbers(case.images)

    def write(out: Tensor, row: int, most: bool, count: int) -> None:
        image = row // maps
        ranks = ranked.ranks[row].reshape(out.shape[1:])
        missing = ranks < count if most else ranks >= pixels - count
        filled = impute(case.images[image], missing)
        if preset.road_noise > 0:
            noise = perturb.noise_of(out.shape, keys[image], preset.perturb_seed, out.device)
            filled = filled + torch.where(missing, preset.road_noise * noise, 0.0)
        out.copy_(filled)

    def pictures(row: int) -> list[Picture]:
        half = len(counts)
        return [
            Picture((most, count, sets[row][at + half * (not most)]), (row, most, count))
            for most in (True, False)
            for at, count in enumerate(counts)
        ]

    finite = ranked.finite.tolist()
    listed = [pictures(row) if finite[row] else None for row in range(rows)]
    return Made([listed[i * maps : (i + 1) * maps] for i in range(rows // maps)], write)


def road(case: Case) -> Tensor:
    """Mean over the shares of (LeRF - MoRF) / 2 of the class probability.

    Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", 2022, as
    grad-cam's ROADCombined. In normalised space, with Gaussian noise of `road_noise` on what was
    filled in. Only ranks count: the reverse of a map has the opposite value.
    """
    p = case.curves["imputed"].probabilities.double()
    half = p.shape[-1] // 2
    return ((p[..., half:] - p[..., :half]) / 2).mean(dim=-1)


def _removed(pixels: int, share: float) -> int:
    # The percentile's rank as NumPy has it, in float64.
    return pixels - math.ceil((100 - 100 * share) / 100 * (pixels - 1))
