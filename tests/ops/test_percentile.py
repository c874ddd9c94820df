"""The guide's threshold: the pixels of numpy.percentile on the operator's own variances."""

import ctypes
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast import ops
from tests.ops import aggregate_oracle as oracle
from tests.ops import native_items

TENTHS = range(1001)


def numpys_place(p, n):
    """Index and weight as numpy.percentile(method="linear") computes them."""
    rank = (n - 1) * np.true_divide(p, 100)
    below = np.floor(rank)
    return int(below), float(rank - below)


def place(p, n):
    below, weight = ctypes.c_int64(), ctypes.c_double()
    native_items.library().place(
        ctypes.c_double(p), ctypes.c_int64(n), ctypes.byref(below), ctypes.byref(weight)
    )
    return below.value, weight.value


def just_above_a_whole_number(n):
    """The p in steps of 0.1 whose rank float64 rounds to just above a whole number."""
    exact = (Fraction(k, 1000) * (n - 1) for k in TENTHS)
    return [
        k / 10
        for k, rank in zip(TENTHS, exact)
        if rank.denominator == 1 and (n - 1) * (k / 10 / 100) > rank
    ]


def test_places_are_numpys():
    for n in (1, 2, 7, 1000, 224**2, 299**2, 2**20 - 1, 2**20):
        for k in TENTHS:
            assert place(k / 10, n) == numpys_place(k / 10, n), (k, n)


def test_every_size_up_to_a_million():
    """Each place is that of the exact rank, or a close call, which looks at both neighbours."""
    wrong = native_items.library().wrong_places
    wrong.restype = ctypes.c_int64
    assert [k for k in TENTHS if wrong(ctypes.c_int64(k), ctypes.c_int64(2**20))] == []


def test_interpolation_is_numpys():
    function = native_items.library().threshold_f32
    function.restype = ctypes.c_float
    rng = np.random.default_rng(0)
    kept_lower = 0
    for _ in range(2000):
        below = np.float32(rng.lognormal(0, 8))
        gap = 10.0 ** rng.uniform(-8, 6)
        above = np.float32(
            max(np.nextafter(below, np.float32(np.inf)), below * np.float32(1 + gap))
        )
        weight = rng.choice([rng.uniform(0, 1), 0.5, 10.0 ** rng.uniform(-16, -6), 1 - 2.0**-40])
        pair = np.array([below, above], np.float64)
        q = pair[0] + (pair[1] - pair[0]) * weight
        if weight >= 0.5:
            q = pair[1] - (pair[1] - pair[0]) * (1 - weight)
        expected = below if below >= q else above
        got = function(ctypes.c_float(below), ctypes.c_float(above), ctypes.c_double(weight))
        assert np.float32(got) == expected
        kept_lower += expected == below
        assert expected == above or weight <= 2.0**-30, "a close call that is not looked at"
    assert 0 < kept_lower < 2000


def kept_pixels(grads, p):
    """Where the operator's guide is 1, and the operator's variances."""
    stats = gag_fast.GradientStats()
    stats.update_stack(grads)
    kept = gag_fast.guided_absgrad(grads, p, channels="keep")
    return (kept == stats.absmean()).numpy(), stats.variance().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("side", [224, 299])
def test_pixels_are_numpys(side, dtype):
    close = just_above_a_whole_number(side * side)
    assert len(close) >= 2
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        grads = torch.randn(4, 1, side, side, generator=generator, dtype=torch.float64).to(dtype)
        for p in [*close, 0.1, 15, 33.3, 50, 85, 99.9, 100]:
            kept, variance = kept_pixels(grads, p)
            q = np.percentile(variance.astype(np.float64).ravel(), p)
            assert np.array_equal(kept, variance.astype(np.float64) >= q), p


def test_close_calls_go_both_ways():
    """Two neighbours far apart put the percentile above the lower one; near ones do not."""
    side, p = 224, 28.0
    below = place(p, side * side)[0]
    for step, kept_lower in ((1e-7, True), (1e6, False)):
        rise = 1 + 1e-6 * torch.arange(side * side, dtype=torch.float64)
        rise[below + 1 :] *= 1 + step
        row = rise.sqrt().float().view(1, 1, side, side)
        kept, variance = kept_pixels(torch.cat([row, -row]), p)
        q = np.percentile(variance.astype(np.float64).ravel(), p)
        assert np.array_equal(kept, variance.astype(np.float64) >= q)
        ordered = np.sort(variance.astype(np.float64).ravel())
        assert (ordered[below] >= q) == kept_lower


# ---- long sums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [[0.1], [0.3], [1 / 3], [1.0, 1e-3], [3e-39], [7.7, 0.0, 1e-6]])
def test_a_million_terms(terms):
    function = native_items.library().long_sum
    function.restype = ctypes.c_float
    values = np.array(terms, np.float32)
    n = 10**6
    pointer = values.ctypes.data_as(ctypes.c_void_p)
    got = function(pointer, ctypes.c_int64(len(terms)), ctypes.c_int64(n))
    expected = np.resize(values.astype(np.float64), n).sum()
    assert abs(got - expected) <= 1e-6 * expected


def test_infinity_stays_infinity():
    function = native_items.library().long_sum
    function.restype = ctypes.c_float
    for value, expected in ((np.inf, np.inf), (np.nan, np.nan), (3e38, np.inf)):
        pointer = np.array([value], np.float32).ctypes.data_as(ctypes.c_void_p)
        got = function(pointer, ctypes.c_int64(1), ctypes.c_int64(50))
        assert got == expected or np.isnan([got, expected]).all()


def million(kind):
    """A stack of 10^6 gradients of a few pixels."""
    n = 10**6
    if kind == "constant":  # every addition rounds the same way
        return torch.tensor([0.1, -0.3, 1 / 3, 7e-5]).expand(n, 4).reshape(n, 1, 2, 2)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 2, 2, generator=generator) * torch.tensor([1.0, 1e-4]) + 0.1


@pytest.mark.parametrize("kind", ["constant", "random"])
class TestMillion:
    def check(self, grads, absmean, variance):
        exact = grads.double().numpy()
        assert oracle.relative_error(absmean, np.abs(exact).mean(axis=0)) <= 1e-6
        spread = exact.var(axis=0, ddof=1)
        assert (np.abs(variance.double().numpy() - spread) <= 1e-5 * spread + 1e-30).all()

    def test_one_shot_streamed_and_merged(self, kind):
        grads = million(kind)
        one_shot = gag_fast.guided_absgrad(grads, 0, channels="keep")
        streamed, merged = gag_fast.GradientStats(), gag_fast.GradientStats()
        for part in grads.split(9973):
            streamed.update_stack(part)
            other = gag_fast.GradientStats()
            other.update_stack(part)
            merged.merge(other)
        assert torch.equal(one_shot, streamed.absmean())
        for stats in (streamed, merged):
            assert stats.count == 10**6
            self.check(grads, stats.absmean(), stats.variance())

    def test_layouts_agree(self, kind):
        grads = million(kind)[:3001]
        expected = gag_fast.guided_absgrad(grads, [0, 50], channels="keep")
        for view in (grads.mT.contiguous().mT, grads.movedim(1, -1).contiguous().movedim(-1, 1)):
            assert torch.equal(gag_fast.guided_absgrad(view, [0, 50], channels="keep"), expected)
        spread = grads.repeat(1, 3, 1, 1).movedim(1, -1).contiguous().movedim(-1, 1)
        many = gag_fast.guided_absgrad(spread, [0, 50], channels="keep")
        assert torch.equal(many, expected.expand_as(many))


def test_operator_says_when_it_needs_the_settled_sums():
    grads = torch.randn(1, ops.RUN + 1, 1, 2, 2)
    state = [torch.empty(1, 1, 2, 2) for _ in range(4)]
    with pytest.raises(RuntimeError, match=f"more than {ops.RUN} samples need `settled`"):
        ops.gradient_stats_(*state, grads, 0)
    ops.gradient_stats_(*state, grads[:, :-1], 0)
    with pytest.raises(RuntimeError, match=r"settled must be contiguous \[2,B,C,H,W\]"):
        ops.gradient_stats_(*state, grads[:, :1], ops.RUN, torch.zeros(1, 1, 2, 2))
    with pytest.raises(RuntimeError, match="settled differs in size along axis 3"):
        ops.gradient_stats_(*state, grads[:, :1], ops.RUN, torch.zeros(2, 1, 1, 2, 3))


# ---- variances below what float32 holds ----------------------------------------------------------


def test_variances_that_underflow():
    """As the text of gag_fast.aggregate says: p damps nothing, in float64 or scaled it does."""
    grads = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 1e-25
    plain = gag_fast.guided_absgrad(grads, 0)
    with pytest.warns(UserWarning, match="have variances that underflow to 0"):
        assert torch.equal(gag_fast.guided_absgrad(grads, 85), plain)
    with pytest.warns(UserWarning, match="have variances that underflow to 0"):
        gag_fast.guided_absgrad(list(grads), 85)
    expected = oracle.saliency(grads.double().numpy()[None], 85)[0]
    assert np.abs(gag_fast.guided_absgrad(grads.double(), 85).numpy() - expected).max() <= 1e-12
    stats = gag_fast.GradientStats()
    stats.update_stack(grads)
    assert not stats.variance().any()
    scaled = gag_fast.guided_absgrad(grads * 2.0**60, 85)
    assert np.abs(scaled.numpy() - expected).max() <= 1e-6


def test_an_underflow_in_one_image_of_a_batch():
    grads = torch.randn(3, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    grads[1] *= 1e-25
    grads[2] = 0
    with pytest.warns(UserWarning, match=r"gradients of .e-25 have variances"):
        gag_fast.guided_absgrad(grads, 85)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-18])
def test_variances_that_are_0_by_right_are_no_underflow(value):
    """Gradients that do not differ, as a linear model's, or that are all 0."""
    grads = torch.full((5, 3, 16, 16), value)
    grads[:, :, :2] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gag_fast.guided_absgrad(grads, 85)
        gag_fast.guided_absgrad(torch.stack([grads, grads]), [85, 0])
