"""How a command that computes images ends: a line if a signal stopped it, and the exit status."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gag_fast.runs.request import Summary


def ending(summary: Summary, of_what: str = "") -> int:
    """Says that and where a run was stopped; returns the exit status.

    Args:
        summary: of the run.
        of_what: said in the line after the number of images that are done.
    """
    if summary.interrupted is None:
        return 0 if summary.complete else 1
    print(
        f"gag-fast: stopped by {signal.Signals(summary.interrupted).name} with {summary.done} "
        f"of {summary.images} images done{of_what}; the same command goes on from here",
        file=sys.stderr,
    )
    return 128 + summary.interrupted
