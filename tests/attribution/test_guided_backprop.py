"""Guided backpropagation: which functions it holds for, and what it leaves alone."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gag_fast
from tests.attribution.attribution_models import SmoothNet, TinyNet, difference, images, shaken


class Rectified(nn.Module):
    def __init__(self, rectifier):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.rectifier = rectifier
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.rectifier(self.conv(x)).mean((2, 3)))


def by_hand(model, x, target, slope):
    """The rule written out: fc and conv are linear, `slope` is the rectifier's derivative."""
    before = model.conv(x)
    above = model.fc.weight[target][None, :, None, None] / before[0, 0].numel()
    below = (slope(before) * above).clamp(min=0)
    return torch.nn.grad.conv2d_input(x.shape, model.conv.weight, below, padding=1)


def step(z):
    return (z > 0).to(z)


def step6(z):
    return ((z > 0) & (z < 6)).to(z)


_THREE_TENTHS = float(torch.tensor(0.3))  # the initial weight is a float32
RECTIFIERS = {
    "relu module": (nn.ReLU(), step),
    "relu in place": (nn.ReLU(inplace=True), step),
    "F.relu": (F.relu, step),
    "F.relu in place": (lambda z: F.relu(z, inplace=True), step),
    "F.relu_": (F.relu_, step),
    "torch.relu": (torch.relu, step),
    "method": (lambda z: z.relu(), step),
    "method in place": (lambda z: z.relu_(), step),
    "in place, result unread": (lambda z: (F.relu_(z), z)[1], step),
    "relu6 module": (nn.ReLU6(), step6),
    "relu6 in place": (nn.ReLU6(inplace=True), step6),
    "F.relu6": (F.relu6, step6),
    "hardtanh": (nn.Hardtanh(0, 6), step6),
    "clamp": (lambda z: z.clamp(min=0), step),
    "clamp_min": (lambda z: torch.clamp_min(z, 0), step),
    "threshold": (nn.Threshold(0, 0), step),
    "leaky": (nn.LeakyReLU(0.2), lambda z: step(z) + 0.2 * step(-z)),
    "leaky in place": (nn.LeakyReLU(0.2, True), lambda z: step(z) + 0.2 * step(-z)),
    "prelu": (nn.PReLU(init=0.3), lambda z: step(z) + _THREE_TENTHS * step(-z)),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_every_rectifier(name):
    rectifier, slope = RECTIFIERS[name]
    torch.manual_seed(0)
    model, x = Rectified(rectifier).double().eval(), 3 * images(2, 12).double()
    with torch.no_grad():
        expected = by_hand(model, x, 2, slope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gag_fast.explain(model, x, 2, "guided_backprop", channels="keep")
    assert difference(found, expected) < 1e-12
    vanilla = gag_fast.explain(model, x, 2, "vanilla", channels="keep")
    assert difference(found, vanilla) > 1e-3


@pytest.mark.parametrize("smooth", [nn.SiLU(), nn.GELU(), nn.ELU(), nn.Hardtanh(), nn.Tanh()])
def test_without_rectifiers_it_warns_and_is_vanilla(smooth):
    torch.manual_seed(0)
    model, x = Rectified(smooth).eval(), images(2, 12)
    with pytest.warns(UserWarning, match="no rectifier"):
        found = gag_fast.explain(model, x, 1, "guided_backprop", channels="keep")
    assert torch.equal(found, gag_fast.explain(model, x, 1, "vanilla", channels="keep"))


def test_guide_over_noise():
    model, x = shaken(TinyNet), images(2, 12)
    found = gag_fast.explain(model, x, 1, "guided_backprop/GA", n=5)
    assert found.shape == (2, 12, 12)
    assert not torch.equal(found, gag_fast.explain(model, x, 1, "guided_absgrad", n=5))


def test_warning_points_at_the_caller():
    with pytest.warns(UserWarning, match="no rectifier") as caught:
        gag_fast.explain(shaken(SmoothNet), images(1, 8), 0, "guided_backprop")
    assert caught[0].filename == __file__
