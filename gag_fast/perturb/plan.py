"""The plan: which pictures the metrics need, each distinct one once.

Most are "the first `count` pixels in rank order of a map from source `top`, the others from source
`rest`", where the sources are the images, their blurred copies and constant colours; one operator
composes those by the batch. The others are written one by one, each by its curve's own function. A
plan lists the distinct ones and where each point of each curve finds its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gag_fast import ops
from gag_fast.perturb.blur import blur
from gag_fast.presets import Preset

FILL = -1
"""Number of the constant colour that `compose_` takes beside its sources."""


@dataclass(frozen=True)
class Ranked:
    """Saliency maps sorted once; everything about thresholds is read off this.

    Attributes:
        ranks: int32 [R, H W]: rank of each pixel, 0 the most salient; ties by pixel index.
        order: int32 [R, H W]: its inverse.
        descending: [R, H W]: the map's values in that order.
        finite: bool [R]; the rows of other maps hold zeros.
    """

    ranks: Tensor
    order: Tensor
    descending: Tensor
    finite: Tensor


def rank(maps: Tensor) -> Ranked:
    """Sorts maps [R, H, W]."""
    finite = maps.flatten(1).isfinite().all(dim=1)
    maps = torch.where(finite[:, None, None], maps, 0)
    ranks, order = ops.saliency_ranks(maps)
    return Ranked(ranks, order, maps.flatten(1).gather(1, order.long()), finite)


def percentile_counts(ranked: Ranked, percents: Sequence[float]) -> Tensor:
    """How many pixels are at or above each linear percentile of their map: int64 [R, j].

    A linear percentile q at rank r lies in (V(floor r), V(ceil r)], so V >= q holds for the same
    pixels as V >= V(ceil r): no interpolation, no rounding, ties included.
    """
    pixels = ranked.descending.shape[1]
    ascending = ranked.descending.flip(1)
    at = [math.ceil((p / 100) * (pixels - 1)) for p in percents]
    return pixels - torch.searchsorted(ascending, ascending[:, at].contiguous())


def recover_counts(ranked: Ranked, preset: Preset) -> Tensor:
    """How many pixels each of RCAP's partitions recovers: int64 [R, j]."""
    if preset.threshold == "percentile":
        return percentile_counts(ranked, preset.percentiles)
    pixels = ranked.descending.shape[1]
    ascending = ranked.descending.flip(1)
    at = [int(pixels * (p / 100)) - 1 for p in preset.percentiles]
    values = ascending[:, at]  # -1 is the last, as in the authors' Python
    return pixels - torch.searchsorted(ascending, values.contiguous(), right=True)


def curve_counts(ranked: Ranked, preset: Preset) -> Tensor:
    """How many pixels have moved at each point of the deletion and insertion curves: [R, s]."""
    rows, pixels = ranked.descending.shape
    if preset.order == "sorted":
        n = round(1 / preset.step)
        points = range(n + preset.last_point)
        at = [int(pixels * round(1 - k / n, 9)) - 1 for k in points]
        ascending = ranked.descending.flip(1)
        return pixels - torch.searchsorted(ascending, ascending[:, at].contiguous(), right=True)
    if preset.step_unit == "fraction":
        n = round(1 / preset.step)
        counts = [(2 * k * pixels + n) // (2 * n) for k in range(n + 1)]  # halves up, exactly
    else:
        step = int(preset.step)
        if preset.step_unit == "count":
            step = -(-pixels // step)
        counts = [*range(0, pixels, step), pixels]
    counts = counts if preset.last_point else counts[:-1]
    return torch.tensor(counts, device=ranked.order.device).expand(rows, -1)


@dataclass(frozen=True)
class Bank:
    """The pixels that masked images are made of.

    Attributes:
        sources: [S, C, H, W]: the images, then their blurred copies and constants where needed.
        fill: [C], the colour of source `FILL`.
        constants: source number of "black" and "mean", of those that are needed.
        blurred: source number of the first blurred image, or None.
    """

    sources: Tensor
    fill: Tensor
    constants: dict[str, int]
    blurred: int | None

    def source(self, base: str, image: int) -> int:
        """Number of the source that an image's pixels come from or go to."""
        if base == "image":
            return image
        if base == "blur":
            assert self.blurred is not None
            return self.blurred + image
        return self.constants[base]


@dataclass(frozen=True)
class Masked:
    """The masked images of one curve: at each point some pixels from `top`, others from `rest`.

    Attributes:
        counts: int64 [R, steps]: at each point, so many of the first pixels in rank order of the
            map come from `top`.
        top, rest: "image", "blur", "black" or "mean".
    """

    counts: Tensor
    top: str
    rest: str


class Picture(NamedTuple):
    """A picture that its curve's function writes.

    Attributes:
        key: what it shows; two pictures of one image with equal keys are the same picture.
        arguments: of the curve's function.
    """

    key: Hashable
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Made:
    """The pictures of one curve that no two sources compose.

    Attributes:
        pictures: of each image and map (or of each image alone, then M is 1) its pictures: None
            where a map is not finite.
        write: writes a picture into a buffer [C, H, W], given its arguments. Called from the lanes'
            threads, several at once; what it writes must depend on the arguments alone.
    """

    pictures: Sequence[Sequence[Sequence[Picture] | None]]
    write: Callable[..., None]


Wanted = Masked | Made
"""What a curve asks for."""


def make_bank(images: Tensor, black: Tensor, preset: Preset, needed: set[str]) -> Bank:
    """The sources of a batch of images [B, C, H, W].

    Args:
        images: the images.
        black: a black pixel [C].
        preset: says how to blur.
        needed: the names of sources, as `Masked` has them.
    """
    parts = [images]
    blurred = None
    if "blur" in needed:
        blurred = images.shape[0]
        parts.append(blur(images, preset))
    colours = {"black": black.to(images.device), "mean": torch.zeros_like(black)}
    colours = {name: c.to(images.device) for name, c in colours.items() if name in needed}
    constants: dict[str, int] = {}
    fill = torch.zeros(images.shape[1], device=images.device)
    for name, colour in colours.items():
        if not constants:
            constants[name], fill = FILL, colour
        else:
            constants[name] = sum(len(part) for part in parts)
            parts.append(colour[None, :, None, None].expand(1, *images.shape[1:]))
    sources = parts[0] if len(parts) == 1 else torch.cat(parts)
    return Bank(sources.contiguous(), fill, constants, blurred)


@dataclass(frozen=True)
class Plan:
    """The distinct masked images of some images and maps, and who needs which.

    Attributes:
        slots: int32 [N, 4], (map, count, top, rest) of each composed one, as `ops.compose_` takes
            them. The N pictures that are written follow.
        made: (function, arguments) of each picture that is written.
        owner: int64 [all], the image a picture belongs to; -1: a constant, shared by all.
        shared: how many of the first slots are constants.
        points: for each curve int64 [B, M, steps], the slot of each point; -1 where the map is
            not finite.
        asked: points in all: the forward passes that scoring point by point would make.
    """

    slots: np.ndarray
    made: list[tuple[Callable[..., None], tuple[Any, ...]]]
    owner: np.ndarray
    shared: int
    points: dict[str, np.ndarray]
    asked: int

    def __len__(self) -> int:
        """Forward passes."""
        return len(self.owner)

    def distinct(self, curves: Iterable[str]) -> int:
        """Forward passes that these curves alone would take."""
        used = [self.points[name].ravel() for name in curves if name in self.points]
        return int(np.count_nonzero(np.unique(np.concatenate(used)) >= 0)) if used else 0

    def rows(self) -> Iterator[tuple[int, int, int, int, int]]:
        """(image, map, count, top, rest) of each composed one."""
        for owner, slot in zip(self.owner.tolist(), self.slots.tolist(), strict=False):
            yield (owner, *slot)

    def __str__(self) -> str:
        """A line on the whole and one for each masked image."""
        lines = [f"{len(self)} masked images for {self.asked} points"]
        for image, m, count, top, rest in self.rows():
            lines.append(f"image {image}: {count} pixels of map {m} from {top}, others from {rest}")
        lines += [f"image {o}: written" for o in self.owner[len(self.slots) :].tolist()]
        return "\n".join(lines)


def make_plan(
    ranked: Ranked, bank: Bank, wanted: Mapping[str, Wanted], maps_per_image: int
) -> Plan:
    """Lists the distinct pictures of the curves that are wanted.

    Two masked images are the same when they take the same set of pixels from the same sources,
    whichever map or metric the set came from; a set is known by the sum of its pixels' 64-bit
    numbers, which two different sets share with probability 2^-64.
    """
    rows, pixels = ranked.order.shape
    masked = {curve: want for curve, want in wanted.items() if isinstance(want, Masked)}
    counts = {curve: want.counts for curve, want in masked.items()}
    hashes = _set_hashes(ranked.order, counts)
    total = int(_pixel_numbers(pixels).sum())
    finite = ranked.finite.tolist()
    found: dict[tuple[int, ...], int] = {}
    slots: list[tuple[int, int, int, int]] = []
    owner: list[int] = []
    points = {
        curve: np.full((rows // maps_per_image, maps_per_image, c.shape[1]), -1)
        for curve, c in counts.items()
    }

    def slot(key: tuple[int, ...], value: tuple[int, int, int, int], image: int) -> int:
        at = found.get(key)
        if at is None:
            at = found[key] = len(slots)
            slots.append(value)
            owner.append(image)
        return at

    if any(finite):
        for name in sorted(_whole_constants(masked, pixels)):
            number = bank.constants[name]
            slot((number,), (0, 0, number, number), -1)
    shared = len(slots)
    numbers = {curve: (c.tolist(), hashes[curve].tolist()) for curve, c in counts.items()}
    for row in range(rows):
        if not finite[row]:
            continue
        image, m = divmod(row, maps_per_image)
        for curve, (count_rows, hash_rows) in numbers.items():
            want = masked[curve]
            top, rest = bank.source(want.top, image), bank.source(want.rest, image)
            at = points[curve][image, m]
            for step, (count, hashed) in enumerate(
                zip(count_rows[row], hash_rows[row], strict=True)
            ):
                if count in (0, pixels) or top == rest:
                    source = rest if count == 0 else top
                    at[step] = slot((source,), (row, 0, source, source), image)
                elif top < rest:
                    key = (top, rest, count, hashed)
                    at[step] = slot(key, (row, count, top, rest), image)
                else:  # the same picture described from its other side
                    key = (rest, top, pixels - count, _wrap(total - hashed))
                    at[step] = slot(key, (row, count, top, rest), image)
    made: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
    for curve, other in wanted.items():
        if isinstance(other, Made):
            points[curve] = _list_made(other, len(slots), made, owner)
    asked = sum(int((p >= 0).sum()) for p in points.values())
    table = np.array(slots, dtype=np.int32).reshape(-1, 4)
    return Plan(table, made, np.array(owner, dtype=np.int64), shared, points, asked)


def _list_made(
    want: Made,
    first: int,
    made: list[tuple[Callable[..., None], tuple[Any, ...]]],
    owner: list[int],
) -> np.ndarray:
    """Appends a curve's pictures, each distinct one once; their numbers [B, M or 1, n]."""
    steps = max(
        (len(row) for image in want.pictures for row in image if row is not None), default=0
    )
    points = np.full((len(want.pictures), len(want.pictures[0]), steps), -1)
    for image, rows in enumerate(want.pictures):
        found: dict[Hashable, int] = {}
        for m, row in enumerate(rows):
            for step, picture in enumerate(row or ()):
                if picture.key not in found:
                    found[picture.key] = first + len(made)
                    made.append((want.write, picture.arguments))
                    owner.append(image)
                points[image, m, step] = found[picture.key]
    return points


def _whole_constants(wanted: Mapping[str, Masked], pixels: int) -> set[str]:
    """The constants that some point shows alone, without a pixel of an image."""
    whole = set()
    for want in wanted.values():
        if want.rest in ("black", "mean") and bool((want.counts == 0).any()):
            whole.add(want.rest)
        if want.top in ("black", "mean") and bool((want.counts == pixels).any()):
            whole.add(want.top)
    return whole


def _wrap(value: int) -> int:
    """A Python integer as a signed 64-bit one wraps."""
    return (value + 2**63) % 2**64 - 2**63


def set_numbers(order: Tensor, counts: Tensor) -> Tensor:
    """A 64-bit number for the set of each prefix of `order` [R, H W]: int64, like `counts`."""
    return _set_hashes(order, {"": counts})[""]


def _pixel_numbers(pixels: int) -> Tensor:
    """A 64-bit number for each pixel index, well mixed (splitmix64): int64 [pixels]."""
    with np.errstate(over="ignore"):
        z = (np.arange(pixels, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return torch.from_numpy((z ^ (z >> np.uint64(31))).view(np.int64))


def _set_hashes(order: Tensor, counts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The number of the set of each prefix of `order`: like `counts`, 0 for the empty one."""
    numbers = _pixel_numbers(order.shape[1]).to(order.device)
    hashes = {curve: torch.zeros_like(c) for curve, c in counts.items()}
    for row in range(order.shape[0]):  # one at a time: the sums take twice a map's memory
        sums = numbers[order[row].long()].cumsum(0)  # wraps around, as it should
        for curve, c in counts.items():
            at = (c[row] - 1).clamp(min=0)
            hashes[curve][row] = torch.where(c[row] > 0, sums[at], 0)
    return hashes
