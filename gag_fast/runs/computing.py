"""Computing what is missing of a run, until all is done or a signal comes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gag_fast._progress import Progress
from gag_fast.runs.executor import Executor
from gag_fast.runs.opening import NAMED, Opened
from gag_fast.runs.request import Summary
from gag_fast.runs.rows import FAILED
from gag_fast.runs.worker import Scored


def compute(run: Opened, executor: Executor, summary: Summary) -> None:
    """Writes what the executor gives, until all is done or a signal comes.

    Args:
        run: what is missing, and where it goes.
        executor: what computes.
        summary: kept up to date.

    Raises:
        DiskFullError: the disk is full; the folder stays resumable.
    """
    progress = run.progress
    stop = threading.Event()
    begin = time.monotonic()
    named = 0
    progress.start(run.todo.done)
    with _signals(stop, progress) as received:
        for scored in _in_order(run, executor.run(iter(run.todo.chunks), stop)):
            index = scored.chunk.index
            maps = run.keeper.choose(index, scored.table, scored.maps)
            run.folder.write_part(index, scored.table, run.settings_hash, maps)
            run.keeper.written()
            failures = failures_of(scored)
            summary.failures |= failures
            summary.done += len(scored.chunk.items)
            summary.computed += len(scored.chunk.items)
            for image, reason in failures.items():
                named += 1
                if named <= NAMED:
                    progress.note(f"failed: {image}: {reason}")
            progress.add(len(scored.chunk.items))
            if run.decider is not None:
                run.decider.offer(index, scored.table)
                if run.decider.settled:
                    summary.settled = True
                    break  # what is in hand is not written: others need not have computed it
    summary.seconds = time.monotonic() - begin
    if summary.done < summary.images and not summary.settled:
        summary.interrupted = received[0] if received else None


def _in_order(run: Opened, found: Iterator[Scored]) -> Iterator[Scored]:
    """Chunks as they come; where a decision may end the run, in the order of their numbers.

    Then the folder holds every chunk up to the decision and none beyond, whoever computed them.
    """
    if run.decider is None:
        yield from found
        return
    order = [chunk.index for chunk in run.todo.chunks]
    waiting: dict[int, Scored] = {}
    for scored in found:
        waiting[scored.chunk.index] = scored
        while order and order[0] in waiting:
            yield waiting.pop(order.pop(0))


def failures_of(scored: Scored) -> dict[str, str]:
    """image -> reason, of a finished chunk; with the method where others went well."""
    rows = scored.table.select(["image", "method", "status", "error"]).to_pylist()
    by_image: dict[str, dict[str, str]] = {}
    count: dict[str, int] = {}
    for row in rows:
        count[row["image"]] = count.get(row["image"], 0) + 1
        if row["status"] == FAILED:
            by_image.setdefault(row["image"], {})[row["method"]] = row["error"]
    found = {}
    for image, errors in by_image.items():
        if len(set(errors.values())) == 1 and len(errors) == count[image]:
            found[image] = next(iter(errors.values()))
        else:
            found[image] = "; ".join(f"{method}: {why}" for method, why in errors.items())
    return found


@contextmanager
def _signals(stop: threading.Event, progress: Progress) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM sets `stop`, the second ends the process.

    Ending it is safe at any moment: parts appear whole or not at all.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        stop.set()
        progress.note("stopping: finishing the part in hand (again to stop at once)")

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
