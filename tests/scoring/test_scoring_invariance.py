"""Results must not depend on how the work was cut: to the bit on the CPU."""

import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from tests.scoring.scoring_models import SmallNet, batch, small_spec

NAMES = ("rcap", "dauc", "iauc")


def same(a, b, order=None):
    for name in NAMES:
        x, y = getattr(a, name), getattr(b, name)
        if x is not None and y is not None:
            assert torch.equal(x if order is None else x[order], y), name
    for curve in a.curves.keys() & b.curves.keys():
        x, y = a.curves[curve], b.curves[curve]
        assert torch.equal(x if order is None else x[order], y), curve


@pytest.fixture(scope="module")
def work():
    return batch(5, maps=3, seed=7)


@pytest.fixture(scope="module")
def reference(small_onnx, work):
    return gag_fast.evaluate(Classifier(small_onnx, "cpu", batch_size=8), *work)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 33, 500])
def test_batch_size(small_onnx, work, reference, size):
    same(gag_fast.evaluate(Classifier(small_onnx, "cpu", batch_size=size), *work), reference)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads(small_onnx, work, reference, threads):
    clf = Classifier(small_onnx, "cpu", batch_size=4, threads=threads)
    same(gag_fast.evaluate(clf, *work), reference)


def test_order_of_images(small_clf, work, reference):
    order = torch.tensor([3, 0, 4, 1, 2])
    same(reference, gag_fast.evaluate(small_clf, *(part[order] for part in work)), order)


def test_one_image_at_a_time(small_clf, work, reference):
    for i in range(5):
        alone = gag_fast.evaluate(small_clf, *(part[i : i + 1] for part in work))
        same(reference, alone, slice(i, i + 1))


def test_one_map_at_a_time(small_clf, work, reference):
    images, maps, targets = work
    for m in range(3):
        alone = gag_fast.evaluate(small_clf, images, maps[:, m], targets)
        for name in NAMES:
            assert torch.equal(getattr(reference, name)[:, m], getattr(alone, name))


@pytest.mark.parametrize("metrics", [("rcap",), ("dauc",), ("iauc",), ("iauc", "rcap")])
def test_choice_of_metrics(small_clf, work, reference, metrics):
    res = gag_fast.evaluate(small_clf, *work, metrics=metrics)
    same(reference, res)
    assert {n for n in NAMES if getattr(res, n) is not None} == set(metrics)


@pytest.mark.parametrize("max_bytes", [1, 200_000])
def test_memory_bound(small_clf, work, reference, max_bytes):
    same(reference, gag_fast.evaluate(small_clf, *work, max_bytes=max_bytes))


def test_lite0_on_photographs(lite0_onnx, photographs):
    """The kernels of a real network: depthwise, grouped, matrix products."""
    maps = torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([967])
    metrics = ("rcap",)
    results = [
        gag_fast.evaluate(
            Classifier(lite0_onnx, "cpu", batch_size=b, threads=t),
            photographs[:1],
            maps,
            targets,
            metrics,
        )
        for b, t in ((1, 1), (2, 2), (5, 1), (16, 2))
    ]
    for other in results[1:]:
        same(results[0], other)


def test_torch_and_callable_agree_with_onnx(small, small_onnx, work, reference):
    module = Classifier.from_torch(small, small_spec(), batch_size=6)
    function = Classifier.from_callable(
        lambda x: SmallNet()(x).softmax(1).detach().numpy(),
        score="probabilities",
        batch_size=9,
    )
    for clf in (module, function):
        res = gag_fast.evaluate(clf, *work)
        for name in NAMES:
            torch.testing.assert_close(
                getattr(res, name), getattr(reference, name), atol=1e-5, rtol=0
            )
        assert res.forwards == reference.forwards


def test_kinds_out_are_kinds_in(small_clf, work, reference):
    images, maps, targets = work
    res = gag_fast.evaluate(small_clf, images.numpy(), maps.numpy(), targets.numpy())
    for name in NAMES:
        assert (getattr(res, name) == getattr(reference, name).numpy()).all()
    assert (res.curves["recover"] == reference.curves["recover"].numpy()).all()
    assert reference.rcap.dtype == torch.float32


def test_strides_and_dtypes(small_clf, work, reference):
    images, maps, targets = work
    strided = images.to(memory_format=torch.channels_last)
    same(reference, gag_fast.evaluate(small_clf, strided, maps, targets))
    flipped = maps.transpose(-1, -2).contiguous().transpose(-1, -2)
    same(reference, gag_fast.evaluate(small_clf, images.double(), flipped, targets.int()))
    wide = gag_fast.evaluate(small_clf, images, maps.double(), targets.tolist())
    torch.testing.assert_close(wide.rcap, reference.rcap, atol=1e-6, rtol=0)
