"""Occlusion (Zeiler & Fergus 2014): how far the score falls when a window is hidden."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast.attribution.forward import ForwardSource, baseline_of, spans, whole_number

Side = int | tuple[int, int] | list[int] | None


def occlusion(
    source: ForwardSource,
    images: Tensor,
    targets: Tensor,
    *,
    score: str,
    window: Side = None,
    stride: Side = None,
    baseline: Any = None,
) -> Tensor:
    """Raw occlusion: `mean over the windows w that hold the pixel of f(x) - f(x with w hidden)`.

    Captum's windows and sums: they start at 0, stride, 2 stride ..., the last one is cut at the
    image's edge, and each hides all channels. One forward pass a window and one for the image; no
    gradient. At 224 pixels the defaults make 13 x 13 windows of 32 pixels.

    Traps: signed: where hiding helps the class, values are negative, and the map's lowest; the
    baseline's colour is itself seen by the network; parts hidden one by one whose loss the others
    make up for seem unimportant. The score of a Classifier is the probability, which a confident
    network does not move; that of a module is its logit.

    Args:
        source: what scores.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        score: "probability" or "logit".
        window: side in pixels, or (height, width), at most the image's; None: a seventh of it.
        stride: likewise, at most the window's; None: half the window.
        baseline: see `baseline_of`.

    Returns:
        `[B,1,H,W]`; every channel has the same.
    """
    images = images.to(source.device)
    hidden = baseline_of(baseline, images)
    size = (images.shape[2], images.shape[3])
    rows, columns = windows(size, window, stride)
    each = len(rows) * len(columns) + 1

    def write(buffer: Tensor, first: int) -> None:
        for image, own, at in spans(first, len(buffer), each):
            buffer[at] = images[image]
            for picture, number in zip(buffer[at], range(own.start, own.stop), strict=True):
                if number:
                    (y, bottom), (x, right) = _window(rows, columns, number - 1)
                    picture[:, y:bottom, x:right] = hidden[image, :, y:bottom, x:right]

    scores = source.values(write, targets.repeat_interleave(each), images, score).view(-1, each)
    falls = (scores[:, :1] - scores[:, 1:]).double().view(-1, len(rows), len(columns))
    down, across = _covered(rows, size[0], falls), _covered(columns, size[1], falls)
    sums = down.T @ falls @ across
    return (sums / (down.T @ torch.ones_like(falls[0]) @ across))[:, None].to(scores.dtype)


def windows(
    size: tuple[int, int], window: Side, stride: Side
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """First and end of the windows along the height, and along the width."""
    sides = _pair("window", window, [max(1, length // 7) for length in size])
    steps = _pair("stride", stride, [max(1, side // 2) for side in sides])
    if any(side > length for side, length in zip(sides, size, strict=True)):
        raise GagFastError(
            f"window must fit into images of {size[0]}x{size[1]}, got {sides[0]}x{sides[1]}"
        )
    found = []
    for length, side, step in zip(size, sides, steps, strict=True):
        if step > side and side < length:
            raise GagFastError(
                f"stride must not exceed the window's {side} pixels, or some are never hidden, "
                f"got {step}"
            )
        starts = range(0, -(-(length - side) // step) * step + 1, step)
        found.append([(start, min(start + side, length)) for start in starts])
    return found[0], found[1]


def _pair(name: str, given: Any, default: list[int]) -> list[int]:
    if given is None:
        return default
    pair = list(given) if isinstance(given, (tuple, list)) else [given, given]
    if len(pair) != 2:
        raise GagFastError(f"{name} must be pixels or (height, width), got {given!r}")
    return [whole_number(name, side) for side in pair]


def _window(
    rows: list[tuple[int, int]], columns: list[tuple[int, int]], number: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    row, column = divmod(number, len(columns))
    return rows[row], columns[column]


def _covered(windows: list[tuple[int, int]], length: int, like: Tensor) -> Tensor:
    """1 where a window holds a line: `[windows, length]`."""
    at = torch.arange(length, device=like.device)
    starts, ends = torch.tensor(windows, device=like.device).T[:, :, None]
    return ((at >= starts) & (at < ends)).to(like.dtype)
