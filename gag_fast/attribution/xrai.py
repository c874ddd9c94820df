"""XRAI (Kapishnikov et al. 2019): regions of the image in order of their mean attribution.

Felzenszwalb's segments at six scales, each grown by five pixels, are taken one after another, that
with the highest mean attribution over the pixels it adds first. The pixels that one adds get that
mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast.attribution.source import GradientSource

SCALES = (50, 100, 150, 250, 500, 1200)
"""Of the segmentation, for a side of `_SIDE` pixels and values in [-1, 1]."""
_SIGMA, _SMALLEST, _SIDE, _GROWN = 0.8, 150, 224, 5
_ADDED = 50
"""A segment that adds fewer pixels than this is dropped."""

BASE = "integrated_gradients"


def xrai(
    source: GradientSource,
    images: Tensor,
    targets: Tensor,
    *,
    attribute: Callable[[str], Tensor],
    base: str = BASE,
) -> Tensor:
    """Raw XRAI over the attributions of another method, whose options may stand beside `base`.

    A pixel's attribution is the largest of its channels', signed. The cost is that of the base
    (n gradients an image) and a second or so of segmentation, on the CPU.

    Needs scikit-image. Traps: the segments are of the image and no part of the network, so the map
    has the objects' outlines whatever the attributions are worth; the authors' base is
    integrated gradients from black and from white, ours from one baseline.

    Args:
        source: unused beside `attribute`.
        images: `[B,C,H,W]`.
        targets: unused beside `attribute`.
        attribute: from a method's name to its raw attributions `[B,C,H,W]`.
        base: name of a method of gradients, with suffixes.

    Returns:
        `[B,1,H,W]`.
    """
    pixels = attribute(base).amax(1)
    maps = []
    for image, attribution in zip(images, pixels, strict=True):
        values = attribution.double().cpu().numpy()
        found = regions(values, segments_of(image.permute(1, 2, 0).double().cpu().numpy()))
        maps.append(torch.from_numpy(found))
    return torch.stack(maps)[:, None].to(pixels)


def regions(attribution: np.ndarray, segments: Sequence[np.ndarray]) -> np.ndarray:
    """The map float64 `[H,W]`.

    Sums and sizes of what each segment would add are kept, and lessened by the pixels that a step
    takes: all steps together read each segment's pixels once.

    Args:
        attribution: `[H,W]`; one that is not finite makes the map NaN.
        segments: bool `[H,W]` each.
    """
    values = attribution.ravel().astype(np.float64)
    if not np.isfinite(values).all():
        return np.full(attribution.shape, np.nan)
    masks = np.stack([segment.ravel() for segment in segments])
    sizes, sums = masks.sum(1), masks @ values
    open_ = np.ones(len(masks), bool)
    free = np.ones(len(values), bool)
    found = np.empty(len(values))
    while True:
        open_ &= sizes >= _ADDED
        if not open_.any():
            break
        best = int(np.where(open_, sums / np.maximum(sizes, 1), -np.inf).argmax())
        added = np.flatnonzero(masks[best] & free)
        found[added] = values[added].mean()
        free[added] = open_[best] = False
        sizes = sizes - masks[:, added].sum(1)
        sums = sums - masks[:, added] @ values[added]
    if free.any():
        found[free] = values[free].mean()
    return found.reshape(attribution.shape)


def segments_of(image: np.ndarray) -> list[np.ndarray]:
    """Felzenszwalb's segments of an image `[H,W,C]` at all scales, grown: bool `[H,W]` each."""
    try:
        from skimage.segmentation import felzenszwalb
        from skimage.transform import resize
    except ModuleNotFoundError:
        raise GagFastError("xrai needs scikit-image; pip install scikit-image") from None
    size, (low, high) = image.shape[:2], (image.min(), image.max())
    if low == high:
        return [np.ones(size, bool)]
    scaled = (image - low) / (high - low) * 2 - 1
    side = (_SIDE, _SIDE)
    if size != side:
        scaled = resize(
            scaled, side, order=3, mode="constant", preserve_range=True, anti_aliasing=True
        )
    found = []
    for scale in SCALES:
        labels = felzenszwalb(scaled, scale=scale, sigma=_SIGMA, min_size=_SMALLEST)
        if size != side:
            labels = resize(
                labels, size, order=0, mode="constant", preserve_range=True, anti_aliasing=False
            ).astype(int)
        found += _grown(labels)
    return found


def _grown(labels: np.ndarray) -> list[np.ndarray]:
    """Each segment's mask, grown by a disk."""
    from scipy import ndimage

    reach = np.arange(-_GROWN, _GROWN + 1)
    disk = reach[:, None] ** 2 + reach**2 <= _GROWN**2
    found = []
    for number, place in enumerate(ndimage.find_objects(labels + 1)):
        mask = np.zeros(labels.shape, bool)
        if place is not None:  # scaling down may lose a segment; as an empty mask it adds nothing
            near = tuple(slice(max(s.start - _GROWN, 0), s.stop + _GROWN) for s in place)
            mask[near] = ndimage.binary_dilation(labels[near] == number, disk)
        found.append(mask)
    return found
