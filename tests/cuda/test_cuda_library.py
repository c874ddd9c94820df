"""The CUDA library as built: it loads where torch has CUDA, with or without a GPU, and registers.

Skipped where the build had no nvcc; what runs a kernel, where there is no GPU.
"""

import re

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import gag_fast
from gag_fast import _library
from tests.cuda.cuda_emulation import CSRC

needs_library = pytest.mark.skipif(
    _library.cuda_library is None, reason=f"no CUDA library: {_library.cuda_status}"
)
OPERATORS = ["guided_absgrad", "guided_absgrad_from_stats", "gradient_stats_"]


def test_a_build_with_nvcc_has_a_library_that_loads():
    info = gag_fast.build_info()
    if not info["cuda_version"]:
        pytest.skip("built without nvcc")
    if torch.version.cuda is None:
        pytest.skip("torch is a build without CUDA")
    assert _library.cuda_library is not None, _library.cuda_status


@needs_library
@pytest.mark.parametrize("name", OPERATORS)
def test_the_kernels_are_registered(name):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gag_fast::{name}", "CUDA")


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"channels": "keep"}], ids=str)
@pytest.mark.parametrize("p", [0, 85, (0, 50, 85)], ids=str)
def test_the_call_looks_at_no_value(p, options):
    """A CUDA graph can hold it: on tensors without data, whatever needed one would raise."""
    with FakeTensorMode():
        grads = torch.empty(2, 20, 3, 224, 224, device="cuda")
        with pytest.raises(DataDependentOutputException):
            grads.sum().item()
        maps = gag_fast.guided_absgrad(grads, p=p, **options)
    assert maps.device.type == "cuda"


def test_no_kernel_source_waits_or_allocates():
    """Memory is torch's, and no launch is followed by a wait; else a graph could not hold it."""
    for path in sorted((CSRC / "cuda").glob("*.*")):
        source = path.read_text()
        calls = re.findall(r"cuda\w*(?:Malloc|Free|Synchronize)\w*\(|cudaMemcpy\(", source)
        assert not calls, (path.name, calls)


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture
def stack(gpu):
    return torch.randn(4, 20, 3, 112, 112, generator=torch.Generator().manual_seed(0))


def call(grads, p=(0.0, 50.0, 85.0)):
    return torch.ops.gag_fast.guided_absgrad(grads, list(p), True, False)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels_last"])
def test_a_gpu_gives_the_bits_of_the_cpu(stack, dtype, last):
    grads = stack.to(dtype)
    if last:
        grads = grads.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert torch.equal(call(grads.cuda()).cpu(), call(grads))


@pytest.mark.gpu
def test_a_gpu_gives_the_bits_of_the_cpu_in_running_statistics(stack):
    def run(grads):
        state = [torch.empty_like(grads[:, 0]) for _ in range(4)]
        for count in (0, 7):
            some = grads[:, count : 7 if count == 0 else None]
            torch.ops.gag_fast.gradient_stats_(*state, some, count)
        maps = torch.ops.gag_fast.guided_absgrad_from_stats(
            state[2], state[3], 20, [0.0, 85.0], True, False
        )
        return [t.cpu() for t in (*state, maps)]

    for ours, theirs in zip(run(stack.cuda()), run(stack), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.gpu
def test_a_gpu_runs_the_call_on_the_current_stream(stack):
    grads = stack.cuda()
    expected = call(grads)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
        later = grads * 0
        later.copy_(grads)  # still to come when the operator is called
        out = call(later)
    side.synchronize()
    assert torch.equal(out, expected)


@pytest.mark.gpu
def test_a_gpu_captures_the_call_in_a_graph(stack):
    grads = stack.cuda()
    call(grads)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call(grads)
    grads.copy_(stack.cuda().flip(0))
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, call(stack.cuda().flip(0)))


@pytest.mark.gpu
@pytest.mark.parametrize("pipeline", ["0", "1"])
def test_a_gpu_makes_many_images_in_one_kernel_or_in_four(gpu, monkeypatch, pipeline):
    monkeypatch.setenv("GAG_FAST_PIPELINE", pipeline)
    generator = torch.Generator().manual_seed(0)
    for shape in ((70, 5, 3, 96, 96), (40, 3, 1, 224, 224), (3, 45, 2, 112, 96)):
        grads = torch.randn(shape, generator=generator)
        expected = gag_fast.guided_absgrad(grads, p=85)
        for _ in range(3):
            assert torch.equal(gag_fast.guided_absgrad(grads.cuda(), p=85).cpu(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("images", [1, 40])
def test_a_gpu_captures_guided_absgrad_as_documented(gpu, images):
    """The snippet of docs/gpu.md, in four launches and in one."""
    grads = torch.zeros(images, 5, 3, 112, 112, device="cuda")
    gag_fast.guided_absgrad(grads, p=85)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maps = gag_fast.guided_absgrad(grads, p=85)
    for seed in range(2):
        new = torch.randn(grads.shape, generator=torch.Generator().manual_seed(seed))
        grads.copy_(new)
        graph.replay()
        assert torch.equal(maps.cpu(), gag_fast.guided_absgrad(new, p=85))


@pytest.mark.gpu
def test_a_gpu_runs_the_call_without_waiting_for_it(stack):
    grads = stack.cuda()
    call(grads)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(grads)
    finally:
        torch.cuda.set_sync_debug_mode("default")
