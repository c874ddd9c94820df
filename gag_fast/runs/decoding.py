"""Images decoded in processes of their own, some chunks ahead of their use.

A process for each worker: a file that makes a decoder crash, hang or eat memory costs that
process, not the run, and the guilty image is known. They import PIL and NumPy only, so they start
in a fraction of a second, and know nothing of the parent's main module.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gag_fast._errors import GagFastError
from gag_fast._text import one_line
from gag_fast.data import Item
from gag_fast.data.places import Place, place_to_json, size_of
from gag_fast.models import Preprocessing
from gag_fast.runs.chunks import Chunk

TIMEOUT = 120.0
"""Seconds for one image, reading included."""

_HOPELESS = 6
"""So many processes that died before they could work, and it is not the images' fault."""


@dataclass
class Decoded:
    """An image ready for the model, or the reason why not.

    Attributes:
        pixels: uint8 [H, W, C] at the model's input size, None when it failed.
        mask: uint8 [H, W], 0 or 255, None without.
        error: the reason, None when all went well.
        sha256, bytes, mtime_ns: of the file; None when it could not be read.
        mask_sha256, mask_bytes, mask_mtime_ns: of the mask's file, likewise.
        seconds: time that it took.
    """

    pixels: np.ndarray | None = None
    mask: np.ndarray | None = None
    error: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    mtime_ns: int | None = None
    mask_sha256: str | None = None
    mask_bytes: int | None = None
    mask_mtime_ns: int | None = None
    seconds: float = 0.0


_FACTS = (
    *("sha256", "bytes", "mtime_ns"),
    *("mask_sha256", "mask_bytes", "mask_mtime_ns"),
)


class DecoderDied(RuntimeError):
    """The process ended or hung over an image."""


class _Process:
    """One decoder process and the pipes to it."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        # What this process can import, that one can. One BLAS thread: it computes nothing.
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
            "OPENBLAS_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gag_fast.runs.decoder_process"),
                json.dumps(asdict(preprocessing)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=env,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self._rest = b""
        self.ready = False

    def decode(
        self, path: str, place: Place = None, mask: str | None = None, mask_place: Place = None
    ) -> Decoded:
        """Sends one request and waits for its answer. Raises DecoderDied."""
        deadline = time.monotonic() + TIMEOUT
        asked = {"path": path, "place": place_to_json(place)}
        if mask is not None:
            asked |= {"mask": mask, "mask_place": place_to_json(mask_place)}
        request = json.dumps(asked).encode() + b"\n"
        if not self.ready:
            self._line(deadline)
            self.ready = True
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(request)
        except OSError:
            raise DecoderDied(self._end()) from None
        header = json.loads(self._line(deadline))
        facts = {name: header.get(name) for name in _FACTS}
        found = Decoded(error=header["error"], seconds=header["seconds"], **facts)
        if header["shape"] is not None:
            shape = tuple(header["shape"])
            found.pixels = self._array(shape, deadline)
            if header["mask"]:
                found.mask = self._array(shape[:2], deadline)
        return found

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            self._rest += self._read(1 << 16, deadline)
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _array(self, shape: tuple[int, ...], deadline: float) -> np.ndarray:
        array = np.empty(int(np.prod(shape)), np.uint8)
        have = min(len(self._rest), array.size)
        array[:have] = np.frombuffer(self._rest[:have], np.uint8)
        self._rest = self._rest[have:]
        while have < array.size:
            block = self._read(array.size - have, deadline)
            array[have : have + len(block)] = np.frombuffer(block, np.uint8)
            have += len(block)
        return array.reshape(shape)

    def _read(self, size: int, deadline: float) -> bytes:
        pipe = self.process.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            self.close()
            raise DecoderDied(f"took longer than {TIMEOUT:.0f} s")
        block = pipe.read(size)
        if not block:
            raise DecoderDied(self._end())
        return block

    def _end(self) -> str:
        self._end_group()
        code = self.process.wait()
        return f"the decoder died over it ({f'signal {-code}' if code < 0 else f'status {code}'})"

    def _end_group(self) -> None:
        """SIGKILL for the process and its children: it leads a group of its own."""
        if self.process.returncode is None:  # once it is waited for, the number may be another's
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the process, and whatever it may have started."""
        self._end_group()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


class Decoder:
    """Decodes images in `workers` processes.

    Args:
        preprocessing: the model's.
        workers: how many processes.
    """

    def __init__(self, preprocessing: Preprocessing, workers: int = 2) -> None:
        if workers < 1:
            raise GagFastError(f"decoding needs 1 worker or more, got {workers}")
        self._preprocessing = preprocessing
        # A thread for each process, which only waits for it.
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="gag-fast-decode")
        self._own = threading.local()
        self._processes: list[_Process] = []
        self._guard = threading.Lock()
        self._closed = False
        self._stillborn = 0

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; what they were doing is lost."""
        with self._guard:
            self._closed = True
            for process in self._processes:
                process.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, item: Item) -> Future[Decoded]:
        """Starts to decode an image.

        The future holds an answer for every image, however bad; it raises RuntimeError when
        process after process dies before it can work at all.
        """
        return self._pool.submit(self._decode, item)

    def stream(
        self, chunks: Iterable[Chunk], ahead: int = 2
    ) -> Iterator[tuple[Chunk, list[Decoded]]]:
        """The chunks in order, decoded while up to `ahead` before them are worked on."""
        waiting: deque[tuple[Chunk, list[Future[Decoded]]]] = deque()
        for chunk in chunks:
            waiting.append((chunk, [self.submit(item) for item in chunk.items]))
            if len(waiting) > ahead:
                first, futures = waiting.popleft()
                yield first, [future.result() for future in futures]
        for chunk, futures in waiting:
            yield chunk, [future.result() for future in futures]

    def _decode(self, item: Item) -> Decoded:
        mask = None if item.mask is None else str(item.mask)
        for attempt in range(2):  # a process may have been killed for another's memory
            process = self._process()
            try:
                return process.decode(str(item.path), item.place, mask, item.mask_place)
            except DecoderDied as error:
                reason = one_line(f"{item.path}: {error}")
                self._drop(process)
                self._stillborn += not process.ready
                if self._stillborn >= _HOPELESS and not self._closed:
                    raise RuntimeError(f"no decoder process can work here: {error}") from None
                if attempt or "longer" in reason or self._closed:
                    break
        return Decoded(error=reason, **_seen(item))

    def _process(self) -> _Process:
        process = getattr(self._own, "process", None)
        if process is None:
            process = _Process(self._preprocessing)
            self._own.process = process
            with self._guard:
                self._processes.append(process)
                if self._closed:
                    process.close()
        return process

    def _drop(self, process: _Process) -> None:
        self._own.process = None
        with self._guard:
            if process in self._processes:
                self._processes.remove(process)
        process.close()


def _seen(item: Item) -> dict[str, Any]:
    """Size and time of the files of an image that no decoder lived to tell of.

    A restart must not try it again for ever: it is the same as long as these are.
    """
    found: dict[str, Any] = {}
    files = ((item.path, item.place, ""), (item.mask, item.mask_place, "mask_"))
    for path, place, prefix in files:
        if path is not None:
            with contextlib.suppress(OSError, ValueError):
                facts = os.stat(path)
                size = size_of(place, facts)
                found |= {f"{prefix}bytes": size, f"{prefix}mtime_ns": facts.st_mtime_ns}
    return found
