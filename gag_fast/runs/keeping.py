"""Whose maps stay in a run folder: those that its report shows, or everybody's where asked for.

The rule (report/shown.py) is applied to the rows so far after every chunk, and what it no longer
names is taken out of its shard again. So a folder holds some twenty images' maps at any time, and
in the end the same ones, whatever the order of the chunks and wherever the run was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from gag_fast.measures import Measure
from gag_fast.report.gallery import LIVE_ABSMEAN, LIVE_IMAGES, LIVE_VARIANCE
from gag_fast.report.shown import Candidate, focus_of, heads, measure_of
from gag_fast.runs.folder import RunFolder
from gag_fast.runs.rows import OK

Shard = dict[str, np.ndarray]
_LIVE = (LIVE_IMAGES, LIVE_ABSMEAN, LIVE_VARIANCE)


class Keeper:
    """Keeps the maps of the images that the report of a run shows.

    Args:
        folder: the run's; what its parts and shards hold already is taken up.
        methods, metrics: of the run.
        everything: keep all maps; only the statistics behind the sliders follow the rule then.
    """

    def __init__(
        self,
        folder: RunFolder,
        methods: Sequence[str],
        metrics: Sequence[str],
        everything: bool = False,
    ) -> None:
        self._folder = folder
        self._focus = focus_of(methods)
        self._measure = measure_of(metrics)
        self._everything = everything
        self._candidates: dict[int, list[Candidate]] = {}  # by chunk, the heads of what there was
        self._held: dict[int, set[str]] = {}

    def take_up(self, done: Mapping[int, Path]) -> None:
        """Takes up what an earlier start left: the rows of parts, and the shards beside them.

        Args:
            done: number of the chunk -> part, of those that count.
        """
        columns = ["image", "method", self._measure.column, "status"]
        for chunk, path in done.items():
            table = self._folder.read_part(path, columns=columns)
            if table is not None:
                self._candidates[chunk] = candidates(table, chunk, self._focus, self._measure)
                self._settle()
        for chunk in self._folder.shards():
            self._held[chunk] = self._folder.shard_images(chunk, _LIVE[0])
        self._prune()

    def choose(self, chunk: int, table: pa.Table, maps: Shard | None) -> Shard | None:
        """Of a new chunk's maps those to write with its rows; None for none.

        Args:
            chunk: its number.
            table: its rows.
            maps: of all of its images that may be shown.
        """
        self._candidates[chunk] = candidates(table, chunk, self._focus, self._measure)
        wanted = self._settle().get(chunk, set())
        if maps is None:
            return None
        kept = reduced(maps, wanted, self._everything)
        self._held[chunk] = set() if kept is None else wanted
        return kept

    def written(self) -> None:
        """A chunk is on the disk: takes out what it has pushed out."""
        self._prune()

    def _settle(self) -> dict[int, set[str]]:
        """The heads of all candidates, by chunk; others are forgotten."""
        names = heads(c for of_chunk in self._candidates.values() for c in of_chunk)
        self._candidates = {
            chunk: left
            for chunk, of_chunk in self._candidates.items()
            if (left := [c for c in of_chunk if c.image in names])
        }
        return {chunk: {c.image for c in left} for chunk, left in self._candidates.items()}

    def _prune(self) -> None:
        wanted = self._settle()
        for chunk, names in list(self._held.items()):
            left = names & wanted.get(chunk, set())
            if left == names:
                continue
            shard = self._folder.read_shard(chunk)
            self._folder.write_shard(
                chunk, None if shard is None else reduced(shard, left, self._everything)
            )
            self._held[chunk] = left


def candidates(table: pa.Table, chunk: int, focus: str, measure: Measure) -> list[Candidate]:
    """A chunk's images with a finite score of the focus method; at most those that can be heads."""
    if measure.column not in table.column_names:
        return []
    names = ("image", "method", measure.column, "status")
    image, method, score, status = (table[name].to_pylist() for name in names)
    order = {name: place for place, name in enumerate(dict.fromkeys(image))}
    sign = 1 if measure.higher_is_better else -1
    found = [
        # A chunk has fewer than 2^32 images: places of later chunks are behind those of earlier.
        Candidate(image[k], (chunk << 32) + order[image[k]], sign * score[k])
        for k in range(len(image))
        if method[k] == focus and status[k] == OK and score[k] is not None and np.isfinite(score[k])
    ]
    names_of_heads = heads(found)
    return [c for c in found if c.image in names_of_heads]


def reduced(maps: Mapping[str, np.ndarray], wanted: set[str], everything: bool) -> Shard | None:
    """A shard with the wanted images alone; None where none is left.

    With `everything` all maps stay, and of the statistics those of the wanted images.
    """
    kept: Shard = {}
    for names, members in (
        ("images", [name for name in maps if name not in _LIVE]),
        (LIVE_IMAGES, [name for name in maps if name in _LIVE]),
    ):
        if names not in maps:
            continue
        whole = everything and names == "images"
        rows = [k for k, name in enumerate(maps[names]) if whole or str(name) in wanted]
        if rows:
            kept |= {member: maps[member][rows] for member in members}
    return kept or None
