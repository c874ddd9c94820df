"""A perfect and a worst map for every measure, worked out by hand on 4 x 4 pixels.

The classifier's second class is as probable as the image is bright, black is 0, and all brightness
lies in the upper left quarter: p = 4/16.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from gag_fast.classifier import Classifier
from gag_fast.measures import MEASURES
from gag_fast.metrics import evaluate
from gag_fast.presets import preset


class Brightness(nn.Module):
    """p = share of the whole brightness; the layer is there to be drawn anew."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        p = x.flatten(1).mean(dim=1).clamp(0, 1)
        return torch.stack([1 - p, p], dim=1)


QUARTER = torch.zeros(4, 4)
QUARTER[:2, :2] = 1
REST = 1 - QUARTER
ONE_PIXEL = torch.zeros(4, 4)
ONE_PIXEL[0, 0] = 1
EVEN = torch.ones(4, 4)
STEPS = torch.arange(16.0).reshape(4, 4) / 16
QUARTERS = {"step": 0.25, "insertion_base": "black"}
CELLS = {"idsds_grid": 4, "mufidelity_grid": 4, "cell_base": "black"}
FALLS_AT_ONCE, STAYS = 0.25 * 0.125, 0.25 * 0.125 + 0.75 * 0.25  # areas under p, by quarters
BINARY = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))  # entropy of a quarter's histogram


@dataclass
class By:
    """Two maps and what they score, and what explaining again gives, where it is done."""

    perfect: torch.Tensor
    worst: torch.Tensor
    best_value: float
    worst_value: float
    fields: dict[str, Any] = field(default_factory=dict)
    image: torch.Tensor = field(default_factory=lambda: QUARTER)
    again: tuple[Any, Any] = (None, None)


BY_HAND = {
    "rcap": By(QUARTER, REST, 0.25, 0),
    "dauc": By(QUARTER, REST, FALLS_AT_ONCE, STAYS, QUARTERS),
    "iauc": By(QUARTER, REST, STAYS, FALLS_AT_ONCE, QUARTERS),
    "log_cosh_dice": By(QUARTER, REST, 0, math.log(math.cosh(16 / 17))),
    "mae": By(QUARTER, REST, 0, 1),
    "gini": By(ONE_PIXEL, EVEN, 15 / 16, 0),
    "entropy": By(ONE_PIXEL, EVEN, 0, math.log(16)),
    "pointing_game": By(QUARTER, REST, 1, 0),
    "relevance_mass": By(QUARTER, REST, 1, 0),
    "relevance_rank": By(QUARTER, REST, 1, 0),
    "srg": By(QUARTER, REST, STAYS - FALLS_AT_ONCE, FALLS_AT_ONCE - STAYS, QUARTERS),
    # Half of the pixels gone, those of the bright half or those of the dark half: filled in from
    # what is left they are as dark or as bright as that.
    "road": By(
        *(1 - STEPS, STEPS, 0.5, -0.5, {"road_noise": 0, "road_shares": (0.5,)}),
        image=torch.tensor([[1.0], [1], [0], [0]]).expand(4, 4),
    ),
    "average_drop": By(QUARTER, REST, 0, 1),
    "increase": By(QUARTER, EVEN, 1, 0, image=QUARTER - 0.1 * REST),
    "adcc": By(QUARTER, REST, 3 / (1 + 4 / 3 + 1), 0, again=(QUARTER, REST)),
    "infidelity": By(EVEN, 0 * EVEN, 0, math.inf, {"infidelity_noise": 0.1}, image=EVEN / 2),
    "mufidelity": By(STEPS, 1 - STEPS, 1, -1, CELLS, image=STEPS),
    "idsds": By(STEPS, 1 - STEPS, 1, -1, CELLS, image=STEPS),
    "max_sensitivity": By(QUARTER, QUARTER, 0, 2, again=(QUARTER, -QUARTER)),
    "mprt": By(QUARTER, QUARTER, -1, 1, again=(REST, QUARTER)),
    "emprt": By(QUARTER, QUARTER, math.log(16) / BINARY - 1, -1, again=(STEPS, EVEN)),
}


def score(name, case, saliency, again):
    module = Brightness()
    clf = Classifier.from_callable(
        module, num_classes=2, mean=(0.0,), std=(1.0,), score="probabilities", batch_size=8
    )
    given = {}
    if again is not None:
        given = {"model": module, "explain": lambda *_: again[None]}
    found = evaluate(
        clf,
        case.image[None, None],
        saliency[None],
        torch.tensor([1]),
        (name,),
        preset("paper", **case.fields),
        QUARTER[None],
        **given,
    )
    return found.values[name].item()


def test_none_is_left_out():
    assert set(BY_HAND) | {"aic", "sic"} == set(MEASURES)


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    case, row = BY_HAND[name], MEASURES[name]
    best = score(name, case, case.perfect, case.again[0])
    worst = score(name, case, case.worst, case.again[1])
    assert best == pytest.approx(case.best_value, abs=1e-5)
    if math.isfinite(case.worst_value):
        assert worst == pytest.approx(case.worst_value, abs=1e-5)
    assert (best > worst + 1e-5) if row.higher_is_better else (best < worst - 1e-6)


@pytest.mark.parametrize("name", ["aic", "sic"])
def test_information_curves(name):
    """A flat bright square on dark noise: the square is all of the class and none of the bytes."""
    image = 0.2 * torch.rand(48, 48, generator=torch.Generator().manual_seed(0))
    square = torch.zeros(48, 48)
    square[12:36, 12:36] = 1
    image[square == 1] = 1

    def bright(x):
        p = x[:, 0, 12:36, 12:36].mean(dim=(1, 2)).clamp(0, 1)
        return torch.stack([1 - p, p], dim=1)

    clf = Classifier.from_callable(
        bright, num_classes=2, mean=(0.0,), std=(1.0,), score="probabilities", batch_size=8
    )
    maps = torch.stack([square, 1 - square])[None]
    sparse = preset("paper", information_seeds=0.002)
    found = evaluate(clf, image[None, None], maps, torch.tensor([1]), (name,), sparse)
    perfect, worst = found.values[name][0].tolist()
    assert perfect > 0.8
    assert worst < 0.2
