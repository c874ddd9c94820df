"""Perceptually uniform colour maps as small anchor tables, so that a picture needs no matplotlib.

The anchors are every sixteenth entry of matplotlib's 256-entry tables (van der Walt and Smith,
dedicated to the public domain, CC0); linear interpolation between them stays within 7/255 of the
originals in every channel.
"""

from __future__ import annotations

import numpy as np

from gag_fast._errors import GagFastError

_ANCHORS = {
    "inferno": (
        "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 "
        "d04545 e35933 f1711f f98c0a fcaa0f f9c932 f2e865 fcffa4"
    ),
    "magma": (
        "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 "
        "cf4070 e55064 f4695c fb8761 fea571 fec287 fde0a1 fcfdbf"
    ),
    "viridis": (
        "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
        "1f9f88 27ad81 3dbc74 5cc863 81d34d aadc32 d5e21a fde725"
    ),
}
_LEVELS = 256


def names() -> tuple[str, ...]:
    """The colour maps there are."""
    return tuple(_ANCHORS)


def anchors(name: str = "inferno") -> list[str]:
    """The colours that `table` interpolates between, "rrggbb" each, evenly spaced."""
    return _ANCHORS[name].split()


def table(name: str = "inferno") -> np.ndarray:
    """The colour map as uint8 `[256, 3]`, darkest entry first.

    Raises:
        ValueError: an unknown name.
    """
    if name not in _ANCHORS:
        raise GagFastError(f"colormap must be one of {', '.join(_ANCHORS)}, got {name!r}")
    anchors = np.array([list(bytes.fromhex(code)) for code in _ANCHORS[name].split()], float)
    position = np.linspace(0, len(anchors) - 1, _LEVELS)
    channels = [np.interp(position, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def colorize(values: np.ndarray, name: str = "inferno") -> np.ndarray:
    """Colours for values in [0, 1]: uint8 `[..., 3]`. Values outside are clipped, NaN is grey."""
    values = np.asarray(values, dtype=np.float64)
    missing = np.isnan(values)
    level = np.rint(np.clip(np.where(missing, 0, values), 0, 1) * (_LEVELS - 1)).astype(np.intp)
    colors = table(name)[level]
    colors[missing] = 128
    return colors
