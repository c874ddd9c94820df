"""Backward operators without an ONNX form, written with operators that have one.

torch's own autograd writes the backward pass; all that is left to say here is what the operators
it uses come to in plain ones. Each function has the signature of the torch operator it stands for
and computes what that computes, ties and borders included. Pools scatter without any scatter: the
k x k elements of all windows are k x k planes, and planes of equal remainder by the stride add up
to the phases of the input's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten

Pair = list[int]


def _pair(value: Sequence[int], default: Sequence[int] = ()) -> Pair:
    """Two integers of one, two or (by default) none."""
    given = [int(v) for v in value] or [int(v) for v in default]
    return given * 2 if len(given) == 1 else given


def convolution_backward(
    grad: Tensor,
    images: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """The gradient by the images: the transposed convolution with the same weight.

    Depthwise ones of stride 1 become plain convolutions with the kernel turned by half a turn,
    which every provider computes faster (18 % of EfficientNet-Lite0's gradient on the CPU
    provider).
    """
    if any(output_mask[1:]):
        raise NotImplementedError("the gradient of a weight")
    dims = weight.dim() - 2
    kernel = [int(k) for k in weight.shape[2:]]
    steps, pads, gaps = (
        [int(v) for v in value] * (dims if len(value) == 1 else 1)
        for value in (stride, padding, dilation)
    )
    none = [0] * dims
    if transposed:
        back = aten.convolution(grad, weight, None, steps, pads, gaps, False, none, groups)
        return back, None, None
    turned_pads = [g * (k - 1) - p for g, k, p in zip(gaps, kernel, pads, strict=True)]
    depthwise = weight.shape[1] == 1 and groups == weight.shape[0] == images.shape[1]
    if depthwise and max(steps) == 1 and min(turned_pads) >= 0:
        turned = weight.flip(list(range(2, 2 + dims)))
        back = aten.convolution(grad, turned, None, steps, turned_pads, gaps, False, none, groups)
        return back, None, None
    # Images that the last window does not reach: the transposed convolution must pad them back.
    missing = [
        int(images.shape[2 + i])
        - ((int(grad.shape[2 + i]) - 1) * steps[i] - 2 * pads[i] + gaps[i] * (kernel[i] - 1) + 1)
        for i in range(dims)
    ]
    back = aten.convolution(grad, weight, None, steps, pads, gaps, True, missing, groups)
    return back, None, None


def _sum_of_windows(
    element: Callable[[int, int], Tensor],
    size: Pair,
    out: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Adds every window's elements up at the pixels they came from.

    Args:
        element: (a, b) -> `[B,C,*out]`, what all windows give to their element in row a, column b,
            which is the pixel `window * stride + (a, b) * dilation - padding`. Called in row order.
        size: (H, W) of the images.
        out: number of windows.
        kernel: elements of a window.
        stride: as in the pool.
        padding: likewise.
        dilation: likewise.

    Returns:
        `[B,C,H,W]`.
    """
    reach = [out[i] + (kernel[i] - 1) * dilation[i] // stride[i] for i in (0, 1)]
    cells = [max(reach[i], -(-(size[i] + padding[i]) // stride[i])) for i in (0, 1)]
    phases: dict[tuple[int, int], Tensor] = {}
    for a in range(kernel[0]):
        for b in range(kernel[1]):
            (down, row), (right, column) = (
                divmod(at * dilation[i], stride[i]) for i, at in enumerate((a, b))
            )
            pads = (right, cells[1] - out[1] - right, down, cells[0] - out[0] - down)
            plane = F.pad(element(a, b), pads)
            key = (row, column)
            phases[key] = phases[key] + plane if key in phases else plane
    empty = torch.zeros_like(next(iter(phases.values())))  # strides beyond the kernel leave gaps
    planes = [phases.get((i, j), empty) for i in range(stride[0]) for j in range(stride[1])]
    full = _interleaved(planes, stride)
    (top, left), (height, width) = padding, size
    return full[:, :, top : top + height, left : left + width]


def _interleaved(planes: list[Tensor], stride: Pair) -> Tensor:
    """stride[0] * stride[1] planes `[B,C,h,w]` as one image of stride[0] * h rows."""
    if len(planes) == 1:
        return planes[0]
    batch, channels, height, width = planes[0].shape
    rows, columns = stride
    stacked = torch.stack(planes, 2)
    if rows == columns:
        return F.pixel_shuffle(stacked.flatten(1, 2), rows)
    cells = stacked.unflatten(2, (rows, columns)).permute(0, 1, 4, 2, 5, 3)
    return cells.reshape(batch, channels, rows * height, columns * width)


def max_pool2d_backward(
    grad: Tensor,
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Each window's gradient goes to its first maximum in row order, as in torch.

    The maxima are computed again rather than their indices read, which is what makes a provider
    leave its fast pool; the exporter merges this pool with the forward pass's.
    """
    k, s = _pair(kernel), _pair(stride, kernel)
    p, d = _pair(padding), _pair(dilation)
    size, out = _pair(images.shape[2:]), _pair(grad.shape[2:])
    top = aten.max_pool2d_with_indices(images, k, s, p, d, ceil_mode)[0]
    beyond = [(out[i] - 1) * s[i] + d[i] * (k[i] - 1) + 1 - size[i] - p[i] for i in (0, 1)]
    pads = (p[1], max(beyond[1], 0), p[0], max(beyond[0], 0))
    padded = F.pad(images, pads, value=-float("inf"))
    open_windows: Tensor | None = None  # those whose maximum was not met yet

    def element(a: int, b: int) -> Tensor:
        nonlocal open_windows
        first, last = (
            [at * d[i] for i, at in enumerate((a, b))],
            [at * d[i] + (out[i] - 1) * s[i] + 1 for i, at in enumerate((a, b))],
        )
        values = padded[:, :, first[0] : last[0] : s[0], first[1] : last[1] : s[1]]
        met = values == top
        mine = met if open_windows is None else met & open_windows
        if (a, b) != (k[0] - 1, k[1] - 1):
            open_windows = ~met if open_windows is None else open_windows & ~met
        return torch.where(mine, grad, 0.0)

    return _sum_of_windows(element, size, out, k, s, p, d)


def avg_pool2d_backward(
    grad: Tensor,
    images: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Tensor:
    """Each window's gradient, divided by the pixels it counts, goes to all of its pixels."""
    k, s, p = _pair(kernel), _pair(stride, kernel), _pair(padding)
    size, out = _pair(images.shape[2:]), _pair(grad.shape[2:])
    if divisor_override is not None:
        share = grad / divisor_override
    else:
        rows, columns = (
            _window_lengths(size[i], out[i], k[i], s[i], p[i], count_include_pad) for i in (0, 1)
        )
        if len({*rows, *columns}) == 1:
            share = grad / (rows[0] * columns[0])
        else:
            counts = torch.tensor(rows)[:, None] * torch.tensor(columns)
            share = grad / counts.to(grad)
    return _sum_of_windows(lambda a, b: share, size, out, k, s, p, [1, 1])


def _window_lengths(
    size: int, out: int, kernel: int, stride: int, padding: int, padded: bool
) -> list[int]:
    """Pixels that the windows along one axis count, the padding's too if `padded`."""
    low, high = (-padding, size + padding) if padded else (0, size)
    starts = [i * stride - padding for i in range(out)]
    return [min(start + kernel, high) - max(start, low) for start in starts]


def adaptive_avg_pool2d(images: Tensor, output_size: Sequence[int]) -> Tensor:
    """Means over windows of uneven size: a product with a constant matrix along each axis."""
    for axis, count in ((2, int(output_size[0])), (3, int(output_size[1]))):
        means = _means(int(images.shape[axis]), count, images)
        if means is not None:
            images = torch.movedim(torch.movedim(images, axis, -1) @ means, -1, axis)
    return images


def adaptive_avg_pool2d_backward(grad: Tensor, images: Tensor) -> Tensor:
    """The transposed products."""
    for axis in (2, 3):
        means = _means(int(images.shape[axis]), int(grad.shape[axis]), grad)
        if means is not None:
            grad = torch.movedim(torch.movedim(grad, axis, -1) @ means.t(), -1, axis)
    return grad


def _means(size: int, count: int, like: Tensor) -> Tensor | None:
    """`[size, count]`: which share each pixel has in each window; None where nothing changes."""
    if size == count:
        return None
    means = torch.zeros(size, count)
    for window in range(count):
        first, last = window * size // count, -(-(window + 1) * size // count)
        means[first:last, window] = 1 / (last - first)
    return means.to(like)


def hardtanh_backward(grad: Tensor, images: Tensor, low: float, high: float) -> Tensor:
    """Where the clipped value lies inside. From the output, which forward has anyway."""
    clipped = aten.hardtanh(images, low, high)
    return torch.where((clipped > low) & (clipped < high), grad, 0.0)


def select_backward(grad: Tensor, sizes: Sequence[int], dim: int, index: int) -> Tensor:
    """Zeros beside the row that was taken, instead of a scatter into zeros."""
    length, index = int(sizes[dim]), int(index)
    start = index + length if index < 0 else index
    return _padded(grad.unsqueeze(dim), dim % len(sizes), start, length)


def slice_backward(
    grad: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Tensor:
    """Zeros before and after; what a step left out, between."""
    length, dim = int(sizes[dim]), dim % len(sizes)
    first = min(max(start + length if start < 0 else start, 0), length)
    if step > 1 and grad.shape[dim] > 0:
        count = int(grad.shape[dim])
        apart = _padded(grad.unsqueeze(dim + 1), dim + 1, 0, step).flatten(dim, dim + 1)
        grad = apart.narrow(dim, 0, (count - 1) * step + 1)
    return _padded(grad, dim, first, length)


def _padded(values: Tensor, dim: int, before: int, length: int) -> Tensor:
    """Zeros around `values` along one axis, up to a length."""
    pads = [0, 0] * (values.dim() - dim)
    pads[-2:] = [before, length - before - int(values.shape[dim])]
    return F.pad(values, pads)


TABLE = {
    aten.convolution_backward.default: convolution_backward,
    aten.max_pool2d_with_indices_backward.default: max_pool2d_backward,
    aten.avg_pool2d_backward.default: avg_pool2d_backward,
    aten._adaptive_avg_pool2d.default: adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d_backward.default: adaptive_avg_pool2d_backward,
    aten.hardtanh_backward.default: hardtanh_backward,
    aten.select_backward.default: select_backward,
    aten.slice_backward.default: slice_backward,
}
"""Operators of torch -> the functions above."""
