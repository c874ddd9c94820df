"""Operators on drawn stacks against the float64 reference. 20,000 calls with `make fuzz`."""

import random

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast import reference
from tests.fuzz import rounds

BLOCKS = 8
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float64: 1e-9}


def drawn(draw: random.Random):
    """A stack of any size, dtype, magnitude and layout, and the arguments of a call."""
    batch = draw.choice((None, 1, 2, 3))
    n, channels = draw.choice((1, 2, 3, 7, 20)), draw.choice((1, 2, 3, 5))
    height, width = draw.choice(((1, 1), (1, 17), (7, 3), (16, 16), (13, 29), (33, 8)))
    dtype = draw.choice(DTYPES)
    shape = [*([] if batch is None else [batch]), n, channels, height, width]
    generator = torch.Generator().manual_seed(draw.randrange(1 << 30))
    stack = torch.randn(shape, generator=generator, dtype=torch.float64)
    if draw.random() < 0.2:
        stack = stack.round()  # ties
    if draw.random() < 0.1:
        stack.zero_()
    stack = (stack * draw.choice((1e-3, 1.0, 30.0))).to(dtype)
    match draw.randrange(4):
        case 0:
            stack = stack.transpose(-1, -2).contiguous().transpose(-1, -2)
        case 1:
            stack = stack.flip(-1).flip(-1)
        case 2:
            stack = torch.stack([stack, stack], -1)[..., 0]  # steps of two
        case 3:
            stack = stack.movedim(-3, -1).contiguous().movedim(-1, -3)  # channels last
    percents = [draw.choice((0.0, 100.0, 85.0, 50.0, draw.uniform(0, 100))) for _ in range(2)]
    percents = [0.0, 0.0] if n == 1 else percents
    return stack, percents[0] if draw.random() < 0.6 else percents


def either(exact, percents):
    """[k, B, C, H, W]: where a variance is so near the percentile that both sides are right."""
    if exact.shape[1] < 2:
        return torch.zeros(len(percents), *exact[:, 0].shape, dtype=torch.bool)
    values = reference.variance(exact)
    near = 1e-5 * values.abs().amax(dim=(-1, -2), keepdim=True)
    return torch.stack([(values - reference.threshold(values, p)).abs() <= near for p in percents])


@pytest.mark.parametrize("seed", range(BLOCKS))
def test_guided_absgrad_equals_the_reference(seed):
    draw = random.Random(seed)
    for call in rounds("operator calls", 60 // BLOCKS, 20_000 // BLOCKS):
        stack, p = drawn(draw)
        channels = draw.choice(("sum", "keep"))
        found = gag_fast.guided_absgrad(stack, p, normalize=False, channels=channels).double()
        exact = stack.double() if stack.dim() == 5 else stack.double()[None]
        several = [p] if isinstance(p, float) else p
        expected = reference.guided_absgrad(exact, several, False, channels == "keep")
        expected = expected if stack.dim() == 5 else expected[:, 0]
        expected = expected[0] if isinstance(p, float) else expected
        scale = float(expected.abs().max()) or 1.0
        wrong = (found - expected).abs() > 2e-5 * scale
        assert found.shape == expected.shape, (seed, call)
        unclear = either(exact, several)
        unclear = unclear if channels == "keep" else unclear.any(dim=-3)
        unclear = unclear if stack.dim() == 5 else unclear[:, 0]
        unclear = unclear[0] if isinstance(p, float) else unclear
        assert not (wrong & ~unclear).any(), (seed, call)


@pytest.mark.parametrize("seed", range(BLOCKS))
def test_streaming_equals_the_whole(seed):
    draw = random.Random(1000 + seed)
    for call in rounds("streamed stacks", 24 // BLOCKS, 4_000 // BLOCKS):
        stack, _ = drawn(draw)
        samples = stack.unbind(-4)
        parts = [gag_fast.GradientStats() for _ in range(draw.choice((1, 2, 3)))]
        for sample in samples:
            draw.choice(parts).update(sample)
        whole, *others = [part for part in parts if part.count]
        for other in others:
            whole.merge(other)
        assert whole.count == len(samples), (seed, call)
        exact = stack.double()
        scale = float(exact.abs().max()) or 1.0
        torch.testing.assert_close(
            whole.absmean().double(), exact.abs().mean(-4), rtol=1e-5, atol=1e-6 * scale
        )
        if len(samples) > 1:
            torch.testing.assert_close(
                whole.variance().double(), exact.var(-4), rtol=1e-4, atol=1e-6 * scale**2
            )


@pytest.mark.parametrize("seed", range(2))
def test_whatever_is_handed_in_is_an_answer_or_one_line(seed):
    draw = random.Random(seed)
    values = (
        None, 3, "x", [], [[]], np.zeros(3), np.zeros((2, 3, 4, 4), np.int32), object(),
        np.zeros((2, 3, 4, 4), np.float16)[::-1], np.full((2, 1, 2, 2), np.nan, np.float32),
        torch.zeros(0, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.full((2, 1, 2, 2), torch.inf),
        [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)], torch.zeros(2, 3, 4, 4, dtype=torch.long),
    )  # fmt: skip
    percents = (85, -1, 101, float("nan"), None, "85", [], [0, 100], True, 1e300, [85, None])
    for _ in rounds("arguments of any kind", 100, 3_000):
        try:
            gag_fast.guided_absgrad(draw.choice(values), draw.choice(percents))
        except (TypeError, ValueError) as error:
            assert "\n" not in str(error)  # noqa: PT017
