"""RISE (Petsiuk, Das, Saenko 2018): the mean of random masks, weighted by the scores they leave.

`S = 1/(E[M] N) sum_i f(x * M_i) M_i` with N masks: a grid of s x s cells, each kept with
probability p, scaled up bilinearly to a little more than the image and cut at a random place. The
masks are the published code's, made anew from grid and place whenever they are needed: none is
kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast.attribution.forward import ForwardSource, baseline_of, spans, whole_number
from gag_fast.attribution.samples import generator

_STREAM = 0x415E  # apart from the image's other random numbers
_AT_ONCE = 512  # masks summed in one product, whatever the batch: so sums are the same


@dataclass(frozen=True)
class Masks:
    """N masks of one image size, in the little memory that they are made of.

    Attributes:
        grid: `[N,s,s]`, 1 where a cell is kept.
        down, right: int64 `[N]`, where each is cut from its scaled grid; always on the CPU, so that
            a GPU is never waited for.
        rows, columns: (lower cell, share of the next one) of every line of the scaled grid.
        size: (H, W).
    """

    grid: Tensor
    down: Tensor
    right: Tensor
    rows: tuple[Tensor, Tensor]
    columns: tuple[Tensor, Tensor]
    size: tuple[int, int]

    def to(self, device: torch.device) -> Masks:
        """The same ones on a device."""
        rows, columns = (
            (low.to(device), share.to(device)) for low, share in (self.rows, self.columns)
        )
        return Masks(self.grid.to(device), self.down, self.right, rows, columns, self.size)

    def part(self, which: slice) -> Tensor:
        """The masks `[m,H,W]`, each value a function of its own mask alone, to the bit."""
        wide = _between(self.grid[which], self.columns, self.right[which], self.size[1], 2)
        masks = wide.new_empty(len(wide), *self.size)
        low, share = self.rows
        for mask, cells, start in zip(masks, wide, self.down[which].tolist(), strict=True):
            lines = slice(start, start + self.size[0])
            above = (low[lines] + 1).clamp(max=len(cells) - 1)
            # Whole lines are read one after another: five times as fast as a gather.
            below, above = cells.index_select(0, low[lines]), cells.index_select(0, above)
            torch.lerp(below, above, share[lines, None], out=mask)
        return masks

    def weighted(self, values: Tensor) -> Tensor:
        """sum_i values_i M_i, `[H,W]` float64.

        A mask is the product R G C of its grid with two thin matrices, so the sum over masks is
        one product of what is no larger than the grids scaled up along one side.
        """
        total = torch.zeros(self.size, dtype=torch.float64, device=self.grid.device)
        side = self.grid.shape[1]
        cells = torch.eye(side, dtype=torch.float64, device=self.grid.device)
        for first in range(0, len(self.grid), _AT_ONCE):
            which = slice(first, first + _AT_ONCE)
            grid = self.grid[which].double() * values[which].double()[:, None, None]
            tall = _between(grid, self.rows, self.down[which], self.size[0], 1)
            wide = cells.expand(len(grid), side, side)
            wide = _between(wide, self.columns, self.right[which], self.size[1], 2)
            total += tall.transpose(0, 1).flatten(1) @ wide.flatten(0, 1)
        return total


def masks_of(
    count: int, grid: int, keep: float, size: tuple[int, int], key: int, seed: int
) -> Masks:
    """The masks of an image: a function of (seed, key) and the settings.

    Args:
        count: N.
        grid: cells a side, s.
        keep: probability p of a cell.
        size: (H, W) of the image.
        key: the image's id.
        seed: any integer.
    """
    random = generator(seed, key, _STREAM)
    kept = (torch.rand(count, grid, grid, generator=random) < keep).float()
    cells = [-(-side // grid) for side in size]
    down, right = (torch.randint(0, cell, (count,), generator=random) for cell in cells)
    rows, columns = (_lines(grid, cell) for cell in cells)
    return Masks(kept, down, right, rows, columns, size)


def _lines(grid: int, cell: int) -> tuple[Tensor, Tensor]:
    """Bilinear interpolation of `grid` cells over (grid + 1) cell lines, mirrored at the ends."""
    lines = (grid + 1) * cell
    at = (torch.arange(lines, dtype=torch.float64) + 0.5) * grid / lines - 0.5
    at = (grid - 1) - ((grid - 1) - at.abs()).abs()
    low = at.floor().clamp(0, max(grid - 2, 0)).long()
    return low, (at - low).float() if grid > 1 else torch.zeros(lines)


def _between(
    values: Tensor, lines: tuple[Tensor, Tensor], start: Tensor, length: int, axis: int
) -> Tensor:
    """Values `[m,a,b]` scaled along an axis and cut: `length` lines from each one's start."""
    low, share = lines
    at = start.to(low.device)[:, None] + torch.arange(length, device=low.device)
    low, share = low[at], share[at].to(values.dtype)
    shape = list(values.shape)
    shape[axis] = length
    low, share = (v.unsqueeze(3 - axis).expand(shape) for v in (low, share))
    last = values.shape[axis] - 1
    below, above = values.gather(axis, low), values.gather(axis, (low + 1).clamp(max=last))
    return below + share * (above - below)


def rise(
    source: ForwardSource,
    images: Tensor,
    targets: Tensor,
    *,
    score: str,
    keys: Tensor,
    seed: int,
    masks: int = 4000,
    grid: int = 7,
    keep: float = 0.5,
    baseline: Any = None,
) -> Tensor:
    """Raw RISE: the mean score under the masks that show a pixel, over the score's mean by chance.

    N forward passes an image, no gradient. Hidden pixels show the baseline: the published code
    multiplies the normalised image, which is 0, the mean colour.

    Traps: noise falls with the root of N only (the paper takes 4,000 masks for VGG-16, 8,000 for
    ResNet-50); a score that hardly changes gives the mean of the masks, which is brighter in places
    by chance; nothing finer than a cell (H / s pixels) can be seen.

    Args:
        source: what scores.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        score: "probability", as in the paper, or "logit".
        keys: int64 `[B]`; images of one key meet the same masks.
        seed: of the masks.
        masks: N.
        grid: cells a side, s.
        keep: probability p of a cell, above 0 and at most 1.
        baseline: see `baseline_of`.

    Returns:
        `[B,1,H,W]`.
    """
    count, side = whole_number("masks", masks), whole_number("grid", grid)
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise GagFastError(f"keep must be a probability above 0, got {keep!r}")
    images = images.to(source.device)
    hidden = baseline_of(baseline, images)
    shown = images - hidden
    size = (images.shape[2], images.shape[3])
    made: dict[int, Masks] = {}
    mine = []
    for key in keys.tolist():
        if key not in made:
            made[key] = masks_of(count, side, keep, size, key, seed).to(source.device)
        mine.append(made[key])

    def write(buffer: Tensor, first: int) -> None:
        for image, own, rows in spans(first, len(buffer), count):
            shares = mine[image].part(own)[:, None].to(buffer.dtype)
            torch.addcmul(hidden[image], shares, shown[image], out=buffer[rows])

    scores = source.values(write, targets.repeat_interleave(count), images, score)
    maps = [m.weighted(v) for m, v in zip(mine, scores.split(count), strict=True)]
    return (torch.stack(maps) / (keep * count))[:, None].to(scores.dtype)
