"""What runs a classifier: lanes with an input buffer each, driven side by side.

A `Lane` owns a buffer [N, C, H, W] that masks are written into and a forward pass that reads it. A
`Backend` opens lanes for an image shape and drives jobs through them. The public `Classifier`
checks and converts; nothing here does.
"""

from __future__ import annotations

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gag_fast._errors import ClassifierError
from gag_fast.scores import scores_of

L = TypeVar("L")
Shape = tuple[int, int, int]
Fill = Callable[[Tensor, int], int]
"""Writes job number i into a buffer [N, C, H, W]; returns how many rows of it are in use."""
Collect = Callable[[Tensor, int], None]
"""Takes the raw scores [n, K] of job number i; they are valid until it returns."""


def image_shape(images: Tensor) -> Shape:
    """[C, H, W] of a batch."""
    _, channels, height, width = images.shape
    return channels, height, width


class Lane(ABC):
    """One buffer and the forward pass over it. Used by one thread at a time."""

    def __init__(self, batch: int, shape: Shape, device: torch.device) -> None:
        self.buffer = torch.zeros(batch, *shape, device=device)

    @abstractmethod
    def run(self, rows: int) -> Tensor:
        """Raw scores [rows, K] of the first rows of the buffer."""

    def cancel(self, now: bool = True) -> None:  # noqa: B027 (most passes end by themselves)
        """Ends the pass that is running, and any that begins before `cancel(False)`."""


class Backend(ABC):
    """Opens lanes, and drives jobs through them."""

    device: torch.device
    lanes_at_once: int = 1
    """How many forward passes run side by side."""
    queues: bool = False
    """Whether `drive` returns before its jobs are computed."""

    @abstractmethod
    def open(self, batch: int, shape: Shape) -> list[Lane]:
        """New lanes for batches of images of this shape [C, H, W]."""

    def drive(self, lanes: list[Lane], jobs: int, fill: Fill, collect: Collect) -> None:
        """Runs jobs 0 ... jobs-1: fill, forward pass, collect; returns when all are done."""
        with torch.inference_mode():
            for job in range(jobs):
                _one(lanes[0], job, fill, collect)

    def on_queue(self) -> contextlib.AbstractContextManager[object]:
        """What is queued inside runs in order with the forward passes."""
        return contextlib.nullcontext()

    def mark(self) -> Any:
        """A point in the caller's queue that `aside` can wait for; None where nothing is queued."""
        return None

    def aside(self, after: Any) -> contextlib.AbstractContextManager[object]:
        """What is queued inside runs beside the jobs driven so far, once `after` is reached."""
        return contextlib.nullcontext()

    def synchronize(self) -> None:
        """Waits until everything that was driven is computed; a matter of GPUs."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _one(lane: Lane, job: int, fill: Fill, collect: Collect) -> None:
    rows = fill(lane.buffer, job)
    collect(lane.run(rows), job)


class CallableBackend(Backend):
    """Any function of a batch of images, in torch."""

    def __init__(self, function: Callable[[Tensor], object], device: torch.device) -> None:
        self.function, self.device = function, device

    def open(self, batch: int, shape: Shape) -> list[Lane]:
        """One lane: nothing is known of whether the function may run twice at once."""
        return [_CallableLane(self.function, batch, shape, self.device)]


class _CallableLane(Lane):
    def __init__(
        self,
        function: Callable[[Tensor], object],
        batch: int,
        shape: Shape,
        device: torch.device,
    ) -> None:
        super().__init__(batch, shape, device)
        self.function = function

    def run(self, rows: int) -> Tensor:
        # Always the whole buffer: some of torch's kernels round differently for another batch size.
        scores = scores_of(self.function(self.buffer), len(self.buffer))
        return scores[:rows].to(self.buffer.device, torch.float32)


class TorchModule:
    """A module as a function: eval mode for the time of the call, no gradients."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        weights = (p for p in module.parameters() if p.is_floating_point())
        self.dtype = next((p.dtype for p in weights), torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        """The module's scores for images [B, C, H, W], in the dtype of its weights."""
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            return scores_of(self.module(images.to(self.dtype)), len(images))
        finally:
            for part in training:
                part.training = True


def check_process(maker: int, what: str) -> None:
    """Threads do not survive a fork, so a child would wait for them for ever: an error instead."""
    if os.getpid() != maker:
        raise ClassifierError(
            f"{what} that of process {maker}, and a forked child has not its threads: make a new "
            "one in the child, or start it by 'spawn'"
        )


class LanePool:
    """Threads that run the lanes of a CPU backend, one forward pass in each.

    torch's own parallel loops inside them run in one thread: the lanes are the parallelism.
    """

    def __init__(self, lanes: int) -> None:
        before = torch.get_num_threads()
        ready = threading.Barrier(lanes + 1)
        self._executor = ThreadPoolExecutor(lanes, "gag_fast-lane", _lane_starts, (ready,))
        self._lock = threading.Lock()
        self._process = os.getpid()
        # The executor starts a thread per submission until it has them all.
        started = [self._executor.submit(lambda: None) for _ in range(lanes)]
        ready.wait()
        for future in started:
            future.result()
        # set_num_threads is meant for the calling thread, but also the default of later threads.
        torch.set_num_threads(before)

    def drive(self, lanes: list[Lane], jobs: int, fill: Fill, collect: Collect) -> None:
        """As `Backend.drive`: each lane takes the next job as it becomes free."""
        self.each(lanes, jobs, lambda lane, job: _one(lane, job, fill, collect))

    def each(self, lanes: Sequence[L], jobs: int, work: Callable[[L, int], None]) -> None:
        """work(lane, job) for jobs 0 ... jobs-1, each by the lane that is free first."""
        check_process(self._process, "this session is")
        with self._lock:
            numbers = iter(range(jobs))
            stop = threading.Event()
            futures = [
                self._executor.submit(_work, lane, numbers, stop, work) for lane in lanes[:jobs]
            ]
            with _stopping(stop, futures, lanes):
                for future in futures:
                    future.result()


def _lane_starts(ready: threading.Barrier) -> None:
    torch.set_num_threads(1)
    ready.wait()


def _work(
    lane: L, numbers: Iterator[int], stop: threading.Event, work: Callable[[L, int], None]
) -> None:
    # next() on a range's iterator is atomic: lanes share it without a lock.
    try:
        with torch.inference_mode():
            while not stop.is_set() and (job := next(numbers, None)) is not None:
                work(lane, job)
    except BaseException:
        stop.set()
        raise


@contextlib.contextmanager
def _stopping(
    stop: threading.Event, futures: list[Future[None]], lanes: Sequence[object]
) -> Iterator[None]:
    """Whatever ends the wait (an error, Ctrl-C): no lane is left running.

    A file's forward pass may have no end; Ctrl-C cuts it off instead of waiting for it.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        _cancel(lanes, True)
        raise
    finally:
        stop.set()
        for future in futures:
            future.exception()
        _cancel(lanes, False)


def _cancel(lanes: Sequence[object], now: bool) -> None:
    for lane in lanes:
        if isinstance(lane, Lane):
            lane.cancel(now)
