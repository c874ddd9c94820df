"""A faster backward pass through convolution, batch norm and ReLU, with the same forward numbers.

In eval mode a batch norm is one multiplication and one addition per channel. Folding it into the
convolution's weights for good would change the forward pass by a rounding, which now and then
turns a ReLU over and that pixel's gradient with it. So only the backward pass folds: the forward
pass runs the three as they are and keeps nothing but the output, and the backward pass is one
convolution with weights scaled per channel, after the ReLU's mask. The batch norm's own backward,
a pass over memory, and one saved activation are gone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

# Output range of the activations that are fused; their gradient is 1 inside and 0 outside.
_RANGES: dict[Any, tuple[float, float]] = {
    nn.ReLU: (0.0, float("inf")),
    nn.ReLU6: (0.0, 6.0),
    F.relu: (0.0, float("inf")),
    torch.relu: (0.0, float("inf")),
}


Geometry = tuple[list[int], list[int], list[int], int]


class ConvNorm(nn.Module):
    """Convolution, batch norm and perhaps an activation, all frozen, as one step.

    Args:
        weight: `[K,C/groups,r,s]`.
        bias: `[K]` or None.
        geometry: stride, padding and dilation of the convolution, two ints each, and its groups.
        norm: in eval mode with running statistics.
        bounds: output range of the activation that follows; None: there is none.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        norm: nn.BatchNorm2d,
        bounds: tuple[float, float] | None,
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.weight, self.bias = weight, bias
        self.norm = norm
        self.bounds = bounds
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        # In the strides of the weight, which decide (with those of the input) the memory format.
        self.backward_weight = torch.empty_like(weight, requires_grad=False)
        self.backward_weight.copy_((weight * scale[:, None, None, None]).detach())

    def forward(self, x: Tensor) -> Tensor:
        """`[N,C,H,W]` to `[N,K,h,w]`."""
        return _ConvNorm.apply(x, self)


class _ConvNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: ConvNorm) -> Tensor:
        stride, padding, dilation, groups = layer.geometry
        y = torch.conv2d(x, layer.weight, layer.bias, stride, padding, dilation, groups)
        norm = layer.norm
        y = torch.batch_norm(
            y, norm.weight, norm.bias, norm.running_mean, norm.running_var, False, 0.0, norm.eps,
            torch.backends.cudnn.enabled,
        )  # fmt: skip
        ctx.layer, ctx.shape = layer, x.shape
        last = x.is_contiguous(memory_format=torch.channels_last)
        ctx.format = torch.channels_last if last else torch.contiguous_format
        if layer.bounds is not None:
            y.clamp_(*layer.bounds)
            ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        if layer.bounds is not None:
            (y,) = ctx.saved_tensors
            grad = torch.ops.aten.hardtanh_backward(grad, y, *layer.bounds)
        # Of the input only shape and strides are looked at; its values matter to the weights alone.
        like = torch.empty(
            ctx.shape, dtype=grad.dtype, device=grad.device, memory_format=ctx.format
        )
        (result, _, _) = torch.ops.aten.convolution_backward(
            grad, like, layer.backward_weight, None, *layer.geometry[:3], False, [0, 0],
            layer.geometry[3], [True, False, False],
        )  # fmt: skip
        return result, None


def fuse(module: nn.Module) -> nn.Module | None:
    """The module with every chain of convolution, norm and perhaps activation as one step.

    Args:
        module: frozen and in eval mode; left as it is, its parts shared with the result.

    Returns:
        None where there is nothing to fuse, torch.fx cannot trace the module, or hooks on its parts
        would be passed by.
    """
    if any(p._forward_hooks or p._forward_pre_hooks or p._backward_hooks for p in module.modules()):
        return None
    try:
        graph = fx.Tracer().trace(module)
    except Exception:  # control flow that depends on the data, and whatever else tracing trips over
        return None
    traced = fx.GraphModule(module, graph)
    parts = dict(traced.named_modules())
    fused = 0
    for node in list(graph.nodes):
        if type(_part(node, parts)) is not nn.BatchNorm2d:
            continue
        last, bounds = _activation_after(node, parts)
        step = _conv_norm(node, bounds, parts)
        if step is None:
            continue
        name = f"fused_{fused}"
        traced.add_submodule(name, step[1])
        with graph.inserting_before(last):
            last.replace_all_uses_with(graph.call_module(name, (step[0],)))
        fused += 1
    if fused == 0:
        return None
    graph.eliminate_dead_code()
    traced.recompile()
    return traced.eval()


def _part(node: fx.Node, parts: dict[str, nn.Module]) -> nn.Module | None:
    return parts.get(str(node.target)) if node.op == "call_module" else None


def _activation_after(
    node: fx.Node, parts: dict[str, nn.Module]
) -> tuple[fx.Node, tuple[float, float] | None]:
    """The activation that alone uses the node, and its range; or the node itself, and None."""
    if len(node.users) == 1:
        (user,) = node.users
        kind: Any = type(_part(user, parts)) if user.op == "call_module" else user.target
        if kind in _RANGES:
            return user, _RANGES[kind]
    return node, None


def _conv_norm(
    norm_node: fx.Node, bounds: tuple[float, float] | None, parts: dict[str, nn.Module]
) -> tuple[fx.Node, ConvNorm] | None:
    """What is convolved, and the step that does all; None if the norm follows no convolution."""
    norm = _part(norm_node, parts)
    node = norm_node.args[0] if norm_node.args else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None:
        return None
    if not isinstance(node, fx.Node) or len(node.users) != 1 or node.kwargs:
        return None
    part = _part(node, parts)
    weight: Any
    bias: Any
    if type(part) is nn.Conv2d and part.padding_mode == "zeros":
        weight, bias = part.weight, part.bias
        geometry: Any = (part.stride, part.padding, part.dilation, part.groups)
    elif node.op == "call_function" and node.target is torch.conv2d and len(node.args) == 7:
        weight, bias = (_constant(argument, norm_node) for argument in node.args[1:3])
        geometry = node.args[3:]
        if weight is None or (bias is None and node.args[2] is not None):
            return None
    else:
        return None
    stride, padding, dilation, groups = geometry
    if isinstance(padding, str) or any(isinstance(value, fx.Node) for value in geometry):
        return None
    pair = [[v, v] if isinstance(v, int) else list(v) for v in (stride, padding, dilation)]
    step = ConvNorm(weight, bias, (pair[0], pair[1], pair[2], groups), norm, bounds)
    start: Any = node.args[0]
    return start, step


def _constant(argument: Any, near: fx.Node) -> Tensor | None:
    """The tensor behind a get_attr node."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    value: Any = near.graph.owning_module
    for name in str(argument.target).split("."):
        value = getattr(value, name)
    return value
