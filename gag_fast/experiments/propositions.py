"""Figure 4 and the two propositions of Section 4.3, on ideal maps and on real ones.

Proposition 1: of two maps with the same share of saliency in every partition, the one whose focus
area covers more of the object has the higher RCAP. Proposition 2: of two maps that recover the same
areas, the one with less saliency outside its focus area has the higher RCAP, while DAUC and IAUC,
which see ranks only, are the same.

Figure 4's four maps are Gaussians: M¹ on the object and narrow, M² on the object and wide, which is
the noisier one; M³ and M⁴ are the same two moved off the object by 30 % of the width and height.
The image's border cuts the moved ones off, which changes their shares. So there are two more maps,
M³' and M⁴': M¹ and M² moved as far, where pixels that leave on one side come back on the other.
They have exactly the values of M¹ and M², in other places.
The ideal classifier's confidence is the share of the object's pixels that it sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gag_fast.classifier import Classifier
from gag_fast.metrics import evaluate
from gag_fast.presets import Preset, preset

SIDE = 100  # pixels; the shares of the side used below are then whole numbers of pixels
OBJECT_SHARE = 0.20
NARROW, WIDE = 0.12, 0.24  # standard deviations, as shares of the side
SHIFT = 0.30
MAPS = ("M1", "M2", "M3", "M4", "M3'", "M4'")

# Figure 4's partitions: "lower_bound = 60th" and "interval = 20%".
FIGURE4 = preset("paper", lower_bound=60, interval=20)


def gaussian_map(centre: float, sigma: float, side: int = SIDE) -> Tensor:
    """`exp(-d² / (2 sigma²))`, d the distance to the point (centre, centre).

    Args:
        centre, sigma: as shares of the side.
        side: in pixels.

    Returns:
        float32 `[side, side]`, its maximum near 1.
    """
    place = (torch.arange(side, dtype=torch.float64) + 0.5) / side - centre
    squared = place[:, None] ** 2 + place[None, :] ** 2
    return torch.exp(-squared / (2 * sigma**2)).float()


def figure4(side: int = SIDE) -> tuple[Tensor, Tensor]:
    """The four maps, the two that are moved without being cut off, and the ground truth.

    Returns:
        maps float32 `[6, side, side]` in the order of `MAPS`, and the object, float32
        `[side, side]`: a centred square of 20 % of the pixels, 1 on it.
    """
    centres, sigmas = (0.5, 0.5, 0.5 + SHIFT, 0.5 + SHIFT), (NARROW, WIDE, NARROW, WIDE)
    maps = torch.stack([gaussian_map(c, s, side) for c, s in zip(centres, sigmas, strict=True)])
    step = round(SHIFT * side)
    maps = torch.cat([maps, maps[:2].roll((step, step), dims=(1, 2))])
    half = OBJECT_SHARE**0.5 / 2
    place = ((torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5).abs() <= half
    return maps, (place[:, None] & place[None, :]).float()


def ideal_classifier(image: Tensor, mask: Tensor) -> Classifier:
    """A classifier that is as sure of class 1 as it sees of the object.

    Args:
        image: `[1, H, W]`, its values in (0, 1].
        mask: `[H, W]`, 1 on the object.

    Returns:
        Classifier of two classes; the probability of class 1 is the share of the object's pixels
        that are as they are in `image`.
    """

    def scores(batch: Tensor) -> Tensor:
        same = ((batch - image).abs() < 1e-3).all(dim=1)
        seen = (same * mask).sum(dim=(1, 2)) / mask.sum()
        return torch.stack([1 - seen, seen], dim=1)

    return Classifier.from_callable(
        scores,
        num_classes=2,
        input_size=image.shape[-1],
        mean=(0.0,),
        std=(1.0,),
        score="probabilities",
    )


@dataclass(frozen=True)
class Figure4:
    """The numbers of Figure 4.

    Attributes:
        maps: `[6, side, side]`, in the order of `MAPS`.
        mask: `[side, side]`.
        shares: `[6, j]`, ΣM_pk / ΣM for the partitions k = 1 … j.
        confidences: `[6, j]`, of the recovered images.
        metrics: name -> `[6]`: rcap, dauc, iauc, log_cosh_dice, mae.
    """

    maps: Tensor
    mask: Tensor
    shares: Tensor
    confidences: Tensor
    metrics: dict[str, Tensor]


def run_figure4(settings: Preset = FIGURE4) -> Figure4:
    """Scores Figure 4's maps with the ideal classifier."""
    maps, mask = figure4()
    generator = torch.Generator().manual_seed(0)
    # Every pixel differs from its surroundings, so blurring hides it: the insertion curve starts
    # from a picture in which the ideal classifier sees nothing.
    image = 0.2 + 0.8 * torch.rand((1, SIDE, SIDE), generator=generator)
    found = evaluate(
        ideal_classifier(image, mask),
        image[None],
        maps[None],
        torch.tensor([1]),
        preset=settings,
        masks=mask[None],
    )
    metrics = {
        name: torch.as_tensor(getattr(found, name))[0]
        for name in ("rcap", "dauc", "iauc", "log_cosh_dice", "mae")
    }
    confidences = torch.as_tensor(found.curves["recover"])[0]
    return Figure4(maps, mask, saliency_shares(maps, settings), confidences, metrics)


def saliency_shares(maps: Tensor, settings: Preset) -> Tensor:
    """ΣM_pk / ΣM of Eq. 4.1.

    Args:
        maps: `[M, H, W]`.
        settings: its percentiles.

    Returns:
        float64 `[M, j]`.
    """
    values = maps.double().flatten(1)
    thresholds = torch.from_numpy(
        np.percentile(values.numpy(), settings.percentiles, axis=1, method="linear")
    )
    kept = [(values * (values >= t[:, None])).sum(1) for t in thresholds]
    return torch.stack(kept, dim=1) / values.sum(1, keepdim=True)


@dataclass(frozen=True)
class Verdict:
    """One comparison of two maps.

    Attributes:
        text: what is claimed.
        holds: whether it is so; None when there are too few images to say.
        here: in numbers.
    """

    text: str
    holds: bool | None
    here: str


def verdicts(figure: Figure4) -> list[Verdict]:
    """Both propositions on Figure 4's maps."""
    rcap = [float(v) for v in figure.metrics["rcap"]]
    found = []
    for a, b in ((0, 4), (1, 5), (0, 2), (1, 3)):
        shares = (
            "equal shares"
            if torch.allclose(figure.shares[a], figure.shares[b])
            else (f"though {MAPS[b]}'s shares are higher")
        )
        found.append(
            Verdict(
                f"Proposition 1: RCAP({MAPS[a]}) > RCAP({MAPS[b]}), off the object, {shares}",
                rcap[a] > rcap[b],
                f"{rcap[a]:.4f} and {rcap[b]:.4f}",
            )
        )
    for a, b in ((0, 1), (2, 3)):
        found.append(
            Verdict(
                f"Proposition 2: RCAP({MAPS[a]}) > RCAP({MAPS[b]}), the noisier one",
                rcap[a] > rcap[b],
                f"{rcap[a]:.4f} and {rcap[b]:.4f}",
            )
        )
        for name in ("dauc", "iauc"):
            values = [float(figure.metrics[name][i]) for i in (a, b)]
            found.append(
                Verdict(
                    f"{name.upper()} does not tell {MAPS[a]} from {MAPS[b]}",
                    values[0] == values[1],
                    f"{values[0]:.4f} and {values[1]:.4f}",
                )
            )
    return found


def to_text(figure: Figure4, settings: Preset = FIGURE4) -> str:
    """The table of Figure 4 and the verdicts."""
    tops = [f"top {100 - p:g} %" for p in settings.percentiles]
    header = ["", *(f"share {t}" for t in tops), *(f"conf. {t}" for t in tops)]
    header += ["RCAP↑", "DAUC↓", "IAUC↑", "L_lc-dce↓", "MAE↓"]
    names = ("rcap", "dauc", "iauc", "log_cosh_dice", "mae")
    lines = [header]
    for i, name in enumerate(MAPS):
        values = [*figure.shares[i], *figure.confidences[i], *(figure.metrics[m][i] for m in names)]
        lines.append([name, *(f"{float(v):.4f}" for v in values)])
    title = (
        f"Figure 4: four Gaussian maps, {SIDE}×{SIDE}, object {100 * OBJECT_SHARE:.0f} % in the "
        f"centre; RCAP with lower_bound {settings.lower_bound:g}, interval {settings.interval:g}"
    )
    return "\n".join([title, *_aligned(lines), "", *verdict_lines(verdicts(figure))])


def verdict_lines(found: list[Verdict]) -> list[str]:
    """A line for each verdict."""
    words = {True: "holds", False: "FAILS", None: "open "}
    return [f"{words[v.holds]}  {v.text}: {v.here}" for v in found]


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]


# ---- the same on real maps ----------------------------------------------------------------------


def four_of(map_: Tensor, reversed_map: Tensor) -> Tensor:
    """Figure 4's arrangement from a real map: M¹ itself, M² noisier, M³ reversed, M⁴ both.

    "Noisier" is the square root: it keeps the ranks and lifts the low values, so there is more
    saliency outside the focus area.

    Args:
        map_: `[B, H, W]` in [0, 1].
        reversed_map: `[B, H, W]`, the same values in other places (Section 4.3).

    Returns:
        `[B, 4, H, W]`.
    """
    return torch.stack([map_, map_.sqrt(), reversed_map, reversed_map.sqrt()], dim=1)


def real_verdicts(scores: Mapping[str, np.ndarray], minimum: int = 0) -> list[Verdict]:
    """Both propositions over many images.

    Args:
        scores: "rcap", "dauc", "iauc" -> `[images, 4]`, of maps made by `four_of`.
        minimum: how many images a verdict on means needs; with fewer it stays open. That DAUC and
            IAUC do not tell two maps apart must hold for every single image.
    """
    rcap = scores["rcap"]
    enough = len(rcap) >= minimum
    found = []
    for number, text, pairs in (
        (1, "reversed", ((0, 2), (1, 3))),
        (2, "noisier", ((0, 1), (2, 3))),
    ):
        for a, b in pairs:
            share = float((rcap[:, a] > rcap[:, b]).mean())
            means = rcap[:, a].mean(), rcap[:, b].mean()
            found.append(
                Verdict(
                    f"Proposition {number}: mean RCAP({MAPS[a]}) > RCAP({MAPS[b]}), {text}",
                    bool(means[0] > means[1]) if enough else None,
                    f"{means[0]:.4f} and {means[1]:.4f}, higher in {100 * share:.0f} % of images"
                    + ("" if enough else f"; {len(rcap)} images, a verdict needs {minimum}"),
                )
            )
    for name in ("dauc", "iauc"):
        for a, b in ((0, 1), (2, 3)):
            largest = float(np.abs(scores[name][:, a] - scores[name][:, b]).max())
            found.append(
                Verdict(
                    f"{name.upper()} does not tell {MAPS[a]} from {MAPS[b]} (noisier)",
                    largest < 1e-3,
                    f"largest difference of an image {largest:.1e}",
                )
            )
    return found
