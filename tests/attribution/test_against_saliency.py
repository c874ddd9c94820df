"""Guided IG and BlurIG give the numbers of PAIR's `saliency` on the same inputs."""

import numpy as np
import pytest
import torch

import gag_fast
from tests.attribution.attribution_models import difference

saliency = pytest.importorskip(
    "saliency.core", reason="PAIR's saliency is not installed (pip install saliency)"
)

TOLERANCE = 1e-6


def gradients_of(model, target, channels_last=False):
    """PAIR's call_model_function for one class of a torch model."""

    def call(batch, call_model_args=None, expected_keys=None):
        x = torch.from_numpy(np.ascontiguousarray(batch)).double()
        x = (x.permute(0, 3, 1, 2) if channels_last else x).requires_grad_()
        (grad,) = torch.autograd.grad(model(x)[:, target].sum(), x)
        grad = grad.permute(0, 2, 3, 1) if channels_last else grad
        return {saliency.base.INPUT_OUTPUT_GRADIENTS: grad.numpy()}

    return call


@pytest.fixture
def old_quantile(monkeypatch):
    """saliency 0.2.1 calls np.quantile with a keyword that NumPy 2.4 has dropped."""
    quantile = np.quantile

    def call(a, q, interpolation=None, **kwargs):
        return quantile(a, q, method=interpolation or "linear", **kwargs)

    monkeypatch.setattr(np, "quantile", call)


@pytest.mark.usefixtures("old_quantile")
@pytest.mark.parametrize("max_dist", [0.02, 1.0])
def test_guided_ig(architecture, max_dist):
    model, x, targets = architecture
    steps, fraction = 5, 0.25
    expected = [
        saliency.GuidedIG().GetMask(
            image.numpy(),
            gradients_of(model, int(target)),
            x_steps=steps,
            fraction=fraction,
            max_dist=max_dist,
        )
        for image, target in zip(x, targets)
    ]
    found = gag_fast.explain(
        model, x, targets, "guided_ig", n=steps, fraction=fraction, max_dist=max_dist,
        channels="keep",
    )  # fmt: skip
    assert difference(found, torch.from_numpy(np.stack(expected))) < TOLERANCE


@pytest.mark.parametrize("sqrt", [False, True])
def test_blur_ig(architecture, sqrt):
    model, x, targets = architecture
    expected = [
        saliency.BlurIG().GetMask(
            image.permute(1, 2, 0).numpy(),
            gradients_of(model, int(target), channels_last=True),
            max_sigma=20,
            steps=4,
            sqrt=sqrt,
        )
        for image, target in zip(x, targets)
    ]
    found = gag_fast.explain(
        model, x, targets, "blur_ig", n=4, max_sigma=20.0, sqrt=sqrt, channels="keep"
    )
    expected = torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2)
    assert difference(found, expected) < TOLERANCE
