"""Work on the host and uploads for one group of images, done while a GPU is busy with another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from gag_fast.classifier.lanes import Backend

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prepared_ahead(
    backend: Backend, items: Iterable[Item], prepare: Callable[[Item], Prepared]
) -> Iterator[Prepared]:
    """prepare(item) for each item; the caller drives one result before it asks for the next.

    Where `drive` only queues, item g + 1 is prepared before g is handed out. What preparing queues
    runs beside the jobs driven so far, so the GPU still computes g - 1 and finds g's jobs as soon
    as it is done. Each result is kept until the one after it has been driven, and its memory is
    used again only when its jobs are computed: three groups are in memory at a time.
    """
    remaining = iter(items)
    if not backend.queues:
        yield from map(prepare, remaining)
        return
    free = backend.mark()  # what the items are made of is there by then
    driven: Prepared | None = None
    driven_by = free
    current: list[Prepared] = []
    for item in remaining:
        with backend.aside(free):
            following = prepare(item)
        if current:
            yield current[0]
            free, driven, driven_by = driven_by, current[0], backend.mark()
        current = [following]
    yield from current
    del driven


def uploaded(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device; to a GPU through page-locked memory, for which the host does not wait."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
