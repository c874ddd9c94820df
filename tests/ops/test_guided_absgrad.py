"""guided_absgrad: right by the equations, the same bits however it is run, clear when refused."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast import ops, reference
from tests.ops import aggregate_oracle as oracle

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
PERCENTS = [0.0, 15.0, 50.0, 85.0, 99.9, 100.0]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def stack(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def channels_last(x):
    """The same values, channels innermost in memory."""
    return x.movedim(-3, -1).contiguous().movedim(-1, -3)


def rows_apart(x):
    """The same values in every other row of a wider tensor."""
    big = torch.full((*x.shape[:-2], 2 * x.shape[-2], x.shape[-1] + 3), torch.nan, dtype=x.dtype)
    big[..., ::2, 2:-1] = x
    return big[..., ::2, 2:-1]


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": channels_last,
    "channels_last_rows_apart": lambda x: rows_apart(channels_last(x).movedim(-3, -1)).movedim(
        -1, -3
    ),
    "rows_apart": rows_apart,
    "columns_apart": lambda x: torch.stack([x, x], dim=-1).flatten(-2)[..., ::2],
    "transposed": lambda x: x.mT.contiguous().mT,
    "samples_first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "samples_last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "unaligned": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
}


class TestByHand:
    """2 gradients of a 2 x 2 image: variance (a-b)^2 / 2, absgrad (|a| + |b|) / 2."""

    STACK = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]], [[[-1.0, 2.0], [1.0, 4.0]]]])
    # variance 2 0 2 8, absgrad 1 2 2 2

    @pytest.mark.parametrize(
        ("p", "expected"),
        [
            (0, [[1.0, 2.0], [2.0, 2.0]]),
            (25, [[1.0, 0.0], [2.0, 2.0]]),  # rank .75: q between 0 and 2, only the 0 is below
            (66, [[1.0, 0.0], [2.0, 2.0]]),  # rank 1.98: q = 2 exactly, ties count as above
            (67, [[2.0, 0.0], [4.0, 2.0]]),  # rank 2.01: q just above 2
            (100, [[2.0, 0.0], [4.0, 2.0]]),
        ],
    )
    def test_raw(self, p, expected):
        got = gag_fast.guided_absgrad(self.STACK, p, normalize=False)
        assert got.tolist() == expected

    def test_normalised(self):
        got = gag_fast.guided_absgrad(self.STACK, 100)
        assert got.tolist() == [[0.5, 0.0], [1.0, 0.5]]

    def test_channels(self):
        two = torch.cat([self.STACK, 2 * self.STACK], dim=1)  # variance x4, absgrad x2
        got = gag_fast.guided_absgrad(two, 100, channels="keep")
        assert got.tolist() == [[[2.0, 0.0], [4.0, 2.0]], [[16.0, 0.0], [32.0, 4.0]]]
        assert gag_fast.guided_absgrad(two, 100, normalize=False).tolist() == [
            [18.0, 0.0],
            [36.0, 6.0],
        ]


@pytest.mark.parametrize("device", DEVICES)
class TestAgainstNumpy:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize(
        "shape",
        [
            (2, 2, 3, 7, 5),
            (1, 3, 1, 1, 1),
            (3, 20, 3, 33, 47),
            (2, 33, 4, 64, 64),
            (1, 5, 2, 1, 300),
            (1, 11, 2, 131, 197),  # several of the CPU kernels' blocks and groups, none full
        ],
    )
    def test_equations(self, device, shape, dtype):
        grads = stack(*shape, dtype=dtype)
        exact = grads.double().numpy()
        bound = 1e-12 if dtype == torch.float64 else 1e-5
        raw = gag_fast.guided_absgrad(grads.to(device), PERCENTS, normalize=False).cpu()
        kept = gag_fast.guided_absgrad(grads.to(device), PERCENTS, channels="keep").cpu()
        maps = gag_fast.guided_absgrad(grads.to(device), PERCENTS).cpu()
        assert raw.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for j, p in enumerate(PERCENTS):
            assert oracle.relative_error(raw[j], oracle.raw(exact, p)) <= bound
            assert oracle.relative_error(kept[j], oracle.raw_channels(exact, p)) <= bound
            assert np.abs(maps[j].numpy() - oracle.saliency(exact, p)).max() <= bound

    def test_real_size(self, device):
        grads = stack(1, 20, 3, 224, 224)
        got = gag_fast.guided_absgrad(grads.to(device), 85, normalize=False).cpu()
        assert oracle.relative_error(got, oracle.raw(grads.numpy(), 85)) <= 1e-5

    @pytest.mark.parametrize("distinct", [1, 2, 3, 40])
    def test_ties(self, device, distinct):
        """Few different pixels, so that whole levels of equal variances meet the percentile."""
        pixels = stack(2, 4, 3, distinct)
        which = torch.randint(0, distinct, (60 * 60,), generator=torch.Generator().manual_seed(1))
        grads = pixels[..., which].reshape(2, 4, 3, 60, 60)
        got = gag_fast.guided_absgrad(grads.to(device), PERCENTS, normalize=False).cpu()
        for j, p in enumerate(PERCENTS):
            assert oracle.relative_error(got[j], oracle.raw(grads.numpy(), p)) <= 1e-5

    def test_ties_of_whole_numbers(self, device):
        grads = torch.randint(-3, 4, (2, 2, 3, 60, 60)).float()  # n = 2: no rounding at all
        got = gag_fast.guided_absgrad(grads.to(device), PERCENTS, normalize=False).cpu()
        for j, p in enumerate(PERCENTS):
            assert oracle.relative_error(got[j], oracle.raw(grads.numpy(), p)) <= 1e-5

    def test_mean_far_from_zero(self, device):
        grads = stack(1, 20, 3, 40, 40) + 1000
        got = gag_fast.guided_absgrad(grads.to(device), 85, normalize=False).cpu()
        assert oracle.relative_error(got, oracle.raw(grads.numpy(), 85)) <= 1e-5

    def test_reference_agrees(self, device):
        grads = stack(2, 5, 3, 24, 31, dtype=torch.float64).to(device)
        got = ops.guided_absgrad(grads, PERCENTS)
        torch.testing.assert_close(got, reference.guided_absgrad(grads, PERCENTS))


class TestSelection:
    """The order statistic of rows long enough for every step of the search for it."""

    N = 30_000

    def check(self, deviation):
        """Rows whose variances are 2 deviation^2, decided at many percents."""
        row = torch.as_tensor(deviation, dtype=torch.float32).reshape(1, 1, 1, -1)
        grads = torch.stack([row, -row], dim=1)
        percents = [0.003, 1.0, 10.0, 33.3, 50.0, 77.7, 85.0, 99.0, 99.997, 100.0]
        got = gag_fast.guided_absgrad(grads, percents, normalize=False)
        for j, p in enumerate(percents):
            assert oracle.relative_error(got[j], oracle.raw(grads.numpy(), p)) <= 1e-5, p

    def test_sorted(self):
        self.check(np.linspace(0, 1, self.N))
        self.check(np.linspace(1, 0, self.N))

    def test_heavy_tail(self):
        self.check(np.exp(np.random.default_rng(0).normal(0, 4, self.N)))

    def test_mostly_zero(self):
        rng = np.random.default_rng(1)
        self.check(rng.random(self.N) * (rng.random(self.N) < 0.3))
        self.check(rng.random(self.N) * (rng.random(self.N) < 0.001))

    def test_two_values(self):
        self.check(np.random.default_rng(2).integers(1, 3, self.N))

    def test_period_of_the_sample(self):
        """Values that repeat with the stride the search samples at."""
        index = np.arange(self.N)
        self.check(np.where(index % (self.N // 128) == self.N // 256, 1e-3, 1 + index / self.N))

    @pytest.mark.filterwarnings("ignore:gradients of .* underflow")
    def test_denormal_variances(self):
        grads = torch.stack([stack(1, 1, 90, 90), -stack(1, 1, 90, 90)], dim=1) * 1e-21
        got = gag_fast.guided_absgrad(grads, 50, channels="keep")
        exact = oracle.raw_channels(grads.numpy(), 50)
        # variance ~ 1e-42 has few bits: the guide is right where it is 1, and tiny elsewhere
        ones = exact > 1e-30
        wrong = (got.numpy() > 1e-30) != ones
        q = oracle.percentile(oracle.variance(grads.numpy()), 50)
        assert (np.abs(oracle.variance(grads.numpy()) - q)[wrong] <= 3e-45).all()


class TestSameBits:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(2, 11, 3, 37, 41), (1, 7, 3, 83, 101)])
    def test_any_layout(self, layout, dtype, shape):
        grads = stack(*shape, dtype=dtype)
        expected = gag_fast.guided_absgrad(grads, PERCENTS)
        assert torch.equal(gag_fast.guided_absgrad(LAYOUTS[layout](grads), PERCENTS), expected)

    @pytest.mark.parametrize(
        "shape", [(1, 3, 4, 1, 9), (2, 3, 4, 9, 1), (2, 3, 1, 6, 5), (2, 3, 4, 1, 1)]
    )
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_axes_of_one(self, layout, shape):
        grads = stack(*shape)
        expected = gag_fast.guided_absgrad(grads, PERCENTS, channels="keep")
        got = gag_fast.guided_absgrad(LAYOUTS[layout](grads), PERCENTS, channels="keep")
        assert torch.equal(got, expected)

    @pytest.mark.parametrize("axis", [0, 1, 2, 3, 4])
    def test_expanded(self, axis):
        shape = (3, 6, 3, 20, 22)
        one = stack(*(1 if d == axis else size for d, size in enumerate(shape)))
        got = gag_fast.guided_absgrad(one.expand(shape), PERCENTS, channels="keep")
        expected = gag_fast.guided_absgrad(
            one.expand(shape).contiguous(), PERCENTS, channels="keep"
        )
        assert torch.equal(got, expected)

    def test_many_channels_last(self):
        grads = stack(1, 3, 100, 12, 13)
        got = gag_fast.guided_absgrad(channels_last(grads), [0, 60])
        assert torch.equal(got, gag_fast.guided_absgrad(grads, [0, 60]))

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
    def test_any_thread_count_and_batch(self, layout):
        grads = LAYOUTS[layout](stack(5, 6, 3, 70, 71))
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            expected = gag_fast.guided_absgrad(grads, PERCENTS)
            for threads in (2, 3, 4, 7):
                torch.set_num_threads(threads)
                assert torch.equal(gag_fast.guided_absgrad(grads, PERCENTS), expected)
                each = [gag_fast.guided_absgrad(image, PERCENTS) for image in grads]
                assert torch.equal(torch.stack(each, dim=1), expected)
        finally:
            torch.set_num_threads(before)

    def test_calls_at_the_same_time(self):
        """Working memory is kept between calls: simultaneous ones must not share it."""
        stacks = [stack(1 + i % 3, 6, 3, 40 + i, 50, seed=i) for i in range(8)]
        expected = [gag_fast.guided_absgrad(grads, PERCENTS) for grads in stacks]
        with ThreadPoolExecutor(4) as pool:
            got = list(pool.map(lambda g: gag_fast.guided_absgrad(g, PERCENTS), stacks * 20))
        assert all(torch.equal(a, b) for a, b in zip(got, expected * 20))

    def test_one_percent_or_many(self):
        grads = stack(2, 6, 3, 30, 30)
        many = gag_fast.guided_absgrad(grads, [85, 0, 15, 85])
        for j, p in enumerate([85, 0, 15, 85]):
            assert torch.equal(many[j], gag_fast.guided_absgrad(grads, p))

    def test_any_simd_level(self):
        script = textwrap.dedent(
            """
            import hashlib, torch, gag_fast
            g = torch.randn(3, 7, 3, 45, 67, generator=torch.Generator().manual_seed(0))
            digest = hashlib.sha256()
            for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
                for scale in (1.0, 3e-5):  # float16: the second is subnormal
                    x = (g * scale).to(dtype)
                    for y in (x, x.mT):
                        maps = gag_fast.guided_absgrad(y, [0, 50, 85, 99.9], channels="keep")
                        stats = gag_fast.GradientStats()
                        stats.update_stack(y)
                        for result in (maps, stats.mean(), stats.variance(), stats.absmean()):
                            digest.update(result.double().numpy().tobytes())
            print(digest.hexdigest())
            """
        )
        features = gag_fast.build_info()["cpu_features"]
        levels = ["baseline"]
        levels += ["avx2"] if "avx2" in features else []
        levels += (
            ["avx512"] if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= {*features} else []
        )
        digests = {
            subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "GAG_FAST_SIMD": level},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for level in levels
        }
        assert len(digests) == 1


@pytest.mark.parametrize("device", DEVICES)
class TestPolicies:
    @pytest.mark.parametrize("value", [0.0, 3.0])
    def test_constant_map_is_zero(self, device, value):
        grads = torch.full((2, 4, 3, 8, 8), value, device=device)
        for p in PERCENTS:
            assert (gag_fast.guided_absgrad(grads, p) == 0).all()

    def test_one_gradient_with_p_zero(self, device):
        grads = stack(2, 1, 3, 8, 8).to(device)
        got = gag_fast.guided_absgrad(grads, 0, normalize=False)
        red, green, blue = grads[:, 0].abs().unbind(1)
        assert torch.equal(got, red + green + blue)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("pixel", [(0, 0), (3, 5), (9, 10)])
    @pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
    def test_non_finite_gradient_spoils_its_image(self, device, bad, pixel, layout):
        grads = stack(3, 4, 3, 10, 11)
        clean = gag_fast.guided_absgrad(grads.to(device), PERCENTS)
        grads[1, 2, 1, *pixel] = bad
        grads = LAYOUTS[layout](grads).to(device)
        got = gag_fast.guided_absgrad(grads, PERCENTS)
        assert got[:, 1].isnan().all()
        assert torch.equal(got[:, [0, 2]], clean[:, [0, 2]])
        raw = gag_fast.guided_absgrad(grads, PERCENTS, normalize=False)
        assert raw[:, 1].isnan().all()
        assert raw[:, [0, 2]].isfinite().all()
        kept = gag_fast.guided_absgrad(grads, PERCENTS, channels="keep")
        assert kept[:, 1, 1].isnan().all()
        assert kept[:, 1, [0, 2]].isfinite().all()

    def test_infinite_variance_of_finite_gradients(self, device):
        """Squares overflow: no percentile, but the absgrad of p = 0 is sound."""
        grads = stack(2, 4, 3, 10, 11).to(device)
        grads[0] *= 1e25
        got = gag_fast.guided_absgrad(grads, [0, 85])
        assert got[1, 0].isnan().all()
        assert got[0].isfinite().all()
        assert got[1, 1].isfinite().all()

    def test_overflowing_product(self, device):
        """Variance and absgrad are finite, their product below q is not."""
        grads = stack(1, 4, 1, 10, 11).to(device) * 1e17
        assert gag_fast.guided_absgrad(grads, 85).isnan().all()
        assert gag_fast.guided_absgrad(grads, 0).isfinite().all()


class TestForms:
    """What goes in decides what comes out."""

    def test_shapes(self):
        one, batch = stack(4, 3, 8, 9), stack(2, 4, 3, 8, 9)
        assert gag_fast.guided_absgrad(one).shape == (8, 9)
        assert gag_fast.guided_absgrad(batch).shape == (2, 8, 9)
        assert gag_fast.guided_absgrad(one, [1, 2, 3]).shape == (3, 8, 9)
        assert gag_fast.guided_absgrad(batch, (1.5,)).shape == (1, 2, 8, 9)
        assert gag_fast.guided_absgrad(one, channels="keep").shape == (3, 8, 9)
        assert gag_fast.guided_absgrad(batch, [1, 2], channels="keep").shape == (2, 2, 3, 8, 9)

    @pytest.mark.parametrize("p", [np.float32(50), np.int64(50), [np.float64(50)], np.array([50])])
    def test_kinds_of_percent(self, p):
        grads = stack(4, 3, 8, 9)
        assert torch.equal(
            gag_fast.guided_absgrad(grads, p).squeeze(), gag_fast.guided_absgrad(grads, 50)
        )

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_numpy_in_numpy_out(self, dtype):
        grads = stack(2, 4, 3, 8, 9).numpy().astype(dtype)
        got = gag_fast.guided_absgrad(grads, 85)
        assert isinstance(got, np.ndarray)
        assert got.dtype == (np.float64 if dtype == np.float64 else np.float32)
        expected = gag_fast.guided_absgrad(torch.from_numpy(grads), 85)
        assert np.array_equal(got, expected.numpy())

    @pytest.mark.parametrize("axis", range(5))
    def test_numpy_axis_of_one_flipped(self, axis):
        shape = [2, 4, 3, 8, 9]
        shape[axis] = 1
        grads = stack(*shape).numpy()
        flipped = np.flip(grads, axis)
        assert flipped.strides[axis] < 0
        expected = gag_fast.guided_absgrad(grads, 0)
        assert np.array_equal(gag_fast.guided_absgrad(flipped, 0), expected)
        copied = np.flip(flipped, 3 if axis < 3 else 2)  # an axis that is walked: a copy is needed
        expected = gag_fast.guided_absgrad(np.ascontiguousarray(copied), 0)
        assert np.array_equal(gag_fast.guided_absgrad(copied, 0), expected)

    def test_numpy_views(self):
        grads = stack(2, 4, 3, 8, 9).numpy()
        frozen = grads.copy()
        frozen.flags.writeable = False
        swapped = grads.astype(grads.dtype.newbyteorder())
        record = np.zeros(grads.shape, dtype=[("pad", "u1"), ("g", "f4")])
        record["g"] = grads
        expected = gag_fast.guided_absgrad(grads)
        for view in (frozen, swapped, record["g"], grads[..., ::-1].copy()[..., ::-1]):
            assert np.array_equal(gag_fast.guided_absgrad(view), expected)

    @pytest.mark.parametrize("kind", [list, tuple])
    @pytest.mark.parametrize("batched", [False, True])
    def test_sequences(self, kind, batched):
        grads = stack(2, 5, 3, 8, 9) if batched else stack(5, 3, 8, 9)
        axis = 1 if batched else 0
        expected = gag_fast.guided_absgrad(grads, [0, 85])
        assert torch.equal(gag_fast.guided_absgrad(kind(grads.unbind(axis)), [0, 85]), expected)
        arrays = kind(g.numpy() for g in grads.unbind(axis))
        got = gag_fast.guided_absgrad(arrays, [0, 85])
        assert isinstance(got, np.ndarray)
        assert np.array_equal(got, expected.numpy())

    def test_sequence_of_one_with_p_zero(self):
        grads = stack(1, 3, 8, 9)
        assert torch.equal(
            gag_fast.guided_absgrad([grads[0]], 0), gag_fast.guided_absgrad(grads, 0)
        )

    def test_input_is_neither_changed_nor_differentiated(self):
        grads = stack(4, 3, 8, 9).requires_grad_()
        before = grads.detach().clone()
        assert not gag_fast.guided_absgrad(grads).requires_grad
        assert not gag_fast.guided_absgrad(list(grads)).requires_grad
        assert torch.equal(grads.detach(), before)

    @pytest.mark.parametrize("p", [85, [0, 50.0]])
    def test_compiles_into_one_graph(self, p):
        def call(grads):
            return gag_fast.guided_absgrad(grads * 2, p, normalize=False) + 1

        grads = stack(2, 4, 3, 8, 9)
        compiled = torch.compile(call, fullgraph=True)
        torch.testing.assert_close(compiled(grads), call(grads))

    def test_memory(self):
        """No copy of the stack: at most 4 maps of [B,C,H,W] beside it."""
        script = textwrap.dedent(
            """
            import resource, torch, gag_fast
            peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            grads = torch.ones(1, 8, 3, 1024, 1024)
            for view in (grads, grads.mT, grads.view(1, 8, 1024, 1024, 3).movedim(-1, 2)):
                gag_fast.guided_absgrad(view[..., :64, :64])
                before = peak()
                gag_fast.guided_absgrad(view)
                assert peak() - before <= 4 * 3 * 1024 * 1024 * 4 + 2**20, view.stride()
            """
        )
        subprocess.run([sys.executable, "-c", script], check=True)


class TestRefusals:
    @pytest.mark.parametrize(
        ("grads", "error", "words"),
        [
            (torch.ones(3, 8, 8), ValueError, r"\[n,C,H,W\] or \[B,n,C,H,W\], got 3 dimensions"),
            (torch.ones(1, 1, 2, 3, 8, 8), ValueError, "got 6 dimensions"),
            (torch.tensor(1.0), ValueError, "got 0 dimensions"),
            (torch.ones(4, 3, 0, 8), ValueError, r"empty axis: shape \[4, 3, 0, 8\]"),
            (torch.ones(0, 3, 8, 8), ValueError, r"empty axis: shape \[0, 3, 8, 8\]"),
            (torch.ones(4, 3, 8, 8, dtype=torch.int64), TypeError, "torch.int64 tensor of shape"),
            (torch.ones(4, 3, 8, 8, dtype=torch.bool), TypeError, "torch.bool"),
            (torch.ones(4, 3, 8, 8, dtype=torch.complex64), TypeError, "torch.complex64"),
            (np.ones((4, 3, 8, 8), np.int32), TypeError, "int32 array of shape"),
            (np.ones((4, 3, 8, 8), np.longdouble), TypeError, "array of shape"),
            (torch.ones(4, 3, 8, 8).to_sparse(), TypeError, "sparse"),
            (torch.ones(4, 3, 8, 8, device="meta"), ValueError, "meta"),
            ([], ValueError, "empty sequence"),
            (None, TypeError, "NoneType None"),
            ("grads", TypeError, "str 'grads'"),
            (iter([torch.ones(3, 8, 8)]), TypeError, "iterator"),
            ([torch.ones(3, 8, 8), 1.0], TypeError, r"grads\[1\].*float 1.0"),
            ([torch.ones(3, 8, 8), np.ones((3, 8, 8))], TypeError, "mixes tensors and arrays"),
            ([torch.ones(3, 8, 8), torch.ones(3, 8, 7)], ValueError, r"\[3, 8, 7\]"),
            ([torch.ones(3, 8, 8), torch.ones(3, 8, 8).half()], TypeError, "float16"),
            ([torch.ones(3, 8, 8), torch.ones(3, 8, 8, device="meta")], ValueError, "meta"),
            ([torch.ones(8, 8)] * 2, ValueError, r"grads\[0\] must be \[C,H,W\] or \[B,C,H,W\]"),
        ],
    )
    def test_grads(self, grads, error, words):
        with pytest.raises(error, match=words):
            gag_fast.guided_absgrad(grads)

    @pytest.mark.parametrize(
        ("p", "error", "words"),
        [
            (101, ValueError, r"\[0, 100\], got 101"),
            (-0.1, ValueError, "got -0.1"),
            (float("nan"), ValueError, "got nan"),
            ([50, 101], ValueError, "got 101"),
            ([], ValueError, "empty sequence"),
            (True, TypeError, "got True"),
            ([85, False], TypeError, "got False"),
            ("85", TypeError, "got '85'"),
            (None, TypeError, "got None"),
            (85j, TypeError, "got 85j"),
            ([[85]], TypeError, r"got \[85\]"),
        ],
    )
    def test_percents(self, p, error, words):
        with pytest.raises(error, match=words):
            gag_fast.guided_absgrad(torch.ones(4, 3, 8, 8), p)

    @pytest.mark.parametrize("grads", [torch.ones(1, 3, 8, 8), [torch.ones(3, 8, 8)]])
    @pytest.mark.parametrize("p", [85, [0, 1e-9]])
    def test_one_gradient_has_no_variance(self, grads, p):
        with pytest.raises(ValueError, match=r"at least 2 gradients, got .* = 1"):
            gag_fast.guided_absgrad(grads, p)

    @pytest.mark.parametrize("channels", ["mean", None, 3])
    def test_channels(self, channels):
        with pytest.raises(ValueError, match='"sum" or "keep", got'):
            gag_fast.guided_absgrad(torch.ones(4, 3, 8, 8), channels=channels)

    def test_operator_checks_by_itself(self):
        grads = torch.ones(1, 4, 3, 8, 8)
        for arguments in (
            (grads[0], [85.0]),
            (grads[:, :1], [85.0]),
            (grads, [101.0]),
            (grads, []),
        ):
            with pytest.raises(RuntimeError, match="guided_absgrad"):
                ops.guided_absgrad(*arguments)
