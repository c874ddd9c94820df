"""Every preset against an independent, slow implementation in float64."""

import copy

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.models import IMAGENET_MEAN, IMAGENET_STD
from tests.scoring import scoring_oracles as oracles
from tests.scoring.scoring_models import batch

KEYS = ("rcap", "dauc", "iauc")


@pytest.fixture(scope="module")
def predict(small):
    """SmallNet in float64."""
    module = copy.deepcopy(small).double()

    def probabilities(image):
        with torch.no_grad():
            return module(torch.from_numpy(np.asarray(image))[None]).softmax(1)[0].numpy()

    return probabilities


def check(res, index, expected, tolerance):
    for key in KEYS:
        if key in expected:
            got = getattr(res, key).flatten()[index].item()
            assert got == pytest.approx(expected[key], abs=tolerance), key
    for curve, values in res.curves.items():
        if curve in expected:
            steps = values.shape[-1]
            got = values.reshape(-1, steps)[index].tolist()
            assert got == pytest.approx(expected[curve], abs=tolerance), curve


def saliencies(kind, count=2, size=24):
    generator = torch.Generator().manual_seed(len(kind))
    maps = torch.rand(count, size, size, generator=generator)
    if kind == "ties":
        maps = (maps * 6).floor() / 6
    elif kind == "sparse":  # most pixels are exactly 0, as after a ReLU
        maps = (maps - 0.8).clamp(min=0)
    elif kind == "peaked":
        maps = maps**8
    return maps


@pytest.mark.parametrize("kind", ["smooth", "ties", "sparse", "peaked"])
@pytest.mark.parametrize("bounds", [(50, 10), (10, 15), (80, 5)])
def test_paper(small_clf, predict, kind, bounds):
    images, _, targets = batch(2)
    maps = saliencies(kind)
    preset = gag_fast.preset("paper", lower_bound=bounds[0], interval=bounds[1])
    res = gag_fast.evaluate(small_clf, images, maps, targets, preset=preset)
    for i in range(2):
        expected = oracles.paper(
            predict, images[i], maps[i], int(targets[i]), IMAGENET_MEAN, IMAGENET_STD, *bounds
        )
        check(res, i, expected, 2e-5)
        assert res.partitions[i].tolist() == pytest.approx(expected["partitions"], abs=1e-6)


@pytest.mark.parametrize("kind", ["smooth", "ties", "sparse"])
def test_official(small_clf, predict, kind):
    images, _, targets = batch(2, seed=1)
    maps = saliencies(kind)
    res = gag_fast.evaluate(small_clf, images, maps, targets, preset="official")
    for i in range(2):
        expected = oracles.official(
            predict, images[i], maps[i], int(targets[i]), IMAGENET_MEAN, IMAGENET_STD
        )
        check(res, i, expected, 2e-5)


def test_rise(small_clf, predict):
    pytest.importorskip("scipy")
    images, maps, targets = batch(2, seed=2)
    res = gag_fast.evaluate(
        small_clf, images, maps, targets, metrics=("dauc", "iauc"), preset="rise"
    )
    assert res.curves["deletion"].shape == (2, 4)  # 576 pixels: 224, 448, 576 and the start
    for i in range(2):
        check(res, i, oracles.rise(predict, images[i], maps[i], int(targets[i])), 2e-5)


def test_rise_in_smaller_steps(small_clf, predict):
    pytest.importorskip("scipy")
    images, maps, targets = batch(1, seed=3)
    preset = gag_fast.preset("rise", step=17)
    res = gag_fast.evaluate(small_clf, images, maps, targets, ("dauc", "iauc"), preset)
    check(res, 0, oracles.rise(predict, images[0], maps[0], int(targets[0]), 17), 2e-5)


@pytest.mark.parametrize("steps", [20, 7])
def test_torchcam(small_clf, predict, steps):
    images, maps, targets = batch(2, seed=4)
    preset = gag_fast.preset("torchcam", step=steps)
    res = gag_fast.evaluate(small_clf, images, maps, targets, ("dauc", "iauc"), preset)
    for i in range(2):
        expected = oracles.torchcam(predict, images[i], maps[i], int(targets[i]), steps)
        check(res, i, expected, 1e-5)


def test_torchcam_equals_torch_cam_itself(small, small_onnx):
    metrics = pytest.importorskip("torchcam.metrics")
    if not hasattr(metrics, "DeletionInsertionMetric"):
        pytest.skip("this torch-cam has no DeletionInsertionMetric")
    methods = pytest.importorskip("torchcam.methods")
    images, _, _ = batch(3, seed=5)
    with methods.GradCAM(small, target_layer=small.layers[2]) as extractor:
        metric = metrics.DeletionInsertionMetric(extractor, lambda x: x.softmax(dim=-1))
        metric.update(images)
        scores = small(images).softmax(dim=-1)  # it explains the probabilities
        predicted = scores.argmax(dim=1)
        cam = extractor(predicted.tolist(), scores)[0]
    maps = torch.nn.functional.interpolate(cam[:, None], size=24, mode="bilinear")[:, 0]
    res = gag_fast.evaluate(
        Classifier(small_onnx, "cpu"), images, maps, predicted, ("dauc", "iauc"), "torchcam"
    )
    summary = metric.summary()
    assert res.dauc.mean().item() == pytest.approx(summary["deletion_auc"], abs=1e-5)
    assert res.iauc.mean().item() == pytest.approx(summary["insertion_auc"], abs=1e-5)


def photograph_maps(photographs):
    """Saliency that follows the picture: local contrast, min-max."""
    grey = photographs.mean(dim=1, keepdim=True)
    flat = torch.nn.functional.avg_pool2d(grey, 9, stride=1, padding=4)
    contrast = (grey - flat).abs()[:, 0]
    low = contrast.amin(dim=(1, 2), keepdim=True)
    return (contrast - low) / (contrast.amax(dim=(1, 2), keepdim=True) - low)


def compare_on_photographs(lite0, lite0_onnx, photographs, preset):
    module, spec = lite0
    clf = Classifier(lite0_onnx, "cpu")
    maps = photograph_maps(photographs)
    targets = clf(photographs).argmax(dim=1)
    res = gag_fast.evaluate(clf, photographs, maps, targets, preset=preset)
    mean, std = spec.preprocessing.mean, spec.preprocessing.std

    def predict(image):
        with torch.inference_mode():
            return module(torch.from_numpy(image).float()[None]).softmax(1)[0].double().numpy()

    for i, (image, saliency) in enumerate(zip(photographs, maps)):
        args = (predict, image, saliency, int(targets[i]), mean, std)
        check(res, i, getattr(oracles, preset)(*args), 1e-4)


@pytest.mark.parametrize("preset", ["paper", "official"])
def test_on_photographs_with_lite0(lite0, lite0_onnx, photographs, preset):
    compare_on_photographs(lite0, lite0_onnx, photographs[:2], preset)


@pytest.mark.photos
def test_on_sample_photographs_with_lite0(lite0, lite0_onnx, samples):
    compare_on_photographs(lite0, lite0_onnx, samples, "official")
