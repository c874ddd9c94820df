"""An image restored from some of its pixels by linear interpolation, as the information curves do.

The known pixels and the four corners are triangulated (Delaunay), and every other pixel takes the
linear interpolation of its triangle's corners. SciPy's own interpolator searches the triangle of
every pixel; here every triangle writes its pixels row by row, with exact integer weights.
"""

from __future__ import annotations

import numpy as np


def interpolate(pixels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The pixels uint8 [H, W, C] with those not in `known` (bool [H, W]) interpolated, rounded."""
    from scipy.spatial import Delaunay

    known = known.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    if known.all() or min(known.shape) < 2:
        return pixels.copy()
    points = np.argwhere(known)
    corners = points[Delaunay(points).simplices]  # [T, 3, (row, column)]
    sides = corners.max(axis=1) - corners.min(axis=1) + 1
    # Triangles of three neighbouring pixels hold no other.
    return _fill(pixels, known, corners[sides.prod(axis=1) > 4])


def _fill(pixels: np.ndarray, known: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """The pixels with the unknown ones that lie in some triangles [T, 3, 2] interpolated.

    The weight of a corner grows evenly along rows and columns and is >= 0 inside; the three add up
    to twice the triangle's area. A pixel on an edge gets the same value from either side.
    """
    one, other = corners[:, 0] - corners[:, 1], corners[:, 2] - corners[:, 1]
    area = one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]
    turn, area = np.sign(area)[:, None], np.abs(area)
    rows, columns = corners[..., 0], corners[..., 1]  # [T, 3]
    next_row, next_column = np.roll(rows, -1, axis=1), np.roll(columns, -1, axis=1)
    down = (np.roll(columns, 1, axis=1) - next_column) * turn  # what a row adds to each weight
    right = (next_row - np.roll(rows, 1, axis=1)) * turn  # and what a column does
    top, left = rows.min(axis=1), columns.min(axis=1)
    corner = down * (top[:, None] - next_row) + right * (left[:, None] - next_column)

    # Every row of every triangle: its weights in the leftmost column, and from where to where they
    # are all >= 0.
    triangle, below = _counted(np.where(area > 0, rows.max(axis=1) - top + 1, 0))
    weights = corner[triangle] + down[triangle] * below[:, None]
    step = right[triangle]
    size = np.abs(step) + (step == 0)
    last = (columns.max(axis=1) - left)[triangle]
    first = np.where(step > 0, -(weights // size), 0).max(axis=1).clip(0)
    last = np.minimum(last, np.where(step < 0, weights // size, last[:, None]).min(axis=1))

    # Every pixel of those rows that is not known.
    span, along = _counted((last - first + 1).clip(0))
    along += first[span]
    row, column = (top[triangle] + below)[span], left[triangle[span]] + along
    unknown = ~known[row, column]
    span, along, row, column = (part[unknown] for part in (span, along, row, column))
    triangle = triangle[span]
    total = np.zeros((len(span), pixels.shape[2]), dtype=np.int64)
    for k in range(3):
        weight = weights[span, k] + step[span, k] * along
        total += weight[:, None] * pixels[rows[triangle, k], columns[triangle, k]]
    out = pixels.copy()
    out[row, column] = np.rint(total / area[triangle, None])
    return out


def _counted(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """0, 0, 0, 1, 2, 2 … and 0, 1, 2, 0, 0, 1 … for sizes 3, 1, 2 …: each one's members."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
