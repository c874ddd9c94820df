"""A classifier and the gradient of its scores as one graph of torch operators.

torch's autograd writes the backward pass while the operators are recorded; `decompositions` says
those that ONNX has no form for in others that it has.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._decomp import core_aten_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from gag_fast.export.decompositions import TABLE

aten = torch.ops.aten


def gradient_graph(module: nn.Module, images: Tensor, dynamic: bool) -> fx.GraphModule:
    """(images [B,C,H,W], targets int64 [B]) -> (gradients [B,C,H,W], scores [B,K]).

    Args:
        module: gives scores [B, K]; it is copied.
        images: an example.
        dynamic: leave B open; False: it is the example's.

    Raises:
        Exception: whatever the module or torch's tracer raises.
    """
    frozen = copy.deepcopy(module).eval().requires_grad_(False)
    for part in frozen.modules():
        if getattr(part, "inplace", False):  # or autograd copies what is overwritten
            part.inplace = False  # type: ignore[assignment]

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    kinds = [DimDynamic.DYNAMIC if dynamic else DimDynamic.STATIC, *[DimDynamic.STATIC] * 3]
    example = mode.from_tensor(
        images, symbolic_context=StatelessSymbolicContext(kinds), source=ConstantSource("images")
    )
    # Attention in its plain form: the backward passes of the fused ones have no ONNX form.
    with sdpa_kernel(SDPBackend.MATH), mode, enable_python_dispatcher():
        targets = torch.empty(example.shape[0], dtype=torch.int64, device=images.device)
        graph = make_fx(
            _scores_and_gradients(frozen),
            decomposition_table=_decompositions(),
            _allow_non_fake_inputs=True,
        )(example, targets)
    _tidy(graph)
    return graph


def _scores_and_gradients(module: nn.Module) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def compute(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        with torch.enable_grad(), _NestedConcatenations():
            scores = module(images)
            # The one-hot rows start the backward pass, instead of a gather that ends in a scatter.
            classes = torch.arange(scores.shape[1], device=scores.device)
            chosen = (targets[:, None] == classes).to(scores.dtype)
        (gradients,) = torch.autograd.grad(scores, images, grad_outputs=chosen)
        return gradients, scores.detach()

    return compute


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Ours, and torch's own for the other backward operators."""
    core = core_aten_decompositions()
    backward = {op: how for op, how in core.items() if "backward" in op.name()}
    return {**backward, **TABLE}


class _NestedConcatenations(TorchFunctionMode):
    """Where a list of tensors begins like one that was concatenated before, it takes that result.

    DenseNet concatenates all earlier features in every layer. Backward that is a slice for each
    pair of layers, 1,144 in DenseNet-161; nested, it is two for each layer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, ...], tuple[Tensor, list[Tensor]]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.cat, torch.concat, torch.concatenate) or "out" in kwargs:
            return func(*args, **kwargs)
        given = list(args[0] if args else kwargs["tensors"])
        dim = int(args[1] if len(args) > 1 else kwargs.get("dim", 0))
        parts = given
        for count in range(len(given) - 1, 1, -1):
            known = self._known.get((dim, *map(id, given[:count])))
            if known is not None:
                parts = [known[0], *given[count:]]
                break
        joined = func(parts, dim)
        # With the parts, which must live on: their ids are the key.
        self._known[(dim, *map(id, given))] = (joined, given)
        return joined


def _tidy(graph: fx.GraphModule) -> None:
    """Takes out what only autograd needed, and what is computed twice."""
    nodes = graph.graph
    for node in list(nodes.nodes):
        if node.op == "call_function" and node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            nodes.erase_node(node)
    nodes.eliminate_dead_code()
    _merge_equal(nodes)
    _forget_indices(nodes)
    nodes.eliminate_dead_code()
    graph.recompile()


def _merge_equal(nodes: fx.Graph) -> None:
    """Nodes of the same function of the same arguments become one."""
    seen: dict[Any, fx.Node] = {}
    for node in list(nodes.nodes):
        if node.op != "call_function" or node.is_impure() or _writes(node.target):
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))  # nodes have unique names
        first = seen.setdefault(key, node)
        if first is not node:
            node.replace_all_uses_with(first)
            nodes.erase_node(node)


def _writes(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    return schema is not None and schema.is_mutable


def _forget_indices(nodes: fx.Graph) -> None:
    """A max pool whose indices nobody reads becomes one that has none."""
    for node in list(nodes.nodes):
        if node.target is not aten.max_pool2d_with_indices.default:
            continue
        users = list(node.users)
        if any(user.target is not operator.getitem or user.args[1] != 0 for user in users):
            continue
        node.target = aten.max_pool2d.default
        node.meta.clear()
        for user in users:
            user.replace_all_uses_with(node)
            nodes.erase_node(user)
