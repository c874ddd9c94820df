"""Progress: a bar on a terminal or in a notebook, a plain line now and then in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from gag_fast._errors import InputTypeError
from gag_fast._inputs import describe
from gag_fast._text import one_line

LOG_SECONDS = 30.0
"""Between two lines of a log."""

Report = bool | Callable[[int, int], object]
"""`progress=` of the public functions: whether to show it, or who is told (done, total)."""


def check_report(progress: Any) -> None:
    """Refuses what is neither True, False nor a function."""
    if not (isinstance(progress, bool) or callable(progress)):
        raise InputTypeError(
            f"progress must be True, False or a function (done, total), got {describe(progress)}"
        )


class Progress:
    """Counts things done; nothing is drawn before `start`. Several threads may count.

    Args:
        total: how many there are; may be set until `start`.
        what: their name, plural.
        quiet: print nothing.
        stream: where to, default stderr.
        report: True to show the count, a function that is told (done, total) instead; nothing is
            shown where it is False or `quiet`.
    """

    def __init__(
        self,
        total: int,
        what: str = "images",
        quiet: bool = False,
        stream: TextIO | None = None,
        report: Report = True,
    ) -> None:
        check_report(report)
        self.total, self.done, self.what = total, 0, what
        self._begin_done = 0
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._begin = self._last = time.monotonic()
        self._bar: Any = None
        self._tell = None if isinstance(report, bool) else report
        self._shown = report is True and not quiet
        self._lock = threading.RLock()

    def start(self, done: int = 0) -> None:
        """The work begins; `done` things were done before."""
        self.done = self._begin_done = done
        self._begin = self._last = time.monotonic()
        if self._tell is not None:
            self._tell(done, self.total)
        elif self._shown:
            self._bar = self._drawn()

    def _drawn(self) -> Any:
        """The bar, or None where there is neither a terminal nor a notebook."""
        facts = {"total": self.total, "initial": self.done, "unit": f" {self.what}"}
        if self._stream is sys.stderr and _in_notebook():
            with warnings.catch_warnings():  # that a package is missing: then the bar is of text
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm as bar_of_a_notebook

                return bar_of_a_notebook(**facts)
        if not self._stream.isatty():
            return None
        from tqdm import tqdm

        return tqdm(
            **facts,
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
        with self._lock:
            self.done += count
            if self._tell is not None:
                self._tell(self.done, self.total)
            elif self._bar is not None:
                self._bar.update(count)
            elif self._shown:
                now = time.monotonic()
                if now - self._last >= LOG_SECONDS or self.done == self.total:
                    self._last = now
                    self._print(self._line(now))

    def reach(self, done: int) -> None:
        """As many are done as said, but never fewer than before nor more than there are."""
        with self._lock:
            more = min(done, self.total) - self.done
            if more > 0:
                self.add(more)

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


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


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
