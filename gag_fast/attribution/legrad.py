"""LeGrad (Bousselham et al. 2024): how a transformer's attention would raise the score.

With z^l the tokens after block l, A^l its attention maps `[heads, queries, keys]` and s^l the
class's score that the head would give for z^l: `mean over l, heads and queries of relu(d s^l /
d A^l)`, of the keys that are patches, scaled up to the image.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from gag_fast._errors import GagFastError
from gag_fast.attribution.forward import whole_number
from gag_fast.attribution.gradients import GradientEngine, module_engine, target_score
from gag_fast.attribution.source import GradientSource

_KNOWN = "the VisionTransformer of torchvision or of timm"


def legrad(
    source: GradientSource,
    images: Tensor,
    targets: Tensor,
    *,
    layers: int | None = None,
    score: str = "logit",
) -> Tensor:
    """Raw LeGrad on the grid of patches.

    One forward pass an image and, each through its own block and the head only, a backward pass for
    each block: together about one. All blocks' attention maps are kept meanwhile.

    Traps: with a class token only its own row of the last queries has a gradient; the scores s^l of
    early blocks come from a head that never saw such tokens; no other architecture has these maps.

    Args:
        source: an engine with a module that is, or holds, a VisionTransformer.
        images: `[B,C,H,W]`.
        targets: int64 `[B]`.
        layers: only so many of the last blocks; None: all.
        score: see `GradientEngine`.

    Returns:
        `[B,1,h,w]` float32 (float64 for a float64 model).
    """
    engine = module_engine(source, "legrad")
    parts = _parts(engine.module)
    count = len(parts.blocks) if layers is None else whole_number("layers", layers)
    if count > len(parts.blocks):
        raise GagFastError(f"layers must be {len(parts.blocks)} or fewer, got {count}")
    step = engine.batch_size(images[0])
    found = [
        _legrad(engine, parts, part, chosen, count, score)
        for part, chosen in zip(images.split(step), targets.split(step), strict=True)
    ]
    maps = torch.cat(found)
    return maps.to(torch.promote_types(maps.dtype, torch.float32))


@dataclass(frozen=True)
class _Parts:
    """What of a VisionTransformer is looked into.

    Attributes:
        whole: it.
        blocks: in order.
        patch: (height, width) of a patch.
        prefix: class and register tokens, which stand first.
    """

    whole: Any
    blocks: list[nn.Module]
    patch: tuple[int, int]
    prefix: int

    def head(self, tokens: Tensor) -> Tensor:
        """Scores `[B,K]` that the network's end gives for a block's tokens."""
        if hasattr(self.whole, "encoder"):
            return self.whole.heads(self.whole.encoder.ln(tokens)[:, 0])
        return self.whole.forward_head(self.whole.norm(tokens))


def _parts(module: nn.Module) -> _Parts:
    for part in module.modules():
        names = {f"{kind.__module__}.{kind.__name__}" for kind in type(part).__mro__}
        whole: Any = part
        if "torchvision.models.vision_transformer.VisionTransformer" in names:
            side = whole.patch_size
            return _Parts(whole, list(whole.encoder.layers), (side, side), 1)
        if "timm.models.vision_transformer.VisionTransformer" in names:
            patch = whole.patch_embed.patch_size
            return _Parts(whole, list(whole.blocks), tuple(patch), whole.num_prefix_tokens)
    raise GagFastError(
        f"legrad knows the attention maps of {_KNOWN}, not those of a {type(module).__name__}"
    )


def _legrad(
    engine: GradientEngine, parts: _Parts, images: Tensor, targets: Tensor, last: int, score: str
) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        # With a gradient to come, no layer takes a shortcut that has no attention map.
        x = images.detach().to(engine.dtype or images.dtype, copy=True).requires_grad_()
        with _Maps() as maps, maps.of(parts.blocks):
            engine.forward(x, plain=True)
        grid = (x.shape[2] // parts.patch[0], x.shape[3] // parts.patch[1])
        total: Tensor | float = 0.0
        for number in range(len(parts.blocks) - last, len(parts.blocks)):
            attention, tokens = maps.attention[number], maps.tokens[number]
            value = target_score(
                engine.reading.wide(parts.head(tokens)), targets, score, engine.reading
            )
            (grad,) = torch.autograd.grad(value, attention, retain_graph=True)
            total = total + grad.relu().mean((1, 2))[:, parts.prefix :]
        assert isinstance(total, Tensor)
        return (total / last).detach().unflatten(1, grid)[:, None]


class _Maps(TorchFunctionMode):
    """Computes attention in the open, and keeps each block's map and tokens.

    Attributes:
        attention: of each block `[B,heads,N,N]`, cut from what is before it.
        tokens: of each block `[B,N,D]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self._inside = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside and func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        if self._inside and func is F.multi_head_attention_forward:
            # It calls the other where this mode no longer sees it.
            return self._multi_head(inspect.signature(func).bind(*args, **kwargs).arguments), None
        return func(*args, **kwargs)

    def _multi_head(self, given: dict[str, Any]) -> Tensor:
        """nn.MultiheadAttention of tokens `[N,B,D]` by themselves."""
        tokens, heads = given["query"], given["num_heads"]
        joint = F.linear(tokens, given["in_proj_weight"], given["in_proj_bias"])
        query, key, value = (
            part.unflatten(2, (heads, -1)).permute(1, 2, 0, 3) for part in joint.chunk(3, 2)
        )
        mixed = self._attend(query, key, value, given.get("attn_mask"))
        joined = mixed.permute(2, 0, 1, 3).flatten(2)
        return F.linear(joined, given["out_proj_weight"], given["out_proj_bias"])

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        if attn_mask is not None or is_causal or dropout_p:
            raise GagFastError("legrad knows attention without mask and dropout only")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        weights = ((query * scale) @ key.transpose(-2, -1)).softmax(-1)
        self.attention.append(weights.detach().requires_grad_())
        return self.attention[-1] @ value

    @contextmanager
    def of(self, blocks: list[nn.Module]) -> Iterator[None]:
        """Listens to these blocks only."""

        def enter(*_: Any) -> None:
            self._inside = True

        def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._inside = False
            self.tokens.append(output)
            if len(self.attention) != len(self.tokens):
                raise GagFastError(
                    "legrad needs one scaled_dot_product_attention in each block, block "
                    f"{len(self.tokens) - 1} calls it otherwise"
                )

        handles = [block.register_forward_pre_hook(enter) for block in blocks]
        handles += [block.register_forward_hook(leave) for block in blocks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
