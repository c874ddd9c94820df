"""The doors for users of Captum and of Quantus, tried with the real libraries."""

import sys
from functools import partial

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


class Scaled(torch.nn.Module):
    """Outputs `[N,2,K]`: the model's at two scales, each image's own."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, scales, shift):
        logits = self.model(x)
        return torch.stack([logits * scales[:, :1], logits * scales[:, 1:] + shift], 1)


def test_tensors_among_the_arguments_go_with_their_examples(model, trio):
    scales = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    how = {"n_samples": 3, "percentile": 0.0}
    found = gag_fast.GuidedAbsGrad(Scaled(model)).attribute(
        trio, target=[(0, 1), (1, 2), (1, 3)], additional_forward_args=(scales, 0.5), **how
    )
    plain = gag_fast.GuidedAbsGrad(model).attribute(trio, target=[1, 2, 3], **how)
    factors = torch.tensor([1.0, 4.0, 6.0])[:, None, None, None]
    torch.testing.assert_close(found, plain * factors, rtol=1e-4, atol=1e-7)
    one = gag_fast.GuidedAbsGrad(Scaled(model)).attribute(
        trio, target=(1, 2), additional_forward_args=(scales, 0.5), **how
    )
    torch.testing.assert_close(one[1], found[1], rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match=r"an entry for each of 3 examples, got a torch\.float32"):
        gag_fast.GuidedAbsGrad(Scaled(model)).attribute(
            trio, target=(1, 2), additional_forward_args=(scales[:2], 0.5)
        )
    with pytest.raises(ValueError, match=r"target \(2, 1\) is no index of the outputs"):
        gag_fast.GuidedAbsGrad(Scaled(model)).attribute(
            trio, target=(2, 1), additional_forward_args=(scales, 0.5)
        )


def test_a_list_of_tuples_is_a_list_of_classes(model, trio):
    method = gag_fast.GuidedAbsGrad(model)
    found = method.attribute(trio, target=[(1,), (2,), (3,)], n_samples=3)
    assert torch.equal(found, method.attribute(trio, target=[1, 2, 3], n_samples=3))


def test_gradients_in_the_one_tuples_of_autograd(model, trio):
    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(model(x)[:, 1].sum(), x)  # a tuple of one

    grads = [gradient(trio + 0.1 * i) for i in range(4)]
    found = gag_fast.guided_absgrad(grads, p=40)
    assert torch.equal(found, gag_fast.guided_absgrad([g for (g,) in grads], p=40))
    stats = gag_fast.GradientStats()
    for grad in grads:
        stats.update(grad)
    assert torch.equal(stats.guided_absgrad(p=40), found)
    with pytest.raises(TypeError, match="got a tuple"):
        stats.update(grads[0] * 2)


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


def test_the_keys_of_quantus_evaluate_need_not_be_our_names(trio):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed")
    model = shaken(ModuleReluNet)
    common = {"x_batch": trio.numpy(), "y_batch": np.array([1, 2, 3])}
    metric = quantus.MaxSensitivity(nr_samples=2, disable_warnings=True, return_aggregate=False)
    found = quantus.evaluate(
        metrics={"sensitivity": metric},
        xai_methods={"mine": partial(explain_func, gag_method="absgrad"), "absgrad": explain_func},
        model=model,
        explain_func_kwargs={"n": 3},
        call_kwargs={"once": {"device": "cpu"}},
        agg_func=lambda scores: scores,
        verbose=False,
        **common,
    )
    assert np.isfinite(found["mine"]["sensitivity"]).all()
    assert len(found["mine"]["sensitivity"]) == 3
    same = explain_func(model, method="mine", gag_method="absgrad", n=3, **_inputs(common))
    assert np.array_equal(same, explain_func(model, method="absgrad", n=3, **_inputs(common)))
    with pytest.raises(ValueError, match=r"unknown method 'mine'.*partial\(explain_func, gag_met"):
        explain_func(model, method="mine", **_inputs(common))


def _inputs(common):
    return {"inputs": common["x_batch"], "targets": common["y_batch"]}
