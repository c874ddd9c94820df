"""Statistics packed for the page's slider: within a hundredth of our maps at every percent."""

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.report.live import exact_map, pack

PERCENTS = (0, 1, 30, 50, 85, 99, 100)


def gradients(kind):
    """A stack `[n, C, H, W]`."""
    rng = np.random.default_rng(0)
    stack = rng.normal(0, 0.02, (20, 3, 40, 37)) * rng.gamma(0.3, 1, (3, 40, 37))
    if kind == "large":
        stack *= 400  # variances far above 1: a damped pixel then outshines a kept one
    if kind == "flat":
        stack[:, 1] = 0.25  # a channel without variance: all its pixels are kept
    if kind == "sparse":
        stack[:, :, 5:] = 0
    return torch.from_numpy(stack.astype(np.float32))


@pytest.mark.parametrize("kind", ["plain", "large", "flat", "sparse"])
def test_packed_maps_are_ours(kind):
    stack = gradients(kind)
    stats = gag_fast.GradientStats()
    for grad in stack:
        stats.update(grad)
    absmean, variance = stats.absmean().numpy(), stats.variance().numpy()
    packed = pack(absmean, variance)
    assert packed is not None
    for p in PERCENTS:
        ours = gag_fast.guided_absgrad(stack, p=p).numpy()
        np.testing.assert_allclose(exact_map(absmean, variance, p), ours, atol=1e-4)
        assert np.abs(packed.map(p) - ours).max() < 1e-2


def test_small_variances_need_a_byte_less():
    stats = gag_fast.GradientStats()
    stats.update_stack(gradients("plain"))
    packed = pack(stats.absmean().numpy(), stats.variance().numpy())
    assert packed.absmean.dtype == np.uint8


def test_levels_say_exactly_where_the_guide_is_one():
    rng = np.random.default_rng(0)
    variance = rng.random((1, 30, 30)).astype(np.float32)
    packed = pack(np.ones_like(variance), variance)
    for p in range(101):
        kept = variance >= np.percentile(variance.astype(np.float64), p)
        np.testing.assert_array_equal(packed.level >= p, kept)


def test_what_is_not_finite_has_no_slider():
    values = np.ones((1, 4, 4), np.float32)
    broken = values.copy()
    broken[0, 0, 0] = np.nan
    assert pack(broken, values) is None
    assert pack(values, broken) is None
