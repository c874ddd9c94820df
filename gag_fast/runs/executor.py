"""What turns chunks into rows, here or elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from gag_fast.runs.chunks import Chunk
from gag_fast.runs.local import LocalExecutor
from gag_fast.runs.request import Request
from gag_fast.runs.worker import Scored, Worker


class Executor(Protocol):
    """Computes chunks; which one does it changes no row."""

    def run(self, chunks: Iterable[Chunk], stop: threading.Event) -> Iterator[Scored]:
        """The finished chunks. Once `stop` is set, those in hand still come, no new one starts."""


def executor_of(request: Request, worker: Worker) -> Executor:
    """The one that was asked for."""
    if request.engine == "ray":
        from gag_fast.runs.on_ray import RayExecutor

        return RayExecutor(worker.work, request.workers)
    return LocalExecutor(worker, request.workers or 2, request.overlap)
