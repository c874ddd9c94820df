"""The batch size at which a classifier is fastest here: measured once, remembered in a cache file.

The file is a JSON object, model and machine -> batch size, in the user's cache folder. It is a
convenience: one that cannot be read or written is passed over.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from torch import Tensor

from gag_fast._files import cache_folder, replacing
from gag_fast.classifier.lanes import Backend, Shape

CPU_CANDIDATES = (1, 2, 4, 8, 16, 32)
GPU_CANDIDATES = (8, 16, 32, 64, 128, 256)
_SECONDS = 0.15  # of measuring one candidate
_PASSES = 24  # at most, for a classifier so small that it does not matter
_SLOW_SECONDS = 4.0  # a candidate whose pass takes longer ends the search


def cache_file() -> Path:
    """Where measured batch sizes are kept."""
    return cache_folder() / "batch_sizes.json"


def remembered(key: str) -> int | None:
    """The batch size kept under a key, if any."""
    value = _read().get(key)
    # What was measured is one of these; anything else was not written by this package.
    known = (*CPU_CANDIDATES, *GPU_CANDIDATES)
    return value if type(value) is int and value in known else None


def remember(key: str, batch: int) -> None:
    """Keeps a batch size; does nothing where the cache cannot be written."""
    path = cache_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as aside, aside.open("w") as file:
            json.dump({**_read(), key: batch}, file, indent=1, sort_keys=True)


def _read() -> dict[str, object]:
    try:
        values = json.loads(cache_file().read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def measure(backend: Backend, shape: Shape) -> tuple[int, dict[int, float]]:
    """The fastest candidate, and images a second for each that was tried.

    Candidates grow; the search ends early once a pass gets slow, memory runs out, or two
    candidates in a row are slower than the best.
    """
    cuda = backend.device.type == "cuda"
    rates: dict[int, float] = {}
    for batch in GPU_CANDIDATES if cuda else CPU_CANDIDATES:
        try:
            rate, seconds = _rate(backend, batch, shape)
        except (RuntimeError, MemoryError):
            if not rates:
                raise
            break
        rates[batch] = rate
        tail = list(rates.values())[-2:]
        falling = len(rates) > 2 and max(tail) < 0.97 * max(rates.values())
        if seconds > _SLOW_SECONDS or falling:
            break
    return max(rates, key=rates.__getitem__), rates


def _rate(backend: Backend, batch: int, shape: Shape) -> tuple[float, float]:
    """Images a second, and seconds of one pass."""
    lanes = backend.open(batch, shape)
    # Noise, not zeros: some kernels are faster on zeros. On the queue on which the lane was made,
    # or the two could write the buffer at once.
    with backend.on_queue():
        for lane in lanes:
            lane.buffer.normal_()

    def fill(buffer: Tensor, job: int) -> int:
        return batch

    def collect(scores: Tensor, job: int) -> None:
        return None

    def timed(jobs: int) -> float:
        begin = time.perf_counter()
        backend.drive(lanes, jobs, fill, collect)
        backend.synchronize()
        return time.perf_counter() - begin

    timed(len(lanes))  # warm-up: allocations, kernel choice
    once = timed(len(lanes))
    rounds = max(1, min(_PASSES, round(_SECONDS / max(once, 1e-9))))
    seconds = timed(len(lanes) * rounds)
    return len(lanes) * rounds * batch / seconds, once
