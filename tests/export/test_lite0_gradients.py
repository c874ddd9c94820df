"""EfficientNet-Lite0 on photographs: gradients and scores through ONNX Runtime beside torch's.

A ReLU that rounding turns over moves a patch of a gradient, so two float32 libraries differ by
more than rounding: by 2e-3 of the maximum at the 99.9th percentile, and a single photograph's RCAP
by up to 1.1e-2. A wrong graph would be off by the size of the gradient itself.
"""

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier, OnnxGradients
from gag_fast.export import export_gradients, export_onnx
from gag_fast.images import load_image, preprocess
from gag_fast.metrics import evaluate
from gag_fast.models import load_model
from tests.export.test_gradients import PROVIDERS, expected
from tests.photographs import SAMPLES

PHOTOS = sorted(SAMPLES.glob("*.jpg"))[::10][:24]
SCORES = ("rcap", "dauc", "iauc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.photos,
    pytest.mark.skipif(len(PHOTOS) < 24, reason="needs the ImageNet sample photographs"),
]


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """The module, its gradient graph, its classifier, 24 photographs and their classes."""
    module, spec = load_model("efficientnet_lite0")
    folder = tmp_path_factory.mktemp("lite0")
    export_gradients(module, folder / "gradients.onnx", spec, providers=["cpu"])
    export_onnx(module, spec, folder / "model.onnx")
    clf = Classifier(folder / "model.onnx", "cpu")
    images = torch.stack([preprocess(load_image(path), spec.preprocessing) for path in PHOTOS])
    return module, folder / "gradients.onnx", clf, images, clf(images).argmax(1)


@pytest.fixture(scope="module")
def of_torch(lite0):
    """Scores of torch's maps."""
    module, _, clf, images, targets = lite0
    return evaluate(clf, images, gag_fast.explain(module, images, targets), targets)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_gradients(lite0, provider):
    module, file, _, images, targets = lite0
    found, right = OnnxGradients(file, provider)(images, targets), expected(module, images, targets)
    off = ((found - right).abs() / right.abs().amax((1, 2, 3), keepdim=True)).flatten(1).numpy()
    pooled, each = np.quantile(off, 0.999), np.quantile(off, 0.999, axis=1)
    print(
        f"{provider}: of the maximum, at the 99.9th percentile {pooled:.1e} "
        f"(the worst photograph {each.max():.1e}, the worst value {off.max():.1e})"
    )
    assert pooled < 5e-3


@pytest.mark.parametrize("provider", PROVIDERS)
def test_scores(lite0, of_torch, provider):
    _, file, clf, images, targets = lite0
    maps = gag_fast.explain(OnnxGradients(file, provider), images, targets)
    found = evaluate(clf, images, maps, targets)
    for name in SCORES:
        off = getattr(found, name) - getattr(of_torch, name)
        print(
            f"{provider} {name}: of the means {off.mean():.1e}, of a photograph "
            f"{off.abs().mean():.1e} in the mean, {off.abs().max():.1e} at most"
        )
        assert abs(off.mean()) < 2e-3
        assert off.abs().max() < 2e-2
