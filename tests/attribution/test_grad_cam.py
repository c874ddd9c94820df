"""Grad-CAM: where it looks by default, and what it refuses."""

import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.attribution.explaining import explain_as
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.grad_cam import last_stage
from gag_fast.attribution.gradients import GradientEngine
from tests.attribution.attribution_models import TinyNet, build, copying_net, images, shaken


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("tiny", "last"),
        ("efficientnet_lite0", "_blocks.15"),
        ("resnet50", "layer4"),
        ("efficientnet_b0", "features.7"),
        ("densenet161", "features.denseblock4"),
    ],
)
def test_the_last_stage(name, stage):
    model, size = build(name)
    with GradientEngine(model, fuse=False) as engine:
        assert last_stage(engine, images(1, size)) == stage


def test_a_norm_after_an_early_convolution_is_no_transformers():
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 9), nn.ReLU()),
        *(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 3)),
    ).eval()
    with GradientEngine(model, fuse=False) as engine:
        assert last_stage(engine, images(1, 16)) == "3"


def test_the_layer_is_told():
    model, x = shaken(TinyNet), images(2, 16)
    with GradientEngine(model, fuse=False) as engine:
        assert engine.layer is None
        gag_fast.explain(engine, x, 0, "grad_cam")
        assert engine.layer == "last"
        gag_fast.explain(engine, x, 0, "grad_cam", layer=model.norm1)
        assert engine.layer == "norm1"
        seen = []
        watched = {"watch": lambda done: seen.append((done.methods, done.layer))}
        explain_as(engine, x, 0, ("grad_cam", "vanilla"), Explanation(), **watched)
        assert seen == [(("grad_cam",), "last"), (("vanilla",), None)]


def test_by_hand():
    # One convolution that copies the pixels; the logit of class 1 is twice the mean.
    model = copying_net()
    x = torch.tensor([[[[0.0, 1.0], [-1.0, 3.0]]]])
    raw = gag_fast.explain(model, x, 1, "grad_cam", channels="keep")
    torch.testing.assert_close(raw, x * 2 / 4)
    found = gag_fast.explain(model, x, 1, "grad_cam")
    torch.testing.assert_close(found, torch.tensor([[[0.0, 1 / 3], [0.0, 1.0]]]))
    # The other class's map has nothing positive but the one pixel.
    other = gag_fast.explain(model, x, 0, "grad_cam")
    torch.testing.assert_close(other, torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]))


def test_layers_by_name():
    model, x = shaken(TinyNet), images(2, 16)
    assert gag_fast.explain(model, x, 0, "grad_cam", layer="norm1", channels="keep").shape == (
        2, 1, 16, 16,
    )  # fmt: skip
    bracketed = Blocks(model)
    found = gag_fast.explain(bracketed, x, 0, "grad_cam", layer="blocks[0].last")
    assert torch.equal(found, gag_fast.explain(model, x, 0, "grad_cam", layer="last"))
    with pytest.raises(ValueError, match=r"'blocks\[9\]' is not a module of the model; it has bl"):
        gag_fast.explain(bracketed, x, 0, "grad_cam", layer="blocks[9]")
    with pytest.raises(ValueError, match="must give one feature map"):
        gag_fast.explain(model, x, 0, "grad_cam", layer="fc")
    with pytest.raises(ValueError, match="gave 2 outputs"):
        gag_fast.explain(Twice(), x, 0, "grad_cam", layer="conv")


class Blocks(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        return self.blocks[0](x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x)).mean((2, 3))


def test_no_convolution():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    with pytest.raises(ValueError, match="no convolution"):
        gag_fast.explain(flat, images(1, 8), 0, "grad_cam")
