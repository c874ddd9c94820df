"""How saliency is spread over the pixels, from the map alone: gini and entropy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gag_fast.metrics.case import Case


def gini(case: Case) -> Tensor:
    """Gini index of |M|: sum_i (2 i - n - 1) v_i / (n sum v), v = |M| ascending, i = 1 ... n.

    Sparseness of Chalasani et al., "Concise Explanations of Neural Networks using Adversarial
    Training", 2020. 0 for an even map, 1 - 1/n when one pixel has it all. Blind to scale and sign
    and to where the saliency lies; adding a constant to a map lowers it. A map of zeros is even: 0.
    """
    values = case.maps.double().abs().flatten(2).sort(dim=2).values
    n = values.shape[2]
    weights = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=values.device) - n - 1
    total = values.sum(dim=2)
    return torch.where(total > 0, (values * weights).sum(dim=2) / (n * total), 0.0)


def entropy(case: Case) -> Tensor:
    """-sum_i v_i ln v_i in nats, v = |M| / sum |M|.

    Complexity of Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations", 2020.
    0 when one pixel has it all, ln(H W) for an even map, and for a map of zeros, which is even too:
    compare it between maps of one size only. Blind to scale and sign.
    """
    values = case.maps.double().abs().flatten(2)
    total = values.sum(dim=2, keepdim=True)
    share = torch.where(total > 0, values / total, 1 / values.shape[2])
    found = -torch.special.xlogy(share, share).sum(dim=2)
    return found.clamp(0, math.log(values.shape[2]))
