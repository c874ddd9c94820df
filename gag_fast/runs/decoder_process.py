"""The process that decodes: reads requests on stdin, answers on stdout, until stdin ends.

    python -m gag_fast.runs.decoder_process '{"size": 224, ...}'

The first line says that it can work. A request is a line of JSON {"path", "place"}, with
"mask" and "mask_place" where there is a mask. The answer is a line of JSON, followed by the bytes
of the pixels and of the mask (uint8) when it says that there are any. PIL and NumPy only, and
pyarrow where a picture lies in a Parquet file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gag_fast._text import one_line
from gag_fast.data.places import place_from_json
from gag_fast.data.reading import NullError, PlaceReader
from gag_fast.images import ImageError, decode_image, decode_mask, fit, pixels_of

TIME_LIMIT = 150
"""Seconds for one image, after which the process ends itself; the parent's patience ends before."""

MEMORY_LIMIT = 4 << 30
"""Bytes of address space: what a hostile file can make a decoder take."""


def decode(
    request: Mapping[str, Any], preprocessing: Any, reader: PlaceReader
) -> tuple[dict[str, Any], list[bytes]]:
    """One image as the model's input pixels, with what identifies its file.

    Returns:
        header: `sha256`, `bytes`, `mtime_ns` of the file (`mask_sha256` and so on of the mask's),
        `seconds`, `error` (None when all went well), `shape` of the pixels [H, W, C]; and the
        pixels' bytes, then the mask's [H, W].
    """
    begin = time.perf_counter()
    header: dict[str, Any] = {"error": None, "shape": None, "mask": False}
    payload = []
    path, mask = request["path"], request.get("mask")
    try:
        files = [(path, request["place"], "")]
        if mask is not None:
            files.append((mask, request["mask_place"], "mask_"))
        # Both before either is judged: a row that failed must be made again when one changes.
        data, *rest = _all([partial(_read, reader, *file, header) for file in files])
        picture = decode_image(data, path)
        pixels = pixels_of(fit(picture, preprocessing))
        payload.append(pixels.tobytes())
        if rest and rest[0]:
            payload.append(_mask_pixels(rest[0], mask, picture.size, preprocessing))
            header["mask"] = True
        header["shape"] = pixels.shape
    except Exception as error:  # whatever a file makes a library do is the answer about it
        known = isinstance(error, (ImageError, OSError))
        header["error"] = one_line(error if known else f"{path}: {type(error).__name__}: {error}")
        payload = []
    header["seconds"] = time.perf_counter() - begin
    return header, payload


def _all(calls: list[Callable[[], bytes]]) -> list[bytes]:
    """What every call gives; each is made, then the first error is raised."""
    found, errors = [], []
    for call in calls:
        try:
            found.append(call())
        except (ImageError, OSError) as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return found


def _read(
    reader: PlaceReader, path: str, place: list[Any] | None, prefix: str, header: dict[str, Any]
) -> bytes:
    """The bytes of a place, none for a mask that is a null; what identifies them: in `header`."""
    try:
        data = reader.read(path, place_from_json(place))
    except NullError:
        if prefix:
            return b""
        raise
    if isinstance(data, Path):
        return _read(reader, str(data), None, prefix, header)
    header[f"{prefix}sha256"] = hashlib.sha256(data).hexdigest()
    header[f"{prefix}bytes"] = len(data)
    header[f"{prefix}mtime_ns"] = os.stat(path).st_mtime_ns
    return data


def _mask_pixels(data: bytes, path: Any, size: tuple[int, int], preprocessing: Any) -> bytes:
    mask = decode_mask(data, path)
    (width, height), (w, h) = size, mask.size
    if abs(width * h - height * w) > 0.01 * width * h:
        raise ImageError(f"{path}: the mask is {w}×{h}, the image {width}×{height}")
    if mask.size != size:  # cropped alike, they must be alike
        mask = mask.resize(size, 0)
    binary = np.asarray(fit(mask, preprocessing, nearest=True))
    return (binary[..., 0] if binary.ndim == 3 else binary).tobytes()


def start_no_program(event: str, _: object) -> None:
    """An audit hook: whatever a file makes a decoder do, starting a program is not its work."""
    if event in _STARTS:
        raise ImageError("a decoder may not start a program")


_STARTS = frozenset(
    ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn")
)


def main() -> None:
    """Serves requests until stdin ends, as it does when the parent dies."""
    import resource

    sys.addaudithook(start_no_program)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY_LIMIT if hard == resource.RLIM_INFINITY else min(MEMORY_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    preprocessing = SimpleNamespace(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not break the protocol
    answers.write(b"ready\n")
    answers.flush()
    reader = PlaceReader()
    for line in sys.stdin.buffer:
        # Where the parent is gone, nobody else ends a decoder that is caught in a file.
        signal.alarm(TIME_LIMIT)
        request = json.loads(line)
        header, payload = decode(request, preprocessing, reader)
        answers.write(json.dumps(header).encode() + b"\n")
        for block in payload:
            answers.write(block)
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    main()
