"""A real, small classifier for runs that take milliseconds: `tests.tiny_classifier:build`."""

import torch
from torch import nn

MODEL = "tests.tiny_classifier:build"
SIZE = 32
LABELS = ("red", "green", "blue", "grey", "other")


def build() -> nn.Module:
    """Two convolutions and a linear layer, weights by a fixed seed, 5 classes."""
    generator = torch.Generator().manual_seed(7)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, len(LABELS)),
    )
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
    model.preprocessing = {"size": SIZE}
    model.labels = LABELS
    return model


def other() -> nn.Module:
    """Another number of classes."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    model.preprocessing = {"size": SIZE}
    return model


def larger() -> nn.Module:
    """Another input size."""
    model = build()
    model.preprocessing = {"size": 2 * SIZE}
    return model


def not_a_number() -> nn.Module:
    """Its weights are broken: NaN for every image, and NaN gradients."""
    model = build()
    with torch.no_grad():
        model[0].weight.fill_(torch.nan)
    return model
