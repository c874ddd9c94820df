"""The door for Quantus: `metric(..., explain_func=gag_fast.quantus_api.explain_func)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gag_fast._errors import GagFastError
from gag_fast.attribution.registry import parse
from gag_fast.explainer import explain


def explain_func(
    model: nn.Module,
    inputs: Any,
    targets: Any,
    device: Any = None,
    method: str = "guided_absgrad",
    gag_method: str | None = None,
    **kwargs: Any,
) -> np.ndarray:
    """Saliency maps for a Quantus metric.

    Args:
        model: a torch module that gives logits.
        inputs: `[B,C,H,W]`, array or tensor, normalised for the model.
        targets: classes `[B]`, array, tensor or sequence.
        device: where to compute; None: where the model is.
        method: as in `gag_fast.explain`. `quantus.evaluate` sets it to the key of its dictionary.
        gag_method: the method, where `method` is a key of another name:
            `{"mine": functools.partial(explain_func, gag_method="smoothgrad")}`.
        **kwargs: those of `gag_fast.explain` (`n`, `p`, ...): Quantus's `explain_func_kwargs`.

    Returns:
        float32 `[B,1,H,W]`, one channel that stands for all, as Quantus takes it; with
        `channels="keep"` `[B,C,H,W]`.
    """
    weights = next(iter(model.parameters()), None)
    if device is None:
        device = weights.device if weights is not None else "cpu"
    dtype = weights.dtype if weights is not None else torch.float32
    images = torch.as_tensor(inputs).to(device=device, dtype=dtype)
    classes = None if targets is None else torch.as_tensor(np.asarray(targets)).long()
    maps = explain(model, images, classes, _method(method, gag_method), **kwargs)
    if maps.dim() == 3:
        maps = maps[:, None]
    return maps.float().cpu().numpy()


def _method(method: str, gag_method: str | None) -> str:
    if gag_method is not None:
        return gag_method
    try:
        parse(method)
    except ValueError as error:
        raise GagFastError(
            f"{error}; where it is a name of your own, say which method it is: "
            'functools.partial(explain_func, gag_method="smoothgrad")'
        ) from None
    return method
