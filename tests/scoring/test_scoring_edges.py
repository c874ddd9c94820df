"""The unusual: a stated result or one clear line."""

import re

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.presets import PRESETS, Preset, preset
from tests.scoring.scoring_models import batch


def test_a_map_that_is_not_finite_is_nan_and_alone(small_clf):
    images, maps, targets = batch(3, maps=2)
    clean = gag_fast.evaluate(small_clf, images, maps, targets)
    broken = maps.clone()
    broken[1, 0, 3, 3] = torch.nan
    broken[2, 1, 0, 0] = torch.inf
    masks = torch.zeros(3, 24, 24)
    res = gag_fast.evaluate(small_clf, images, broken, targets, masks=masks)
    bad = torch.tensor([[False, False], [True, False], [False, True]])
    for name in ("rcap", "dauc", "iauc", "log_cosh_dice", "mae"):
        assert torch.equal(getattr(res, name).isnan(), bad), name
    for name in ("rcap", "dauc", "iauc"):
        assert torch.equal(getattr(res, name)[~bad], getattr(clean, name)[~bad])
    for curve in res.curves.values():
        assert torch.equal(curve.isnan().all(dim=-1), bad)
        assert torch.equal(curve.isnan().any(dim=-1), bad)
    assert res.forwards < clean.forwards


def test_nothing_is_scored_when_no_map_is_finite(small_clf):
    images, maps, targets = batch(2)
    res = gag_fast.evaluate(small_clf, images, maps * torch.nan, targets)
    assert res.rcap.isnan().all()
    assert res.forwards == 0


@pytest.mark.parametrize("kind", ["zeros", "constant", "one pixel", "two values"])
def test_ties_in_every_preset(small_clf, kind):
    images, maps, targets = batch(2)
    if kind == "zeros":
        maps = torch.zeros_like(maps)
    elif kind == "constant":
        maps = torch.full_like(maps, 0.25)
    elif kind == "one pixel":
        maps = torch.zeros_like(maps)
        maps[:, 5, 5] = 1
    else:
        maps = (maps > 0.5).float()
    for name in PRESETS:
        res = gag_fast.evaluate(small_clf, images, maps, targets, preset=name)
        for metric in (res.rcap, res.dauc, res.iauc):
            assert metric.isfinite().all()
            assert (metric >= 0).all()
            assert (metric <= 1).all()
        if kind == "zeros":
            assert res.rcap.tolist() == [0, 0]


def test_negative_saliency(small_clf):
    images, maps, targets = batch(2)
    with pytest.raises(ValueError, match=r"rcap needs maps >= 0.*smallest value of -0\.\d"):
        gag_fast.evaluate(small_clf, images, maps - 0.5, targets)
    # Deletion and insertion use the order of the pixels only.
    shifted = gag_fast.evaluate(small_clf, images, maps * 0.5 - 4, targets, ("dauc", "iauc"))
    plain = gag_fast.evaluate(small_clf, images, maps * 0.5, targets, ("dauc", "iauc"))
    torch.testing.assert_close(shifted.dauc, plain.dauc)


def test_a_model_that_returns_nan():
    def broken(images):
        scores = torch.stack([images.mean(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))], dim=1)
        scores[(images == images[:, :1, :1, :1]).flatten(1).all(dim=1)] = torch.nan  # all black
        return scores

    clf = Classifier.from_callable(broken, mean=(0,), std=(1,))
    images, maps, targets = batch(2)
    images = images[:, :1]
    res = gag_fast.evaluate(clf, images, maps, targets % 2)
    assert res.curves["deletion"].isnan().sum(dim=1).tolist() == [1, 1]
    assert res.dauc.isnan().all()  # it uses the black image
    assert res.rcap.isfinite().all()  # it does not
    assert res.iauc.isfinite().all()


MAPS = {
    "maps must be [2, 24, 24] or [2, M, 24, 24] for these images, got [2, 12, 24]": (2, 12, 24),
    "got [1, 24, 24]": (1, 24, 24),
    "got [24, 24]": (24, 24),
    "got [2, 3, 4, 24, 24]": (2, 3, 4, 24, 24),
    "maps has an empty axis: shape [2, 0, 24, 24]": (2, 0, 24, 24),
}


@pytest.mark.parametrize("message", MAPS)
def test_wrong_maps(small_clf, message):
    images, _, targets = batch(2)
    with pytest.raises(ValueError, match=re.escape(message)):
        gag_fast.evaluate(small_clf, images, torch.rand(MAPS[message]), targets)


def test_wrong_kinds(small_clf):
    images, maps, targets = batch(2)
    with pytest.raises(TypeError, match=r"maps must be floating point, got torch\.int64"):
        gag_fast.evaluate(small_clf, images, maps.long(), targets)
    with pytest.raises(TypeError, match="maps must be a torch tensor or a NumPy array, got str"):
        gag_fast.evaluate(small_clf, images, "maps", targets)
    with pytest.raises(ValueError, match="images must be a torch tensor or a NumPy array, got int"):
        gag_fast.evaluate(small_clf, 3, maps, targets)
    with pytest.raises(TypeError, match=r"targets must be integers, got a torch\.float32"):
        gag_fast.evaluate(small_clf, images, maps, targets.float())


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 5], "target 5 is not one of the model's 5 classes"),
        ([-1, 0], "target -1 is not one of the model's 5 classes"),
        ([0], r"targets must be one class, or \[2\] for 2 images, got \[1\]"),
        ([[0], [1]], r"got \[2, 1\]"),
    ],
)
def test_wrong_targets(small_clf, targets, message):
    images, maps, _ = batch(2)
    with pytest.raises(ValueError, match=message):
        gag_fast.evaluate(small_clf, images, maps, targets)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 20, 24), r"takes images \[B, 3, 24, 24\], got \[2, 3, 20, 24\]"),
        ((2, 1, 24, 24), r"got \[2, 1, 24, 24\]"),
        (
            (3, 24, 24),
            r"images must be \[B,C,H,W\] with no empty axis, got .* \[3, 24, 24\]",
        ),
        ((0, 3, 24, 24), "no empty axis"),
    ],
)
def test_wrong_images(small_clf, shape, message):
    with pytest.raises(gag_fast.GagFastError, match=message):
        small_clf(torch.zeros(shape))


def test_whole_number_images(small_clf):
    with pytest.raises(TypeError, match=r"images must be floating point.* got a torch\.uint8"):
        small_clf(torch.zeros(1, 3, 24, 24, dtype=torch.uint8))


def test_wrong_masks(small_clf):
    images, maps, targets = batch(2)
    for masks, message in (
        (torch.zeros(2, 12, 12), r"masks must be \[2, 24, 24\] for these maps, got \[2, 12, 12\]"),
        (torch.full((2, 24, 24), 255), r"masks must lie in \[0, 1\], got values in \[255, 255\]"),
    ):
        with pytest.raises(ValueError, match=message):
            gag_fast.evaluate(small_clf, images, maps, targets, masks=masks)
        with pytest.raises(ValueError, match=message):
            gag_fast.mae(maps, masks)
    with pytest.raises(ValueError, match="form must be mean or sqrt, got 'max'"):
        gag_fast.mae(maps, torch.zeros(2, 24, 24), form="max")


def test_wrong_metrics(small_clf):
    images, maps, targets = batch(1)
    with pytest.raises(ValueError, match=r"metrics must be among rcap, .*, got 'auc'"):
        gag_fast.evaluate(small_clf, images, maps, targets, metrics=("rcap", "auc"))
    with pytest.raises(ValueError, match="mae needs masks=, got none"):
        gag_fast.evaluate(small_clf, images, maps, targets, metrics=("mae",))
    with pytest.raises(ValueError, match="at least one"):
        gag_fast.evaluate(small_clf, images, maps, targets, metrics=())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lower_bound": 100}, "lower_bound=100"),
        ({"interval": 0}, "interval=0"),
        ({"step": 0.3}, "must divide 1 into whole steps, got 0.3"),
        ({"step_unit": "pixels", "step": 1.5}, "whole number, got 1.5"),
        ({"deletion_base": "white"}, "deletion_base must be one of black, mean, got 'white'"),
        ({"blur_kernel": 4}, "odd, got 4"),
        ({"blur_sigma": 0}, "positive, got 0"),
        ({"colour": 1}, "preset has no field 'colour'"),
    ],
)
def test_wrong_presets(overrides, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        preset("paper", **overrides)


def test_presets_are_values():
    for name, value in PRESETS.items():
        assert preset(name) == value
        assert value.name == name
        assert Preset.from_dict(value.to_dict()) == value
        assert preset(value.to_dict()) == value
    with pytest.raises(ValueError, match="preset must be one of paper, official, rise, torchcam"):
        preset("papers")
    assert preset("paper").percentiles == (90, 80, 70, 60, 50)
    assert preset("paper", lower_bound=0, interval=0.1).percentiles[-1] == 0
    with pytest.raises(AttributeError):
        preset("paper").step = 1  # frozen


def test_results_carry_the_preset(small_clf):
    images, maps, targets = batch(1)
    res = gag_fast.evaluate(small_clf, images, maps, targets, preset={"name": "rise", "step": 100})
    assert res.preset == preset("rise", step=100)


@pytest.mark.parametrize("bound", [0, -1, 1.5, None])
def test_wrong_bounds(small_clf, bound):
    with pytest.raises(ValueError, match="max_bytes must be a positive number, got"):
        gag_fast.evaluate(small_clf, *batch(1), max_bytes=bound)


def test_groups_count_what_the_measures_hold(small_clf, monkeypatch):
    """Measures that sort, or correlate in float64, take smaller groups for the same bound."""
    from gag_fast.metrics import evaluation

    sizes = []
    original = evaluation._group_size
    monkeypatch.setattr(
        evaluation, "_group_size", lambda *a: sizes.append(original(*a)) or sizes[-1]
    )
    images, maps, targets = batch(4)
    maps = maps[:, None].expand(-1, 8, -1, -1)
    for names in ("dauc", ("dauc", "gini"), ("dauc", "mufidelity"), ("dauc", "gini", "adcc")):
        gag_fast.evaluate(
            small_clf,
            images,
            maps,
            targets,
            names,
            max_bytes=10_000_000,
            model=object(),
            explain=lambda model, images, targets: images.mean(dim=1),
        )
    three, sorts, cells, pairs = sizes
    assert pairs < sorts < three
    assert cells < three
    # With gini, every pixel of every map has eight bytes four times over beside all else.
    pixels = 8 * maps.shape[-1] ** 2
    assert 10_000_000 / sorts - 10_000_000 / three > 0.9 * 32 * pixels


def test_memory_does_not_grow_with_the_images(monkeypatch):
    """Groups keep the bound: the largest bank ever made stays under it."""
    from gag_fast import perturb

    sizes = []
    original = perturb.make_bank

    def watched(*args):
        bank = original(*args)
        sizes.append(bank.sources.numel() * 4)
        return bank

    monkeypatch.setattr(perturb, "make_bank", watched)
    clf = Classifier.from_callable(
        lambda x: np.stack([x.mean(dim=(1, 2, 3)), x.amax(dim=(1, 2, 3))], axis=1),
        batch_size=256,
    )
    images, maps, targets = batch(1000, size=16)
    bound = 1_000_000
    res = gag_fast.evaluate(clf, images, maps, targets % 2, preset="rise", max_bytes=bound)
    assert len(sizes) > 10
    assert max(sizes) < bound
    assert res.dauc.shape == (1000,)
