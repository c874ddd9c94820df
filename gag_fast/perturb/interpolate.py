"""An image restored from some of its pixels by linear interpolation, as the information curves do.

The known pixels and the four corners are triangulated (Delaunay), and every other pixel takes the
linear interpolation of its triangle's corners. SciPy's own interpolator searches the triangle of
every pixel; here every triangle writes its pixels, with exact integer weights.
"""

from __future__ import annotations

import numpy as np

_CELLS = 1 << 21
"""Pixels of bounding boxes looked at in one go."""


def interpolate(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The pixels uint8 [H, W, C] with those not in `known` (bool [H, W]) interpolated, rounded."""
    from scipy.spatial import Delaunay

    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    height, width = known.shape
    if known.all() or min(height, width) < 2:
        return pixels.copy()
    points = np.argwhere(known)
    corners = points[Delaunay(points).simplices].astype(np.int64)  # [T, 3, (row, column)]
    out = pixels.astype(np.float64)
    low, high = corners.min(axis=1), corners.max(axis=1)
    sides = high - low + 1
    cells = sides[:, 0] * sides[:, 1]
    # Triangles of three neighbouring pixels hold no other.
    order = np.flatnonzero(cells > 4)
    ends = np.cumsum(cells[order])
    for part in np.split(order, np.searchsorted(ends, np.arange(_CELLS, ends[-1:].sum(), _CELLS))):
        if part.size:
            _write(out, pixels, known, corners[part], low[part], sides[part])
    return np.rint(out).astype(np.uint8)


def _write(
    out: np.ndarray,
    pixels: np.ndarray,
    known: np.ndarray,
    corners: np.ndarray,
    low: np.ndarray,
    sides: np.ndarray,
) -> None:
    """Writes the pixels inside some triangles."""
    cells = sides[:, 0] * sides[:, 1]
    triangle = np.repeat(np.arange(len(cells)), cells)
    offset = np.arange(len(triangle)) - np.repeat(np.cumsum(cells) - cells, cells)
    row = low[triangle, 0] + offset // sides[triangle, 1]
    column = low[triangle, 1] + offset % sides[triangle, 1]
    unknown = ~known[row, column]
    triangle, row, column = triangle[unknown], row[unknown], column[unknown]
    (r0, c0), (r1, c1), (r2, c2) = (corners[triangle, k].T for k in range(3))
    area = (r1 - r0) * (c2 - c0) - (r2 - r0) * (c1 - c0)
    w1 = (row - r0) * (c2 - c0) - (r2 - r0) * (column - c0)
    w2 = (r1 - r0) * (column - c0) - (row - r0) * (c1 - c0)
    sign = np.sign(area)
    w1, w2, area = w1 * sign, w2 * sign, area * sign
    w0 = area - w1 - w2
    inside = (w0 >= 0) & (w1 >= 0) & (w2 >= 0) & (area > 0)
    weights = np.stack([w0, w1, w2], axis=1)[inside].astype(np.float64)
    values = pixels[corners[triangle[inside], :, 0], corners[triangle[inside], :, 1]]
    total = (weights[..., None] * values).sum(axis=1)
    out[row[inside], column[inside]] = total / area[inside, None]
