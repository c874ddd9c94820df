"""The device that is measured: a CUDA GPU, or the CPU in its place for a rehearsal."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from statistics import median

import torch

PIPELINE = "GAG_FAST_PIPELINE"  # read by csrc/cuda/device.h at each call
Call = Callable[[int], object]
"""Takes the number of the call, so that inputs can rotate."""


class Gpu:
    """The current CUDA device. Times are taken by events on its stream.

    Attributes:
        name: for tensors, "cuda".
        rotating_bytes: inputs take turns up to this size, so that the L2 cache does not hold them.
        rehearsal: whether it only stands in for a GPU.
    """

    name = "cuda"
    rotating_bytes = 2 << 30
    rehearsal = False

    def milliseconds(self, call: Call, rounds: int = 30, warmup: int = 5) -> float:
        """Median time of call(i)."""
        for i in range(warmup):
            call(i)
        torch.cuda.synchronize()
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
        for i, (start, end) in enumerate(events):
            start.record()
            call(i)
            end.record()
        torch.cuda.synchronize()
        return median(start.elapsed_time(end) for start, end in events)

    def extra_bytes(self, call: Call) -> int:
        """Device memory that one call takes at most, beside what is there before."""
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call(0)
        return torch.cuda.max_memory_allocated() - before

    def captured(self, call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """A call as a CUDA graph: what replays it, and the tensor that each replay writes."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        return graph.replay, result

    def on_a_side_stream(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The result of a call on another stream, where it queues behind a long wait."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)
            result = call()
        side.synchronize()
        return result

    def synchronize(self) -> None:
        """Waits for everything that is queued."""
        torch.cuda.synchronize()


class Rehearsal(Gpu):
    """The CPU in a GPU's place: every line of the run is executed, no figure means anything."""

    name = "cpu"
    rotating_bytes = 1 << 20
    rehearsal = True

    def milliseconds(self, call: Call, rounds: int = 30, warmup: int = 5) -> float:
        """Wall time of one call."""
        begin = time.perf_counter()
        call(0)
        return 1e3 * (time.perf_counter() - begin)

    def extra_bytes(self, call: Call) -> int:
        """Not known on the CPU."""
        call(0)
        return 0

    def captured(self, call: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """The call itself, whose results are copied into the first one."""
        result = call().clone()

        def replay() -> None:
            result.copy_(call())

        return replay, result

    def on_a_side_stream(self, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The call."""
        return call()

    def synchronize(self) -> None:
        """Nothing is ever queued."""


@contextlib.contextmanager
def pipeline(choice: str):
    """Many images in one kernel wherever that can be ("1"), where it pays ("auto"), or never."""
    before = os.environ.get(PIPELINE)
    os.environ[PIPELINE] = choice
    try:
        yield
    finally:
        del os.environ[PIPELINE]
        if before is not None:
            os.environ[PIPELINE] = before


@contextlib.contextmanager
def full_precision():
    """Float32 products in full on both sides of every comparison: no TensorFloat-32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
