"""Correlations along the last axis, in float64; 0 where one side is constant."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's r of [..., n] and [..., n]: [...]. NaN stays NaN."""
    # Values of one size: their squares must not overflow or vanish.
    a, b = (_centred(v.double()) for v in (a, b))
    scale = (a.square().sum(dim=-1) * b.square().sum(dim=-1)).sqrt()
    found = ((a * b).sum(dim=-1) / scale).clamp(-1, 1)
    return torch.where(scale == 0, scale, found)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of [..., n] and [..., n]: [...]; ties share their mean rank."""
    broken = a.isnan().any(dim=-1) | b.isnan().any(dim=-1)
    return torch.where(broken, torch.nan, pearson(_midranks(a), _midranks(b)))


def _centred(values: Tensor) -> Tensor:
    same = (values == values[..., :1]).all(dim=-1, keepdim=True)
    centred = torch.where(same, 0.0, values - values.mean(dim=-1, keepdim=True))
    largest = centred.abs().amax(dim=-1, keepdim=True)
    return torch.where(largest > 0, centred / largest, centred)


def _midranks(values: Tensor) -> Tensor:
    """Ranks from 0, equal values sharing the mean of theirs."""
    ordered = values.double().sort(dim=-1).values.contiguous()
    mine = values.double().contiguous()
    below = torch.searchsorted(ordered, mine)
    upto = torch.searchsorted(ordered, mine, right=True)
    return (below + upto - 1).double() / 2
