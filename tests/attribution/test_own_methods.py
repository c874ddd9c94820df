"""Methods of the user's own: functions and Captum's classes, by name."""

import functools

import pytest
import torch

import gag_fast
from gag_fast.attribution.processing import min_max
from tests.attribution.attribution_models import images

HERE = "tests.attribution.test_own_methods"
CAPTUM = "captum.attr:Saliency"


def ramp(model, x, targets):
    """Maps: brighter from left to right, as bright as the class is high."""
    line = torch.arange(float(x.shape[3])) * (1 + targets[:, None])
    return line[:, None].expand(-1, x.shape[2], -1)


def gradient(model, x, targets):
    """Attributions: the plain gradient, signed."""
    x = x.requires_grad_()
    return torch.autograd.grad(model(x).gather(1, targets[:, None]).sum(), x)[0].numpy()


def too_small(model, x, targets):
    return torch.zeros(len(x), 3, 3)


def breaks(model, x, targets):
    raise KeyError("no such thing")


class NoMethod:
    pass


NUMBER = 3


BATCH = images(9, 16)


def test_maps_stay_as_they_are(model):
    found = gag_fast.explain(model, BATCH, 2, f"{HERE}:ramp")
    assert torch.equal(found, min_max(ramp(None, BATCH, torch.full((9,), 2))))
    raw = gag_fast.explain(model, BATCH, 2, f"{HERE}:ramp", normalize=False)
    assert raw.max() == 15 * 3


@pytest.mark.parametrize("name", [f"{HERE}:gradient", CAPTUM])
def test_attributions_are_our_own_vanilla_ones(model, name):
    pytest.importorskip("captum.attr", reason="Captum is not installed")
    before = [p.requires_grad for p in model.parameters()]
    found = gag_fast.explain_many(model, BATCH, 2, ["vanilla", name, f"{name}/R"], fuse=False)
    torch.testing.assert_close(found[name], found["vanilla"], rtol=0, atol=1e-5)
    assert torch.equal(found[f"{name}/R"].flatten().sort()[0], found[name].flatten().sort()[0])
    assert [p.requires_grad for p in model.parameters()] == before


def test_as_they_are_and_by_name(model):
    attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
    named = [f"{HERE}:ramp", f"{HERE}:gradient", CAPTUM]
    for method, name in zip((ramp, gradient, attr.Saliency), named, strict=True):
        expected = gag_fast.explain(model, BATCH, 2, name)
        assert torch.equal(gag_fast.explain(model, BATCH, 2, method), expected)
    many = gag_fast.explain_many(model, BATCH, 2, [ramp, "vanilla", attr.Saliency])
    assert list(many) == [f"{HERE}:ramp", "vanilla", f"{attr.Saliency.__module__}:Saliency"]
    assert torch.equal(many["vanilla"], gag_fast.explain(model, BATCH, 2, "vanilla"))
    half = functools.partial(ramp, None)  # with its first argument bound
    found = gag_fast.explain(model, BATCH, 2, lambda model, x, targets: half(x, targets))
    assert torch.equal(found, many[f"{HERE}:ramp"])


def test_a_measure_that_explains_again_takes_captums_class(model):
    attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
    clf = gag_fast.Classifier.from_torch(model)
    maps = gag_fast.explain(model, BATCH, 2, attr.Saliency)
    asked = (clf, BATCH, maps, torch.full((9,), 2), "max_sensitivity")
    found = gag_fast.evaluate(*asked, model=model, explain=attr.Saliency)
    named = gag_fast.evaluate(*asked, model=model, explain=CAPTUM)
    assert torch.equal(found.max_sensitivity, named.max_sensitivity)


@pytest.mark.parametrize(
    ("method", "error", "words"),
    [
        (NoMethod, ValueError, r"NoMethod' is a class without attribute\(images, target=...\)"),
        (too_small, RuntimeError, r"too_small must give maps \[8, 16, 16\].*\[8, 3, 3\]"),
        (breaks, RuntimeError, "test_own_methods:breaks failed: KeyError: 'no such thing'"),
        (
            NUMBER,
            TypeError,
            r"must be a string, a function .* or a class of attribution, got int 3",
        ),
    ],
)
def test_as_they_are_refused_in_one_line(model, method, error, words):
    with pytest.raises(error, match=words) as caught:
        gag_fast.explain(model, BATCH, 1, method)
    assert "\n" not in str(caught.value)


def test_not_within_inference_mode_or_without_gradients(model):
    expected = gag_fast.explain(model, BATCH, 2, f"{HERE}:gradient")
    with torch.inference_mode():
        assert torch.equal(gag_fast.explain(model, BATCH.clone(), 2, f"{HERE}:gradient"), expected)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("gone.module:f", ValueError, "cannot import 'gone.module'"),
        (f"{HERE}:gone", ValueError, "has no function 'gone'"),
        (f"{HERE}:NUMBER", ValueError, "is a int, not a function"),
        (f"{HERE}:NoMethod", ValueError, r"a class without attribute\(images, target=...\)"),
        (":f", ValueError, "a method of your own must be package.module:function, got ':f'"),
        (f"{HERE}:ramp@50", ValueError, "takes no percent"),
        (f"{HERE}:ramp/GA", ValueError, "takes no processing variant"),
        (f"{HERE}:too_small", RuntimeError, r"must give maps \[8, 16, 16\].*\[8, 3, 3\]"),
        (f"{HERE}:breaks", RuntimeError, "breaks failed: KeyError: 'no such thing'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(model, name, error, words):
    with pytest.raises(error, match=words) as caught:
        gag_fast.explain(model, BATCH, 1, name)
    assert "\n" not in str(caught.value)
