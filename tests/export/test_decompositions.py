"""Each decomposition against torch's own backward operator, in float64, ties and borders too."""

import pytest
import torch
from torch.nn import functional as F

from gag_fast.export import decompositions as d

aten = torch.ops.aten


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CONVOLUTIONS = [
    # channels, kernel, stride, padding, dilation, groups
    pytest.param((4, 6, (1, 1), 1, 0, 1, 1), id="1x1"),
    pytest.param((4, 6, (3, 3), 1, 1, 1, 1), id="3x3"),
    pytest.param((4, 6, (3, 3), 2, 1, 1, 2), id="stride 2, groups"),
    pytest.param((4, 6, (3, 2), (2, 3), (1, 0), 1, 1), id="stride leaves a rest"),
    pytest.param((4, 6, (3, 3), 1, 2, 2, 1), id="dilation"),
    pytest.param((4, 4, (3, 3), 1, 1, 1, 4), id="depthwise, turned"),
    pytest.param((4, 4, (5, 5), 1, 0, 1, 4), id="depthwise without padding"),
    pytest.param((4, 4, (3, 3), 1, 4, 1, 4), id="depthwise, padding beyond the kernel"),
    pytest.param((4, 4, (3, 3), 1, 2, 2, 4), id="depthwise, dilation"),
    pytest.param((4, 4, (3, 3), 2, 1, 1, 4), id="depthwise, stride 2"),
    pytest.param((4, 8, (3, 3), 1, 1, 1, 4), id="depthwise, two kernels a channel"),
]


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case):
    cin, cout, kernel, stride, padding, dilation, groups = case
    x = images(2, cin, 11, 10).requires_grad_()
    weight = images(cout, cin // groups, *kernel, seed=1)
    out = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    g = images(*out.shape, seed=2)
    (expected,) = torch.autograd.grad(out, x, g)
    pair = [v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation)]
    got, *rest = d.convolution_backward(
        g, x, weight, None, *pair, False, [0, 0], groups, [True, False, False]
    )
    torch.testing.assert_close(got, expected)
    assert rest == [None, None]


@pytest.mark.parametrize(("stride", "more"), [(1, 0), (2, 1), (3, 2)])
def test_transposed_convolution(stride, more):
    x, weight = images(2, 4, 7, 6).requires_grad_(), images(4, 3, 3, 3, seed=1)
    out = F.conv_transpose2d(x, weight, None, stride, 1, more)
    g = images(*out.shape, seed=2)
    (expected,) = torch.autograd.grad(out, x, g)
    got, *_ = d.convolution_backward(
        g, x, weight, None, [stride] * 2, [1, 1], [1, 1], True, [more] * 2, 1, [True, False, False]
    )
    torch.testing.assert_close(got, expected)


def test_the_gradient_of_a_weight_is_refused():
    x = images(1, 1, 3, 3)
    with pytest.raises(NotImplementedError, match="weight"):
        d.convolution_backward(x, x, x, None, [1], [0], [1], False, [0], 1, [True, True, False])


POOLS = [
    # size, kernel, stride, padding, dilation, ceil_mode
    pytest.param((12, 12), 3, 2, 1, 1, False, id="3 by 2, as in ResNet"),
    pytest.param((11, 10), 3, 2, 1, 1, False, id="odd"),
    pytest.param((11, 10), 2, None, 0, 1, False, id="stride of the kernel, a rest"),
    pytest.param((11, 10), 2, None, 0, 1, True, id="ceil"),
    pytest.param((11, 10), 3, 2, 0, 1, True, id="ceil, windows overlap"),
    pytest.param((9, 9), 3, 1, 1, 1, False, id="stride 1"),
    pytest.param((13, 12), 2, 3, 0, 1, False, id="stride beyond the kernel"),
    pytest.param((13, 14), (3, 2), (2, 3), (1, 0), 1, False, id="uneven"),
    pytest.param((13, 14), 3, 2, 1, 2, False, id="dilation"),
    pytest.param((13, 14), 3, (1, 2), 1, (2, 1), True, id="uneven dilation, ceil"),
]


def listed(value):
    return [] if value is None else [value] if isinstance(value, int) else list(value)


@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation", "ceil"), POOLS)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool(size, kernel, stride, padding, dilation, ceil, ties):
    x = images(2, 3, *size)
    if ties:  # the first maximum in row order takes all
        x = x.round()
    x.requires_grad_()
    out, indices = F.max_pool2d(x, kernel, stride, padding, dilation, ceil, return_indices=True)
    g = images(*out.shape, seed=2)
    (expected,) = torch.autograd.grad(out, x, g)
    how = map(listed, (kernel, stride, padding, dilation))
    got = d.max_pool2d_backward(g, x.detach(), *how, ceil, indices)
    torch.testing.assert_close(got, expected)


def test_max_pool_after_relu_gives_a_tie_to_the_first():
    x = torch.zeros(1, 1, 4, 4)
    got = d.max_pool2d_backward(torch.ones(1, 1, 2, 2), x, [2], [], [0], [1], False, None)
    assert got[0, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil"),
    [(p.values[0], *p.values[1:4], p.values[5]) for p in POOLS if p.values[4] == 1],
)
@pytest.mark.parametrize(("padded", "divisor"), [(True, None), (False, None), (True, 5)])
def test_avg_pool(size, kernel, stride, padding, ceil, padded, divisor):
    x = images(2, 3, *size).requires_grad_()
    out = F.avg_pool2d(x, kernel, stride, padding, ceil, padded, divisor)
    g = images(*out.shape, seed=2)
    (expected,) = torch.autograd.grad(out, x, g)
    how = map(listed, (kernel, stride, padding))
    got = d.avg_pool2d_backward(g, x.detach(), *how, ceil, padded, divisor)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("out", [(1, 1), (3, 5), (7, 4), (6, 9), (11, 10)])
def test_adaptive_avg_pool(out):
    x = images(2, 3, 11, 10).requires_grad_()
    expected = F.adaptive_avg_pool2d(x, out)
    torch.testing.assert_close(d.adaptive_avg_pool2d(x.detach(), out), expected.detach())
    g = images(*expected.shape, seed=2)
    (back,) = torch.autograd.grad(expected, x, g)
    torch.testing.assert_close(d.adaptive_avg_pool2d_backward(g, x.detach()), back)


def test_hardtanh_stops_at_both_ends():
    x = torch.tensor([-1.0, 0, 0.5, 6, 7], dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(F.hardtanh(x, 0, 6), x, torch.ones_like(x))
    got = d.hardtanh_backward(torch.ones_like(x), x.detach(), 0, 6)
    assert got.tolist() == expected.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(("dim", "index"), [(0, 1), (1, -1), (-1, 2), (-3, -2)])
def test_select(dim, index):
    x = images(2, 3, 4).requires_grad_()
    out = x.select(dim, index)
    g = images(*out.shape, seed=2)
    (expected,) = torch.autograd.grad(out, x, g)
    torch.testing.assert_close(d.select_backward(g, x.shape, dim, index), expected)


@pytest.mark.parametrize(
    ("dim", "start", "end", "step"),
    [(0, 1, 2, 1), (1, 0, 99, 1), (-1, -3, 99, 1), (2, 0, 5, 2), (2, 1, 6, 3), (1, 1, 1, 1)],
)
def test_slice(dim, start, end, step):
    x = images(2, 3, 6)
    g = images(*aten.slice(x, dim, start, end, step).shape, seed=2)
    expected = aten.slice_backward(g, x.shape, dim, start, end, step)
    got = d.slice_backward(g, x.shape, dim, start, end, step)
    torch.testing.assert_close(got, expected)
