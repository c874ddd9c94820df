"""Real networks on photographs: gradients by every provider and by torch, beside float64's.

Where nothing switches (EfficientNet-B0's SiLU, ViT's GELU), all float32 libraries agree to a
millionth. A ReLU that rounding turns over moves a patch of a gradient, and EfficientNet-Lite0 has
millions of them: there ONNX Runtime and OpenVINO are closer to float64 than torch is, and the
distance from torch is torch's own. A wrong graph would be off by the size of the gradient itself.
"""

import copy

import numpy as np
import pytest
import torch

import gag_fast
from benchmarks import material
from gag_fast.classifier import Classifier, OnnxGradients
from gag_fast.classifier.providers import installed
from gag_fast.export import export_gradients, export_onnx
from gag_fast.images import load_image, preprocess
from gag_fast.metrics import evaluate
from tests.export.test_gradients import PROVIDERS, expected
from tests.photographs import SAMPLES

PHOTOS = sorted(SAMPLES.glob("*.jpg"))[::10][:24]
SCORES = ("rcap", "dauc", "iauc")
SMOOTH = {"efficientnet_b0": 8, "vit_b_16": 4}
"""Networks without rectifiers, with random weights -> photographs."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.photos,
    pytest.mark.skipif(len(PHOTOS) < 24, reason="needs the ImageNet sample photographs"),
]


def off(found, right):
    """|difference| of the image's maximum, one row an image."""
    size = right.abs().amax((1, 2, 3), keepdim=True)
    return ((found - right).abs() / size).flatten(1).numpy()


def one_by_one(module, images, targets):
    pairs = zip(images, targets, strict=True)
    return torch.cat([expected(module, x[None], t[None]) for x, t in pairs])


def exported(name, count, folder):
    """The module, its graph, photographs, their classes, gradients in float64."""
    module, spec = material.network(name)
    export_gradients(module, folder / f"{name}.onnx", spec, providers=["cpu"])
    images = torch.stack(
        [preprocess(load_image(path), spec.preprocessing) for path in PHOTOS[:count]]
    )
    with torch.no_grad():
        targets = torch.cat([module(x[None]) for x in images]).argmax(1)
    exact = one_by_one(copy.deepcopy(module).double(), images.double(), targets)
    return module, folder / f"{name}.onnx", images, targets, exact


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    return exported("efficientnet_lite0", len(PHOTOS), tmp_path_factory.mktemp("lite0"))


@pytest.fixture(scope="module")
def scorer(lite0, tmp_path_factory):
    """EfficientNet-Lite0's session, and the scores of torch's maps."""
    module, _, images, targets, _ = lite0
    path = tmp_path_factory.mktemp("forward") / "lite0.onnx"
    export_onnx(module, material.lite0()[1], path)
    clf = Classifier(path, "cpu")
    return clf, evaluate(clf, images, gag_fast.explain(module, images, targets), targets)


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_networks_agree_with_float64(name, tmp_path):
    _, file, images, targets, exact = exported(name, SMOOTH[name], tmp_path)
    for provider in installed():
        found = off(OnnxGradients(file, provider)(images, targets), exact)
        print(f"{name}, {provider}: {np.quantile(found, 0.999):.1e}, at most {found.max():.1e}")
        assert np.quantile(found, 0.999) < 2e-6
        assert found.max() < 5e-6


@pytest.mark.parametrize("provider", PROVIDERS)
def test_lite0_is_closer_to_float64_than_torch_is(lite0, provider):
    module, file, images, targets, exact = lite0
    found = OnnxGradients(file, provider)(images, targets)
    torchs = one_by_one(module, images, targets)
    from_exact, from_torch, own = off(found, exact), off(found, torchs), off(torchs, exact)
    pairs = {
        f"{provider} from float64": from_exact,
        f"{provider} from torch": from_torch,
        "torch from float64": own,
    }
    for name, values in pairs.items():
        print(
            f"{name}: {np.quantile(values, 0.999):.1e} at the 99.9th percentile, "
            f"{100 * (values > 1e-4).mean():.2f} % over 1e-4, at most {values.max():.1e}"
        )
    assert np.quantile(from_exact, 0.999) < 6e-4
    assert (from_exact > 1e-4).mean() < 8e-3
    assert np.quantile(from_exact, 0.999) < np.quantile(own, 0.999)
    assert np.quantile(from_torch, 0.999) < 2.2e-3


@pytest.mark.parametrize("provider", PROVIDERS)
def test_scores(lite0, scorer, provider):
    _, file, images, targets, _ = lite0
    clf, of_torch = scorer
    maps = gag_fast.explain(OnnxGradients(file, provider), images, targets)
    found = evaluate(clf, images, maps, targets)
    for name in SCORES:
        moved = getattr(found, name) - getattr(of_torch, name)
        print(
            f"{provider} {name}: of the means {moved.mean():.1e}, of a photograph "
            f"{moved.abs().mean():.1e} in the mean, {moved.abs().max():.1e} at most"
        )
        # torch's own maps move with its number of threads: 1.9e-4 and 6.4e-3 on one, 5.4e-4 and
        # 1.1e-2 on two.
        assert abs(moved.mean()) < 8e-4
        assert moved.abs().max() < 1.6e-2
