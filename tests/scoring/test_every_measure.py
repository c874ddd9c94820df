"""What is promised of every measure, one test for all: odd maps, odd masks, odd targets."""

import math

import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.measures import MEASURES, Need
from gag_fast.metrics import evaluate
from gag_fast.presets import preset
from tests.scoring.scoring_models import SmallNet, batch

FEW = preset(
    "paper",
    mufidelity_grid=8,  # cells of one size
    mufidelity_samples=8,
    infidelity_samples=3,
    sensitivity_samples=2,
    randomise_groups=2,
    information_shares=(0.1, 0.5),
)
MASKED = [name for name, m in MEASURES.items() if Need.MASK in m.needs]
SIDE = 24


@pytest.fixture(scope="module")
def judge():
    """Values of all measures (or some) for maps [B, 24, 24], with their masks."""
    module = SmallNet().eval()
    clf = Classifier.from_callable(module, num_classes=5, input_size=SIDE, mean=(0.5,), std=(0.25,))

    def explain(model, images, targets):
        return gag_fast.explain(model, images, targets, method="vanilla")

    def values(maps, names="all", masks=None, targets=None):
        images, _, own = batch(len(maps))
        if masks is None:
            masks = torch.zeros(len(maps), SIDE, SIDE)
            masks[:, 4:12, 6:20] = 1
        found = evaluate(
            clf,
            images,
            maps,
            own if targets is None else targets,
            names,
            FEW,
            masks,
            model=module,
            explain=explain,
        )
        return found.values

    return values


def ordinary(count=1):
    return torch.rand(count, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def one_pixel(row, column):
    saliency = torch.zeros(SIDE, SIDE)
    saliency[row, column] = 1
    return saliency


CONSTANT = {
    "gini": 0,
    "entropy": math.log(SIDE**2),
    "pointing_game": 1,  # every pixel is a largest one
    "relevance_mass": 8 * 14 / SIDE**2,
    "relevance_rank": 10 / 112,  # so many of the first 112 pixels by index lie on the object
    "average_drop": 0,
    "increase": 0,
    "mufidelity": 0,
    "idsds": 0,
    "mprt": 0,
    "adcc": 0,  # nothing correlates with it, nor is it small
}
ZERO = {
    **{name: CONSTANT[name] for name in ("gini", "entropy", "mufidelity", "idsds", "mprt")},
    **{"rcap": 0, "relevance_mass": 0, "relevance_rank": 10 / 112, "pointing_game": 1},
}


def test_no_measure_is_left_out(judge):
    assert set(judge(ordinary())) == set(MEASURES)


def test_a_constant_map(judge):
    found = judge(torch.ones(1, SIDE, SIDE))
    for name, measure in MEASURES.items():
        value = found[name].item()
        if name in CONSTANT:
            assert value == pytest.approx(CONSTANT[name], abs=1e-6), name
        elif measure.undefined:
            assert math.isnan(value) or measure.span[0] <= value <= measure.span[1], name
        else:
            assert measure.span[0] <= value <= measure.span[1], name
    assert math.isnan(found["emprt"])


def test_a_map_of_zeros(judge):
    found = judge(torch.zeros(1, SIDE, SIDE))
    for name, measure in MEASURES.items():
        value = found[name].item()
        if name in ZERO:
            assert value == pytest.approx(ZERO[name], abs=1e-6), name
        elif not measure.undefined:
            assert measure.span[0] - 1e-6 <= value <= measure.span[1] + 1e-6, name
    assert math.isnan(found["emprt"])


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_nan_in_every_measure_and_alone(judge, broken):
    maps = ordinary(2)
    whole = judge(maps)
    maps[0, 3, 5] = broken
    names = [n for n in MEASURES if not (broken == -math.inf and MEASURES[n].nonnegative)]
    found = judge(maps, names)
    for name in names:
        assert math.isnan(found[name][0]), name
        torch.testing.assert_close(found[name][1], whole[name][1], equal_nan=True, msg=name)


def test_one_pixel(judge):
    found = judge(torch.stack([one_pixel(5, 7), one_pixel(20, 2)]))  # on the object, and off it
    for name, measure in MEASURES.items():
        for value in found[name].tolist():
            inside = measure.span[0] - 1e-6 <= value <= measure.span[1] + 1e-6
            assert inside or (measure.undefined and math.isnan(value)), (name, value)
    assert found["gini"].tolist() == pytest.approx([1 - 1 / SIDE**2] * 2)
    assert found["entropy"].tolist() == [0, 0]
    for name in ("pointing_game", "relevance_mass"):
        assert found[name].tolist() == [1, 0], name


@pytest.mark.parametrize("name", MEASURES)
def test_negative_saliency_is_refused_or_counts(judge, name):
    maps = ordinary() - 0.5
    if MEASURES[name].nonnegative:
        with pytest.raises(ValueError, match=f"{name} needs maps >= 0"):
            judge(maps, (name,))
        return
    value = judge(maps, (name,))[name].item()
    assert math.isfinite(value) or MEASURES[name].undefined


def test_all_leaves_out_what_negative_maps_do_not_allow(judge):
    found = judge(ordinary() - 0.5)
    assert set(found) == {name for name, m in MEASURES.items() if not m.nonnegative}


@pytest.mark.parametrize("name", MASKED)
def test_empty_and_full_masks(judge, name):
    maps = ordinary(2)
    masks = torch.zeros(2, SIDE, SIDE)
    masks[1] = 1
    empty, full = judge(maps, (name,), masks)[name].tolist()
    if name in ("mae", "log_cosh_dice"):
        assert 0 <= empty <= 1
        assert 0 <= full <= 1
    else:
        assert math.isnan(empty)
        assert full == 1


@pytest.mark.parametrize("target", [-1, 5])
@pytest.mark.parametrize("name", MEASURES)
def test_a_class_out_of_range_is_refused(judge, name, target):
    with pytest.raises(ValueError, match=f"target {target} is not one of the model's 5 classes"):
        judge(ordinary(), (name,), targets=torch.tensor([target]))
