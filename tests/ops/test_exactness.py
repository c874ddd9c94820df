"""Exactness under Hypothesis: variance to 1e-5 of float64, the guide exact but at the threshold."""

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gag_fast
from tests.ops import aggregate_oracle as oracle

PERCENT = st.one_of(
    st.sampled_from([0.0, 15.0, 50.0, 85.0, 99.9, 100.0]), st.floats(0, 100, allow_subnormal=False)
)
DTYPE = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])
# float32 results below this are subnormal and cannot hold a relative error.
TINY = 1e-37


def normal(rng, shape):
    return rng.standard_normal(shape)


def heavy_tails(rng, shape):
    return rng.standard_cauchy(shape).clip(-1e6, 1e6)


def wide_range(rng, shape):
    return rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 3, shape[-3:])


def far_from_zero(rng, shape):
    return rng.standard_normal(shape) + 10.0 ** rng.uniform(0, 3)


def few_values(rng, shape):
    return rng.integers(-2, 3, shape).astype(np.float64)


def mostly_zero(rng, shape):
    return rng.standard_normal(shape) * (rng.random(shape[-3:]) < 0.2)


def constant(rng, shape):
    return np.full(shape, rng.standard_normal())


def tiny(rng, shape):
    return rng.standard_normal(shape) * 1e-22


def subnormal(rng, shape):
    return rng.standard_normal(shape) * 1e-40


VALUES = (
    *(normal, heavy_tails, wide_range, far_from_zero, few_values),
    *(mostly_zero, constant, tiny, subnormal),
)


@st.composite
def stacks(draw):
    """A stack [B,n,C,H,W] of any dtype, some kind of values and some layout in memory."""
    batch, n, channels = draw(st.integers(1, 3)), draw(st.integers(2, 24)), draw(st.integers(1, 4))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.sampled_from(VALUES))(rng, (batch, n, channels, height, width))
    grads = torch.from_numpy(values).to(draw(DTYPE))
    order = draw(st.permutations(range(5)))
    inverse = [order.index(d) for d in range(5)]
    return grads.permute(order).contiguous().permute(inverse)


def bounds(dtype):
    """Relative error allowed of the variance, and what of the guide is at the threshold."""
    return (1e-12, 1e-12) if dtype == torch.float64 else (1e-5, 1e-6)


def exact(grads):
    return grads.double().numpy()


relaxed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@relaxed
@given(stacks())
def test_variance_and_absgrad(grads):
    stats = gag_fast.GradientStats()
    for sample in grads.unbind(1):
        stats.update(sample)
    bound, _ = bounds(grads.dtype)
    for got, expected in (
        (stats.variance(), oracle.variance(exact(grads))),
        (stats.absmean(), oracle.absgrad(exact(grads))),
    ):
        # A sum of n roundings of a mean that is not representable: n = 2 to 24 stays far below.
        error = np.abs(got.double().numpy() - expected)
        floor = TINY if got.dtype == torch.float32 else 0.0
        noise = 1e-30 * np.abs(exact(grads)).max() ** 2  # numpy's own, where the truth is 0
        assert (error <= bound * expected + bound * floor + noise).all()


@relaxed
@given(stacks(), PERCENT)
def test_guide(grads, p):
    """A pixel is kept (guide 1) exactly where V >= q, except where |V - q| <= 1e-6 q."""
    kept = gag_fast.guided_absgrad(grads, p, channels="keep").double().numpy()
    variance, absgrad = oracle.variance(exact(grads)), oracle.absgrad(exact(grads))
    q = oracle.percentile(variance, p)
    bound, band = bounds(grads.dtype)
    floor = TINY if grads.dtype != torch.float64 else 1e-300
    # rounding of one variance moves q by as much as that of another moves V
    band = max(band, 1e-6)
    clear = (np.abs(variance - q) > band * q) & (q > floor)
    if p == 0:
        clear[:] = True
    guide = np.where((variance >= q) | (p == 0), 1.0, variance)
    error = np.abs(kept - guide * absgrad)
    allowed = 2 * bound * guide * absgrad + bound * floor
    assert (error <= allowed)[clear].all()
    # at the threshold it is one or the other
    either = np.minimum(np.abs(kept - absgrad), np.abs(kept - variance * absgrad))
    assert (either <= 2 * bound * np.maximum(absgrad, variance * absgrad) + bound * floor).all()


@relaxed
@given(stacks(), st.lists(PERCENT, min_size=1, max_size=4), st.booleans())
def test_streamed_is_one_shot(grads, percents, keep):
    stats = gag_fast.GradientStats()
    stats.update_stack(grads[:, :1])
    stats.update_stack(grads[:, 1:])
    channels = "keep" if keep else "sum"
    expected = gag_fast.guided_absgrad(grads, percents, channels=channels)
    got = stats.guided_absgrad(percents, channels=channels)
    assert torch.equal(got, expected)
    contiguous = gag_fast.guided_absgrad(grads.contiguous(), percents, channels=channels)
    assert torch.equal(contiguous, expected)


@relaxed
@given(stacks(), PERCENT)
def test_maps_span_zero_to_one(grads, p):
    maps = gag_fast.guided_absgrad(grads, p).flatten(-2)
    low, high = maps.amin(-1), maps.amax(-1)
    assert (low == 0).all()
    assert ((high == 1) | (high == 0)).all()


@relaxed
@given(stacks(), st.integers(1, 23), PERCENT)
def test_merged_is_streamed(grads, cut, p):
    cut = min(cut, grads.shape[1] - 1)
    parts = []
    for part in (grads[:, :cut], grads[:, cut:]):
        parts.append(gag_fast.GradientStats())
        parts[-1].update_stack(part)
    parts[0].merge(parts[1])
    expected = oracle.variance(exact(grads))
    bound, _ = bounds(grads.dtype)
    error = np.abs(parts[0].variance().double().numpy() - expected)
    floor = TINY if grads.dtype != torch.float64 else 0.0
    noise = 1e-30 * np.abs(exact(grads)).max() ** 2
    assert parts[0].count == grads.shape[1]
    assert (error <= bound * expected + bound * floor + noise).all()
