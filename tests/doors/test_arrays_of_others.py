"""Arrays of other libraries at the doors: read in place where they speak DLPack, else one line."""

import re

import numpy as np
import pytest
import torch

import gag_fast
from tests.tiny_classifier import build


class Elsewhere:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, values):
        self.values = torch.as_tensor(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class OfNumPysInterface:
    def __init__(self, values):
        self.__array_interface__ = values.__array_interface__
        self.values = values


class Unwilling:
    def __dlpack__(self, **_):
        raise BufferError("the array lies on a device of its own\nsecond line")

    def __dlpack_device__(self):
        return (1, 0)


class OnCuda:
    """As CuPy's arrays show themselves; NumPy is refused, as there."""

    def __dlpack__(self, **_):
        raise BufferError("no CUDA runtime")

    def __dlpack_device__(self):
        return (2, 0)

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


class OnCudaByInterface:
    def __init__(self):
        interface = np.zeros((4, 3, 8, 8), np.float32).__array_interface__
        self.__cuda_array_interface__ = {**interface, "version": 3}


def jax_array(values):
    return pytest.importorskip("jax.numpy").asarray(values)


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return OfNumPysInterface(values)


KINDS = [Elsewhere, OfNumPysInterface, read_only, jax_array]


@pytest.fixture
def grads():
    return np.random.default_rng(0).standard_normal((2, 5, 3, 6, 7), dtype=np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind, grads):
    wanted = gag_fast.guided_absgrad(torch.from_numpy(grads))
    found = gag_fast.guided_absgrad(kind(grads))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, wanted)
    samples = [kind(np.ascontiguousarray(grads[:, i])) for i in range(5)]
    assert torch.equal(gag_fast.guided_absgrad(samples), wanted)
    stats = gag_fast.GradientStats()
    for sample in samples:
        stats.update(sample)
    assert torch.equal(stats.guided_absgrad(), wanted)


def test_they_are_read_in_place(grads):
    there = Elsewhere(grads)
    before = gag_fast.guided_absgrad(there)
    there.values.zero_()
    assert before.any()
    assert not gag_fast.guided_absgrad(there).any()


def test_bfloat16_of_jax(grads):
    given = jax_array(grads).astype("bfloat16")
    wanted = gag_fast.guided_absgrad(torch.from_numpy(grads).bfloat16())
    assert torch.equal(gag_fast.guided_absgrad(given), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_explained_and_scored(kind):
    model = build()
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32), dtype=np.float32)
    theirs, targets = kind(images), kind(np.array([1, 2]))
    maps = gag_fast.explain(model, theirs, targets, n=3)
    assert torch.equal(maps, gag_fast.explain(model, torch.from_numpy(images), [1, 2], n=3))
    clf = gag_fast.Classifier.from_torch(model)
    scores = gag_fast.evaluate(clf, theirs, kind(maps.numpy()), targets, ("rcap", "gini"))
    wanted = gag_fast.evaluate(clf, torch.from_numpy(images), maps, [1, 2], ("rcap", "gini"))
    assert isinstance(scores.rcap, torch.Tensor)
    assert torch.equal(scores.rcap, wanted.rcap)
    assert torch.equal(scores.gini, wanted.gini)
    assert torch.equal(clf(theirs), clf(torch.from_numpy(images)))


@pytest.mark.parametrize(
    "call", [gag_fast.guided_absgrad, lambda array: gag_fast.explain(build(), array)]
)
@pytest.mark.parametrize("make", [OnCuda, OnCudaByInterface])
@pytest.mark.skipif(torch.cuda.is_available(), reason="such an array would be read there")
def test_an_array_on_a_gpu_that_is_not_there(call, make):
    with pytest.raises(TypeError) as told:
        call(make())
    assert re.search("NVIDIA|CUDA", str(told.value))
    assert "Implicit conversion" not in str(told.value)
    assert str(told.value).count("\n") == 0


@pytest.mark.parametrize(
    "call", [gag_fast.guided_absgrad, lambda array: gag_fast.explain(build(), array)]
)
def test_an_array_that_is_not_handed_over(call):
    with pytest.raises(TypeError) as told:
        call(Unwilling())
    assert str(told.value).count("\n") == 0
    assert "device of its own" in str(told.value)
    assert "torch.from_dlpack(...)" in str(told.value)
