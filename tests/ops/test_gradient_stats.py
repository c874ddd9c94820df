"""GradientStats: the one-shot call's results from samples that come one by one, or in parts."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

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
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PERCENTS = [0, 15, 85, 99.9, 100]


def stack(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fed(samples):
    stats = gag_fast.GradientStats()
    for sample in samples:
        stats.update(sample)
    return stats


def channels_last(sample):
    return sample.movedim(-3, -1).contiguous().movedim(-1, -3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
class TestSameAsOneShot:
    def test_bits(self, device, dtype):
        grads = stack(2, 7, 3, 21, 19, dtype=dtype).to(device)
        stats = fed(grads.unbind(1))
        assert stats.count == 7
        for normalize, channels in ((True, "sum"), (False, "sum"), (True, "keep")):
            got = stats.guided_absgrad(PERCENTS, normalize, channels)
            expected = gag_fast.guided_absgrad(
                grads, PERCENTS, normalize=normalize, channels=channels
            )
            assert torch.equal(got, expected)

    def test_layouts(self, device, dtype):
        grads = stack(2, 4, 3, 21, 19, dtype=dtype).to(device)
        expected = gag_fast.guided_absgrad(grads, PERCENTS)
        for view in (channels_last, lambda x: x.mT.contiguous().mT):
            got = fed(view(g) for g in grads.unbind(1)).guided_absgrad(PERCENTS)
            assert torch.equal(got, expected)

    def test_in_parts(self, device, dtype):
        grads = stack(2, 25, 3, 21, 19, dtype=dtype).to(device)
        stats = gag_fast.GradientStats()
        for part in (grads[:, :1], grads[:, 1:4], grads[:, 4:24].mT.contiguous().mT, grads[:, 24:]):
            stats.update_stack(part)
        assert stats.count == 25
        assert torch.equal(stats.guided_absgrad(PERCENTS), gag_fast.guided_absgrad(grads, PERCENTS))

    def test_statistics(self, device, dtype):
        grads = stack(2, 20, 3, 21, 19, dtype=dtype).to(device)
        stats = fed(grads.unbind(1))
        exact = grads.double().cpu().numpy()
        bound = 1e-12 if dtype == torch.float64 else 1e-5
        assert oracle.relative_error(stats.variance().cpu(), oracle.variance(exact)) <= bound
        assert oracle.relative_error(stats.absmean().cpu(), oracle.absgrad(exact)) <= bound
        assert np.abs(stats.mean().cpu().numpy() - exact.mean(axis=1)).max() <= bound
        assert stats.mean().dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


class TestByHand:
    def test_three_samples(self):
        stats = fed(torch.tensor([[[value]]]) for value in (1.0, -2.0, 4.0))
        assert stats.mean().item() == 1.0
        assert stats.absmean().item() == pytest.approx(7 / 3, rel=1e-7)
        assert stats.variance().item() == pytest.approx(9.0, rel=1e-6)

    def test_far_from_zero(self):
        """mean / std = 1e4, which plain sums of squares in float32 do not survive."""
        grads = 1e4 + stack(50, 3, 16, 16)
        stats = fed(grads)
        assert oracle.relative_error(stats.variance(), oracle.variance(grads[None])[0]) <= 1e-5

    def test_many_samples(self):
        grads = stack(1, 1000, 1, 8, 8)
        stats = fed(grads.unbind(1))
        assert oracle.relative_error(stats.variance(), oracle.variance(grads)) <= 1e-5

    def test_reference_agrees(self):
        grads = stack(2, 6, 3, 5, 4, dtype=torch.float64)
        mine = [torch.empty(2, 3, 5, 4, dtype=torch.float64) for _ in range(4)]
        theirs = [torch.empty_like(t) for t in mine]
        for part, count in ((grads[:, :4], 0), (grads[:, 4:], 4)):
            ops.gradient_stats_(*mine, part, count)
            reference.gradient_stats_(*theirs, part, count)
        for a, b in zip(mine, theirs):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(
            ops.guided_absgrad_from_stats(mine[2], mine[3], 6, [0.0, 85.0]),
            reference.guided_absgrad_from_stats(theirs[2], theirs[3], 6, [0.0, 85.0]),
        )


@pytest.mark.parametrize("device", DEVICES)
class TestMerge:
    @pytest.mark.parametrize("cut", [1, 2, 7, 13])
    @pytest.mark.parametrize("offset", [0.0, 1e3, -1e4])
    def test_two_parts(self, device, cut, offset):
        grads = (stack(2, 14, 3, 16, 16) + offset).to(device)
        left, right = fed(grads[:, :cut].unbind(1)), fed(grads[:, cut:].unbind(1))
        kept = right.mean().clone()
        left.merge(right)
        exact = grads.double().cpu().numpy()
        assert left.count == 14
        assert oracle.relative_error(left.variance().cpu(), oracle.variance(exact)) <= 1e-5
        assert oracle.relative_error(left.absmean().cpu(), oracle.absgrad(exact)) <= 1e-6
        mean_error = np.abs(left.mean().cpu().numpy() - exact.mean(axis=1)).max()
        assert mean_error <= 1e-6 * (1 + abs(offset))
        assert right.count == 14 - cut
        assert torch.equal(right.mean(), kept)

    def test_parts_about_different_means(self, device):
        grads = torch.cat([stack(1, 8, 3, 16, 16), stack(1, 5, 3, 16, 16, seed=1) + 300], dim=1)
        left, right = fed(grads[:, :8].to(device).unbind(1)), fed(grads[:, 8:].to(device).unbind(1))
        left.merge(right)
        assert oracle.relative_error(left.variance().cpu(), oracle.variance(grads)) <= 1e-5

    def test_many_parts_in_any_order(self, device):
        grads = stack(1, 30, 3, 16, 16).to(device)
        parts = [fed(grads[:, i : i + 3].unbind(1)) for i in range(0, 30, 3)]
        total = gag_fast.GradientStats()
        for part in reversed(parts):
            total.merge(part)
        exact = grads.double().cpu().numpy()
        assert oracle.relative_error(total.variance().cpu(), oracle.variance(exact)) <= 1e-5
        expected = oracle.saliency(exact, 85)
        assert np.abs(total.guided_absgrad(85).cpu().numpy() - expected).max() <= 1e-5

    def test_updates_go_on_after_a_merge(self, device):
        grads = stack(1, 9, 3, 16, 16).to(device)
        left, right = fed(grads[:, :3].unbind(1)), fed(grads[:, 3:6].unbind(1))
        left.merge(right)
        left.update_stack(grads[:, 6:])
        assert left.count == 9
        exact = grads.double().cpu().numpy()
        assert oracle.relative_error(left.variance().cpu(), oracle.variance(exact)) <= 1e-5

    def test_with_nothing(self, device):
        grads = stack(2, 5, 3, 8, 8).to(device)
        stats, empty = fed(grads.unbind(1)), gag_fast.GradientStats()
        expected = stats.guided_absgrad()
        stats.merge(empty)
        assert torch.equal(stats.guided_absgrad(), expected)
        empty.merge(stats)
        assert torch.equal(empty.guided_absgrad(), expected)
        empty.update(grads[:, 0])  # a copy: the other one does not see it
        assert stats.count == 5
        assert torch.equal(stats.guided_absgrad(), expected)
        nothing = gag_fast.GradientStats()
        nothing.merge(gag_fast.GradientStats())
        assert nothing.count == 0


class TestForms:
    def test_shapes_without_a_batch(self):
        stats = fed(stack(4, 3, 8, 9))
        assert stats.mean().shape == stats.variance().shape == stats.absmean().shape == (3, 8, 9)
        assert stats.guided_absgrad().shape == (8, 9)
        assert stats.guided_absgrad([1, 2]).shape == (2, 8, 9)
        assert stats.guided_absgrad([1, 2], channels="keep").shape == (2, 3, 8, 9)

    def test_numpy(self):
        grads = stack(4, 2, 3, 8, 9)
        stats, same = fed(grads.numpy()), fed(grads)
        for name in ("mean", "absmean", "variance", "guided_absgrad"):
            got = getattr(stats, name)()
            assert isinstance(got, np.ndarray)
            assert np.array_equal(got, getattr(same, name)().numpy())

    def test_half_precision_accumulates_in_float32(self):
        grads = stack(30, 3, 8, 9, dtype=torch.float16)
        stats = fed(grads)
        assert stats.variance().dtype == torch.float32
        exact = oracle.variance(grads.double().numpy()[None])[0]
        assert oracle.relative_error(stats.variance(), exact) <= 1e-5

    def test_mixed_lower_precisions(self):
        stats = fed([stack(3, 8, 9), stack(3, 8, 9, dtype=torch.bfloat16)])
        assert stats.count == 2

    def test_sample_memory_may_be_reused(self):
        grads = stack(5, 3, 8, 9)
        buffer, stats = torch.empty(3, 8, 9), gag_fast.GradientStats()
        for grad in grads:
            stats.update(buffer.copy_(grad))
        buffer.fill_(torch.nan)
        assert torch.equal(stats.guided_absgrad(), gag_fast.guided_absgrad(grads))

    def test_results_are_copies(self):
        stats = fed(stack(5, 3, 8, 9))
        expected = stats.variance().clone()
        for name in ("mean", "absmean", "variance"):
            getattr(stats, name)().fill_(7)
        assert torch.equal(stats.variance(), expected)

    def test_not_differentiated(self):
        grads = stack(5, 3, 8, 9).requires_grad_()
        assert not fed(grads).guided_absgrad().requires_grad

    def test_inference_mode_and_back(self):
        grads = stack(5, 3, 8, 9)
        with torch.inference_mode():
            stats = fed(grads[:2])
        stats.update_stack(grads[2:])
        assert torch.equal(stats.guided_absgrad(), gag_fast.guided_absgrad(grads))

    def test_copies_and_pickles(self):
        stats = fed(stack(5, 3, 8, 9))
        for other in (copy.deepcopy(stats), pickle.loads(pickle.dumps(stats))):
            assert torch.equal(other.guided_absgrad(), stats.guided_absgrad())
            other.update(stack(3, 8, 9))
            assert (other.count, stats.count) == (6, 5)

    @pytest.mark.parametrize("samples", [5, 45])  # 45: two more maps
    def test_a_copy_shares_nothing(self, samples):
        grads = stack(samples + 1, 3, 8, 9)
        stats = fed(grads[:-1])
        expected = stats.guided_absgrad()
        copies = (copy.copy(stats), copy.deepcopy(stats), pickle.loads(pickle.dumps(stats)))
        for other in copies:
            other.update(grads[-1])
            other.merge(other)
        assert stats.count == samples
        assert torch.equal(stats.guided_absgrad(), expected)
        stats.update(grads[-1])
        assert torch.equal(stats.guided_absgrad(), gag_fast.guided_absgrad(grads))
        for other in copies:
            assert other.count == 2 * samples + 2
            twice = gag_fast.guided_absgrad(grads.repeat(2, 1, 1, 1))
            assert (other.guided_absgrad() - twice).abs().max() < 1e-5

    def test_copies_of_nothing(self):
        for other in (copy.copy(gag_fast.GradientStats()), copy.deepcopy(gag_fast.GradientStats())):
            other.update(stack(3, 8, 9))
            assert other.count == 1

    def test_repr(self):
        assert repr(gag_fast.GradientStats()) == "GradientStats(count=0, shape=None)"
        assert repr(fed(stack(2, 3, 8, 9))) == "GradientStats(count=2, shape=[3, 8, 9])"


class TestThreads:
    """Eight threads on one object: no update is lost, whatever they do at the same time."""

    def run(self, work):
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, i) for i in range(8)]:
                done.result()

    def test_updates(self):
        grads = stack(8, 60, 3, 64, 64)
        stats = gag_fast.GradientStats()
        stats.update(grads[0, 0])  # the shift, whoever comes first

        def work(i):
            for grad in grads[i, i == 0 :]:
                stats.update(grad)

        self.run(work)
        exact = grads.flatten(0, 1).double().numpy()
        assert stats.count == 480
        assert oracle.relative_error(stats.absmean(), np.abs(exact).mean(axis=0)) <= 1e-6
        assert oracle.relative_error(stats.variance(), exact.var(axis=0, ddof=1)) <= 1e-5

    def test_the_first_update(self):
        for _ in range(20):
            stats = gag_fast.GradientStats()
            self.run(lambda i, stats=stats: stats.update(torch.full((3, 4, 4), float(i + 1))))
            assert stats.count == 8
            assert (stats.absmean() == 4.5).all()

    def test_merges_into_one_another(self):
        left, right = fed(stack(3, 3, 8, 9)), fed(stack(3, 3, 8, 9, seed=1))
        self.run(lambda i: left.merge(right) if i % 2 else right.merge(left))
        assert left.count + right.count > 6  # nobody waits for ever

    def test_reads_and_copies_between_updates(self):
        grads = stack(8, 40, 3, 16, 16).abs() + 1
        stats = fed([grads[0, 0]])

        def work(i):
            for grad in grads[i]:
                stats.update(grad)
                seen = copy.copy(stats)
                assert (seen.absmean() >= 1).all()
                assert seen.guided_absgrad(0).isfinite().all()

        self.run(work)
        assert stats.count == 321


class TestRefusals:
    def test_a_failed_first_update_leaves_nothing_behind(self, monkeypatch):
        stats = gag_fast.GradientStats()
        with pytest.raises(ValueError, match="got 2 dimensions"):
            stats.update(torch.ones(8, 8))
        with monkeypatch.context() as broken:
            broken.setattr(ops, "gradient_stats_", Mock(side_effect=RuntimeError("no memory")))
            for fail in (stats.update, lambda g: stats.update_stack(g[None])):
                with pytest.raises(RuntimeError, match="no memory"):
                    fail(torch.ones(3, 8, 8))
        assert repr(stats) == "GradientStats(count=0, shape=None)"
        stats.update(torch.ones(2, 3, 5, 7, dtype=torch.float64))
        assert repr(stats) == "GradientStats(count=1, shape=[2, 3, 5, 7])"

    @pytest.mark.parametrize(
        ("sample", "error", "words"),
        [
            (torch.ones(3, 8, 7), ValueError, r"of shape \[3, 8, 8\], got \[3, 8, 7\]"),
            (torch.ones(1, 3, 8, 8), ValueError, r"of shape \[3, 8, 8\], got \[1, 3, 8, 8\]"),
            (
                torch.ones(3, 8, 8, dtype=torch.float64),
                TypeError,
                "torch.float32, got torch.float64",
            ),
            (torch.ones(3, 8, 8, dtype=torch.int32), TypeError, "torch.int32"),
            (torch.ones(8, 8), ValueError, "got 2 dimensions"),
            (torch.ones(3, 0, 8), ValueError, "empty axis"),
            ([[1.0]], TypeError, "got a list"),
        ],
    )
    def test_update(self, sample, error, words):
        stats = fed([torch.ones(3, 8, 8)])
        with pytest.raises(error, match=words):
            stats.update(sample)
        assert stats.count == 1

    def test_merge(self):
        stats = fed([torch.ones(3, 8, 8)])
        with pytest.raises(TypeError, match="needs a GradientStats, got int 1"):
            stats.merge(1)
        with pytest.raises(ValueError, match=r"\[3, 8, 8\], got \[3, 8, 7\]"):
            stats.merge(fed([torch.ones(3, 8, 7)]))
        with pytest.raises(TypeError, match="float64"):
            stats.merge(fed([torch.ones(3, 8, 8, dtype=torch.float64)]))

    def test_too_few_samples(self):
        stats = gag_fast.GradientStats()
        for name in ("mean", "absmean", "variance", "guided_absgrad"):
            with pytest.raises(ValueError, match="count = 0"):
                getattr(stats, name)()
        stats.update(torch.ones(3, 8, 8))
        with pytest.raises(ValueError, match="variance needs at least 2 samples, got count = 1"):
            stats.variance()
        with pytest.raises(ValueError, match="at least 2 gradients, got count = 1"):
            stats.guided_absgrad(85)
        assert (stats.guided_absgrad(0) == 0).all()

    def test_percent_and_channels(self):
        stats = fed(torch.ones(2, 3, 8, 8))
        with pytest.raises(ValueError, match="got 101"):
            stats.guided_absgrad(101)
        with pytest.raises(ValueError, match="got 'mean'"):
            stats.guided_absgrad(channels="mean")

    def test_operator_checks_by_itself(self):
        state = [torch.zeros(1, 3, 8, 8) for _ in range(4)]
        grads = torch.ones(1, 2, 3, 8, 8)
        bad = (
            (*state, grads[..., :7], 0),
            (*state, grads.double(), 0),
            (*state, grads, -1),
            (*state[:3], torch.zeros(1, 8, 8, 3).movedim(-1, 1), grads, 0),
        )
        for arguments in bad:
            with pytest.raises(RuntimeError, match="gradient_stats_"):
                ops.gradient_stats_(*arguments)
