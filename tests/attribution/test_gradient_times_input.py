"""input_x_gradient and Grad-CAM++: by hand, and beside Captum's and pytorch-grad-cam's."""

import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.models import load_model
from tests.attribution.attribution_models import (
    LinearNet,
    TinyNet,
    copying_net,
    difference,
    images,
    shaken,
)
from tests.attribution.test_grad_cam_layouts import RESHAPES, STAGES

RAW = {"normalize": False, "channels": "keep"}


def test_input_x_gradient_is_captums(architecture):
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    model, x, targets = architecture
    theirs = captum.InputXGradient(model).attribute(x.clone().requires_grad_(), target=targets)
    ours = gag_fast.explain(model, x, targets, "input_x_gradient", **RAW)
    assert difference(ours, theirs) < 1e-6


def test_input_x_gradient_of_a_linear_network():
    model, x = shaken(LinearNet), images(2, 6)
    found = gag_fast.explain(model, x, 2, "input_x_gradient", **RAW)
    torch.testing.assert_close(found, (x * model.weight[2]).detach())
    maps = gag_fast.explain(model, x, 2, "input_x_gradient", normalize=False)
    torch.testing.assert_close(maps, found.abs().sum(1))
    positive = gag_fast.explain(model, x, 2, "input_x_gradient/+", **RAW)
    torch.testing.assert_close(positive, (x * model.weight[2].clamp(min=0)).detach())


def test_input_x_gradient_shares_the_vanilla_pass_and_refuses_a_guide():
    model, x = shaken(TinyNet), images(2, 16)
    both = gag_fast.explain_many(model, x, 1, ("vanilla", "input_x_gradient"), **RAW)
    torch.testing.assert_close(both["input_x_gradient"], both["vanilla"] * x)
    with pytest.raises(ValueError, match="is of one gradient, which has no variance, got 'GA'"):
        gag_fast.explain(model, x, 1, "input_x_gradient/GA")


def test_grad_cam_pp_by_hand():
    # One convolution that copies the pixels; class 1's logit is twice the mean: g = 1/2 at each of
    # the four pixels, whose sum is 3. a = 1/4 / (1/2 + 3/8) = 2/7, so w = 4 * 2/7 * 1/2 = 4/7.
    model = copying_net()
    x = torch.tensor([[[[0.0, 1.0], [-1.0, 3.0]]]])
    raw = gag_fast.explain(model, x, 1, "grad_cam_pp", channels="keep", eps=0)
    torch.testing.assert_close(raw, x * 4 / 7)
    # Class 0's gradients are negative: no weight is left.
    assert not gag_fast.explain(model, x, 0, "grad_cam_pp").any()


def their_grad_cam_pp(model, layer, x, targets, reshape=None):
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam", reason="grad-cam is not installed")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    part = dict(model.named_modules())[layer]
    with pytorch_grad_cam.GradCAMPlusPlus(model, [part], reshape) as cam:
        return torch.from_numpy(cam(x, [ClassifierOutputTarget(t) for t in targets]))


@pytest.mark.parametrize("layer", ["layer4", "layer2"])
def test_grad_cam_pp_is_pytorch_grad_cams(layer):
    torch.manual_seed(0)
    model, _ = load_model("resnet18", "none")
    x = images(2, 96)
    ours = gag_fast.explain(model, x, [3, 7], "grad_cam_pp", layer=layer)
    theirs = their_grad_cam_pp(model, layer, x, [3, 7])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    plain = gag_fast.explain(model, x, [3, 7], "grad_cam", layer=layer)
    assert difference(ours, plain) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_grad_cam_pp_of_transformers(name):
    torch.manual_seed(0)
    model, _ = load_model(name, "none")
    if name == "vit_b_16":  # torchvision's head starts at zero
        nn.init.normal_(model.heads.head.weight, std=0.02)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    ours = gag_fast.explain(model, x, [3, 7], "grad_cam_pp", batch_size=2)
    theirs = their_grad_cam_pp(model, STAGES[name], x, [3, 7], RESHAPES.get(name))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("eps", [-1, "small", True, float("inf")])
def test_grad_cam_pp_refuses_an_eps(eps):
    with pytest.raises(gag_fast.GagFastError, match="eps must be a finite number of 0 or more"):
        gag_fast.explain(shaken(TinyNet), images(1, 24), 1, "grad_cam_pp", eps=eps)


def test_the_layer_is_told(caplog):
    with caplog.at_level("INFO", "gag_fast"):
        gag_fast.explain(shaken(TinyNet), images(1, 24), 1, "grad_cam_pp")
    assert "grad_cam_pp looks at last, the last stage" in caplog.text
