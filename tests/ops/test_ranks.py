"""saliency_ranks: descending, ties by pixel index, for every kind of float."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gag_fast import ops
from tests.ops import native_items

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
DTYPES = [torch.float32, torch.float64]
INF, NAN = float("inf"), float("nan")


def oracle(maps: torch.Tensor) -> np.ndarray:
    """order [M, H*W] by NumPy's stable sort; NaN behind everything, -0.0 as 0.0."""
    values = maps.cpu().reshape(maps.shape[0], -1).numpy().astype(np.float64)
    keys = np.where(np.isnan(values), np.inf, -values)
    return np.stack([np.lexsort((np.isnan(v), k)) for v, k in zip(values, keys)])


def check(maps):
    ranks, order = ops.saliency_ranks(maps)
    assert ranks.dtype == order.dtype == torch.int32
    assert ranks.device == order.device == maps.device
    np.testing.assert_array_equal(order.cpu().numpy(), oracle(maps))
    places = torch.arange(order.shape[1], dtype=torch.int32).expand(order.shape)
    assert torch.equal(torch.gather(ranks.cpu(), 1, order.cpu().long()), places)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
class TestRanks:
    def test_by_hand(self, device, dtype):
        maps = torch.tensor([[[0.5, 0.9], [0.5, 0.1]], [[0.0, -0.0], [-1.0, 2.0]]], dtype=dtype)
        ranks, order = ops.saliency_ranks(maps.to(device))
        assert order.tolist() == [[1, 0, 2, 3], [3, 0, 1, 2]]
        assert ranks.tolist() == [[1, 0, 2, 3], [1, 2, 3, 0]]

    def test_every_kind_of_float(self, device, dtype):
        tiny, smallest = torch.finfo(dtype).tiny, torch.finfo(dtype).smallest_normal / 2**20
        values = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, -NAN, tiny, -tiny, smallest, -smallest]
        row = torch.tensor(values + values[::-1], dtype=dtype, device=device)
        check(row.view(1, 4, 6))
        ranks, _ = ops.saliency_ranks(row.view(1, 4, 6))
        assert sorted(ranks[0, [6, 7, 16, 17]].tolist()) == [20, 21, 22, 23]

    @pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 31, 33), (5, 224, 224)])
    def test_random_maps(self, device, dtype, shape):
        generator = torch.Generator().manual_seed(1)
        check(torch.rand(shape, generator=generator, dtype=dtype).to(device))
        check(torch.randn(shape, generator=generator, dtype=dtype).mul(1e30).to(device))

    def test_ties_and_constants(self, device, dtype):
        generator = torch.Generator().manual_seed(2)
        few = torch.randint(-2, 3, (4, 65, 67), generator=generator).to(dtype)
        few[3] = 0.25
        check(few.to(device))

    def test_values_that_differ_in_one_bit(self, device, dtype):
        one = torch.ones(1, 16, 16, dtype=dtype)
        bits = one.view(torch.int32 if dtype == torch.float32 else torch.int64)
        bits += torch.randperm(256, generator=torch.Generator().manual_seed(3)).view(1, 16, 16)
        check(one.to(device))

    def test_any_strides(self, device, dtype):
        maps = torch.rand(6, 20, 24, dtype=dtype, device=device)
        for view in (
            maps.transpose(1, 2),
            maps[::2, 1:, ::3],
            maps.flip(0),
            maps[:1].expand(3, -1, -1),
        ):
            check(view)

    def test_maps_are_ranked_alone(self, device, dtype):
        maps = torch.rand(7, 9, 11, dtype=dtype, device=device) * torch.arange(1, 8).to(
            device, dtype
        ).view(7, 1, 1)
        ranks, order = ops.saliency_ranks(maps)
        for m in range(7):
            alone = ops.saliency_ranks(maps[m : m + 1])
            assert torch.equal(alone[0][0], ranks[m])
            assert torch.equal(alone[1][0], order[m])

    def test_no_maps(self, device, dtype):
        ranks, order = ops.saliency_ranks(torch.zeros(0, 3, 4, dtype=dtype, device=device))
        assert ranks.shape == order.shape == (0, 12)

    def test_bad_arguments_are_named(self, device, dtype):
        maps = torch.zeros(2, 3, 4, dtype=dtype, device=device)
        with pytest.raises(RuntimeError, match=r"maps must be \[M,H,W\], got 2 dimensions"):
            ops.saliency_ranks(maps[0])
        with pytest.raises(RuntimeError, match="maps must be float32 or float64"):
            ops.saliency_ranks(maps.half())
        with pytest.raises(RuntimeError, match="maps are empty, 0 x 4 pixels"):
            ops.saliency_ranks(maps[:, :0])


@given(
    st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0]), min_size=1, max_size=40),
    st.sampled_from(DTYPES),
)
def test_any_floats(values, dtype):
    check(torch.tensor(values, dtype=dtype).view(1, 1, -1))


def test_cuda_sort_keys_order_like_the_cpu_operator():
    values = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-45, -1e-45, 3e38, -3e38, 0.5, 0.5]
    x = np.array(values, np.float32)
    order = np.argsort(native_items.sort_keys(x, 0), kind="stable")
    _, expected = ops.saliency_ranks(torch.from_numpy(x).view(1, 1, -1))
    assert order.tolist() == expected[0].tolist()
    # Whatever the values, an earlier map's keys are below a later map's.
    assert native_items.sort_keys(x, 4).max() < native_items.sort_keys(x, 5).min()
