"""A whole run: a data set explained and scored, from the start or from where its folder is."""

from __future__ import annotations

from gag_fast._errors import within_memory
from gag_fast._progress import Report
from gag_fast.runs.computing import compute
from gag_fast.runs.executor import executor_of
from gag_fast.runs.opening import opened
from gag_fast.runs.request import Request, Summary


@within_memory
def run(request: Request, quiet: bool = False, progress: Report = True) -> Summary:
    """Explains and scores a data set; goes on with the folder's run when there is one.

    Args:
        request: what to do.
        quiet: no progress and no notes on stderr.
        progress: whether images are counted there, or a function that is told (done, total).

    Returns:
        Summary; not complete when a signal ended the run or images failed.

    Raises:
        ValueError: something that was asked for is impossible (subclasses say of what kind).
        DiskFullError: the disk is full; the folder stays resumable.
    """
    with opened(request, quiet, progress) as found:
        todo = found.todo
        summary = Summary(found.folder.path, found.images, todo.done, failures=dict(todo.failures))
        summary.settled = found.decider is not None and found.decider.settled
        if todo.chunks:
            try:
                compute(found, executor_of(request, found.worker), summary)
            finally:
                found.progress.close()
        return summary
