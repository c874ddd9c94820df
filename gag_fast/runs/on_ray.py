"""The same chunks on a Ray cluster: one process and one pair of models for each worker.

Workers compute rows, the caller's process writes them: only it needs the run folder, while every
machine needs the images, the weights and the ONNX file under the same paths. A worker that is lost
gives its chunks to another; the chunks are the local executor's, and so are the rows.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from gag_fast._errors import GagFastError
from gag_fast.runs.chunks import Chunk
from gag_fast.runs.worker import Scored, Work

ATTEMPTS = 3
"""Workers that a chunk may lose before the run gives up: then it is the chunk that kills them."""


class RayExecutor:
    """Computes chunks on the cluster that this process is connected to, or that `ray.init` finds.

    Args:
        work: what to compute.
        workers: how many actors; None: one a GPU of the cluster, or 2 on a CPU.

    Raises:
        ImportError: Ray is not installed.
    """

    def __init__(self, work: Work, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise ImportError(
                "--engine ray needs the package ray: pip install 'gag-fast[ray]'"
            ) from None
        self._ray = ray
        if not ray.is_initialized():
            ray.init(log_to_driver=False, configure_logging=False)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if work.device == "cuda" and not gpus:
            raise GagFastError(
                "the gradients were asked for on cuda, but the Ray cluster has no GPU"
            )
        self._work = work
        self._workers = workers or (gpus if work.device == "cuda" else 2)
        self._actor = ray.remote(
            num_cpus=1, num_gpus=1 if work.device == "cuda" else 0, max_restarts=0
        )(_RemoteWorker)

    def run(self, chunks: Iterable[Chunk], stop: threading.Event) -> Iterator[Scored]:
        """The finished chunks, as they finish. Once `stop` is set no new one starts.

        Raises:
            RuntimeError: a chunk lost its worker ATTEMPTS times.
        """
        ray = self._ray
        waiting = _Waiting(chunks)
        slots = [_Slot(self._new_actor()) for _ in range(self._workers)]
        try:
            while True:
                for slot in slots:
                    if slot.task is None:
                        self._assign(slot, waiting, stop)
                running = {slot.task: slot for slot in slots if slot.task is not None}
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=1, timeout=0.5)
                for task in ready:
                    slot = running[task]
                    chunk, slot.task = slot.chunk, None
                    assert chunk is not None
                    try:
                        table, maps = ray.get(task)
                    except ray.exceptions.RayActorError as error:
                        waiting.again(chunk, slot.following, str(error))
                        slot.actor, slot.following = self._new_actor(), None
                        continue
                    except ray.exceptions.RayTaskError as error:
                        raise error.as_instanceof_cause() from None
                    yield Scored(chunk, table, maps)
        finally:
            for slot in slots:
                ray.kill(slot.actor)

    def _new_actor(self) -> Any:
        return self._actor.remote(self._work, os.getcwd(), list(sys.path))

    def _assign(self, slot: _Slot, waiting: _Waiting, stop: threading.Event) -> None:
        """The slot's next chunk, and the one after it for its decoders to begin with."""
        if stop.is_set():
            return
        chunk = slot.following or waiting.take()
        if chunk is not None:
            slot.chunk, slot.following = chunk, waiting.take()
            slot.task = slot.actor.compute.remote(_absolute(chunk), _absolute(slot.following))


@dataclass
class _Slot:
    """An actor, the chunk that it computes and the one that it decodes ahead."""

    actor: Any
    task: Any = None
    chunk: Chunk | None = None
    following: Chunk | None = None


class _Waiting:
    """The chunks that no actor has; those of lost actors first."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._fresh = iter(chunks)
        self._returned: deque[Chunk] = deque()
        self._losses: dict[int, int] = {}

    def take(self) -> Chunk | None:
        """The next one, None when there are no more."""
        return self._returned.popleft() if self._returned else next(self._fresh, None)

    def again(self, chunk: Chunk, following: Chunk | None, reason: str) -> None:
        """Takes back what an actor had that died over `chunk`."""
        losses = self._losses[chunk.index] = self._losses.get(chunk.index, 0) + 1
        if losses >= ATTEMPTS:
            lines = [line.strip() for line in reason.splitlines() if line.strip()]
            # A worker that could not even begin: the exception stands below its traceback.
            why = lines[-1 if "creation task" in reason else 0] if lines else "no reason given"
            raise RuntimeError(
                f"{losses} Ray workers died over part {chunk.index} "
                f"({chunk.items[0].image} and {len(chunk.items) - 1} more): {why}"
            )
        self._returned += [c for c in (chunk, following) if c is not None]


def _absolute(chunk: Chunk | None) -> Chunk | None:
    """The chunk with paths that mean the same in another working directory."""
    if chunk is None:
        return None
    items = tuple(
        replace(
            item,
            path=item.path.absolute(),
            mask=None if item.mask is None else item.mask.absolute(),
        )
        for item in chunk.items
    )
    return Chunk(chunk.index, items)


class _RemoteWorker:
    """Lives in a Ray worker process."""

    def __init__(self, work: Work, folder: str, path: list[str]) -> None:
        # The model may be a function in a module beside the caller.
        sys.path += [entry for entry in path if entry not in sys.path]
        if os.path.isdir(folder):
            os.chdir(folder)
        from gag_fast.runs.decoding import Decoder
        from gag_fast.runs.worker import open_worker

        self._open = ExitStack()  # until the process ends, as actors do when their run is over
        self._worker = self._open.enter_context(open_worker(work))
        self._decoder = Decoder(self._worker.spec.preprocessing, workers=1)
        self._ahead: dict[int, list[Any]] = {}

    def compute(self, chunk: Chunk, following: Chunk | None) -> tuple[Any, Any]:
        """Rows and maps of a chunk; the following one is decoded meanwhile."""
        futures = self._ahead.pop(chunk.index, None) or self._submit(chunk)
        self._ahead.clear()
        if following is not None:
            self._ahead[following.index] = self._submit(following)
        decoded = [future.result() for future in futures]
        scored = self._worker.score(self._worker.explain(chunk, decoded))
        return scored.table, scored.maps

    def _submit(self, chunk: Chunk) -> list[Any]:
        return [self._decoder.submit(item) for item in chunk.items]
