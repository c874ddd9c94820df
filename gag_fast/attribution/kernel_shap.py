"""Kernel SHAP (Lundberg & Lee 2017) of superpixels: Shapley values by a weighted regression."""

from __future__ import annotations

from math import comb
from typing import Any

import torch
from torch import Tensor

from gag_fast._errors import GagFastError
from gag_fast._inputs import describe
from gag_fast.attribution.forward import ForwardSource, baseline_of, whole_number
from gag_fast.attribution.samples import generator

_STREAM = 0x5A4B  # apart from the image's other random numbers
SLIC = "slic"
_SUPERPIXELS = 50
_MOST = 20  # superpixels whose subsets may all be listed


def kernel_shap(
    source: ForwardSource,
    images: Tensor,
    targets: Tensor,
    *,
    score: str,
    keys: Tensor,
    seed: int,
    coalitions: int = 1000,
    segments: int | str | Tensor = 7,
    baseline: Any = None,
) -> Tensor:
    """Raw Kernel SHAP: each pixel has the Shapley value of its superpixel.

    The phi of `min sum_z k(z) (f(z) - f(0) - sum_j z_j phi_j)^2` with `sum_j phi_j = f(1) - f(0)`,
    z the superpixels shown, the others at the baseline, and `k(z) = (M - 1) / (C(M, |z|) |z|
    (M - |z|))`. Sizes |z| are drawn by k, so that drawn coalitions weigh the same, and each comes
    with its complement. Where the coalitions suffice for all 2^M - 2, all are taken: then the
    values are exact.

    `coalitions` + 2 forward passes an image, no gradient.

    Traps: the values say nothing finer than a superpixel, and depend on how the image was cut and
    on the baseline; fewer coalitions than some ten times M give noise; signed, like `occlusion`.

    Args:
        source: what scores.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        score: "probability" or "logit".
        keys: int64 `[B]`; with the seed they decide an image's coalitions.
        seed: of the coalitions.
        coalitions: how many are drawn, M - 1 at least.
        segments: s for a grid of s x s superpixels; "slic" or "slic:COUNT" (scikit-image); or their
            numbers, an integer tensor `[H,W]` or `[B,H,W]`.
        baseline: see `baseline_of`.

    Returns:
        `[B,1,H,W]`.
    """
    count = whole_number("coalitions", coalitions)
    images = images.to(source.device)
    hidden = baseline_of(baseline, images)
    labels = superpixels(images, segments)
    drawn = [
        coalitions_of(int(cut.max()) + 1, count, key, seed)
        for cut, key in zip(labels, keys.tolist(), strict=True)
    ]
    shown = [_with_ends(z).to(images.device) for z, _ in drawn]
    each = [len(z) for z in shown]
    starts = torch.tensor([0, *each]).cumsum(0).tolist()

    def write(buffer: Tensor, first: int) -> None:
        image = next(i for i, end in enumerate(starts[1:]) if first < end)
        for row in range(len(buffer)):
            while first + row >= starts[image + 1]:
                image += 1
            kept = shown[image][first + row - starts[image]][labels[image]]
            buffer[row] = torch.where(kept, images[image], hidden[image])

    chosen = targets.repeat_interleave(torch.tensor(each, device=targets.device))
    scores = source.values(write, chosen, images, score)
    maps = [
        shapley(z, weights, values)[cut.cpu()]
        for (z, weights), values, cut in zip(drawn, scores.cpu().split(each), labels, strict=True)
    ]
    return torch.stack(maps)[:, None].to(scores)


def superpixels(images: Tensor, segments: Any) -> Tensor:
    """Numbers of the superpixels, from 0 on without a gap: int64 `[B,H,W]`."""
    count, _, height, width = images.shape
    if isinstance(segments, Tensor):
        whole = not (segments.is_floating_point() or segments.is_complex())
        if whole and segments.shape in ((height, width), images[:, 0].shape):
            given = segments.to(images.device).expand(count, height, width)
            return torch.stack([cut.unique(return_inverse=True)[1] for cut in given])
        raise GagFastError(
            f"segments must be integers [{height}, {width}] or [{count}, {height}, {width}], got "
            f"{describe(segments)}"
        )
    if isinstance(segments, str):
        return torch.stack([_slic(image, segments) for image in images]).to(images.device)
    side = whole_number("segments", segments)
    rows, columns = (
        torch.arange(length, device=images.device) * min(side, length) // length
        for length in (height, width)
    )
    cut = rows[:, None] * min(side, width) + columns
    return cut.expand(count, height, width)


def _slic(image: Tensor, name: str) -> Tensor:
    word, colon, number = name.partition(":")
    if word != SLIC or (colon and not (number.isdigit() and int(number))):
        raise GagFastError(f'segments must be a number, "slic", "slic:COUNT" or a tensor: {name!r}')
    try:
        from skimage.segmentation import slic
    except ModuleNotFoundError:
        raise GagFastError(
            'segments="slic" needs scikit-image; pip install scikit-image, or take a grid'
        ) from None
    low, high = image.min(), image.max()
    scaled = ((image - low) / (high - low).clamp(min=1e-12)).permute(1, 2, 0).double().cpu().numpy()
    cut = slic(scaled, n_segments=int(number or _SUPERPIXELS), start_label=0, channel_axis=2)
    return torch.from_numpy(cut).long().unique(return_inverse=True)[1]


def coalitions_of(players: int, count: int, key: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions bool `[N,M]`, neither empty nor whole, and their weights float64 `[N]`.

    Args:
        players: M.
        count: so many at most.
        key: the image's id.
        seed: any integer.
    """
    if players <= _MOST and 2**players - 2 <= count:
        numbers = torch.arange(1, 2**players - 1)[:, None]
        every = (numbers >> torch.arange(players)) & 1 == 1
        weights = [
            1 / (comb(players, k) * k * (players - k)) for k in every.sum(1).tolist()
        ]  # up to a factor
        return every, torch.tensor(weights, dtype=torch.float64)
    if count < players - 1:
        raise GagFastError(
            f"coalitions must be {players - 1} or more for {players} superpixels, got {count}"
        )
    random = generator(seed, key, _STREAM)
    sizes = torch.arange(1, players)
    half = -(-count // 2)
    drawn = 1 + torch.multinomial(1 / (sizes * (players - sizes)), half, True, generator=random)
    places = torch.rand(half, players, generator=random).argsort(1).argsort(1)
    kept = places < drawn[:, None]
    return torch.stack([kept, ~kept], 1).flatten(0, 1)[:count], torch.ones(count).double()


def _with_ends(coalitions: Tensor) -> Tensor:
    """The coalitions behind the whole and the empty one."""
    ends = torch.tensor([True, False])[:, None].expand(2, coalitions.shape[1])
    return torch.cat([ends, coalitions])


def shapley(coalitions: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """The regression's coefficients, float64 `[M]`.

    Args:
        coalitions: bool `[N,M]`.
        weights: float64 `[N]`.
        values: `[2 + N]`: of the whole image, of the baseline, of each coalition.
    """
    whole, empty, *_ = values.double()
    z = coalitions.double()
    # The last coefficient is what the others leave of the sum.
    left = z[:, :-1] - z[:, -1:]
    right = values[2:].double() - empty - z[:, -1] * (whole - empty)
    root = weights.sqrt()[:, None]
    phi = torch.zeros(z.shape[1], dtype=torch.float64)
    if z.shape[1] > 1:
        # Columns that coalitions leave open get the smallest coefficients.
        phi[:-1] = torch.linalg.lstsq(root * left, root * right[:, None], driver="gelsd")[0][:, 0]
    phi[-1] = whole - empty - phi.sum()
    return phi
