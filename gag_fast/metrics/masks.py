"""Saliency maps against ground-truth masks: log-cosh Dice loss and mean absolute error."""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from gag_fast._errors import GagFastError, within_memory
from gag_fast._inputs import Array
from gag_fast.metrics.case import Case
from gag_fast.metrics.inputs import check_pair


@overload
def log_cosh_dice(maps: Array, masks: Any, smooth: float = 1.0) -> Array: ...
@overload
def log_cosh_dice(maps: Any, masks: Any, smooth: float = 1.0) -> Tensor: ...
@within_memory
def log_cosh_dice(maps: Any, masks: Any, smooth: float = 1.0) -> Tensor | Array:
    """log(cosh(1 - Dice)) of soft maps, Dice = (2 sum M T + smooth) / (sum M + sum T + smooth).

    Jadon, "A survey of loss functions for semantic segmentation", 2020; in the paper's tables
    L_lc-dce. 0 where map and mask agree, log(cosh(1)) = 0.4338 where nothing overlaps.

    Args:
        maps: [B, H, W] or [B, M, H, W] in [0, 1], torch or NumPy.
        masks: [B, H, W] ground truth in [0, 1], any dtype.
        smooth: 1 in the paper's code.

    Returns:
        [B] or [B, M], float32, the kind of `maps`; NaN for a map that is not finite.

    Raises:
        TypeError, ValueError: shapes that do not fit, masks outside [0, 1]; with what was received.
    """
    found, truth, back = check_pair(maps, masks)
    overlap = (found * truth).sum(dim=(-2, -1))
    total = found.sum(dim=(-2, -1)) + truth.sum(dim=(-2, -1))
    dice = (2 * overlap + smooth) / (total + smooth)
    return back(torch.log(torch.cosh(1 - dice)))


@overload
def mae(maps: Array, masks: Any, form: Literal["mean", "sqrt"] = "mean") -> Array: ...
@overload
def mae(maps: Any, masks: Any, form: Literal["mean", "sqrt"] = "mean") -> Tensor: ...
@within_memory
def mae(maps: Any, masks: Any, form: Literal["mean", "sqrt"] = "mean") -> Tensor | Array:
    """Mean absolute difference mean |M - T| over the pixels, MAE of the paper's Tables 1 and 2.

    Args:
        maps: [B, H, W] or [B, M, H, W] in [0, 1], torch or NumPy.
        masks: [B, H, W] ground truth in [0, 1], any dtype.
        form: "mean", or "sqrt" for its square root, which the authors' code calls MAE.

    Returns:
        [B] or [B, M], float32, the kind of `maps`; NaN for a map that is not finite.

    Raises:
        TypeError, ValueError: as for `log_cosh_dice`, and an unknown `form`.
    """
    if form not in ("mean", "sqrt"):
        raise GagFastError(f"form must be mean or sqrt, got {form!r}")
    found, truth, back = check_pair(maps, masks)
    error: Tensor = (found - truth).abs().mean(dim=(-2, -1))
    return back(error.sqrt() if form == "sqrt" else error)


def log_cosh_dice_of(case: Case) -> Tensor:
    """`log_cosh_dice` of a case's maps: L_lc-dce of Huang and Liu, "Guided AbsoluteGrad".

    The smaller, the better. Wants maps in [0, 1]; a map that is right but pale scores badly.
    """
    return log_cosh_dice(case.maps, case.masks, case.preset.dice_smooth)


def mae_of(case: Case) -> Tensor:
    """`mae` of a case's maps, as in Table 2 of Huang and Liu, "Guided AbsoluteGrad".

    The smaller, the better. Where the object is small, a map of zeros is hard to beat.
    """
    form: Literal["mean", "sqrt"] = "sqrt" if case.preset.mae_form == "sqrt" else "mean"
    return mae(case.maps, case.masks, form)
