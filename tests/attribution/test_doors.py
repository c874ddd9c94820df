"""The doors for users of Captum and of Quantus, tried with the real libraries."""

import sys

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.quantus_api import explain_func
from tests.attribution.attribution_models import ModuleReluNet, images, shaken


@pytest.fixture(scope="module")
def trio():
    return images(3, 16)


# ---- Captum -------------------------------------------------------------------------------------


def test_shapes_and_kinds(model, trio):
    method = gag_fast.GuidedAbsGrad(model)
    found = method.attribute(trio, target=[1, 2, 3], n_samples=4)
    assert found.shape == trio.shape
    assert (found >= 0).all()
    (inside,) = method.attribute((trio,), target=torch.tensor([1, 2, 3]), n_samples=4)
    assert torch.equal(inside, found)
    expected = gag_fast.explain(model, trio, [1, 2, 3], n=4, channels="keep")
    assert torch.equal(found, expected)
    assert not method.multiplies_by_inputs
    assert not method.has_convergence_delta()


def test_arguments_in_captums_words(model, trio):
    method = gag_fast.GuidedAbsGrad(model)
    found = method.attribute(
        trio, target=1, n_samples=5, stdevs=0.3, percentile=40.0, n_samples_batch_size=2, seed=3
    )
    expected = gag_fast.explain(
        model, trio, 1, n=5, stdevs=0.3, p=40, seed=3, batch_size=6, channels="keep"
    )
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="tuple of 2"):
        method.attribute((trio, trio), target=1)
    with pytest.raises(TypeError, match="forward_func must be"):
        gag_fast.GuidedAbsGrad("model")


def test_a_plain_function_with_arguments(model, trio):
    def forward(x, scale):
        return model(x) * scale

    found = gag_fast.GuidedAbsGrad(forward).attribute(
        trio, target=1, n_samples=3, percentile=0.0, additional_forward_args=2.0
    )
    expected = gag_fast.GuidedAbsGrad(model).attribute(trio, target=1, n_samples=3, percentile=0.0)
    torch.testing.assert_close(found, 2 * expected, rtol=1e-4, atol=1e-7)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_it_is_an_attribution_to_captum(model, trio):
    attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
    method = gag_fast.GuidedAbsGrad(model)
    assert isinstance(method, attr.Attribution)
    tunnel = attr.NoiseTunnel(method)
    found = tunnel.attribute(trio, nt_samples=2, stdevs=0.01, target=1, n_samples=3)
    assert found.shape == trio.shape


def test_captums_metrics_take_it(trio):
    pytest.importorskip("captum.attr", reason="Captum is not installed")
    from captum.metrics import sensitivity_max

    model = shaken(ModuleReluNet)
    method = gag_fast.GuidedAbsGrad(model)
    found = sensitivity_max(method.attribute, trio, target=1, n_perturb_samples=2, n_samples=3)
    assert found.shape == (3,)


def test_without_captum(model, trio, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.delitem(sys.modules, "gag_fast.captum_api", raising=False)
    from gag_fast.captum_api import GuidedAbsGrad

    method = GuidedAbsGrad(model)
    assert type(method).__mro__[1].__module__ == "gag_fast.captum_api"
    assert torch.equal(
        method.attribute(trio, target=1, n_samples=3),
        gag_fast.explain(model, trio, 1, n=3, channels="keep"),
    )
    assert not method.has_convergence_delta()


# ---- Quantus ------------------------------------------------------------------------------------


def test_what_quantus_hands_in_and_takes_back(model, trio):
    found = explain_func(model, trio.numpy().astype(np.float64), np.array([1, 2, 3]), n=4)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.float32
    expected = gag_fast.explain(model, trio, [1, 2, 3], n=4)
    assert np.array_equal(found, expected[:, None].numpy())
    kept = explain_func(model, trio.numpy(), [1, 2, 3], method="vanilla", channels="keep")
    assert kept.shape == (3, 3, 16, 16)


def test_a_quantus_metric_runs(trio):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    model = shaken(ModuleReluNet)
    metric = quantus.PixelFlipping(
        features_in_step=32, disable_warnings=True, display_progressbar=False
    )
    scores = metric(
        model=model,
        x_batch=trio.numpy(),
        y_batch=np.array([1, 2, 3]),
        explain_func=explain_func,
        explain_func_kwargs={"method": "guided_absgrad", "n": 3},
        channel_first=True,
        softmax=True,
        device="cpu",
    )
    assert len(scores) == 3
    assert np.isfinite(np.array(scores)).all()
