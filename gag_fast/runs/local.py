"""The local executor: one worker, its stages overlapped, bounded queues between them.

    decoder processes -> gradients -> scores -> (the caller writes)

Each arrow is a queue of at most one chunk, so memory does not grow with the data set.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from gag_fast.runs.chunks import Chunk
from gag_fast.runs.decoding import Decoder
from gag_fast.runs.worker import Scored, Worker

T = TypeVar("T")


class LocalExecutor:
    """Computes chunks in this process, in the order given.

    Args:
        worker: what computes.
        decoders: processes that decode.
        overlap: gradients of one chunk while another is scored, in two threads. Worth it on a CPU
            too: each leaves cores idle at times.
    """

    def __init__(self, worker: Worker, decoders: int = 2, overlap: bool = True) -> None:
        self._worker = worker
        self._decoders = decoders
        self._overlap = overlap

    def run(self, chunks: Iterable[Chunk], stop: threading.Event) -> Iterator[Scored]:
        """The finished chunks. Once `stop` is set, those in hand still come, no new one starts."""

        def until_stopped(items: Iterable[T]) -> Iterator[T]:
            for item in items:
                if stop.is_set():
                    return
                yield item

        worker = self._worker
        with Decoder(worker.spec.preprocessing, self._decoders) as decoder:
            decoded = until_stopped(decoder.stream(until_stopped(chunks)))
            explained = (worker.explain(*pair) for pair in decoded)
            if not self._overlap:
                yield from map(worker.score, explained)
                return
            with _Background(explained) as first, _Background(map(worker.score, first)) as second:
                yield from second


class _Background(Iterator[T]):
    """Runs an iterator in a thread of its own, at most one item ahead of its reader."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[Callable[[], T]] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)

    def __enter__(self) -> _Background[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def __next__(self) -> T:
        while True:
            try:
                return self._queue.get(timeout=0.1)()
            except queue.Empty:
                if self._closed.is_set():
                    raise StopIteration from None

    def _produce(self) -> None:
        try:
            for item in self._items:
                if not self._put(_giver(item)):
                    return
            self._put(_raiser(StopIteration()))
        except BaseException as error:
            self._put(_raiser(error))

    def _put(self, answer: Callable[[], T]) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(answer, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def _giver(item: T) -> Callable[[], T]:
    return lambda: item


def _raiser(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer
