"""Which images a page shows, and their pictures: the photograph and one overlay a method.

Photographs come from the run's data set, maps from RUN/maps; whatever is no longer there is left
out, never made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from gag_fast.images import ImageError, fit, load_image
from gag_fast.measures import Measure
from gag_fast.models import Preprocessing
from gag_fast.presets import Preset, find
from gag_fast.report import charts
from gag_fast.report.colormaps import anchors
from gag_fast.report.live import pack
from gag_fast.report.payload import script_json
from gag_fast.report.pictures import data_uri, map_picture, overlay
from gag_fast.report.reading import Run, is_outside
from gag_fast.report.shown import COUNT, lot

SIDE = 224
"""Longest side, in pixels, of the pictures in a page."""

MAX_METHODS = 10

LIVE_BYTES = 4_500_000
"""Of a page, for the sliders of p: a dozen images of 224 pixels."""

LIVE_IMAGES, LIVE_ABSMEAN, LIVE_VARIANCE = "live_images", "live_absmean", "live_variance"
"""Arrays of a shard of maps: names `[k]`, mean |g| and variance float32 `[k, C, H, W]`."""

FOCUS = "guided_absgrad"
"""The method whose map a slider moves."""


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
    """An image with its overlays.

    Attributes:
        image: its name.
        note: its class.
        tiles: the pictures.
        credit: whose photograph it is.
        live: what the page makes its map for any p from, as JSON.
        curve: its score over p, where the run has several.
    """

    image: str
    note: str
    tiles: list[Tile]
    credit: str = ""
    live: Markup | None = None
    curve: Markup | None = None


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
    worth = values[scored] if metric.higher_is_better else -values[scored]
    order = scored[np.lexsort((scored, -worth))]  # the best first, equal ones as they came
    by = f"{metric.label} of {method}"
    if order.size <= 3 * count:
        picks = [("All images", f"best {by} first", order)]
    else:
        rest = order[count:-count]
        lots = sorted(rest.tolist(), key=lambda index: lot(run.images[index], seed))
        picks = [
            ("Best", f"highest {by}" if metric.higher_is_better else f"lowest {by}", order[:count]),
            ("Worst", f"the other end of {by}", order[::-1][:count]),
            (
                "Random",
                f"drawn with seed {seed} from the images between",
                np.array(sorted(lots[:count])),
            ),
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
    count: int = COUNT,
    seed: int = 0,
    label_of: Callable[[int], str] = str,
    credits: Mapping[str, str] | None = None,
    live_bytes: int = LIVE_BYTES,
) -> list[Group]:
    """The groups of `choose` with their pictures.

    Args:
        run: the run.
        metric, method: what images are ranked by.
        count: images a group.
        seed: of the random group.
        label_of: class index -> class name.
        credits: image -> whose it is.
        live_bytes: of the page, for the statistics behind its sliders; the first images that fit.
    """
    credits = credits or {}
    pictures = Pictures(run)
    left = live_bytes
    groups = []
    for group in choose(run, metric, method, count, seed):
        cards = [
            _card(run, card.image, metric, pictures, label_of, credits.get(card.image, ""))
            for card in group.cards
        ]
        for position, card in enumerate(cards):
            packed = _live(run, pictures, card.image) if left > 0 else None
            if packed is not None and len(packed) <= left:
                left -= len(packed)
                curve = _over_p(run, card.image, metric)
                cards[position] = replace(card, live=packed, curve=curve)
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


def _live(run: Run, pictures: Pictures, image: str) -> Markup | None:
    """The image's statistics, packed; and what is needed to read shares and areas off a map."""
    found = pictures.statistics(image)
    packed = None if found is None else pack(*found)
    if packed is None:
        return None
    used = preset_of(run)
    p = run.setting("p", 85)
    shown = min(100, max(0, round(p))) if isinstance(p, (int, float)) else 85
    scoring = {"percentiles_of_rcap": used.percentiles, "sorted": used.threshold == "sorted"}
    return script_json({"p": shown, **scoring, **packed.to_json(), "colours": anchors()})


def _over_p(run: Run, image: str, metric: Measure) -> Markup | None:
    """The image's score at every p that the run has of the method, when there are two or more."""
    index = run.images.index(image)
    found = []
    for row in np.flatnonzero(run.image == index):
        name, _, percent = run.methods[run.method[row]].partition("@")
        p = percent or run.setting("p")
        value = float(run.scores[metric.column][row])
        if name == FOCUS and np.isfinite(value):
            with suppress(TypeError, ValueError):
                found.append((float(p), value, int(run.method[row])))
    if len(found) < 2:
        return None
    found.sort()
    x, y = (np.array([point[k] for point in found]) for k in (0, 1))
    line = charts.Line(found[0][2], FOCUS, x, y)
    label = f"{metric.label} of {image} over the percentile p"
    title = f"{metric.label} {metric.arrow}"
    return charts.lines_chart(
        [line], label=label, x_label="percentile p", y_label=title, zero=False, points=True,
        height=180, span=(0.0, 100.0),
    )  # fmt: skip


class Pictures:
    """Photographs and maps of a run, read when asked for; None where they cannot be had."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.preprocessing = _preprocessing(run)
        self.root = _root(run)
        self._shard = lru_cache(maxsize=4)(self._read_shard)

    def photograph(self, image: str) -> Image.Image | None:
        """The image as the classifier saw it: resized and cropped alike."""
        if self.root is None or (is_outside(image) and not self.run.allow_outside):
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

    def statistics(self, image: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean |g| and variance of an image's noisy gradients, float32 `[C, H, W]` each."""
        chunk = self.run.columns.get("chunk")
        if chunk is None:
            return None
        rows = np.flatnonzero(self.run.image == self.run.images.index(image))
        if not rows.size or not np.isfinite(chunk[rows[0]]):
            return None
        _, arrays = self._shard(int(chunk[rows[0]]))
        names = [str(name) for name in arrays.get(LIVE_IMAGES, ())]
        if image not in names:
            return None
        place = names.index(image)
        return arrays[LIVE_ABSMEAN][place], arrays[LIVE_VARIANCE][place]

    def _read_shard(self, chunk: int) -> tuple[list[str], dict[str, np.ndarray]]:
        path = self.run.path / "maps" / f"part-{chunk:06d}.npz"
        try:
            with np.load(path) as shard:
                maps = {name: shard[name] for name in shard.files if name != "images"}
                return [str(name) for name in shard["images"]], maps
        except Exception:  # a broken shard makes NumPy raise whatever it meets: no maps
            return [], {}


def preset_of(run: Run) -> Preset:
    """The preset that a run was scored by, the paper's when it does not say."""
    try:
        return find(run.section("preset") or str(run.setting("preset", "paper")))
    except (TypeError, ValueError):
        return find("paper")


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
