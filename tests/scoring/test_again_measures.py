"""Measures that explain again: by Captum and Quantus, by hand, and what they refuse."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.classifier import Classifier
from gag_fast.metrics import evaluate, robustness
from gag_fast.presets import preset
from tests.scoring.library_references import (
    adcc_by_equation,
    captum_sensitivity,
    judge,
    quantus_randomisation,
    vanilla,
)
from tests.scoring.scoring_models import SmallNet, batch

AGAIN = ("adcc", "max_sensitivity", "mprt", "emprt")


@pytest.fixture(scope="module")
def given():
    """A module, its classifier, images, targets and their vanilla maps."""
    module = SmallNet().eval()
    images, _, targets = batch(3)
    clf = Classifier.from_callable(module, num_classes=5, input_size=24, mean=(0.5,), std=(0.25,))
    return module, clf, images, targets, vanilla(module, images, targets)


def test_sensitivity_as_captum_has_it(given):
    found = judge(given, "max_sensitivity", sensitivity_samples=3, sensitivity_radius=0.1)
    theirs = captum_sensitivity(given, 3, sensitivity_radius=0.1)
    torch.testing.assert_close(found.max_sensitivity, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_randomisation_as_quantus_has_it(given, order):
    fields = {"randomise_order": order, "randomise_groups": 0, "randomise_seed": 43}
    found = judge(given, "mprt", "emprt", **fields)
    layers, rises = quantus_randomisation(given, order)
    np.testing.assert_allclose(found.mprt.numpy(), layers.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.emprt.numpy(), rises, atol=1e-5)


def test_adcc_from_its_equation(given):
    assert judge(given, "adcc").adcc.tolist() == pytest.approx(adcc_by_equation(given), rel=1e-4)


def test_perfect_and_worst(given):
    module, clf, images, targets, maps = given

    def score(function, names, maps, **fields):
        chosen = preset("paper", **fields)
        return evaluate(clf, images, maps, targets, names, chosen, model=module, explain=function)

    # What never changes is as robust as can be, and blind to the weights.
    fixed = score(lambda *_: maps, ("max_sensitivity", "mprt", "emprt"), maps)
    assert fixed.max_sensitivity.tolist() == [0, 0, 0]
    torch.testing.assert_close(fixed.mprt, torch.ones(3))
    torch.testing.assert_close(fixed.emprt, torch.zeros(3))
    # What turns round with every change has the opposite order.
    turned = score(lambda *_: 1 - maps, ("max_sensitivity", "mprt"), maps)
    torch.testing.assert_close(turned.mprt, -torch.ones(3))
    change = (1 - 2 * maps).flatten(1).norm(dim=1) / maps.flatten(1).norm(dim=1)
    torch.testing.assert_close(turned.max_sensitivity, change)
    # A map that lets nothing through, and one that is full: a term of 0 makes ADCC 0.
    ones = torch.ones_like(maps)
    assert score(lambda *_: ones, "adcc", ones).adcc.tolist() == [0, 0, 0]
    # All of one pixel, and it is enough: the best there is.
    pixel = torch.zeros(3, 24, 24)
    pixel[:, 0, 0] = 1
    sure = Classifier.from_callable(lambda x: torch.ones(len(x), 2), mean=(0,), std=(1,))
    best = evaluate(
        sure, images, pixel, targets % 2, "adcc", model=module, explain=lambda *_: pixel
    )
    assert best.adcc.tolist() == pytest.approx([3 / (1 + 1 / (1 - 1 / 576) + 1)] * 3)


def test_degenerate_maps(given):
    module, clf, images, targets, maps = given
    maps = maps.clone()
    maps[0] = 0
    maps[1] = math.nan
    found = evaluate(clf, images, maps, targets, AGAIN, model=module, explain=vanilla)
    assert found.adcc.isnan().tolist() == [False, True, False]
    assert found.max_sensitivity.isfinite().tolist() == [True, False, True]
    assert found.mprt[0] == 0  # nothing correlates with a constant map
    assert found.mprt.isnan().tolist() == [False, True, False]
    assert found.emprt.isnan().tolist() == [True, True, False]  # not defined for a constant map


def test_the_model_comes_back_as_it_was(given):
    module = given[0]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    judge(given, "mprt", "emprt")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_one_function_for_each_map(given):
    module, clf, images, targets, maps = given
    both = torch.stack([maps, 1 - maps], dim=1)
    found = evaluate(
        clf,
        images,
        both,
        targets,
        ("mprt", "max_sensitivity"),
        model=module,
        explain=(vanilla, lambda *given: 1 - vanilla(*given)),
    )
    alone = judge(given, "mprt", "max_sensitivity")
    torch.testing.assert_close(found.mprt[:, 0], alone.mprt)
    torch.testing.assert_close(found.mprt[:, 1], alone.mprt)
    torch.testing.assert_close(found.max_sensitivity[:, 0], alone.max_sensitivity)


def test_refusals(given):
    module, clf, images, targets, maps = given
    for name in AGAIN:
        with pytest.raises(ValueError, match=f"{name} needs model=, got none"):
            evaluate(clf, images, maps, targets, name)
    with pytest.raises(TypeError, match="adcc: explain must be the function"):
        evaluate(clf, images, maps, targets, "adcc", model=module)
    with pytest.raises(TypeError, match=r"or 1 of them for maps \[B, 1, H, W\], got \[\]"):
        evaluate(clf, images, maps, targets, "adcc", model=module, explain=[])
    with pytest.raises(TypeError, match="mprt draws the weights of model= anew: it must be a"):
        evaluate(clf, images, maps, targets, "mprt", model=lambda *_: None, explain=vanilla)
    for name in ("mprt", "emprt"):
        said = f"{name} draws weights anew by reset_parameters, which no layer of this Flatten has"
        with pytest.raises(ValueError, match=said):
            evaluate(clf, images, maps, targets, name, model=nn.Flatten(), explain=vanilla)
    with pytest.raises(ValueError, match=r"explain must give maps \[B, H, W\] = \[3, 24"):
        evaluate(clf, images, maps, targets, "adcc", model=module, explain=lambda *_: maps[:1])


def test_all_leaves_out_what_a_model_without_such_layers_does_not_allow(given):
    module, clf, images, targets, maps = given
    engine = GradientEngine(module)
    few = preset("paper", mufidelity_samples=2, sensitivity_samples=1, information_shares=(0.5,))
    with engine:
        found = evaluate(clf, images, maps, targets, "all", few, model=engine, explain=vanilla)
    assert "max_sensitivity" in found.values
    assert not {"mprt", "emprt"} & set(found.values)


def test_layers():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.ReLU()))
    assert [type(layer) for layer in robustness.resettable(net)] == [nn.Linear, nn.BatchNorm1d]


def test_the_public_door_takes_names_modules_and_files(given, small_onnx):
    module, clf, images, targets, maps = given
    expected = judge(given, "mprt", "max_sensitivity")
    # By name, the noise of a changed image is that of the image itself: vanilla has none.
    named = gag_fast.evaluate(
        clf, images, maps, targets, ("mprt", "max_sensitivity"), model=module, explain="vanilla"
    )
    torch.testing.assert_close(named.mprt, expected.mprt)
    torch.testing.assert_close(named.max_sensitivity, expected.max_sensitivity)
    by_module = gag_fast.evaluate(module, images, maps, targets, "dauc")
    torch.testing.assert_close(by_module.dauc, judge(given, "dauc").dauc, atol=0.2, rtol=0)
    by_file = gag_fast.evaluate(small_onnx, images, maps, targets, "dauc")
    torch.testing.assert_close(by_file.dauc, by_module.dauc, atol=1e-5, rtol=0)


def test_only_the_image_differs_not_the_noise(given):
    module, clf, images, targets, _ = given
    ids = torch.tensor([5, -7, 2**60])
    maps = gag_fast.explain(module, images, targets, n=4, image_ids=ids)
    seen = []

    def watched(model, images, targets, image_ids):
        seen.append(image_ids.tolist())
        return gag_fast.explain(model, images, targets, n=4, image_ids=image_ids)

    still = preset("paper", sensitivity_radius=0.0, sensitivity_samples=1)
    for bound in (1, 2**30):  # image by image, and all at once
        found = evaluate(
            clf,
            images,
            maps,
            targets,
            "max_sensitivity",
            still,
            model=module,
            explain=watched,
            image_ids=ids,
            max_bytes=bound,
        )
        torch.testing.assert_close(found.max_sensitivity, torch.zeros(3), atol=1e-5, rtol=0)
    assert seen == [[5], [-7], [2**60], [5, -7, 2**60]]
    # Without ids, and by name, as `explain` has it.
    plain = gag_fast.explain(module, images, targets)
    found = gag_fast.evaluate(clf, images, plain, targets, "max_sensitivity", still, model=module)
    torch.testing.assert_close(found.max_sensitivity, torch.zeros(3), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="image_ids must be 3 integers, one for each image"):
        evaluate(clf, images, maps, targets, "mprt", model=module, explain=watched, image_ids=[1])
