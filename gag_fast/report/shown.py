"""Which images of a run are shown; the same rule says whose maps a run keeps.

The best and the worst of one method by one measure, and some that are drawn. Each of the three is
the head of an order of the images, so that the head of a whole run was in the head of every part of
it: who keeps the head of what there is so far, in whatever order it came, ends with the right ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gag_fast.measures import MEASURES, Measure, Need

COUNT = 4
"""Images of each of the three groups."""

DRAWN = 3 * COUNT
"""Of the drawn ones so many are kept: the best and the worst may be among them."""


def focus_of(methods: Sequence[str]) -> str:
    """The method others are compared with: the first guided_absgrad, else the first of all."""
    guided = [m for m in methods if m.partition("@")[0] == "guided_absgrad"]
    preferred = [m for m in guided if m in ("guided_absgrad", "guided_absgrad@85")]
    return (preferred or guided or list(methods))[0]


def measure_of(names: Iterable[str]) -> Measure:
    """The measure that images are ranked by: the first of their table that every image can have."""
    chosen = [m for m in MEASURES.values() if m.name in set(names)]
    return next((m for m in chosen if Need.MASK not in m.needs), chosen[0])


def lot(image: str, seed: int = 0) -> bytes:
    """The image's lot; the smallest ones are drawn. A hash: it depends on no other image."""
    return hashlib.sha256(f"{seed}:{image}".encode("utf-8", "replace")).digest()


@dataclass(frozen=True)
class Candidate:
    """An image with a finite score.

    Attributes:
        image: its name.
        place: in the order of the run.
        worth: its score, turned so that more is better.
    """

    image: str
    place: int
    worth: float


def heads(candidates: Iterable[Candidate], count: int = COUNT, drawn: int = DRAWN) -> set[str]:
    """Names of the best, the worst and the drawn of them."""
    found = list(candidates)
    best = sorted(found, key=lambda c: (-c.worth, c.place))[:count]
    worst = sorted(found, key=lambda c: (c.worth, -c.place))[:count]
    lots = sorted(found, key=lambda c: lot(c.image))[:drawn]
    return {c.image for c in (*best, *worst, *lots)}
