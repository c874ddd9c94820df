"""Every operator under torch's checks of custom operators, torch.compile, streams and graphs."""

import pytest
import torch

from gag_fast import ops

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]
LAST = torch.channels_last
NATIVE = torch.ops.gag_fast


def stack(device, dtype=torch.float32, shape=(2, 4, 3, 6, 5)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(device, dtype)


def statistics(device, dtype=torch.float32):
    """shift, mean, m2 and abssum of the four gradients of `stack`."""
    grads = stack(device, dtype)
    state = [torch.empty_like(grads[:, 0]) for _ in range(4)]
    ops.gradient_stats_(*state, grads, 0)
    return state


def composition(device, dtype, layout):
    """out, sources, fill, ranks and slots of two copies."""
    ranks, _ = ops.saliency_ranks(stack(device, shape=(2, 6, 5)))
    slots = torch.tensor([[0, 7, 0, -1], [1, 9, -1, 1]], dtype=torch.int32, device=device)
    out = torch.zeros(2, 3, 6, 5, dtype=dtype, device=device).to(memory_format=layout)
    sources = stack(device)[:, 0].contiguous(memory_format=layout)
    return out, sources, torch.arange(3.0, device=device), ranks, slots


def noise_arguments(device, dtype, layout):
    images = stack(device, dtype)[:, 0].contiguous(memory_format=layout)
    return images, torch.arange(2, device=device), torch.ones(2, device=device), -3, 1, 2


def cases(device):
    """(operator, arguments): every operator of the schema, each in its kinds of input."""
    yield from (
        (NATIVE.guided_absgrad, (stack(device, dtype), [0.0, 85.0], normalize, keep))
        for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16)
        for normalize, keep in ((True, False), (False, True))
    )
    for layout in (torch.contiguous_format, LAST):
        flat = stack(device).flatten(0, 1).contiguous(memory_format=layout)
        yield NATIVE.guided_absgrad, (flat.unflatten(0, (2, 4)), [85.0], True, False)
    for dtype in (torch.float32, torch.float64):
        m2, abssum = statistics(device, dtype)[2:]
        yield NATIVE.guided_absgrad_from_stats, (m2, abssum, 4, [0.0, 85.0], True, False)
        yield NATIVE.guided_absgrad_from_stats, (m2, abssum, 4, [50.0], False, True)
        yield NATIVE.gradient_stats_, (*statistics(device, dtype), stack(device, dtype), 4)
        yield NATIVE.saliency_ranks, (stack(device, dtype, (2, 6, 5)),)
        for layout in (torch.contiguous_format, LAST):
            images = stack(device, dtype)[:, 0].contiguous(memory_format=layout)
            yield NATIVE.image_keys, (images,)
            yield NATIVE.gaussian_noise, noise_arguments(device, dtype, layout)
    yield NATIVE.impute, (stack("cpu")[0, 0], stack("cpu")[0, 0, 0] > 0)  # has no CUDA kernel
    for dtype in (torch.float32, torch.float16):
        for layout in (torch.contiguous_format, LAST):
            yield NATIVE.compose_, composition(device, dtype, layout)


@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    seen = set()
    for operator, arguments in cases(device):
        torch.library.opcheck(operator, arguments)
        seen.add(operator._qualified_op_name)
    schema = {
        str(s.name) for s in torch._C._jit_get_all_schemas() if s.name.startswith("gag_fast:")
    }
    assert seen == schema


@pytest.mark.parametrize("device", DEVICES)
def test_fake_kernels_tell_the_shape_dtype_and_strides(device):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for operator, arguments in cases(device):
        real = operator(*arguments)
        with FakeTensorMode() as mode:
            fake = operator(
                *(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments)
            )
        if real is None:
            assert fake is None
            continue
        pairs = zip(real, fake) if isinstance(real, tuple) else [(real, fake)]
        for got, told in pairs:
            assert (told.shape, told.dtype, told.device) == (got.shape, got.dtype, got.device)
            assert told.stride() == got.stride(), operator


def pipeline(images, std):
    """All operators in one graph, the ones that write in place between others."""
    keys = ops.image_keys(images)
    noisy = ops.gaussian_noise(images, keys, std, seed=5, first_sample=0, samples=4)
    state = [torch.empty_like(images) for _ in range(4)]
    ops.gradient_stats_(*state, noisy.sin(), 0)
    one_shot = ops.guided_absgrad(noisy.sin(), [50.0, 85.0])
    streamed = ops.guided_absgrad_from_stats(state[2], state[3], 4, [50.0, 85.0])
    ranks, order = ops.saliency_ranks(one_shot[1] + 1)
    slots = torch.tensor([[0, 10, 0, -1], [1, 12, -1, 1]], dtype=torch.int32, device=images.device)
    out = torch.zeros_like(images[:2])
    ops.compose_(out, images, torch.zeros(3, device=images.device), ranks, slots)
    return one_shot, streamed, order, out * 2


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(device, backend):
    torch._dynamo.reset()
    images = stack(device)[:, 0].contiguous()
    std = torch.full((2,), 0.3, device=device)
    expected = pipeline(images, std)
    got = torch.compile(pipeline, fullgraph=True, backend=backend)(images, std)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_compiles_with_a_batch_size_that_changes():
    torch._dynamo.reset()
    compiled = torch.compile(pipeline, fullgraph=True, backend="aot_eager", dynamic=True)
    for b in (2, 3, 5):
        images = stack("cpu", shape=(b, 3, 6, 5))
        for a, e in zip(compiled(images, torch.ones(b)), pipeline(images, torch.ones(b))):
            torch.testing.assert_close(a, e)


def test_a_wrong_rank_is_refused_by_the_fake_kernels_too():
    with pytest.raises(RuntimeError, match=r"grads must be \[B,n,C,H,W\], got 3"):
        ops.guided_absgrad(torch.zeros(3, 4, 5, device="meta"), [85.0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda:
    def inputs(self):
        return stack("cuda")[:, 0].contiguous(), torch.full((2,), 0.3, device="cuda")

    def test_equal_to_the_cpu(self):
        images, std = self.inputs()
        keys = ops.image_keys(images)
        assert torch.equal(keys.cpu(), ops.image_keys(images.cpu()))
        arguments = {"seed": 5, "first_sample": 3, "samples": 4}
        noisy = ops.gaussian_noise(images, keys, std, **arguments)
        cpu = ops.gaussian_noise(images.cpu(), keys.cpu(), std.cpu(), **arguments)
        assert torch.equal(noisy.cpu(), cpu)

    def test_work_goes_to_the_current_stream(self):
        images, std = self.inputs()
        expected = pipeline(images, std)
        side = torch.cuda.Stream()
        late = torch.zeros_like(images)
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)  # what runs on another stream would read zeros
            late.copy_(images)
            got = pipeline(late, std)
        side.synchronize()
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b, rtol=0, atol=0)

    def test_captured_in_a_graph(self):
        images, std = self.inputs()
        keys = ops.image_keys(images)
        _, sources, fill, _, slots = composition("cuda", torch.float32, torch.contiguous_format)
        static, out = images.clone(), torch.empty_like(images)

        def work():
            noisy = ops.gaussian_noise(static, keys, std, seed=5, first_sample=0, samples=4)
            maps = ops.guided_absgrad(noisy, [85.0])[0]
            ranks, _ = ops.saliency_ranks(maps)
            ops.compose_(out, sources, fill, ranks, slots)
            return ops.image_keys(static), maps, ranks

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = work()
        static.copy_(images.flip(0))
        graph.replay()
        torch.cuda.synchronize()
        replayed = [t.clone() for t in (*captured, out)]
        for a, b in zip(replayed, (*work(), out)):
            assert torch.equal(a, b)

    def test_tensors_on_two_devices_are_refused(self):
        images, std = self.inputs()
        with pytest.raises(RuntimeError, match="std is not on cuda:0"):
            ops.gaussian_noise(
                images, ops.image_keys(images), std.cpu(), seed=0, first_sample=0, samples=1
            )
