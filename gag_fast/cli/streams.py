"""The command's stdout and stderr, made safe for whatever is at their other end."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from gag_fast._text import one_line

# What our own tables and lines draw with, one character for each, so that columns stay columns.
_DRAWN = str.maketrans("─│↑↓→×–—…", "-|^v>x--.")


def _in_reach(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks: a drawn likeness, or an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    given = error.object[error.start : error.end].translate(_DRAWN)
    return given.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("gag_fast.in_reach", _in_reach)


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Streams that never end the work, even when closed, ASCII only, or without a reader.

    Text that they cannot take is dropped, characters that their encoding lacks are drawn by others
    or escaped, and control characters that a terminal would obey do not reach stdout.
    """
    _fill_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Stream(before[0], plain=True), _Stream(before[1])  # type: ignore
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _fill_descriptors() -> None:
    """Opens descriptors 0, 1 and 2 where they are closed, or the next file opened would be one."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # open() takes the lowest free number, which is this one


class _Stream:
    """A text stream that outlives its reader; `plain` lets no control characters through."""

    def __init__(self, stream: TextIO | None, plain: bool = False) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 (as long as the process)
        self._plain = plain
        with contextlib.suppress(AttributeError, ValueError):
            self._stream.reconfigure(errors="gag_fast.in_reach")  # type: ignore

    def write(self, text: str) -> int:
        if self._plain and not text.replace("\n", "").isprintable():
            text = "\n".join("\t".join(map(one_line, x.split("\t"))) for x in text.split("\n"))
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._leave()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._leave()

    def _leave(self) -> None:
        """Sends what is left nowhere: the reader went away, as in `gag-fast report RUN | head`."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
