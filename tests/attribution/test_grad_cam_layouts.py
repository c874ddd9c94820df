"""Grad-CAM of transformers and channels-last networks: the right axes, the layer told, or no."""

import logging

import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.attribution.grad_cam import last_stage
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.models import load_model

STAGES = {
    "vit_b_16": "encoder.layers.encoder_layer_11.ln_1",
    "swin_t": "norm",
    "convnext_tiny": "features.7",
}


def tokens_to_map(x):
    return x[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


RESHAPES = {"vit_b_16": tokens_to_map, "swin_t": lambda x: x.permute(0, 3, 1, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_against_pytorch_grad_cam(name, caplog):
    pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, _ = load_model(name, "none")
    if name == "vit_b_16":  # torchvision's head starts at zero
        nn.init.normal_(model.heads.head.weight, std=0.02)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with caplog.at_level(logging.INFO, "gag_fast"):
        ours = gag_fast.explain(model, x, [3, 7], "grad_cam", batch_size=2)
    assert f"grad_cam looks at {STAGES[name]}" in caplog.text
    layer = dict(model.named_modules())[STAGES[name]]
    with pytorch_grad_cam.GradCAM(model, [layer], RESHAPES.get(name)) as cam:
        theirs = cam(x, [ClassifierOutputTarget(3), ClassifierOutputTarget(7)])
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-4, rtol=0)


class Tokens(nn.Module):
    """A transformer of one block with `extra` tokens before those of the patches."""

    def __init__(self, extra, pooled):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.extra = nn.Parameter(torch.randn(1, extra, 8))
        self.norm1 = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.head = nn.Linear(8, 5)
        self.pooled = pooled

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1)
        y = self.norm1(x)
        x = x + self.attention(y, y, y)[0]
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1) if self.pooled else x[:, 0])


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


@pytest.mark.parametrize(
    ("extra", "pooled", "stage"), [(0, True, "norm2"), (1, False, "norm1"), (5, False, "norm1")]
)
def test_class_and_register_tokens_are_left_out(extra, pooled, stage):
    model, x = seeded(lambda: Tokens(extra, pooled)), torch.randn(2, 3, 24, 32)
    with GradientEngine(model, fuse=False) as engine:
        assert last_stage(engine, x[:1]) == stage
    found = gag_fast.explain(model, x, [1, 2], "grad_cam", channels="keep")
    tokens, grad = read_at(model, getattr(model, stage), x, [1, 2])
    weights = grad[:, extra:].mean(1, keepdim=True)
    expected = (weights * tokens[:, extra:]).sum(-1).unflatten(1, (6, 8))[:, None]
    torch.testing.assert_close(found, expected)
    by_module = gag_fast.explain(
        model, x, [1, 2], "grad_cam", channels="keep", layer=getattr(model, stage)
    )
    assert torch.equal(found, by_module)


def read_at(model, layer, x, targets):
    """A layer's output and the gradient of the targets' scores by it, in plain torch."""
    kept = []
    handle = layer.register_forward_hook(lambda m, i, output: kept.append(output))
    scores = model(x)
    handle.remove()
    value = scores.gather(1, torch.tensor(targets)[:, None]).sum()
    return kept[0].detach(), torch.autograd.grad(value, kept[0])[0]


class Last(nn.Module):
    """Channels last between its convolution and its head; as many channels as rows with 6."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 4, stride=4)
        self.last = nn.Identity()
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.last(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_channels_last():
    model, x = seeded(lambda: Last(10)), torch.randn(2, 3, 24, 24)
    found = gag_fast.explain(model, x, 1, "grad_cam", layer="last", channels="keep")
    same = gag_fast.explain(model, x, 1, "grad_cam", layer="conv", channels="keep")
    torch.testing.assert_close(found, same)


@pytest.mark.parametrize(
    ("make", "layer", "message"),
    [
        (lambda: Last(6), "last", r"gives \[1, 6, 6, 6\] for 1 images of 24x24: not plainly"),
        (lambda: Tokens(1, False), nn.Linear(2, 2), "layer is a Linear that is no part of the mo"),
        (lambda: Tokens(1, False), "head", "must give one feature map"),
    ],
)
def test_no_axis_is_guessed(make, layer, message):
    with pytest.raises(gag_fast.GagFastError, match=message):
        gag_fast.explain(seeded(make), torch.randn(1, 3, 24, 24), 1, "grad_cam", layer=layer)


def test_gradients_that_are_zero_everywhere_are_said():
    model = seeded(lambda: Tokens(1, False))
    nn.init.zeros_(model.head.weight)
    with pytest.warns(UserWarning, match="the maps are zero everywhere"):
        gag_fast.explain(model, torch.randn(1, 3, 24, 24), 1, n=2)


def test_guided_backprop_without_rectifiers_says_so():
    with pytest.warns(UserWarning, match="met no rectifier"):
        gag_fast.explain(
            seeded(lambda: Tokens(1, False)), torch.randn(1, 3, 24, 24), 1, "guided_backprop"
        )


class Single(nn.Module):
    """One output, as a logit or behind a sigmoid, as [B, 1] or [B]."""

    def __init__(self, sigmoid, flat):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 1)
        self.sigmoid, self.flat = sigmoid, flat

    def forward(self, x):
        z = self.head(self.conv(x).relu().mean((2, 3)))
        z = z.sigmoid() if self.sigmoid else z
        return z[:, 0] if self.flat else z


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_a_single_output_makes_two_classes(sigmoid, flat):
    model, x = seeded(lambda: Single(sigmoid, flat)), torch.randn(3, 3, 12, 12)
    raw = {
        target: gag_fast.explain(model, x, target, "vanilla", channels="keep") for target in (0, 1)
    }
    torch.testing.assert_close(raw[0], -raw[1])
    points = x.clone().requires_grad_()
    score = model(points).logit() if sigmoid else model(points)  # log odds of a probability
    torch.testing.assert_close(raw[1], torch.autograd.grad(score.sum(), points)[0])
    predicted = (model(x).reshape(-1) > (0.5 if sigmoid else 0)).long()
    chosen = gag_fast.explain(model, x, None, "vanilla", channels="keep")
    for i, target in enumerate(predicted.tolist()):
        torch.testing.assert_close(chosen[i], raw[target][i])
    with pytest.raises(ValueError, match="target 2 is not one of the model's 2 classes"):
        gag_fast.explain(model, x, 2, "vanilla")
