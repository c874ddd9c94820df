"""Information curves: accuracy (aic) and softmax (sic) over the compressed size of the picture.

Kapishnikov et al., "XRAI: Better Attributions Through Regions", 2019. The image is restored from
its most salient pixels and a few random ones by interpolation, as 8-bit pixels; how much a picture
holds is the length of its lossless WebP file. Both measures read the same pictures.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from torch import Tensor

from gag_fast import perturb
from gag_fast.metrics.case import Case
from gag_fast.perturb import Made, Picture
from gag_fast.perturb.interpolate import interpolate
from gag_fast.presets import Preset

_NOTHING, _ALL = "nothing", "all"


def restored(case: Case) -> Made:
    """The image from random pixels alone, from those and the most salient ones, and as it is.

    A threshold of 5 % shows the pixels whose saliency is at or above the 95th percentile (linear),
    ties included: a constant map shows the whole image at once.
    """
    preset, ranked = case.preset, case.ranked
    maps, (height, width) = case.given.shape[1], case.given.shape[2:]
    photos = _as_pixels(case)
    seeds = [seed_mask(case, image) for image in range(len(photos))]
    counts = perturb.percentile_counts(
        ranked, [100 - 100 * share for share in preset.information_shares]
    )
    sets = perturb.set_numbers(ranked.order, counts).tolist()
    sizes: dict[tuple[int, object], int] = {}
    case.facts["restored"] = sizes
    mean, std = (v.float()[:, None, None] for v in (case.mean, case.std))

    def write(out: Tensor, image: int, row: int, count: int, key: object) -> None:
        known = seeds[image].copy()
        if key == _ALL:
            known[:] = True
        elif key != _NOTHING:
            known |= (ranked.ranks[row] < count).reshape(height, width).cpu().numpy()
        pixels = interpolate(photos[image], known)
        sizes[image, key] = _compressed(pixels)
        shown = torch.from_numpy(pixels).to(out.device).permute(2, 0, 1).float() / 255
        out.copy_((shown - mean) / std)

    def pictures(image: int, row: int) -> list[Picture]:
        inner = [
            Picture((count, number), (image, row, count, (count, number)))
            for count, number in zip(counts[row].tolist(), sets[row])
        ]
        ends = [Picture(key, (image, row, 0, key)) for key in (_NOTHING, _ALL)]
        return [ends[0], *inner, ends[1]]

    finite = ranked.finite.tolist()
    listed = [pictures(r // maps, r) if finite[r] else None for r in range(len(finite))]
    case.facts["restored keys"] = [
        None if row is None else [(i // maps, picture.key) for picture in row]
        for i, row in enumerate(listed)
    ]
    rows = [listed[i * maps : (i + 1) * maps] for i in range(len(photos))]
    return Made(rows, write)


def seed_mask(case: Case, image: int) -> np.ndarray:
    """The random pixels that are known from the start: bool [H, W], the same for every map."""
    key = perturb.image_numbers(case.images[image : image + 1])[0]
    generator = perturb.generator_of(key, case.preset.perturb_seed, 1)
    known = torch.zeros(case.pixels, dtype=torch.bool)
    count = int(case.pixels * case.preset.information_seeds)
    known[torch.randperm(case.pixels, generator=generator)[:count]] = True
    return known.reshape(case.given.shape[2:]).numpy()


def aic(case: Case) -> Tensor:
    """Area under the accuracy information curve: whether the target is the class predicted.

    Kapishnikov et al., 2019, as saliency's `compute_pic_metric`. NaN where the whole image is not
    predicted as the target, or the random pixels alone are.
    """
    return _area(case, case.curves["restored"].first.double())


def sic(case: Case) -> Tensor:
    """Area under the softmax information curve: the probability of the target.

    Kapishnikov et al., 2019, as saliency's `compute_pic_metric`. NaN where the random pixels alone
    make it no lower than the whole image.
    """
    return _area(case, case.curves["restored"].probabilities.double())


def _area(case: Case, values: Tensor) -> Tensor:
    """The area of each map's curve; NaN where it is not defined, which means: leave the image out.

    It is not where the whole image has no higher value than the random pixels alone (or none of
    `information_minimum`), or its file is no larger than theirs.
    """
    found = torch.full(case.given.shape[:2], torch.nan, dtype=torch.float64)
    sizes, keys = case.facts["restored"], case.facts["restored keys"]
    host = values.cpu().numpy()
    for row, mine in enumerate(keys):
        if mine is not None:
            image, m = divmod(row, found.shape[1])
            length = np.array([sizes[key] for key in mine], dtype=np.float64)
            found[image, m] = curve_area(length, host[image, m], case.preset)
    return found.to(values.device)


def curve_area(sizes: np.ndarray, values: np.ndarray, preset: Preset) -> float:
    """Area of one curve, from the pictures' sizes and values, the random pixels alone first.

    Sizes and values are scaled so that the first picture is 0 and the last 1, and clipped; with
    `information_monotonous` a value never falls below an earlier one.
    """
    value_span, size_span = values[-1] - values[0], sizes[-1] - sizes[0]
    if not (value_span > 0 and size_span > 0 and values[-1] >= preset.information_minimum):
        return float("nan")
    x = ((sizes[1:-1] - sizes[0]) / size_span).clip(0, 1)
    y = ((values[1:-1] - values[0]) / value_span).clip(0, 1)
    if preset.information_monotonous:
        y = np.maximum.accumulate(y)
    x, y = np.append(x, (0.0, 1.0)), np.append(y, (0.0, 1.0))
    order = np.argsort(x, kind="stable")
    grid = np.linspace(0, 1, preset.information_points + 1)
    curve = np.interp(grid, x[order], y[order])
    curve[-1] = 1.0
    return float(((curve[1:] + curve[:-1]) / 2 * np.diff(grid)).sum())


def _as_pixels(case: Case) -> list[np.ndarray]:
    """The images as 8-bit pixels [H, W, C]."""
    mean, std = (v.float()[:, None, None] for v in (case.mean, case.std))
    pixels = ((case.images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.permute(0, 2, 3, 1).cpu().numpy())


def _compressed(pixels: np.ndarray) -> int:
    """Bytes of the picture as lossless WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, format="webp", lossless=True, quality=100)
    return buffer.tell()
