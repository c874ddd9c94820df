"""Lanes bound to ONNX Runtime sessions: no copy between torch's memory and the session's."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gag_fast._errors import ClassifierError, first_line, memory_fault
from gag_fast.classifier.lanes import Backend, Collect, Fill, Lane, LanePool, Shape


class CpuSession(Backend):
    """Lanes of one forward pass each, every pass in one thread.

    Small batches side by side keep each core's cache to itself and never wait for one another;
    and no rounding depends on the number of threads.
    """

    def __init__(self, session: Any, threads: int, classes: int, whole: bool) -> None:
        self.session, self.lanes_at_once = session, threads
        self.classes, self.whole = classes, whole
        self.device = torch.device("cpu")
        self._pool: LanePool | None = None

    def open(self, batch: int, shape: Shape) -> list[Lane]:
        """One lane a thread."""
        return [
            _BoundLane(self.session, batch, shape, self.classes, self.device, self.whole)
            for _ in range(self.lanes_at_once)
        ]

    def drive(self, lanes: list[Lane], jobs: int, fill: Fill, collect: Collect) -> None:
        """Side by side in threads; ONNX Runtime releases Python's lock.

        A single job too: the caller's own thread must stay open for Ctrl-C.
        """
        if self._pool is None:
            self._pool = LanePool(self.lanes_at_once)
        self._pool.drive(lanes, jobs, fill, collect)


class CudaSession(Backend):
    """One lane on a stream of its own that masks, forward passes and torch share.

    Everything is queued in order on that stream and nothing waits on the host until the end, so
    the next batch's masks are queued while the GPU still computes this one's scores.
    """

    queues = True

    def __init__(self, session: Any, classes: int, stream: torch.cuda.Stream) -> None:
        self.session, self.classes, self.stream = session, classes, stream
        self.device = stream.device
        self._beside: torch.cuda.Stream | None = None

    def open(self, batch: int, shape: Shape) -> list[Lane]:
        """One lane, always run at its full batch: cuDNN plans, and a graph is captured, once."""
        with self.on_queue():
            return [_BoundLane(self.session, batch, shape, self.classes, self.device, True)]

    def on_queue(self) -> contextlib.AbstractContextManager[object]:
        """The stream of the forward passes."""
        return torch.cuda.stream(self.stream)

    def mark(self) -> torch.cuda.Event:
        """An event on the caller's stream."""
        return torch.cuda.current_stream(self.device).record_event()

    @contextlib.contextmanager
    def aside(self, after: torch.cuda.Event) -> Iterator[None]:
        """A stream beside that of the forward passes; the caller's stream waits for it afterwards.

        The caller's own stream would not do: after `drive` it waits for the forward passes.
        """
        if self._beside is None:
            self._beside = torch.cuda.Stream(self.device)
        outer = torch.cuda.current_stream(self.device)
        self._beside.wait_event(after)
        try:
            with torch.cuda.stream(self._beside):
                yield
        finally:
            outer.wait_stream(self._beside)

    def drive(self, lanes: list[Lane], jobs: int, fill: Fill, collect: Collect) -> None:
        """Queues all jobs; on return the caller's stream waits for them, the host does not."""
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        try:
            with self.on_queue():
                super().drive(lanes, jobs, fill, collect)
        finally:
            # After an error too: jobs that are queued still use memory the caller is about to free.
            outer.wait_stream(self.stream)


def captures(session: Any) -> bool:
    """Whether a session captures its forward pass as a CUDA graph and replays it."""
    names = ("enable_cuda_graph", "trt_cuda_graph_enable")
    given = (options.get(name) for options in session.get_provider_options().values()
             for name in names)  # fmt: skip
    return any(str(value).lower() in ("1", "true") for value in given)


_GRAPHS = itertools.count(1)


def run_options(session: Any, device: torch.device) -> Any:
    """RunOptions for forward passes over one set of buffers.

    ONNX Runtime replays a captured graph on the addresses that it was captured with, so every set
    of buffers has a graph of its own. That of buffers which are gone is never replayed again.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    if device.type == "cuda":
        # The next batch is queued behind this one on the same stream: no need to wait for it.
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    if captures(session):
        options.add_run_config_entry("gpu_graph_id", str(next(_GRAPHS)))
    return options


def uncaptured() -> Any:
    """RunOptions of a forward pass that is not captured, whatever the session's options say."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", "-1")
    return options


class _BoundLane(Lane):
    """Input and output bound to torch's memory: no copy on either side."""

    def __init__(
        self,
        session: Any,
        batch: int,
        shape: Shape,
        classes: int,
        device: torch.device,
        whole: bool,
    ) -> None:
        super().__init__(batch, shape, device)
        self.session, self.whole, self.shape = session, whole, shape
        self.scores = torch.empty(batch, classes, device=device)
        self.bound_rows = 0
        self.binding = session.io_binding()
        self.options = run_options(session, device)

    def run(self, rows: int) -> Tensor:
        """Raw scores of the first rows; the whole batch is computed where its size is fixed."""
        self._bind(self.buffer.shape[0] if self.whole else rows)
        run_bound(self.session, self.binding, self.options)
        return self.scores[:rows]

    def cancel(self, now: bool = True) -> None:
        """ONNX Runtime looks at this between two nodes, inside a loop too."""
        self.options.terminate = now

    def _bind(self, rows: int) -> None:
        if rows == self.bound_rows:
            return
        device, index = self.buffer.device.type, self.buffer.device.index or 0
        self.binding.bind_input(
            self.session.get_inputs()[0].name,
            device,
            index,
            np.float32,
            (rows, *self.shape),
            self.buffer.data_ptr(),
        )
        self.binding.bind_output(
            self.session.get_outputs()[0].name,
            device,
            index,
            np.float32,
            (rows, self.scores.shape[1]),
            self.scores.data_ptr(),
        )
        self.bound_rows = rows


def run_bound(session: Any, binding: Any, options: Any) -> None:
    """One forward pass over what is bound.

    Raises:
        OutOfMemoryError: there was too little for it.
        ClassifierError: it failed otherwise; ONNX Runtime's own errors have many lines and no base.
    """
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:
        raise (
            memory_fault(error) or ClassifierError(f"a forward pass failed: {first_line(error)}")
        ) from error


def run_once(session: Any, images: np.ndarray) -> list[np.ndarray]:
    """One forward pass in a thread of its own, so that Ctrl-C ends one that has no end."""
    options = uncaptured()
    name = session.get_inputs()[0].name
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(session.run, None, {name: images}, options)
        try:
            return future.result()
        except BaseException:
            options.terminate = True
            raise
