"""Which images a page shows, and their pictures: the photograph and one overlay a method.

Photographs come from the run's data set, maps from RUN/maps; whatever is no longer there is left
out, never made up.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from gag_fast.images import ImageError, fit, load_image
from gag_fast.measures import Measure
from gag_fast.models import Preprocessing
from gag_fast.report.pictures import data_uri, map_picture, overlay
from gag_fast.report.reading import Run

SIDE = 224
"""Longest side, in pixels, of the pictures in a page."""

MAX_METHODS = 10


@dataclass(frozen=True)
class Tile:
    """One picture of a card: its `data:` URI, caption, and the method's number (−1: photograph)."""

    uri: str
    caption: str
    value: str = ""
    index: int = -1
    width: int = SIDE
    height: int = SIDE


@dataclass(frozen=True)
class Card:
    """An image with its overlays; `note` is its class, `credit` whose photograph it is."""

    image: str
    note: str
    tiles: list[Tile]
    credit: str = ""


@dataclass(frozen=True)
class Group:
    """Cards under one heading."""

    title: str
    note: str
    cards: list[Card] = field(default_factory=list)


def choose(run: Run, metric: Measure, method: str, count: int, seed: int = 0) -> list[Group]:
    """The images to show, as groups without pictures: `cards` hold names only.

    Best and worst are by `metric` of `method`; random ones are drawn from the rest with `seed`. A
    run of no more than three times `count` images is shown whole, best first.
    """
    values = run.matrix(metric.column)[:, run.methods.index(method)]
    scored = np.flatnonzero(np.isfinite(values))
    order = scored[np.argsort(values[scored], kind="stable")]
    if metric.higher_is_better:
        order = order[::-1]
    by = f"{metric.label} of {method}"
    if order.size <= 3 * count:
        picks = [("All images", f"best {by} first", order)]
    else:
        rest = order[count:-count]
        drawn = np.random.default_rng(seed).choice(rest, min(count, rest.size), replace=False)
        picks = [
            ("Best", f"highest {by}" if metric.higher_is_better else f"lowest {by}", order[:count]),
            ("Worst", f"the other end of {by}", order[::-1][:count]),
            ("Random", f"drawn with seed {seed} from the images between", np.sort(drawn)),
        ]
    return [
        Group(title, note, [Card(run.images[i], "", []) for i in indices])
        for title, note, indices in picks
        if len(indices)
    ]


def gallery(
    run: Run,
    metric: Measure,
    method: str,
    *,
    count: int = 6,
    seed: int = 0,
    label_of: Callable[[int], str] = str,
    credits: Mapping[str, str] | None = None,
) -> list[Group]:
    """The groups of `choose` with their pictures.

    Args:
        run: the run.
        metric, method: what images are ranked by.
        count: images a group.
        seed: of the random group.
        label_of: class index -> class name.
        credits: image -> whose it is.
    """
    credits = credits or {}
    pictures = Pictures(run)
    groups = []
    for group in choose(run, metric, method, count, seed):
        cards = [
            _card(run, card.image, metric, pictures, label_of, credits.get(card.image, ""))
            for card in group.cards
        ]
        groups.append(Group(group.title, group.note, cards))
    return groups


def _card(run: Run, image: str, metric: Measure, pictures: Pictures, label_of, credit: str) -> Card:
    rows = np.flatnonzero(run.image == run.images.index(image))
    note = ""
    if run.target[rows[0]] >= 0:
        note = label_of(int(run.target[rows[0]]))
        confidence = run.confidence[rows[0]]
        if np.isfinite(confidence):
            note += f" · {100 * confidence:.1f} %"
    photograph = pictures.photograph(image)
    tiles = []
    if photograph is not None:
        tiles.append(_tile(photograph, "photograph"))
    for row in rows[:MAX_METHODS]:
        name = run.methods[run.method[row]]
        saliency = pictures.saliency(image, row)
        if saliency is None or not np.isfinite(saliency).any():
            continue
        picture = map_picture(saliency) if photograph is None else overlay(photograph, saliency)
        value = run.scores[metric.column][row]
        text = f"{metric.label} {value:.3f}" if np.isfinite(value) else ""
        tiles.append(_tile(picture, name, text, int(run.method[row])))
    return Card(image, note, tiles, credit)


def _tile(picture: Image.Image, caption: str, value: str = "", index: int = -1) -> Tile:
    """A picture with the size it is shown at, so that nothing moves when it appears."""
    share = min(1.0, SIDE / max(picture.size))
    width, height = (max(1, round(share * side)) for side in picture.size)
    return Tile(data_uri(picture, side=SIDE), caption, value, index, width, height)


class Pictures:
    """Photographs and maps of a run, read when asked for; None where they cannot be had."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.preprocessing = _preprocessing(run)
        self.root = _root(run)
        self._shard = lru_cache(maxsize=4)(self._read_shard)

    def photograph(self, image: str) -> Image.Image | None:
        """The image as the classifier saw it: resized and cropped alike."""
        if self.root is None:
            return None
        try:
            picture = load_image(self.root / image)
            return picture if self.preprocessing is None else fit(picture, self.preprocessing)
        except ImageError:
            return None

    def saliency(self, image: str, row: int) -> np.ndarray | None:
        """The map of a result row as float32 `[H, W]`."""
        chunk = self.run.columns.get("chunk")
        if chunk is None or not np.isfinite(chunk[row]):
            return None
        names, maps = self._shard(int(chunk[row]))
        method = self.run.methods[self.run.method[row]]
        if image not in names or method not in maps:
            return None
        return maps[method][names.index(image)].astype(np.float32)

    def _read_shard(self, chunk: int) -> tuple[list[str], dict[str, np.ndarray]]:
        path = self.run.path / "maps" / f"part-{chunk:06d}.npz"
        try:
            with np.load(path) as shard:
                maps = {name: shard[name] for name in shard.files if name != "images"}
                return [str(name) for name in shard["images"]], maps
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return [], {}


def _preprocessing(run: Run) -> Preprocessing | None:
    found = run.section("preprocessing")
    if found is None:
        return None
    known = {f.name for f in fields(Preprocessing)}
    try:
        return Preprocessing(**{k: v for k, v in found.items() if k in known})
    except (TypeError, ValueError):
        return None


def _root(run: Run) -> Path | None:
    """What the names of images are relative to: the data set's folder, or that of its table."""
    source = run.setting("source")
    if not isinstance(source, str):
        return None
    return Path(source) if Path(source).is_dir() else Path(source).parent
