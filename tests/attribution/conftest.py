"""Which real architectures the attributions are compared on."""

import pytest
import torch

from tests.attribution.attribution_models import TinyNet, build, images, shaken

# EfficientNet-Lite0 is pretrained, the others have random weights; images are small.
ARCHITECTURES = [
    "tiny",
    "efficientnet_lite0",
    "resnet50",
    pytest.param("densenet161", marks=pytest.mark.slow),
]


@pytest.fixture(params=ARCHITECTURES, scope="session")
def architecture(request):
    """(model, images [2,3,s,s], targets [2]), in float64.

    In float32 two right answers differ where a ReLU's input is zero but for rounding; in float64
    that does not happen, and any difference is one of method.
    """
    model, size = build(request.param)
    return model.double(), images(2, size).double(), torch.tensor([1, 4])


@pytest.fixture(scope="module")
def model():
    """TinyNet in float32."""
    return shaken(TinyNet)
