"""Eq. 3.2-3.4 and Algorithm 1 in float64 NumPy, written from the paper and from nothing else."""

import numpy as np


def absgrad(stack):
    """`[B,n,C,H,W]` -> `[B,C,H,W]`, Eq. 3.2."""
    return np.abs(np.asarray(stack, np.float64)).mean(axis=1)


def variance(stack):
    """`[B,n,C,H,W]` -> `[B,C,H,W]`, Eq. 3.3."""
    return np.asarray(stack, np.float64).var(axis=1, ddof=1)


def percentile(values, p):
    """`[B,C,H,W]` -> `[B,C,1,1]`."""
    rows = values.reshape(*values.shape[:2], -1)
    return np.percentile(rows, p, axis=-1, method="linear")[..., None, None]


def raw_channels(stack, p):
    """G x A per channel, `[B,C,H,W]`, Eq. 3.4."""
    if p == 0:
        return absgrad(stack)
    values = variance(stack)
    # numpy rounds q; a pixel whose variance *is* the order statistic above it must not drop out.
    q = percentile(values, p)
    guide = np.where(values >= q * (1 - 1e-14), 1.0, values)
    return guide * absgrad(stack)


def raw(stack, p):
    return raw_channels(stack, p).sum(axis=1)


def min_max(maps):
    low = maps.min(axis=(-2, -1), keepdims=True)
    span = maps.max(axis=(-2, -1), keepdims=True) - low
    return np.where(span > 0, (maps - low) / np.where(span > 0, span, 1), 0.0)


def saliency(stack, p):
    return min_max(raw(stack, p))


def relative_error(got, expected):
    """Largest error relative to each expected value; where that is 0, got must be 0 too."""
    got = np.asarray(got, np.float64)
    expected = np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    error = np.abs(got - expected)
    return float(np.max(error / np.maximum(np.abs(expected), 1e-300), initial=0.0))
