"""LeGrad beside a slow one by its equations, on small and on whole vision transformers."""

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

import gag_fast
from tests.attribution.attribution_models import TinyNet, difference, images, shaken

RAW = {"normalize": False, "channels": "keep"}


def small_torchvision():
    torch.manual_seed(0)
    model = VisionTransformer(32, 8, 3, 2, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    return model


def small_timm(**options):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    return timm.models.VisionTransformer(num_classes=5, **size, **options).eval()


def open_attention(tokens, weights, bias, heads):
    """Attention maps and values of tokens `[B,N,D]`, from the joint projection."""
    query, key, value = (tokens @ weights.T + bias).chunk(3, -1)
    query, key, value = (v.unflatten(-1, (heads, -1)).transpose(1, 2) for v in (query, key, value))
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return logits.softmax(-1), value


def block_of_torchvision(block, tokens):
    inside = block.self_attention
    attention, value = open_attention(
        block.ln_1(tokens), inside.in_proj_weight, inside.in_proj_bias, inside.num_heads
    )
    mixed = inside.out_proj((attention @ value).transpose(1, 2).flatten(2))
    tokens = tokens + mixed
    return tokens + block.mlp(block.ln_2(tokens)), attention


def block_of_timm(block, tokens):
    inside = block.attn
    attention, value = open_attention(
        block.norm1(tokens), inside.qkv.weight, inside.qkv.bias, inside.num_heads
    )
    tokens = tokens + inside.proj((attention @ value).transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.norm2(tokens)), attention


def slow_legrad(model, x, targets, last=None):
    """Eq. by Eq.: every block once more, its map kept, its own score's gradient by it."""
    if isinstance(model, VisionTransformer):
        tokens = model._process_input(x)
        tokens = torch.cat([model.class_token.expand(len(x), -1, -1), tokens], 1)
        tokens = tokens + model.encoder.pos_embedding
        blocks, run, prefix = model.encoder.layers, block_of_torchvision, 1
    else:
        tokens = model._pos_embed(model.patch_embed(x))
        blocks, run, prefix = model.blocks, block_of_timm, model.num_prefix_tokens
    maps = []
    for block in blocks:
        tokens, attention = run(block, tokens)
        if isinstance(model, VisionTransformer):
            scores = model.heads(model.encoder.ln(tokens)[:, 0])
        else:
            scores = model.forward_head(model.norm(tokens))
        chosen = scores.gather(1, torch.tensor(targets)[:, None]).sum()
        (grad,) = torch.autograd.grad(chosen, attention, retain_graph=True)
        batch, heads, queries, keys = grad.shape
        one = torch.zeros(batch, keys)
        for h in range(heads):
            for i in range(queries):
                one += grad[:, h, i].clamp(min=0)
        maps.append((one / (heads * queries))[:, prefix:])
    side = round((maps[0].shape[1]) ** 0.5)
    return torch.stack(maps[-(last or len(maps)) :]).mean(0).unflatten(1, (side, side))[:, None]


@pytest.mark.parametrize(
    "make",
    [
        small_torchvision,
        small_timm,
        lambda: small_timm(global_pool="avg"),
        lambda: small_timm(reg_tokens=3),
    ],
    ids=["torchvision", "timm", "timm, patches averaged", "timm, registers"],
)
def test_small_transformers(make):
    model, x = make(), torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    targets = [1, 4, 2]
    ours = gag_fast.explain(model, x, targets, "legrad", batch_size=2, **RAW)
    assert ours.shape == (3, 1, 4, 4)
    assert difference(ours, slow_legrad(model, x, targets)) < 1e-5
    last = gag_fast.explain(model, x, targets, "legrad", layers=1, **RAW)
    assert difference(last, slow_legrad(model, x, targets, 1)) < 1e-5
    maps = gag_fast.explain(model, x, targets, "legrad")
    assert maps.shape == (3, 32, 32)
    assert float(maps.min()) == 0
    assert float(maps.max()) == 1


def test_the_model_comes_back_as_it_was():
    model, x = small_torchvision().train(), torch.randn(1, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gag_fast.explain(model, x, 1, "legrad")
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(found, gag_fast.explain(model.eval(), x, 1, "legrad"))


class Silent(nn.Module):
    """A block without attention."""

    def forward(self, x):
        return x


def test_what_it_refuses():
    with pytest.raises(gag_fast.GagFastError, match="not those of a TinyNet"):
        gag_fast.explain(shaken(TinyNet), images(1, 24), 1, "legrad")
    model, x = small_torchvision(), torch.randn(1, 3, 32, 32)
    with pytest.raises(gag_fast.GagFastError, match="layers must be 3 or fewer, got 4"):
        gag_fast.explain(model, x, 1, "legrad", layers=4)
    with pytest.raises(ValueError, match="target 5 is not one of the model's 5 classes"):
        gag_fast.explain(model, x, 5, "legrad")
    model.encoder.layers[1] = Silent()
    with pytest.raises(gag_fast.GagFastError, match="block 1 calls it otherwise"):
        gag_fast.explain(model, x, 1, "legrad")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_b_16", "timm:vit_tiny_patch16_224"])
def test_whole_transformers(name):
    model, _ = gag_fast.load_model(name, "none")
    whole = model if hasattr(model, "patch_embed") or hasattr(model, "encoder") else model.module
    head = whole.heads.head if hasattr(whole, "heads") else whole.head
    nn.init.normal_(head.weight, std=0.02)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    ours = gag_fast.explain(model, x, [3], "legrad", **RAW)
    assert ours.shape == (1, 1, 14, 14)
    assert difference(ours, slow_legrad(whole, x, [3])) < 1e-4
