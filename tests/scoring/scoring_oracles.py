"""The metrics once more: float64 NumPy, one masked image after another, straight from the text.

Nothing here is shared with the package. `predict` maps one image [C, H, W] to probabilities [K].
"""

import math

import numpy as np
from scipy.integrate import trapezoid


def reflected_blur(image, kernel, sigma):
    """Gaussian blur with reflected borders (edge not repeated), both axes at once."""
    half = kernel // 2
    x = np.arange(-half, half + 1)
    g = np.exp(-(x**2) / (2 * sigma**2))
    window = np.outer(g, g) / np.outer(g, g).sum()
    padded = np.pad(image, ((0, 0), (half, half), (half, half)), mode="reflect")
    return _correlate(padded, window, image.shape)


def rise_blur(image, kernel=11, sigma=5.0):
    """RISE's substrate: scipy's response to an impulse in a kernel-sized array, zero padding."""
    from scipy.ndimage import gaussian_filter

    impulse = np.zeros((kernel, kernel))
    impulse[kernel // 2, kernel // 2] = 1
    half = kernel // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half)))
    return _correlate(padded, gaussian_filter(impulse, sigma), image.shape)


def _correlate(padded, window, shape):
    out = np.zeros(shape)
    for dy in range(window.shape[0]):
        for dx in range(window.shape[1]):
            out += window[dy, dx] * padded[:, dy : dy + shape[1], dx : dx + shape[2]]
    return out


def paper(predict, image, saliency, target, mean, std, lower_bound=50, interval=10):
    """Eq. 4.1 with numpy's percentiles, and the curves of CONTRACT.md."""
    image, saliency = np.float64(image), np.float64(saliency)
    black = (-np.array(mean) / np.array(std))[:, None, None]
    recover, shares = [], []
    for k in range(1, round((100 - lower_bound) / interval) + 1):
        kept = saliency >= np.percentile(saliency, 100 - k * interval, method="linear")
        recover.append(predict(np.where(kept, image, black))[target])
        total = saliency.sum()
        shares.append(saliency[kept].sum() / total if total > 0 else 0.0)
    order = np.argsort(-saliency.ravel(), kind="stable")
    blurred = reflected_blur(image, 33, 16.0)
    deletion, insertion = [], []
    for step in range(11):
        moved = np.zeros(order.size, bool)
        moved[order[: math.floor(step / 10 * order.size + 0.5)]] = True
        moved = moved.reshape(saliency.shape)
        deletion.append(predict(np.where(moved, black, image))[target])
        insertion.append(predict(np.where(moved, image, blurred))[target])
    return {
        "rcap": float(np.mean(np.array(shares) * np.array(recover))),
        "recover": recover,
        "partitions": shares,
        "deletion": deletion,
        "insertion": insertion,
        "dauc": float(trapezoid(deletion, dx=0.1)),
        "iauc": float(trapezoid(insertion, dx=0.1)),
    }


def official(predict, image, saliency, target, mean, std):
    """What the authors' code computes, in its own terms: pixel space, sorted lists, strict >."""
    image, saliency = np.float64(image), np.float64(saliency)
    mean, std = (np.array(v)[:, None, None] for v in (mean, std))
    ordered = sorted(saliency.ravel().tolist())

    def quantile(rate):
        return ordered[int(len(ordered) * rate) - 1]

    pixels = image * std + mean
    recover, shares = [], []
    for rate in (0.9, 0.8, 0.7, 0.6, 0.5):
        kept = saliency > quantile(rate)
        recover.append(predict((np.where(kept, pixels, 0.0) - mean) / std)[target])
        shares.append(saliency[kept].sum() / saliency.sum())
    blurred = reflected_blur(image, 33, 16.0)
    deletion, insertion = [], []
    for rate in (1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        moved = saliency > quantile(rate)
        deletion.append(predict(np.where(moved, 0.0, image))[target])
        insertion.append(predict(np.where(moved, image, blurred))[target])
    x = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    return {
        "rcap": float(np.mean(np.array(shares) * np.array(recover))),
        "recover": recover,
        "partitions": shares,
        "deletion": deletion,
        "insertion": insertion,
        "dauc": float(trapezoid(deletion, x)),
        "iauc": float(trapezoid(insertion, x)),
    }


def rise(predict, image, saliency, target, step=224):
    """RISE's loop: `step` pixels change a turn, both ends scored, area over the number of turns."""
    image, saliency = np.float64(image), np.float64(saliency)
    order = np.argsort(-saliency.ravel(), kind="stable")
    turns = (order.size + step - 1) // step
    found = {}
    for name, start, finish in (
        ("deletion", image, np.zeros_like(image)),
        ("insertion", rise_blur(image), image),
    ):
        now = start.copy().reshape(image.shape[0], -1)
        curve = []
        for turn in range(turns + 1):
            curve.append(predict(now.reshape(image.shape))[target])
            changed = order[step * turn : step * (turn + 1)]
            now[:, changed] = finish.reshape(image.shape[0], -1)[:, changed]
        found[name] = curve
        area = (sum(curve) - curve[0] / 2 - curve[-1] / 2) / turns
        found["dauc" if name == "deletion" else "iauc"] = float(area)
    return found


def torchcam(predict, image, saliency, target, steps=20):
    """torch-cam's DeletionInsertionMetric at its defaults: zeros as baseline, share moved as x."""
    image, saliency = np.float64(image), np.float64(saliency)
    order = np.argsort(-saliency.ravel(), kind="stable")
    step = (order.size + steps - 1) // steps
    counts = [*range(0, order.size, step), order.size]
    curves = {"deletion": [], "insertion": []}
    for count in counts:
        moved = np.zeros(order.size, bool)
        moved[order[:count]] = True
        moved = moved.reshape(saliency.shape)
        curves["deletion"].append(predict(np.where(moved, 0.0, image))[target])
        curves["insertion"].append(predict(np.where(moved, image, 0.0))[target])
    x = np.array(counts) / order.size
    return {
        **curves,
        "dauc": float(trapezoid(curves["deletion"], x)),
        "iauc": float(trapezoid(curves["insertion"], x)),
    }
