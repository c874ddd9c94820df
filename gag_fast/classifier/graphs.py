"""Sessions of graphs with several inputs and outputs: lanes with a buffer for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gag_fast.classifier.arguments import checked_threads
from gag_fast.classifier.lanes import LanePool
from gag_fast.classifier.opening import DEFAULTS, open_on
from gag_fast.classifier.providers import Providers
from gag_fast.classifier.sessions import run_bound, run_options

_KINDS = {torch.float32: np.float32, torch.int64: np.int64}


class GraphLane:
    """Buffers bound to a session: what is written into `inputs` comes out in `outputs`.

    Args:
        session: runs the graph.
        inputs: {name: buffer}, rows of a batch along the first axis.
        outputs: likewise.
        single: names whose buffers have no axis of the batch.
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        single: frozenset[str] = frozenset(),
    ) -> None:
        self.inputs, self.outputs = inputs, outputs
        self._session, self._single = session, single
        self._binding = session.io_binding()
        self._rows = 0
        self._options: Any = None

    def run(self, rows: int) -> None:
        """Computes the first rows of the outputs from the first rows of the inputs."""
        if rows != self._rows:
            for name, buffer in self.inputs.items():
                self._bind(self._binding.bind_input, name, buffer, rows)
            for name, buffer in self.outputs.items():
                self._bind(self._binding.bind_output, name, buffer, rows)
            self._rows = rows
            # Anew with each binding: see `run_options`.
            self._options = run_options(self._session, next(iter(self.inputs.values())).device)
        run_bound(self._session, self._binding, self._options)

    def _bind(self, bind: Callable[..., None], name: str, buffer: Tensor, rows: int) -> None:
        shape = tuple(buffer.shape) if name in self._single else (rows, *buffer.shape[1:])
        device, index = buffer.device.type, buffer.device.index or 0
        bind(name, device, index, _KINDS[buffer.dtype], shape, buffer.data_ptr())


class GraphDriver:
    """Runs jobs on the lanes of one session: side by side on the CPU, in order on CUDA.

    Args:
        path: the .onnx file.
        providers: as for `Classifier`.
        precision: "f32", or what else the provider has.
        threads: CPU threads; None: torch's number.
        device: CUDA device index.
        batch: rows of every job on OpenVINO, where the file leaves them open.

    Attributes:
        session: runs the graph.
        providers: what really runs, in order of preference.
        device: where.
        lanes_at_once: how many passes run side by side.

    Raises:
        ClassifierError: in one line.
    """

    def __init__(
        self,
        path: Path,
        providers: str | Providers | None,
        precision: str,
        threads: int | None,
        device: int,
        batch: int,
    ) -> None:
        threads = checked_threads(threads)
        options = {**DEFAULTS, "precision": precision, "fp16": precision == "fp16"}
        opened = open_on(path, providers, threads, device, options, batch=batch)
        self.session, self.providers = opened.session, opened.providers
        self._stream = opened.stream
        self.lanes_at_once = threads if opened.stream is None else 1
        self.device = torch.device("cpu") if opened.stream is None else opened.stream.device
        self._pool: LanePool | None = None
        self._lanes: tuple[object, list[GraphLane]] | None = None

    def lanes(self, sizes: object, make: Callable[[], GraphLane]) -> list[GraphLane]:
        """As many lanes as run side by side, those of the last call where the sizes are its."""
        if self._lanes is None or self._lanes[0] != sizes:
            self._lanes = None  # their memory goes before the new ones' comes
            self._lanes = (sizes, [make() for _ in range(self.lanes_at_once)])
        return self._lanes[1]

    def drive(
        self, lanes: list[GraphLane], jobs: int, work: Callable[[GraphLane, int], None]
    ) -> None:
        """work(lane, job) for jobs 0 ... jobs-1."""
        if self._stream is None:
            if self._pool is None:
                self._pool = LanePool(self.lanes_at_once)
            self._pool.each(lanes, jobs, work)
            return
        outer = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self._stream), torch.inference_mode():
                for job in range(jobs):
                    work(lanes[0], job)
        finally:  # after an error too: what is queued still uses memory the caller may free
            outer.wait_stream(self._stream)
