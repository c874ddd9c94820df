"""The CUDA kernels' own source, run on the CPU by csrc/cuda/emulation, against two oracles:

float64 NumPy by the paper's equations, and the CPU operator, bit for bit. Every run of the
emulation also fails on a data race (see test_cuda_faults.py for the proof that it sees them).
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gag_fast._library  # noqa: F401  registers the CPU operators
from tests.cuda.cuda_emulation import ORDINARY, Run

OPS = torch.ops.gag_fast
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def stack(*shape, dtype=torch.float32, seed=0):
    """Gradients with heavy tails, whose scale and mean differ from pixel to pixel."""
    generator = torch.Generator().manual_seed(seed)
    B, _, C, H, W = shape
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = torch.randn(B, 1, C, H, W, generator=generator, dtype=torch.float64).exp()
    mean = torch.randn(B, 1, C, H, W, generator=generator, dtype=torch.float64)
    return ((noise + mean) * scale).to(dtype)


def oracle(grads, p, normalize=True, keep_channels=False):
    """The paper's equations in float64 NumPy."""
    g = grads.double().numpy()
    absgrad = np.abs(g).mean(axis=1)
    out = []
    for percent in p:
        guide = np.ones_like(absgrad)
        if percent > 0:
            variance = g.var(axis=1, ddof=1)
            rows = variance.reshape(*variance.shape[:2], -1)
            q = np.percentile(rows, percent, axis=-1, method="linear")[..., None, None]
            guide = np.where(variance >= q, 1.0, variance)
        maps = guide * absgrad
        if not keep_channels:
            maps = maps.sum(axis=1)
            if normalize:
                low = maps.min(axis=(-2, -1), keepdims=True)
                high = maps.max(axis=(-2, -1), keepdims=True)
                width = np.where(high > low, high - low, 1.0)
                maps = np.where(high > low, (maps - low) / width, 0.0)
        out.append(maps)
    return torch.from_numpy(np.stack(out))


def assert_same_bits(left, right):
    """Equal in every bit, but that one NaN is as good as another."""
    assert left.dtype == right.dtype
    assert left.shape == right.shape
    bits = torch.int64 if left.dtype == torch.float64 else torch.int32
    differ = (left.view(bits) != right.view(bits)) & ~(left.isnan() & right.isnan())
    assert not differ.any(), f"{int(differ.sum())} of {differ.numel()} values differ"


def assert_as_on_cpu(emulation, grads, p, normalize=True, keep_channels=False, run=ORDINARY):
    out = emulation.guided_absgrad(grads, p, normalize, keep_channels, run=run)
    assert_same_bits(out, OPS.guided_absgrad(grads, p, normalize, keep_channels))
    return out


SHAPES = [
    (1, 2, 1, 1, 1),
    (3, 3, 2, 1, 5),
    (2, 20, 3, 16, 16),
    (1, 33, 3, 37, 29),
    (2, 3, 4, 96, 96),  # rows longer than kShortRow: digits counted on the way
    (1, 20, 3, 101, 99),
    (1, 2, 1, 224, 224),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bits_of_the_cpu_operator(emulation, shape, dtype):
    grads = stack(*shape, dtype=dtype)
    p = [0.0, 15.0, 50.0, 85.0, 99.9, 100.0]
    assert_as_on_cpu(emulation, grads, p)
    assert_as_on_cpu(emulation, grads, p[3:4])
    assert_as_on_cpu(emulation, grads, p, normalize=False)
    assert_as_on_cpu(emulation, grads, p, keep_channels=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [2, 3, 20, 33])
@pytest.mark.parametrize("size", [(24, 17), (100, 96)], ids=str)
def test_equations_in_float64(emulation, n, size, dtype):
    grads = stack(2, n, 3, *size, dtype=dtype)
    p = [0.0, 15.0, 50.0, 85.0, 99.9, 100.0]
    # The guide of a pixel whose variance is within rounding of q may differ: no such pixel here.
    for options in ({}, {"normalize": False}, {"keep_channels": True}):
        out = emulation.guided_absgrad(grads, p, **options)
        expected = oracle(grads, p, **options)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "view",
    {
        "channels_last": lambda g: (
            g.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, g.shape[:2])
        ),
        "samples_first": lambda g: g.transpose(0, 1).contiguous().transpose(0, 1),
        "shifted": lambda g: torch.cat([g[..., :1], g], dim=-1)[..., 1:],
        "every_other_row": lambda g: g.repeat_interleave(2, dim=-2)[..., ::2, :],
        "every_other_sample": lambda g: g.repeat_interleave(2, dim=1)[:, ::2],
        "transposed": lambda g: g.mT.contiguous().mT,
        "expanded": lambda g: g[:, :, :1].expand(g.shape),
        "unaligned": lambda g: torch.cat([g.flatten()[:1], g.flatten()])[1:].view(g.shape),
    }.items(),
    ids=lambda item: item[0],
)
def test_strides(emulation, view, dtype):
    for shape in [(2, 5, 3, 12, 16), (1, 6, 2, 96, 92), (2, 4, 7, 10, 10)]:
        grads = view[1](stack(*shape, dtype=dtype))
        out = assert_as_on_cpu(emulation, grads, [40.0, 85.0])
        assert_same_bits(out, emulation.guided_absgrad(grads.contiguous(), [40.0, 85.0]))


@pytest.mark.parametrize("run", [Run(1, 1), Run(2, 132), Run(3, 1000)], ids=str)
@pytest.mark.parametrize("size", [(40, 40), (150, 144)], ids=str)
def test_any_order_of_threads_and_any_grid(emulation, size, run):
    grads = stack(3, 6, 3, *size)
    p = [10.0, 85.0, 99.0]
    expected = emulation.guided_absgrad(grads, p, run=Run(0, 1))
    assert_same_bits(emulation.guided_absgrad(grads, p, run=run), expected)


def test_few_samples_and_many(emulation):
    assert_as_on_cpu(emulation, stack(2, 1, 3, 100, 96), [0.0])
    assert_as_on_cpu(emulation, stack(2, 1, 3, 10, 9), [0.0, 0.0], keep_channels=True)
    assert_as_on_cpu(emulation, stack(1, 530, 2, 11, 8), [85.0])  # past the table of inverses


def test_more_percents_than_one_launch_takes(emulation):
    p = [i * 100 / 69 for i in range(70)]
    for size in [(20, 12), (96, 96)]:
        assert_as_on_cpu(emulation, stack(2, 3, 2, *size), p)


@pytest.mark.parametrize("size", [(20, 20), (130, 128)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties(emulation, size, dtype):
    """All variances alike, or only three of them: every key is a candidate."""
    for levels in (1, 3):
        base = torch.arange(size[0] * size[1]).remainder(levels).to(dtype).view(size) + 1
        grads = torch.stack([base, -base, base]).expand(2, 3, *size).unsqueeze(2)
        for run in (Run(0, 1), Run(5, 132)):
            assert_as_on_cpu(emulation, grads, [0.0, 30.0, 66.0, 85.0, 100.0], run=run)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-42, 1e30])
def test_constant_stacks_give_zeros(emulation, value):
    for size in [(9, 10), (96, 96)]:
        out = assert_as_on_cpu(emulation, torch.full((2, 4, 3, *size), value), [0.0, 85.0])
        assert not out.any()


def test_denormal_gradients(emulation):
    grads = stack(1, 5, 2, 96, 96) * 1e-21  # variances around 1e-42
    assert_as_on_cpu(emulation, grads, [50.0, 85.0], normalize=False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [(9, 10), (96, 96)], ids=str)
@pytest.mark.parametrize("sample", [0, 2])
def test_gradients_that_are_not_finite(emulation, bad, size, sample):
    grads = stack(3, 4, 2, *size)
    grads[1, sample, 1, 3, 4] = bad
    for options in ({}, {"normalize": False}, {"keep_channels": True}):
        out = assert_as_on_cpu(emulation, grads, [0.0, 85.0], **options)
        assert out[:, 1, -1].isnan().any()
        assert not out[:, [0, 2]].isnan().any()
        if "keep_channels" in options:
            assert not out[:, 1, 0].isnan().any()


def test_a_variance_that_overflows_spoils_only_what_uses_it(emulation):
    grads = stack(2, 4, 2, 96, 96)
    grads[0, :, 0, 1, 1] = torch.tensor([1e30, -1e30, 1e30, -1e30])
    out = assert_as_on_cpu(emulation, grads, [0.0, 85.0])
    assert not out[0].isnan().any()
    assert out[1, 0].isnan().all()
    assert not out[1, 1].isnan().any()


def test_a_channel_sum_that_overflows(emulation):
    grads = torch.ones(1, 2, 3, 4, 4)
    grads[0, :, :, 0, 0] = 1.5e38  # 3e38 is a float32, three times 1.5e38 is not
    assert assert_as_on_cpu(emulation, grads, [0.0]).isnan().all()
    assert assert_as_on_cpu(emulation, grads, [0.0], normalize=False).isinf().sum() == 1


# ---- running statistics --------------------------------------------------------------------------


def new_state(grads):
    B, _, C, H, W = grads.shape
    dtype = torch.float64 if grads.dtype == torch.float64 else torch.float32
    return [torch.full((B, C, H, W), float("nan"), dtype=dtype) for _ in range(4)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)], ids=str)
def test_running_statistics(emulation, size, last, dtype):
    grads = stack(2, 20, 3, *size, dtype=dtype)
    if last:
        grads = grads.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    ours, theirs = new_state(grads), new_state(grads)
    count = 0
    for many in (1, 1, 5, 13):  # 20 in all
        some = grads[:, count : count + many]
        emulation.gradient_stats_(*ours, some, count)
        OPS.gradient_stats_(*theirs, some, count)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same_bits(mine, other)
        count += many
    p = [0.0, 50.0, 85.0]
    for options in ((True, False), (False, False), (False, True)):
        out = emulation.guided_absgrad_from_stats(ours[2], ours[3], count, p, *options)
        assert_same_bits(out, OPS.guided_absgrad_from_stats(ours[2], ours[3], count, p, *options))
        assert_same_bits(out, emulation.guided_absgrad(grads, p, *options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)], ids=str)
def test_sums_of_more_than_a_run_settle(emulation, size, dtype):
    grads = stack(2, 75, 3, *size, dtype=dtype)
    ours, theirs = new_state(grads), new_state(grads)
    settled = [torch.zeros(2, *t[0].shape, dtype=t[0].dtype) for t in (ours, theirs)]
    count = 0
    for many in (3, 17, 1, 22, 32):  # up to the edge of a run, past it, over two
        some = grads[:, count : count + many]
        emulation.gradient_stats_(*ours, some, count, settled[0])
        OPS.gradient_stats_(*theirs, some, count, settled[1])
        for mine, other in zip([*ours, settled[0]], [*theirs, settled[1]], strict=True):
            assert_same_bits(mine, other)
        count += many
    m2, abssum = settled[0][0] + ours[2], settled[0][1] + ours[3]
    for p in ([0.0], [0.0, 50.0]):
        out = emulation.guided_absgrad_from_stats(m2, abssum, count, p)
        assert_same_bits(out, assert_as_on_cpu(emulation, grads, p))


def test_close_calls(emulation):
    """Percents whose threshold depends on two order statistics (math/percentile.h)."""
    for seed in range(3):
        grads = stack(1, 3, 1, 224, 224, seed=seed)
        assert_as_on_cpu(emulation, grads, [28.0, 85.0, 56.0, 0.0])
    grads = stack(2, 3, 2, 51, 51)  # short rows: p = 7 gives 182.00000000000003
    assert_as_on_cpu(emulation, grads, [7.0, 14.0, 28.0, 55.0, 56.0])
    assert_as_on_cpu(
        emulation, stack(1, 3, 1, 100, 96, dtype=torch.float64), [10.0 * i for i in range(11)]
    )


def test_statistics_of_long_rows_and_at_odd_addresses(emulation):
    grads = stack(2, 7, 3, 96, 100)
    state = new_state(grads)
    emulation.gradient_stats_(*state, grads, 0)
    p = [0.0, 85.0]
    expected = OPS.guided_absgrad(grads, p, True, False)
    assert_same_bits(emulation.guided_absgrad_from_stats(state[2], state[3], 7, p), expected)
    shifted = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape) for t in state]
    for t in shifted:
        t.fill_(float("nan"))
    emulation.gradient_stats_(*shifted, grads, 0)
    for mine, other in zip(shifted, state, strict=True):
        assert_same_bits(mine.clone(), other)
    assert_same_bits(emulation.guided_absgrad_from_stats(shifted[2], shifted[3], 7, p), expected)


# ---- many images in one kernel -------------------------------------------------------------------

NEVER, ALWAYS = 1, 2


@pytest.mark.parametrize("order", [0, 1, 5])
@pytest.mark.parametrize("multiprocessors", [1, 3])
def test_a_pipeline_of_images(emulation, multiprocessors, order):
    """Nine images, more than the ring of one multiprocessor holds; the last ones like any other."""
    grads = stack(9, 3, 2, 96, 88, seed=order)
    run = Run(order, multiprocessors, pipeline=ALWAYS)
    assert_as_on_cpu(emulation, grads, [85.0], run=run)
    assert emulation.report.launches == 1
    assert_as_on_cpu(emulation, grads, [85.0], run=Run(order, multiprocessors, pipeline=NEVER))
    assert emulation.report.launches == 4


def test_a_pipeline_of_one_image_and_of_long_rows(emulation):
    run = Run(3, 2, pipeline=ALWAYS)
    assert_as_on_cpu(emulation, stack(1, 2, 3, 96, 88), [50.0], run=run)
    # Several blocks select, more samples than a run of sums has, a close call of two ranks.
    assert_as_on_cpu(emulation, stack(2, 3, 1, 224, 224), [28.0], run=run)
    assert_as_on_cpu(emulation, stack(3, 45, 1, 96, 88), [99.0], run=run)
    assert emulation.report.launches == 1


def test_a_pipeline_of_ties_and_of_gradients_that_are_not_finite(emulation):
    run = Run(4, 1, pipeline=ALWAYS)
    grads = stack(8, 3, 2, 96, 88).sign()
    grads[2, 1, 1, 3, 4] = float("nan")
    grads[6] = 0
    out = assert_as_on_cpu(emulation, grads, [85.0], run=run)
    assert out.isnan().flatten(2).any(-1)[0].tolist() == [image == 2 for image in range(8)]


def test_where_the_pipeline_is_taken(emulation):
    """Many float32 images whose ring fits the L2 cache, one percent, min-max, dense planes."""

    def launches(images, p=(85.0,), view=lambda g: g, **options):
        grads = view(stack(images, 2, 1, 96, 88))
        emulation.guided_absgrad(grads, list(p), **options, run=Run(0, 1))
        return emulation.report.launches

    assert launches(12) == 1
    assert launches(11) == 4  # fewer than two rings
    assert launches(12, p=(85.0, 95.0)) == 4
    assert launches(12, p=(0.0,)) == 3
    assert launches(12, normalize=False) == 3
    assert launches(12, view=lambda g: g.repeat_interleave(2, dim=-1)[..., ::2]) == 4
    assert launches(12, view=lambda g: g.double()) == launches(12, view=lambda g: g.half()) == 4


def test_a_pipeline_needs_room_for_its_ring_alone(emulation):
    one = torch.zeros(2, 96, 88).nbytes
    emulation.guided_absgrad(stack(40, 2, 2, 96, 88), [85.0], run=Run(0, 1))
    assert emulation.report.launches == 1
    assert emulation.report.workspace_bytes <= 3 * 6 * one + 40 * (2 * 8192 + 2 * 64 + 64) + 4096


# ---- what a call costs ---------------------------------------------------------------------------


def test_launches(emulation):
    """Statistics, selection, maps, min-max; the stack is read in the first alone."""
    grads = stack(2, 4, 3, 96, 96)
    for p in ([85.0], [15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0]):
        emulation.guided_absgrad(grads, p)
        assert emulation.report.launches == 4
    # One more where there would be many candidates: nine p, or large images.
    nine = [10.0 * i for i in range(1, 10)]
    assert_as_on_cpu(emulation, stack(1, 3, 1, 150, 160), [*nine, 95.0])
    assert emulation.report.launches == 5
    emulation.guided_absgrad(grads, [85.0], normalize=False)
    assert emulation.report.launches == 3
    emulation.guided_absgrad(grads, [0.0])  # no selection
    assert emulation.report.launches == 3
    emulation.gradient_stats_(*new_state(grads), grads, 0)
    assert emulation.report.launches == 1


def test_workspace(emulation):
    """Three maps of [B,C,H,W] at most, and the counts: 8 KB a row."""
    one = torch.zeros(2, 3, 224, 224).nbytes
    emulation.guided_absgrad(stack(2, 2, 3, 224, 224), [85.0])
    assert emulation.report.workspace_bytes <= 3 * one + 2 * 3 * (8192 + 64) + 4096
    emulation.guided_absgrad(stack(2, 2, 3, 224, 224), [0.0])
    assert emulation.report.workspace_bytes <= one + 4096


@pytest.mark.parametrize("own", [True, False])
def test_sizes_beyond_32_bits(emulation, own):
    """By arithmetic: what is too large is refused, what is not is counted in 64 bits."""
    most = 2**31 - 1
    assert emulation.workspace_bytes(1, 3, most, 20, [85.0], own) >= 3 * most * 4 * (1 + 2 * own)
    assert emulation.workspace_bytes(2**20, 3, 224**2, 20, [0.0], True) >= 3 * 2**20 * 224**2 * 4
    for sizes in ((1, 3, 2**31, 20), (1, 2**31, 4, 20), (1, 3, 4, 2**31), (1, 1, 2**32, 2)):
        with pytest.raises(RuntimeError, match=r"at most 2\^31 - 1 pixels"):
            emulation.workspace_bytes(*sizes, [85.0], own)


# ---- anything ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_anything(emulation, data):
    draw = data.draw
    B, n, C = draw(st.integers(1, 3)), draw(st.integers(2, 9)), draw(st.integers(1, 6))
    if draw(st.booleans(), label="long rows"):
        H, W = draw(st.integers(85, 120)), draw(st.integers(97, 120))
    else:
        H, W = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    dtype = draw(st.sampled_from(FLOATS))
    grads = stack(B, n, C, H, W, dtype=dtype, seed=draw(st.integers(0, 999)))
    kind = draw(st.sampled_from(["heavy", "ties", "sparse", "huge_mean", "tiny"]))
    if kind == "ties":
        grads = grads.round()
    elif kind == "sparse":
        grads = torch.where(grads > 1, grads, torch.zeros_like(grads))
    elif kind == "huge_mean":
        grads = grads + 1000
    elif kind == "tiny":
        grads = grads * torch.finfo(grads.dtype).tiny
    axes = draw(st.permutations(range(5)))
    inverse = [axes.index(d) for d in range(5)]
    grads = grads.permute(axes).contiguous().permute(inverse)
    p = draw(st.lists(st.floats(0, 100), min_size=1, max_size=11))
    run = Run(draw(st.integers(0, 5)), draw(st.sampled_from([1, 4, 132])))
    options = draw(st.sampled_from([(True, False), (False, False), (False, True)]))
    assert_as_on_cpu(emulation, grads, p, *options, run=run)
