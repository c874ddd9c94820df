"""The engine: the same gradients as plain autograd, and a model left exactly as it was."""

import copy

import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.attribution.fusion import ConvNorm, fuse
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.attribution.source import at_points, fill_batches
from tests.attribution.attribution_models import (
    ModuleReluNet,
    SmoothNet,
    TinyNet,
    difference,
    images,
    shaken,
)


def plain_gradient(model, x, targets):
    x = x.clone().requires_grad_()
    logits = model(x)
    return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), x)[0]


@pytest.mark.parametrize("options", [{"fuse": True}, {"fuse": False}, {"channels_last": False}])
@pytest.mark.parametrize("network", [TinyNet, ModuleReluNet, SmoothNet])
def test_gradients_are_those_of_autograd(network, options):
    model, x = shaken(network).double(), images(6, 24).double()
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    with GradientEngine(model, batch_size=4, **options) as engine:
        found = at_points(engine, x.unflatten(0, (3, 2)), targets[::2])
    expected = plain_gradient(model, x, targets[::2].repeat_interleave(2))
    assert found.shape == (3, 2, 3, 24, 24)
    assert difference(found.flatten(0, 1), expected) < 1e-12


# ---- the model afterwards -----------------------------------------------------------------------


def state(model):
    """All that must not change, in comparable form."""
    return {
        "training": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "identity": [id(p) for p in model.parameters()],
        "storage": [p.data_ptr() for p in model.parameters()],
        "strides": [p.stride() for p in model.parameters()],
        "values": [v.clone() for v in model.state_dict().values()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "inplace": [getattr(m, "inplace", None) for m in model.modules()],
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def mixed(model):
    """Training mode here and there, some weights frozen, a gradient left over, a hook."""
    model.train()
    model.norm1.eval()
    model.fc.weight.requires_grad_(False)
    model.stem.weight.grad = torch.ones_like(model.stem.weight)
    model.last.register_forward_hook(lambda *_: None)
    return model


class Uncopyable(TinyNet):
    def __deepcopy__(self, memo):
        raise TypeError("no copies of me")


# legrad is for transformers, and xrai's first part is another method: both have tests of their own.
ELSEWHERE = ("legrad", "xrai")


@pytest.mark.parametrize("network", [TinyNet, Uncopyable])
@pytest.mark.parametrize("method", [m for m in gag_fast.methods() if m not in ELSEWHERE])
def test_model_comes_back_as_it_was(network, method):
    model = mixed(shaken(network))
    before = state(model)
    maps = gag_fast.explain(model, images(2, 16), method=method, n=3)
    after = state(model)
    for name, value in before.items():
        assert same(value, after[name]), name
    expected = gag_fast.explain(
        shaken(TinyNet).requires_grad_(False), images(2, 16), method=method, n=3, fuse=False
    )
    torch.testing.assert_close(maps, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("network", [TinyNet, Uncopyable])
def test_model_comes_back_after_an_error(network):
    model = mixed(shaken(network))

    def fail(*_):
        raise RuntimeError("halfway")

    model.head.register_forward_hook(fail)
    before = state(model)
    with pytest.raises(RuntimeError, match="halfway"):
        gag_fast.explain(model, images(2, 16), n=3)
    for name, value in state(model).items():
        assert same(value, before[name]), name


def test_training_mode_does_not_reach_the_gradients():
    model = shaken(TinyNet)
    expected = gag_fast.explain(model, images(3, 16), n=3)
    assert torch.equal(gag_fast.explain(model.train(), images(3, 16), n=3), expected)


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), Pool())
    model[1].weight = model[0].weight
    with GradientEngine(model) as engine:
        assert engine.module[0].weight is engine.module[1].weight


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


# ---- batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n", "batch"), [(1, 20, 8), (3, 20, 8), (8, 20, 8), (5, 1, 64)])
def test_plan_fills_the_batches(count, n, batch):
    x = images(1, 8)[0]
    with GradientEngine(shaken(TinyNet), batch_size=batch) as engine:
        group, at_once = fill_batches(count, n, engine.batch_size(x))
    assert 1 <= group * at_once <= batch
    full, rest = divmod(count, group)
    passes = full * -(-n // at_once) + (-(-n // min(n, batch // rest)) if rest else 0)
    assert passes <= -(-count * n // batch) * 1.5


def test_memory_bound_decides_the_batch():
    x = images(1, 32)[0]
    model = shaken(TinyNet)
    with GradientEngine(model, memory=1) as engine:
        assert engine.batch_size(x) == 1
    with GradientEngine(model, memory=2**20) as small, GradientEngine(model) as large:
        assert 1 < small.batch_size(x) <= large.batch_size(x) == 8
        assert small.batch_size(images(1, 64)[0]) < small.batch_size(x)


def test_statistics_do_not_grow_with_n(monkeypatch):
    most = 0
    original = gag_fast.GradientStats.update_stack

    def watched(self, grads):
        nonlocal most
        most = max(most, grads.shape[0] * grads.shape[1])
        return original(self, grads)

    monkeypatch.setattr(gag_fast.GradientStats, "update_stack", watched)
    gag_fast.explain(shaken(TinyNet), images(3, 8), 0, n=1000, batch_size=6)
    assert most <= 6


def test_an_engine_serves_many_calls():
    model, x = shaken(TinyNet), images(2, 16)
    expected = gag_fast.explain(model, x, 1, n=4, fuse=True)
    with GradientEngine(model) as engine:
        for _ in range(2):
            assert torch.equal(gag_fast.explain(engine, x, 1, n=4), expected)
    with pytest.raises(RuntimeError, match="not at work"):
        gag_fast.explain(engine, x, 1, n=4)


@pytest.mark.slow
def test_compiled_gives_the_same():
    model, x = shaken(ModuleReluNet), images(3, 16)
    expected = gag_fast.explain(model, x, 1, n=4)
    found = gag_fast.explain(model, x, 1, n=4, compile=True, batch_size=4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# ---- fusion -------------------------------------------------------------------------------------


def frozen(network):
    return shaken(network).double().requires_grad_(False)


def test_fusion_finds_the_chains():
    fused = fuse(frozen(TinyNet))
    steps = [m for m in fused.modules() if isinstance(m, ConvNorm)]
    assert [step.bounds for step in steps] == [(0.0, float("inf"))] * 2
    assert not any(n.op == "call_module" and n.target == "norm1" for n in fused.graph.nodes)


def test_fusion_leaves_a_convolution_that_others_read():
    class Shared(TinyNet):
        def forward(self, x):
            y = self.stem(x)
            return self.fc((self.norm1(y) + y).mean((2, 3)).repeat(1, 3))

    model = frozen(Shared)
    assert fuse(model) is None
    x = images(2, 12).double()
    found = gag_fast.explain(model, x, 1, "vanilla", channels="keep", fuse=True)
    assert difference(found, plain_gradient(model, x, torch.tensor([1, 1]))) < 1e-12


def test_fusion_gives_up_on_hooks_and_on_control_flow():
    hooked = frozen(TinyNet)
    hooked.stem.register_forward_hook(lambda *_: None)
    assert fuse(hooked) is None

    class Branching(TinyNet):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    assert fuse(frozen(Branching)) is None


def test_fusion_in_the_forward_pass_changes_no_bit():
    model = shaken(TinyNet).requires_grad_(False)
    x = images(2, 16)
    assert torch.equal(fuse(model)(x), copy.deepcopy(model)(x))
