"""What a page needs to make an image's Guided AbsoluteGrad map for any percent p by itself.

A map is Σ_C G·A: A the mean |g|, G one where the variance V is at least its p-th percentile, else V
(Eq. 3.2-3.4). The page's slider has the whole percents; so of V a pixel needs its *level*, the last
percent at which it is still kept, which is one byte and says exactly where G is one. The V of a
damped pixel is taken from the percentiles around its level, and A is stored in 8 bits; where that
would show, A gets more of them and V a second byte. That it does not show is computed, not hoped.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTS = np.arange(101)
TOLERANCE = 0.006
"""Largest error of a packed map, of its range of 1; the page promises 0.01."""

_CHECKED = (*range(0, 100, 7), 50, 85, 90, 95, 99, 100)


@dataclass(frozen=True)
class Packed:
    """The statistics of one image, quantised.

    Attributes:
        absmean: uint8, or uint16 of 10 to 16 bits, `[C, H, W]`, in units of `scale`.
        scale: `[C]`, of a unit of `absmean`.
        level: uint8 `[C, H, W]`, the last whole percent at which a pixel is kept.
        percentiles: `[C, 101]` of the variance.
        within: uint8 or uint16 `[C, H, W]`, or None: where between its percentiles a variance lies,
            by their logarithms.
    """

    absmean: np.ndarray
    scale: np.ndarray
    level: np.ndarray
    percentiles: np.ndarray
    within: np.ndarray | None

    def map(self, p: int) -> np.ndarray:
        """The map at a whole percent, `[H, W]` in [0, 1]: what report.js computes."""
        low = np.take_along_axis(self.percentiles, self.level.reshape(len(self.scale), -1), axis=1)
        above = np.minimum(self.level.reshape(len(self.scale), -1).astype(np.int64) + 1, 100)
        high = np.take_along_axis(self.percentiles, above, axis=1)
        share = 0.5 if self.within is None else self._share().reshape(low.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            steep = low * (high / low) ** share
        variance = np.where(low > 0, steep, high * share).reshape(self.level.shape)
        guide = np.where(self.level >= p, 1.0, variance)
        return min_max((guide * self.absmean * self.scale[:, None, None]).sum(axis=0))

    def _share(self) -> np.ndarray:
        assert self.within is not None
        return (self.within + 0.5) / 256**self.within.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """JSON-ready: arrays as base64 of deflated bytes, 16-bit ones as two planes of bytes."""
        channels, height, width = self.level.shape
        return {
            "channels": channels,
            "height": height,
            "width": width,
            "bytes": self.absmean.dtype.itemsize,
            "absmean": _deflated(self.absmean),
            "scale": [float(v) for v in self.scale],
            "level": _deflated(self.level),
            "percentiles": [[float(f"{v:.9g}") for v in row] for row in self.percentiles],
            "within": None if self.within is None else _deflated(self.within),
            "within_bytes": 0 if self.within is None else self.within.dtype.itemsize,
        }


def exact_map(absmean: np.ndarray, variance: np.ndarray, p: float) -> np.ndarray:
    """The map of Eq. 3.2-3.4 and Algorithm 1 from the statistics themselves, in float64."""
    absmean, variance = absmean.astype(np.float64), variance.astype(np.float64)
    flat = variance.reshape(len(variance), -1)
    threshold = np.percentile(flat, p, axis=1, method="linear")[:, None, None]
    guide = np.where(variance >= threshold, 1.0, variance)
    return min_max((guide * absmean).sum(axis=0))


def min_max(values: np.ndarray) -> np.ndarray:
    """Scaled to [0, 1]; zeros where all are equal."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def pack(absmean: np.ndarray, variance: np.ndarray) -> Packed | None:
    """The smallest form whose maps are within TOLERANCE of the exact ones.

    Args:
        absmean, variance: `[C, H, W]`.

    Returns:
        None where a value is not finite, or no form is near enough.
    """
    if not (np.isfinite(absmean).all() and np.isfinite(variance).all()):
        return None
    exact = {p: exact_map(absmean, variance, p) for p in _CHECKED}
    for bits, fine_from in ((8, 101), (8, 95), (10, 95), (16, 0)):
        packed = _quantised(absmean, variance, bits, fine_from)
        if all(np.abs(packed.map(p) - whole).max() <= TOLERANCE for p, whole in exact.items()):
            return packed
    return None


def _quantised(absmean: np.ndarray, variance: np.ndarray, bits: int, fine_from: int) -> Packed:
    """`fine_from`: the first level of which the place between its percentiles is stored."""
    channels = len(absmean)
    limit = 2**bits - 1
    peak = absmean.reshape(channels, -1).max(axis=1).astype(np.float64)
    scale = np.where(peak > 0, peak / limit, 1.0)
    units = np.rint(absmean / scale[:, None, None]).astype(np.uint8 if bits == 8 else np.uint16)
    flat = variance.reshape(channels, -1).astype(np.float64)
    percentiles = np.percentile(flat, PERCENTS, axis=1, method="linear").T
    level = np.stack(
        [np.searchsorted(q, row, side="right") - 1 for q, row in zip(percentiles, flat)]
    )
    within = None
    if fine_from <= 100:
        low = np.take_along_axis(percentiles, level, axis=1)
        high = np.take_along_axis(percentiles, np.minimum(level + 1, 100), axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(low > 0, np.log(flat / low) / np.log(high / low), flat / high)
        share = np.nan_to_num(share)  # of equal percentiles any share will do
        steps = 256 if bits < 16 else 65536
        place = np.where(level < fine_from, steps // 2, np.clip(share * steps, 0, steps - 1))
        within = place.astype(np.uint8 if bits < 16 else np.uint16).reshape(variance.shape)
    return Packed(units, scale, level.astype(np.uint8).reshape(variance.shape), percentiles, within)


def _deflated(values: np.ndarray) -> str:
    """Bytes of equal weight side by side: the high ones deflate to little."""
    size = values.dtype.itemsize
    little = values.astype(values.dtype.newbyteorder("<")).reshape(-1)
    planes = little.view(np.uint8).reshape(-1, size).T.tobytes()
    return base64.b64encode(zlib.compress(planes, 9)).decode()
