"""Progress on stderr: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, TextIO

from gag_fast._text import one_line

LOG_SECONDS = 30.0
"""Between two lines of a log."""


class Progress:
    """Counts things done; nothing is drawn before `start`.

    Args:
        total: how many there are.
        what: their name, plural.
        quiet: print nothing.
        stream: where to, default stderr.
    """

    def __init__(
        self,
        total: int,
        what: str = "images",
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.total, self.done, self.what = total, 0, what
        self._begin_done = 0
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._begin = self._last = time.monotonic()
        self._bar = None

    def start(self, done: int = 0) -> None:
        """The work begins; `done` things were done before."""
        self.done = self._begin_done = done
        self._begin = self._last = time.monotonic()
        if not self._quiet and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self.total,
                initial=done,
                unit=f" {self.what}",
                file=self._stream,
                smoothing=0.05,
                bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, "
                "{rate_noinv_fmt}]",
                **_width(self._stream),
            )

    def __enter__(self) -> Progress:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, count: int) -> None:
        """`count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if not self._quiet and (now - self._last >= LOG_SECONDS or self.done == self.total):
            self._last = now
            self._print(self._line(now))

    def note(self, text: str) -> None:
        """A line that stays, above the bar if there is one; see `one_line`."""
        if self._quiet:
            return
        text = one_line(text)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._print(text)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, now: float) -> str:
        rate = (self.done - self._begin_done) / max(now - self._begin, 1e-9)
        left = (self.total - self.done) / rate if rate > 0 else float("inf")
        text = f"{self.done}/{self.total} {self.what}, {rate:.2f}/s"
        return text if self.done >= self.total else f"{text}, {_duration(left)} left"

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def _width(stream: TextIO) -> dict[str, Any]:
    """As wide as the terminal; 80 columns where it does not know its size: some only record."""
    try:
        known = os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 80, "nrows": 24}


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown time"
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
