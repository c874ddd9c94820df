"""Measures that explain again or compress, against their references on real photographs at 224²."""

import numpy as np
import pytest
import torch

from gag_fast.classifier import Classifier
from gag_fast.metrics import evaluate, information
from gag_fast.metrics.case import Case
from gag_fast.presets import preset
from tests.scoring.explained_again import (
    adcc_by_equation,
    captum_sensitivity,
    judge,
    quantus_randomisation,
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
def test_information_curves_as_saliency_has_them(lite0_case, monkeypatch, smooth):
    pic = pytest.importorskip("saliency.metrics.pic")
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    module, clf, images, targets, maps = (
        part[:1] if torch.is_tensor(part) else part for part in lite0_case
    )
    if smooth:
        maps = torch.nn.functional.avg_pool2d(maps, 31, 1, 15, count_include_pad=False)
    chosen = preset("paper")
    found = evaluate(clf, images, maps, targets, ("aic", "sic"), chosen)
    case = Case(images, maps[:, None], targets, None, *clf.colours(3), chosen)
    mean, std = (v.float() for v in clf.colours(3))

    def predict(pictures, accuracy):
        x = (torch.from_numpy(pictures).float() / 255 - mean) / std
        with torch.no_grad():
            p = module(x.permute(0, 3, 1, 2)).softmax(dim=1)
        hit = p.argmax(dim=1) == targets
        return hit.double().numpy() if accuracy else p[:, targets[0]].numpy()

    for name, accuracy in (("aic", True), ("sic", False)):
        theirs = pic.compute_pic_metric(
            information._as_pixels(case)[0],
            maps[0].numpy(),
            information.seed_mask(case, 0),
            lambda pictures, accuracy=accuracy: predict(pictures, accuracy),
            list(chosen.information_shares),
            min_pred_value=0,
        )
        assert float(getattr(found, name)[0]) == pytest.approx(theirs.auc, abs=5e-3)
