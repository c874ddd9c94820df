"""Reversed maps (Section 4.3): the values just below the top change places with the lowest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast.attribution.samples import generator

_STREAM = 0x5EED  # apart from the image's other random numbers


def reverse_maps(maps: Tensor, keep: float, swap: float, keys: Tensor, seed: int = 0) -> Tensor:
    """Exchanges low and high values of saliency maps, to lower their localization (Prop. 1).

    The top `keep` of the values stay; the `swap` just below them are exchanged, in random pairs,
    with the lowest `swap`. Equal values rank by pixel index.

    Args:
        maps: `[B,H,W]`.
        keep: share l of the values, in [0, 1].
        swap: share m of the values; 0 changes nothing; keep + 2 swap <= 1.
        keys: int64 `[B]`; with `seed` they decide an image's pairs.
        seed: any integer.

    Returns:
        `[B,H,W]`: of each map the same values in other places.
    """
    if not (0 <= keep <= 1 and 0 <= swap <= 1 and keep + 2 * swap <= 1):
        raise GagFastError(
            f"keep and swap must be shares with keep + 2 swap <= 1, got {keep} and {swap}"
        )
    flat = maps.flatten(1)
    pixels = flat.shape[1]
    kept, swapped = int(pixels * keep), int(pixels * swap)
    order = flat.argsort(dim=1, stable=True)
    low = order[:, :swapped]
    pairs = torch.stack(
        [torch.randperm(swapped, generator=generator(seed, k, _STREAM)) for k in keys.tolist()]
    ).to(maps.device)
    high = order[:, pixels - kept - swapped : pixels - kept].gather(1, pairs)
    result = flat.clone()
    result.scatter_(1, low, flat.gather(1, high)).scatter_(1, high, flat.gather(1, low))
    return result.view_as(maps)
