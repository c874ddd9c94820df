"""A classifier that ends its process as soon as gradients are asked of it in a Ray worker."""

import os

from torch import nn

from tests.tiny_classifier import build as build_tiny


class _Deadly(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build_tiny()

    def forward(self, x):
        if x.requires_grad and "RAY_RAYLET_PID" in os.environ:
            os._exit(1)
        return self.inner(x)


def build() -> nn.Module:
    """Like the tiny classifier, elsewhere."""
    model = _Deadly()
    model.preprocessing = {"size": 32}
    model.labels = model.inner.labels
    return model
