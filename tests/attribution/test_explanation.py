"""How to explain as one value, and a source of gradients that is no module."""

import dataclasses
import inspect

import pytest
import torch

import gag_fast
from gag_fast.attribution import registry
from gag_fast.attribution.explanation import Explanation, MethodOptions
from gag_fast.attribution.gradients import EngineOptions, GradientEngine
from gag_fast.attribution.settings import SAMPLES
from gag_fast.runs.manifest import explaining
from tests.attribution.attribution_models import TinyNet, images, shaken

CALLS = [gag_fast.explain, gag_fast.explain_many]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [Explanation, EngineOptions])
def test_the_public_keywords_are_the_fields(call, kind):
    parameters = inspect.signature(call).parameters
    for field in dataclasses.fields(kind):
        if field.name != "options":
            assert parameters[field.name].default == field.default, field.name


def test_the_typed_method_options_are_those_that_methods_take():
    assert set(MethodOptions.__annotations__) == set(registry.all_options())


def test_the_number_of_samples_is_said_once():
    assert Explanation().count == SAMPLES == 20
    captum = inspect.signature(gag_fast.GuidedAbsGrad.attribute).parameters
    assert captum["n_samples"].default == SAMPLES
    assert Explanation(settings="official:isic").count == 10
    assert Explanation(settings="official:isic", n=7).count == 7


def test_it_cannot_be_changed_or_wrong():
    how = Explanation(n=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        how.n = 4
    for wrong, words in [
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"noise": -1}, "noise must be finite and not negative, got -1"),
        ({"channels": "all"}, 'channels must be "sum" or "keep"'),
        ({"noise_range": "world"}, "noise_range must be one of image, batch, got 'world'"),
        ({"reverse": (0.1, 0.2, 0.3)}, "reverse must be True or two shares"),
        ({"settings": "mine"}, "settings must be one of official:imagenet"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            Explanation(**wrong)


def test_a_manifest_has_four_keys_and_what_else_was_said():
    how = Explanation(p=70, settings="official:isic", options={"layer": "features.7"})
    assert explaining(how) == {
        "n": 10,
        "noise": 0.15,
        "p": 70.0,
        "seed": 0,
        "options": {"settings": "official:isic", "layer": "features.7"},
    }


@pytest.mark.parametrize(
    ("method", "option", "words"),
    [
        ("guided_absgrad", "nosie", "unknown option 'nosie'; did you mean 'noise'?"),
        ("guided_ig", "fractoin", "unknown option 'fractoin'; did you mean 'fraction'?"),
        ("guided_absgrad", "channel", "did you mean 'channels'?"),
        ("smoothgrad", "layer", "'layer'; it is an option of grad_cam"),
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_a_misspelt_keyword_is_answered_with_the_right_one(method, option, words, many):
    model, x = shaken(TinyNet), images(1, 8)
    call, name = (gag_fast.explain_many, [method]) if many else (gag_fast.explain, method)
    with pytest.raises(TypeError, match=words) as caught:
        call(model, x, None, name, **{option: 1})
    assert "\n" not in str(caught.value)


# ---- another source of gradients ----------------------------------------------------------------


class Sessions:
    """What sessions of an exported gradient graph can do: two outputs for images and classes."""

    scores = ("logit",)
    memory_format = torch.contiguous_format

    def __init__(self, model):
        self.model = model
        self.calls = 0

    def check(self, images):
        pass

    def batch_size(self, image):
        return 3

    def classes(self, image):
        return 7

    def logits(self, images):
        return self.model(images).detach()

    def gradients(self, images, targets, *, score="logit"):
        self.calls += 1
        x = images.clone().requires_grad_()
        chosen = self.model(x).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(chosen, x)[0]


@pytest.fixture
def sessions():
    return Sessions(shaken(TinyNet).double())


def test_maps_do_not_depend_on_where_gradients_come_from(sessions):
    x = images(4, 16).double()
    names = ["guided_absgrad", "smoothgrad/G", "integrated_gradients", "guided_ig", "blur_ig"]
    found = gag_fast.explain_many(sessions, x, methods=names, n=4)
    expected = gag_fast.explain_many(sessions.model, x, methods=names, n=4)
    assert sessions.calls > 0
    for name in names:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"method": "grad_cam"}, ValueError, "grad_cam looks into the torch module, which a Sess"),
        ({"method": "guided_backprop"}, ValueError, "guided_backprop looks into the torch module"),
        ({"score": "nll"}, ValueError, "differentiates the nll, but a Sessions only logit"),
        (
            {"method": "integrated_gradients", "settings": "official:isic"},
            ValueError,
            "integrated_gradients differentiates the nll, but a Sessions only logit",
        ),
        ({"batch_size": 4}, TypeError, "batch_size: said to the engine where it is made"),
        ({"fuse": False, "memory": 1}, TypeError, "memory, fuse: said to the engine where it is"),
    ],
)
def test_what_such_a_source_cannot_do_is_refused(sessions, options, error, words):
    with pytest.raises(error, match=words):
        gag_fast.explain(sessions, images(2, 16).double(), **options)


def test_an_engines_keywords_are_refused_beside_an_engine():
    x = images(1, 16)
    with (
        GradientEngine(shaken(TinyNet)) as engine,
        pytest.raises(TypeError, match="batch_size: said to the engine where it is made"),
    ):
        gag_fast.explain(engine, x, n=2, batch_size=3)


def test_some_methods_share_of_the_options():
    how = Explanation(options={"layer": "features", "steps": 5, "mystery": 1})
    methods = ("grad_cam", "integrated_gradients")
    assert registry.share_of(how, methods, methods) == how
    assert dict(registry.share_of(how, ("grad_cam",), methods).options) == {
        "layer": "features",
        "mystery": 1,  # nobody's: refused where it is used
    }
