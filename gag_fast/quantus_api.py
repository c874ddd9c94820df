"""The door for Quantus: `metric(..., explain_func=gag_fast.quantus_api.explain_func)`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from gag_fast.explainer import explain


def explain_func(
    model: nn.Module, inputs: Any, targets: Any, device: Any = None, **kwargs: Any
) -> np.ndarray:
    """Saliency maps for a Quantus metric.

    Args:
        model: a torch module that gives logits.
        inputs: `[B,C,H,W]`, array or tensor, normalised for the model.
        targets: classes `[B]`, array, tensor or sequence.
        device: where to compute; None: where the model is.
        **kwargs: those of `gag_fast.explain` (`method`, `n`, `p`, ...): Quantus's
            `explain_func_kwargs`.

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
    maps = explain(model, images, classes, **kwargs)
    if maps.dim() == 3:
        maps = maps[:, None]
    return maps.float().cpu().numpy()
