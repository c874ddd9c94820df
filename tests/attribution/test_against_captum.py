"""Every method that Captum has gives Captum's numbers on the same inputs.

In float64 (conftest.py says why), but for the last test, which is float32, as users run it.
"""

import pytest
import torch
from torch.nn import functional as F

import gag_fast
from gag_fast import ops
from tests.attribution.attribution_models import build, difference, images

attr = pytest.importorskip("captum.attr", reason="Captum is not installed (pip install captum)")

TOLERANCE = 1e-6


def test_vanilla_is_saliency(architecture):
    model, x, targets = architecture
    expected = attr.Saliency(model).attribute(x.clone().requires_grad_(), targets, abs=False)
    found = gag_fast.explain(model, x, targets, method="vanilla", channels="keep")
    assert difference(found, expected) < TOLERANCE
    summed = gag_fast.explain(model, x, targets, method="vanilla", normalize=False)
    assert difference(summed, expected.abs().sum(1)) < TOLERANCE


@pytest.mark.parametrize("rule", ["gausslegendre", "riemann_left", "riemann_middle"])
def test_integrated_gradients(architecture, rule):
    model, x, targets = architecture
    n = 4
    # Not a constant: its convolutions are all ties to a max pool, and which pixel wins is open.
    baseline = images(2, x.shape[-1], seed=2).to(x)
    expected = attr.IntegratedGradients(model).attribute(
        x, baseline, targets, n_steps=n, method=rule, internal_batch_size=4
    )
    found = gag_fast.explain(
        model,
        x,
        targets,
        "integrated_gradients",
        n=n,
        baseline=baseline,
        rule=rule,
        channels="keep",
    )
    assert difference(found, expected) < TOLERANCE
    given = gag_fast.explain(
        model, x, targets, "integrated_gradients", n=n, baseline=baseline, rule=rule, batch_size=1
    )
    assert difference(given, scaled(expected.abs().sum(1))) < TOLERANCE


def scaled(maps):
    low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
    return torch.where(high > low, (maps - low) / (high - low), 0.0)


@pytest.mark.parametrize("kind", ["smoothgrad", "vargrad"])
def test_noise_tunnel(architecture, kind, monkeypatch):
    model, x, targets = architecture
    n, noise, seed = 3, 0.15, 3
    std = (noise * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))).float()
    keys = torch.zeros(len(x), dtype=torch.int64)
    noisy = ops.gaussian_noise(x, keys, std, seed=seed, first_sample=0, samples=n)
    monkeypatch.setattr(
        attr.NoiseTunnel,
        "_add_noise_to_input",
        staticmethod(lambda *_: noisy.flatten(0, 1)),
    )
    tunnel = attr.NoiseTunnel(attr.Saliency(model))
    expected = tunnel.attribute(
        x, nt_type=kind, nt_samples=n, target=targets, abs=False, stdevs=1.0
    )
    if kind == "vargrad":  # Captum divides by n
        expected = expected * n / (n - 1)
    found = gag_fast.explain(
        model, x, targets, kind, n=n, noise=noise, seed=seed, channels="keep", batch_size=4
    )
    assert difference(found, expected) < TOLERANCE


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
@pytest.mark.parametrize(
    "name", ["module_relu", "resnet50", pytest.param("densenet161", marks=pytest.mark.slow)]
)
def test_guided_backprop(name):
    # Only networks whose rectifiers are nn.ReLU modules, used once: Captum knows no others.
    model, size = build(name)
    model, x, targets = model.double(), images(2, size).double(), torch.tensor([1, 3])
    if name == "module_relu":
        reference = model
    else:
        reference = _separate_relus(model)
    expected = attr.GuidedBackprop(reference).attribute(x.clone().requires_grad_(), targets)
    found = gag_fast.explain(model, x, targets, "guided_backprop", channels="keep")
    assert difference(found, expected) < TOLERANCE


def _separate_relus(model):
    """A copy whose every ReLU call is a module of its own and not in place, as Captum needs."""
    from torch import fx, nn

    traced = fx.symbolic_trace(model)
    for i, node in enumerate(list(traced.graph.nodes)):
        module = traced.get_submodule(node.target) if node.op == "call_module" else None
        is_call = node.op == "call_function" and node.target in (F.relu, torch.relu)
        if isinstance(module, nn.ReLU) or is_call:
            traced.add_submodule(f"own_relu_{i}", nn.ReLU())
            with traced.graph.inserting_before(node):
                new = traced.graph.call_module(f"own_relu_{i}", (node.args[0],))
            node.replace_all_uses_with(new)
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced.eval()


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("tiny", "last"),
        ("efficientnet_lite0", "_blocks.15"),
        ("resnet50", "layer4"),
        pytest.param("densenet161", "features.denseblock4", marks=pytest.mark.slow),
    ],
)
def test_grad_cam(name, layer):
    model, size = build(name)
    model, x, targets = model.double(), images(2, size).double(), torch.tensor([1, 4])
    expected = attr.LayerGradCam(model, model.get_submodule(layer)).attribute(x, targets)
    # Without being told, it looks at the same layer.
    raw = gag_fast.explain(model, x, targets, "grad_cam", channels="keep")
    assert difference(raw, expected) < TOLERANCE
    expected = expected.detach()
    up = attr.LayerAttribution.interpolate(expected.relu(), (size, size), "bilinear")[:, 0]
    found = gag_fast.explain(model, x, targets, "grad_cam", layer=layer)
    assert difference(found, scaled(up)) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["tiny", "efficientnet_lite0", pytest.param("resnet50", marks=pytest.mark.slow)]
)
def test_float32_through_the_fast_path(name):
    model, size = build(name)
    x, targets = images(2, size), torch.tensor([1, 4])
    expected = attr.Saliency(model).attribute(x.clone().requires_grad_(), targets, abs=False)
    found = gag_fast.explain(model, x, targets, "vanilla", channels="keep", fuse=True)
    assert (found - expected).norm() < 1e-4 * expected.norm()
