"""Classifiers for the attribution tests: small ones of every kind, and the real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TinyNet(nn.Module):
    """Convolutions with and without norm, rectifiers as modules and functions, a residual."""

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.norm2 = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.relu6 = nn.ReLU6()
        self.head = nn.Conv2d(16, 24, 1)
        self.fc = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.stem(x)))
        x = x + F.relu(self.norm2(self.middle(x)))
        x = self.relu6(self.last(x))
        x = F.leaky_relu(self.head(x), 0.1)
        return self.fc(x.mean((2, 3)))


class ModuleReluNet(nn.Sequential):
    """Rectifiers as nn.ReLU only: all that Captum's GuidedBackprop knows."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 5),
        )


class SmoothNet(nn.Module):
    """No rectifier; also what completeness is easiest to see on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.silu(self.conv(x)).mean((2, 3)))


class LinearNet(nn.Module):
    """Logits linear in the pixels: every gradient is the class's weights."""

    def __init__(self, channels: int = 3, size: int = 6, classes: int = 4) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, channels, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weight)


def shaken(network: type[nn.Module], seed: int = 0) -> nn.Module:
    """A new model, the same at every call, in eval mode, with norms that are not the identity."""
    torch.manual_seed(seed)
    model = network()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    return model.eval()


def build(name: str) -> tuple[nn.Module, int]:
    """A classifier by name, with the side of the images it is tested at."""
    torch.manual_seed(0)
    if name == "tiny":
        return shaken(TinyNet), 24
    if name == "module_relu":
        return shaken(ModuleReluNet), 24
    from gag_fast.models import load_model

    model, _ = load_model(name, "default" if name == "efficientnet_lite0" else "none")
    return model, 64


def images(count: int, size: int, seed: int = 1) -> Tensor:
    """Smooth random images, `[count,3,size,size]`, about as large as normalised photographs."""
    noise = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool2d(noise, 5, stride=1, padding=2) * 4


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest deviation, relative to the largest expected value."""
    found, expected = found.detach(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


def copying_net():
    """A convolution that copies the pixels; logits: minus their mean, and twice their mean."""
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    conv.weight.data = torch.zeros(1, 1, 3, 3)
    conv.weight.data[0, 0, 1, 1] = 1
    head = nn.Linear(1, 2, bias=False)
    head.weight.data = torch.tensor([[-1.0], [2.0]])
    return nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
