"""Whether saliency lies on the object, by a mask: pointing_game, relevance_mass, relevance_rank.

A soft mask's object is where it is 0.5 or more, except that relevance_mass weighs by it. With an
empty mask there is nothing to say: all three are NaN there, as they are in Quantus.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast.metrics.case import Case


def pointing_game(case: Case) -> Tensor:
    """1 if the map points at the object, else 0.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", 2016, without its tolerance of
    15 pixels. preset.pointing "maximum": any pixel of the largest value lies on the object, so a
    constant map always hits. "centroid": the authors' own variant; the centre of the most salient
    `pointing_share` of the pixels, each counted once, lies on the object.
    """
    on = case.mask >= 0.5
    if case.preset.pointing == "maximum":
        highest = case.maps == case.maps.amax(dim=(2, 3), keepdim=True)
        hit = (highest & on).any(dim=(2, 3)).double()
        return torch.where(on.any(dim=(2, 3)), hit, torch.nan)
    height, width = case.maps.shape[2:]
    count = max(1, round(case.preset.pointing_share * case.pixels))
    places = case.by_map(case.ranked.order[:, :count].long())
    rows = (places // width).double().mean(dim=2).round().long().clamp(max=height - 1)
    columns = (places % width).double().mean(dim=2).round().long().clamp(max=width - 1)
    flat = on.expand(-1, case.maps.shape[1], -1, -1).flatten(2)
    hit = flat.gather(2, (rows * width + columns)[..., None])[..., 0].double()
    return torch.where(on.any(dim=(2, 3)), hit, torch.nan)


def relevance_mass(case: Case) -> Tensor:
    """Share of the saliency that lies on the object: sum M T / sum M.

    Arras et al., "CLEVR-XAI", 2022. Needs M >= 0. A map of zeros has none: 0. An even map scores
    the share of the object's pixels, so large objects score high.
    """
    maps = case.maps.double()
    total = maps.sum(dim=(2, 3))
    found = torch.where(total > 0, (maps * case.mask).sum(dim=(2, 3)) / total, 0.0)
    return torch.where((case.mask > 0).any(dim=(2, 3)), found, torch.nan)


def relevance_rank(case: Case) -> Tensor:
    """Share of the |T| most salient pixels that lie on the object, |T| its number of pixels.

    Arras et al., "CLEVR-XAI", 2022. Only ranks count; ties go by pixel index.
    """
    on = case.mask >= 0.5
    size = on.sum(dim=(2, 3))  # [B, 1]
    among = case.by_map(case.ranked.ranks) < size[..., None]
    hits = (among & on.flatten(2)).sum(dim=2)
    return torch.where(size > 0, hits.double() / size, torch.nan)
