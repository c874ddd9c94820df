"""compose_: masked copies by definition, in every layout and dtype, and refusal of bad slots."""

import numpy as np
import pytest
import torch

from gag_fast import ops
from tests.ops import native_items

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
PLANAR, LAST = torch.contiguous_format, torch.channels_last
LAYOUTS = [PLANAR, LAST]
DTYPES = [torch.float32, torch.float16]


def case(c=3, h=33, w=40, maps=4, sources=3, copies=24, seed=0):
    """Sources, colour, ranks, and slots of every kind."""
    g = torch.Generator().manual_seed(seed)
    values = torch.randn(sources, c, h, w, generator=g)
    fill = torch.randn(c, generator=g)
    ranks, _ = ops.saliency_ranks(torch.rand(maps, h, w, generator=g))
    pixels = h * w
    count = torch.randint(-2, pixels + 3, (copies,), generator=g)
    count[:5] = torch.tensor([0, pixels, 1, pixels - 1, -1])
    columns = [
        torch.randint(0, maps, (copies,), generator=g),
        count,
        torch.randint(-1, sources, (copies,), generator=g),
        torch.randint(-1, sources, (copies,), generator=g),
    ]
    slots = torch.stack(columns, 1).int()
    slots[0, 0] = slots[1, 0] = slots[4, 0] = -1
    return values, fill, ranks, slots


def oracle(values, fill, ranks, slots, dtype):
    _, c, h, w = values.shape
    constant = fill.view(1, c, 1, 1).expand(1, c, h, w)
    pictures = torch.cat([values, constant])  # index -1 is the colour
    copies = []
    for m, count, top, rest in slots.tolist():
        if count <= 0 or count >= h * w:
            copies.append(pictures[top if count > 0 else rest])
        else:
            copies.append(torch.where(ranks[m].view(h, w) < count, pictures[top], pictures[rest]))
    return torch.stack(copies).to(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
class TestCompose:
    def run(self, device, dtype, layout, inputs, source_layout=None):
        values, fill, ranks, slots = (t.to(device) for t in inputs)
        values = values.to(memory_format=source_layout or layout)
        out = torch.full((len(slots), *values.shape[1:]), -7.0, dtype=dtype, device=device)
        out = out.to(memory_format=layout)
        ops.compose_(out, values, fill, ranks, slots)
        return out.cpu()

    @pytest.mark.parametrize(
        "shape", [(3, 33, 40), (1, 5, 5), (2, 7, 9), (3, 1, 1), (3, 64, 64), (5, 40, 41)]
    )
    def test_equals_the_definition(self, device, dtype, layout, shape):
        inputs = case(*shape)
        assert torch.equal(self.run(device, dtype, layout, inputs), oracle(*inputs, dtype))

    def test_by_hand(self, device, dtype, layout):
        values = torch.arange(1.0, 9.0).view(1, 2, 2, 2)
        ranks, _ = ops.saliency_ranks(torch.tensor([[[0.1, 0.9], [0.9, 0.3]]]))
        slots = torch.tensor([[0, 2, -1, 0], [0, 2, 0, -1], [-1, 0, 0, -1]], dtype=torch.int32)
        out = self.run(device, dtype, layout, (values, torch.tensor([0.0, -1.0]), ranks, slots))
        deletion, insertion, blank = out.tolist()
        assert deletion == [[[1, 0], [0, 4]], [[5, -1], [-1, 8]]]
        assert insertion == [[[0, 2], [3, 0]], [[-1, 6], [7, -1]]]
        assert blank == [[[0, 0], [0, 0]], [[-1, -1], [-1, -1]]]

    @pytest.mark.parametrize("source_layout", LAYOUTS)
    def test_sources_in_the_other_layout(self, device, dtype, layout, source_layout):
        inputs = case()
        out = self.run(device, dtype, layout, inputs, source_layout)
        assert torch.equal(out, oracle(*inputs, dtype))

    def test_sources_with_other_strides(self, device, dtype, layout):
        values, fill, ranks, slots = case(h=12, w=12)
        view = values.transpose(2, 3)
        out = torch.empty(len(slots), 3, 12, 12, dtype=dtype, device=device)
        out = out.to(memory_format=layout)
        ops.compose_(out, *(t.to(device) for t in (view, fill, ranks, slots)))
        assert torch.equal(out.cpu(), oracle(view, fill, ranks, slots, dtype))

    def test_writes_the_part_of_a_buffer_it_is_given(self, device, dtype, layout):
        values, fill, ranks, slots = (t.to(device) for t in case(copies=6))
        buffer = torch.full((10, 3, 33, 40), -7.0, dtype=dtype, device=device)
        buffer = buffer.to(memory_format=layout)
        ops.compose_(buffer[2:8], values, fill, ranks, slots)
        assert torch.equal(
            buffer[2:8].cpu(), oracle(*(t.cpu() for t in (values, fill, ranks, slots)), dtype)
        )
        assert (buffer[:2] == -7).all()
        assert (buffer[8:] == -7).all()

    def test_colour_alone_needs_no_sources_and_no_ranks(self, device, dtype, layout):
        slots = torch.tensor([[-1, 0, -1, -1]], dtype=torch.int32)
        inputs = (torch.zeros(0, 3, 4, 4), torch.tensor([1.0, 2.0, 3.0]), torch.zeros(0, 16).int())
        out = self.run(device, dtype, layout, (*inputs, slots))
        assert torch.equal(out[0, :, 2, 1], torch.tensor([1.0, 2.0, 3.0], dtype=dtype))

    def test_special_values_pass_through(self, device, dtype, layout):
        values, fill, ranks, slots = case(copies=6)
        values[0, :, 3, 3] = float("nan")
        values[1, :, 4, 4] = float("inf")
        slots[:, 2:] = torch.tensor([0, 1])
        out = self.run(device, dtype, layout, (values, fill, ranks, slots))
        expected = oracle(values, fill, ranks, slots, dtype)
        assert torch.equal(out.isnan(), expected.isnan())
        assert torch.equal(out.nan_to_num(7.0), expected.nan_to_num(7.0))

    def test_no_copies(self, device, dtype, layout):
        values, fill, ranks, slots = case()
        assert self.run(device, dtype, layout, (values, fill, ranks, slots[:0])).shape[0] == 0


@pytest.mark.parametrize("c", [1, 2, 3])
@pytest.mark.parametrize("size", [(4, 4), (8, 33), (5, 7)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [1, 4])
def test_cuda_body_gives_the_bits_of_the_definition(c, size, dtype, layout, width):
    values, fill, ranks, slots = case(c, *size)
    if values[0].numel() % width:
        pytest.skip("copies do not begin on 16-byte boundaries")
    out = torch.empty(len(slots), c, *size, dtype=dtype).to(memory_format=layout)
    dense = values.to(memory_format=layout)
    native_items.compose_(out, dense, fill, ranks, slots, width=width)
    assert torch.equal(out, oracle(values, fill, ranks, slots, dtype))


BAD = [(4, 5, 0, 0), (-1, 5, 0, 0), (0, 5, 3, 0), (0, 5, 0, 3), (0, 5, -2, 0), (0, 0, 0, -2)]


@pytest.mark.parametrize("bad", BAD)
def test_a_slot_out_of_range_is_refused_before_anything_is_written(bad):
    values, fill, ranks, slots = case()
    slots[3] = torch.tensor(bad)
    out = torch.full((len(slots), 3, 33, 40), -7.0)
    message = (
        rf"slot 3 is \(map {bad[0]}, count {bad[1]}, top {bad[2]}, rest {bad[3]}\) with 4 maps"
    )
    with pytest.raises(RuntimeError, match=message):
        ops.compose_(out, values, fill, ranks, slots)
    assert (out == -7).all()


@pytest.mark.parametrize("bad", BAD)
def test_cuda_body_turns_a_slot_out_of_range_into_nan(bad):
    values, fill, ranks, slots = case(copies=6)
    slots[3] = torch.tensor(bad)
    out = torch.empty(6, 3, 33, 40)
    native_items.compose_(out, values, fill, ranks, slots, width=4)
    assert out[3].isnan().all()
    assert not out[[0, 1, 2, 4, 5]].isnan().any()


def test_bad_arguments_are_named():
    values, fill, ranks, slots = case()
    out = torch.empty(len(slots), 3, 33, 40)
    with pytest.raises(RuntimeError, match="out must be float32 or float16"):
        ops.compose_(out.double(), values, fill, ranks, slots)
    with pytest.raises(RuntimeError, match="out must be contiguous or channels_last"):
        ops.compose_(out.transpose(2, 3), values, fill, ranks, slots)
    with pytest.raises(RuntimeError, match="axis 3 is 39 in sources, 40 in out"):
        ops.compose_(out, values[..., 1:], fill, ranks, slots)
    with pytest.raises(
        RuntimeError, match="fill must be a contiguous float32 vector of 3 elements"
    ):
        ops.compose_(out, values, fill[:2], ranks, slots)
    with pytest.raises(RuntimeError, match=r"ranks must be contiguous int32 \[M, 1320\], got 4 el"):
        ops.compose_(out, values, fill, ranks[:, :1], slots)
    with pytest.raises(RuntimeError, match=r"slots must be contiguous int32 \[24, 4\], got 20 el"):
        ops.compose_(out, values, fill, ranks, slots[:5])
    with pytest.raises(RuntimeError, match="sources must be float32"):
        ops.compose_(out, values.double(), fill, ranks, slots)


class TestHalf:
    def compare(self, x):
        got = native_items.halves(x)
        with np.errstate(over="ignore"):
            expected = x.astype(np.float16)
        nan = np.isnan(x)
        assert np.isnan(got.view(np.float16)[nan]).all()
        np.testing.assert_array_equal(got[~nan], expected.view(np.uint16)[~nan])

    def test_every_float16_and_every_point_halfway_between_two(self):
        exact = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
        middle = (exact[:-1] + exact[1:]) / 2
        near = [middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)]
        x = np.concatenate([exact, *near, [65519.996, 65520.0, 65536.0, np.inf, np.nan]])
        x = x.astype(np.float32)
        self.compare(np.concatenate([x, -x]))

    def test_random_bits(self):
        bits = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint32)
        self.compare(bits.view(np.float32))

    def test_the_operator_rounds_alike(self):
        bits = np.random.default_rng(1).integers(0, 2**32, 4096 * 3, dtype=np.uint32)
        x = torch.from_numpy(bits.view(np.float32).copy()).view(1, 3, 64, 64)
        out = torch.empty(2, 3, 64, 64, dtype=torch.float16)
        ranks = torch.arange(4096, dtype=torch.int32).view(1, -1)
        slots = torch.tensor([[0, 0, 0, 0], [0, 100, 0, 0]], dtype=torch.int32)
        ops.compose_(out, x, torch.zeros(3), ranks, slots)
        expected = x.half().expand(2, -1, -1, -1)
        assert torch.equal(out.isnan(), expected.isnan())
        assert torch.equal(out.nan_to_num(0.5), expected.nan_to_num(0.5))
