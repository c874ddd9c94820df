"""Measures that explain again or compress, against their references on real photographs at 224²."""

import numpy as np
import pytest
import torch

from gag_fast.classifier import Classifier
from gag_fast.metrics import evaluate
from gag_fast.presets import preset
from tests.scoring.library_references import (
    adcc_by_equation,
    captum_sensitivity,
    judge,
    quantus_randomisation,
    saliency_information,
    vanilla,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lite0_case(lite0, photographs):
    """EfficientNet-Lite0: module, classifier, two photographs, their classes and vanilla maps."""
    module, spec = lite0
    images = photographs[:2]
    with torch.no_grad():
        targets = module(images).argmax(dim=1)
    clf = Classifier.from_torch(module, spec, batch_size=8)
    return module, clf, images, targets, vanilla(module, images, targets)


@pytest.fixture(scope="module")
def resnet_case(photographs):
    """ResNet-18 with fixed weights; as above, of one photograph."""
    torchvision = pytest.importorskip("torchvision")
    with torch.random.fork_rng():
        torch.manual_seed(18)
        module = torchvision.models.resnet18(weights=None).eval()
    images, targets = photographs[:1], torch.tensor([207])
    clf = Classifier.from_torch(module, batch_size=8)
    return module, clf, images, targets, vanilla(module, images, targets)


def test_adcc_from_its_equation(lite0_case):
    found = judge(lite0_case, "adcc").adcc.tolist()
    assert found == pytest.approx(adcc_by_equation(lite0_case), rel=1e-3)


def test_sensitivity_as_captum_has_it(lite0_case):
    found = judge(lite0_case, "max_sensitivity", sensitivity_samples=3)
    theirs = captum_sensitivity(lite0_case, 3)
    torch.testing.assert_close(found.max_sensitivity, theirs, rtol=1e-2, atol=1e-4)


def test_randomisation_as_quantus_has_it(resnet_case):
    found = judge(resnet_case, "mprt", "emprt", randomise_groups=0, randomise_seed=43)
    layers, rises = quantus_randomisation(resnet_case, "top_down")
    assert len(layers) == 41  # every convolution, batch norm and linear layer
    np.testing.assert_allclose(found.mprt.numpy(), layers.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.emprt.numpy(), rises, atol=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
def test_information_curves_as_saliency_has_them(lite0_case, smooth):
    module, clf, images, targets, maps = (
        part[:1] if torch.is_tensor(part) else part for part in lite0_case
    )
    if smooth:
        maps = torch.nn.functional.avg_pool2d(maps, 31, 1, 15, count_include_pad=False)
    chosen = preset("paper")
    found = evaluate(clf, images, maps, targets, ("aic", "sic"), chosen)
    theirs = saliency_information((module, clf, images, targets, maps), chosen)
    for name, area in theirs.items():
        assert float(getattr(found, name)[0]) == pytest.approx(area, abs=5e-3)
