"""Whether saliency foretells what changing the image does: infidelity, mufidelity, idsds.

The changes are the same for every map of an image, so their pictures are shared by all of them.
What is foretold is the fall of the class *probability*.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast.metrics.case import Case
from gag_fast.metrics.correlation import spearman
from gag_fast.perturb import Made, Picture

# ---- curves --------------------------------------------------------------------------------------


def noisy(case: Case) -> Made:
    """The image less Gaussian noise, `infidelity_samples` times."""
    keys = perturb.image_numbers(case.images)

    def write(out: Tensor, image: int, number: int) -> None:
        out.copy_(case.images[image] - noise(case, keys[image], number))

    count = case.preset.infidelity_samples
    return _for_images(case, write, count)


def noise(case: Case, key: int, number: int) -> Tensor:
    """What the picture of this number takes off the image: [C, H, W]."""
    shape, seed = case.images.shape[1:], case.preset.perturb_seed
    drawn = perturb.noise_of(shape, key, seed, case.images.device, _FIRST + number)
    return case.preset.infidelity_noise * drawn


def subsets(case: Case) -> Made:
    """Random sets of cells of a grid, replaced."""
    cells = subset_cells(case)
    return _replaced(case, cells, case.preset.mufidelity_grid)


def subset_cells(case: Case) -> Tensor:
    """Which cells each set holds: bool [B, sets, cells]."""
    preset = case.preset
    total = preset.mufidelity_grid**2
    size = max(1, int(total * preset.mufidelity_share))
    cells = torch.zeros(len(case.images), preset.mufidelity_samples, total, dtype=torch.bool)
    for image, key in enumerate(perturb.image_numbers(case.images)):
        generator = perturb.generator_of(key, preset.perturb_seed, 2)
        drawn = torch.rand(cells.shape[1:], generator=generator).argsort(dim=1)[:, :size]
        cells[image].scatter_(1, drawn, True)
    return cells


def cells(case: Case) -> Made:
    """Every cell of a grid, replaced alone."""
    one = torch.eye(case.preset.idsds_grid**2, dtype=torch.bool)
    return _replaced(case, one.expand(len(case.images), -1, -1), case.preset.idsds_grid)


_FIRST = 1 << 20  # the numbers of this noise: apart from those of other uses of the same seed


def _replaced(case: Case, cells: Tensor, grid: int) -> Made:
    rest = case.black[:, None, None] * (case.preset.cell_base == "black")
    place = _cell_of(case, grid)
    cells = cells.to(case.images.device)

    def write(out: Tensor, image: int, number: int) -> None:
        out.copy_(torch.where(cells[image, number][place], rest, case.images[image]))

    return _for_images(case, write, cells.shape[1])


def _for_images(case: Case, write, count: int) -> Made:
    """Pictures that are the same for every map of an image."""
    some = case.finite.any(dim=1).tolist()
    row = [
        [[Picture(n, (image, n)) for n in range(count)] if some[image] else None]
        for image in range(len(some))
    ]
    return Made(row, write)


def _cell_of(case: Case, grid: int) -> Tensor:
    """The cell of every pixel: int64 [H, W]; cells of equal size, to a pixel."""
    height, width = case.given.shape[2:]
    rows = torch.arange(height, device=case.images.device) * grid // height
    columns = torch.arange(width, device=case.images.device) * grid // width
    return rows[:, None] * grid + columns


# ---- measures ------------------------------------------------------------------------------------


def infidelity(case: Case) -> Tensor:
    """Mean over noises I of (beta sum(I M) - (p(x) - p(x - I)))^2, M the same for every channel.

    Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", 2019, as Captum's
    `infidelity`. With `infidelity_scaled` beta is the factor that fits best, so that the scale of
    a map does not count; else 1, which asks for maps in the unit of probability a pixel. The sign
    of a map counts: magnitudes cannot foretell which way a change goes.
    """
    fall = _fall(case, "noisy")  # [B, 1, n]
    foretold = torch.empty(*case.given.shape[:2], fall.shape[2], dtype=torch.float64)
    foretold = foretold.to(fall.device)
    for image, key in enumerate(perturb.image_numbers(case.images)):
        for number in range(fall.shape[2]):
            taken = noise(case, key, number).double().sum(dim=0)
            foretold[image, :, number] = (taken * case.maps[image]).sum(dim=(1, 2))
    beta = torch.ones((), dtype=torch.float64, device=fall.device)
    if case.preset.infidelity_scaled:
        power = foretold.square().sum(dim=2, keepdim=True)
        best = (foretold * fall).sum(dim=2, keepdim=True) / power
        beta = torch.where(power > 0, best, torch.where(power.isnan(), power, 1.0))
    return (beta * foretold - fall).square().mean(dim=2)


def mufidelity(case: Case) -> Tensor:
    """Spearman's correlation, over random sets S of cells, of sum_S M and p(x) - p(x without S).

    Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", 2020 (faithfulness
    correlation), with cells and ranks as xplique's MuFidelity. 0 for a constant map, where the
    cells are of one size. Blind to the scale of a map, not to its sign. What replaces a cell is
    `cell_base`.
    """
    chosen = subset_cells(case).to(case.images.device).double()
    foretold = _cell_sums(case, case.preset.mufidelity_grid) @ chosen.transpose(1, 2)
    return _rank_agreement(foretold, _fall(case, "subsets"))


def idsds(case: Case) -> Tensor:
    """Spearman's correlation, over a grid's cells, of the cell's sum of M and the fall without it.

    In-domain single deletion score of Hesse et al., "Benchmarking the Attribution Quality of
    Vision Models", 2024. In-domain asks for a classifier that was trained with such cells missing;
    another one makes it a plain single-deletion score. (They take the fall of the logit.)
    """
    return _rank_agreement(_cell_sums(case, case.preset.idsds_grid), _fall(case, "cells"))


def _fall(case: Case, curve: str) -> Tensor:
    """How much less sure the classifier is: float64 [B, 1, n]."""
    whole = case.curves["whole"].probabilities.double()
    # The same for every map of an image; a map that is not finite has none.
    whole = whole.nan_to_num(-1).amax(dim=1, keepdim=True)
    whole = torch.where(whole < 0, torch.nan, whole)
    return whole - case.curves[curve].probabilities.double()


def _cell_sums(case: Case, grid: int) -> Tensor:
    """Sum of the saliency in every cell: float64 [B, M, cells]."""
    place = _cell_of(case, grid).flatten()
    sums = torch.zeros(*case.given.shape[:2], grid**2, dtype=torch.float64)
    sums = sums.to(case.images.device)
    return sums.index_add_(2, place, case.maps.double().flatten(2))


def _rank_agreement(foretold: Tensor, fall: Tensor) -> Tensor:
    return spearman(foretold, fall.expand_as(foretold))
