"""Stopping a run as soon as the ranking of its methods is decided."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gag_fast.report.deciding import Rule
from gag_fast.runs.rows import OK


class Decider:
    """Takes chunks in the order of their numbers, whatever order they come in.

    So what is decided, and after which chunk, is the same for every engine and after every restart.

    Args:
        rule: when to stop.
        methods: of the run.
        images: of the whole data set.
    """

    def __init__(self, rule: Rule, methods: Sequence[str], images: int) -> None:
        self.rule, self.methods = rule, tuple(methods)
        self.race = rule.race(len(methods), images)
        self.columns = ["image", "method", rule.measure, "status"]
        self._waiting: dict[int, np.ndarray] = {}
        self._next = 0

    @property
    def settled(self) -> bool:
        """Whether the ranking is decided."""
        return self.race.settled

    def offer(self, chunk: int, table: pa.Table) -> None:
        """Takes a chunk's rows, now or once those before it are there."""
        self._waiting[chunk] = self._scores(table)
        while not self.settled and self._next in self._waiting:
            self.race.update(self._waiting.pop(self._next))
            self._next += 1

    def _scores(self, table: pa.Table) -> np.ndarray:
        """`[images, methods]`, NaN where a row failed."""
        image, method, status = (table[name].to_pylist() for name in ("image", "method", "status"))
        known = self.rule.measure in table.column_names
        score = table[self.rule.measure].to_pylist() if known else [None] * len(image)
        place = {name: k for k, name in enumerate(dict.fromkeys(image))}
        scores = np.full((len(place), len(self.methods)), np.nan)
        for row, name in enumerate(image):
            if status[row] == OK and score[row] is not None:
                scores[place[name], self.methods.index(method[row])] = score[row]
        return scores
