"""The whole of Algorithm 1 as one .onnx file: images and noise in, saliency maps out.

Inputs `images` float32 [B,C,H,W], `targets` int64 [B], `noise` float32 [n,C,H,W] (standard normal)
and `p` float32 [k] (percents); output `maps` float32 [B,k,H,W] in [0,1]. A Loop runs over the n
samples with the gradient graph as its body and running statistics as its state, so memory does not
grow with n. Standard ONNX operators only.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gag_fast._errors import ClassifierError
from gag_fast._files import native_source
from gag_fast.classifier.opening import DEFAULTS, open_on
from gag_fast.export.gradients import GRADIENTS, TARGETS, export_gradients, verifying
from gag_fast.export.writing import (
    INPUT,
    ExportError,
    check_file,
    noise_images,
    refuse_wrong,
    writing,
)
from gag_fast.models import ModelSpec

NOISE, PERCENTS, MAPS = "noise", "p", "maps"
_STATE = ("mean", "m2", "total")  # running mean, sum of squared deviations, sum of |g|


@dataclass(frozen=True)
class ExplanationReport:
    """What was written and how it was verified.

    Attributes:
        path: the file.
        bytes: its size.
        noise: std of the noise as a fraction of (max - min) of each image, fixed in the file.
        differences: {provider: |map - Algorithm 1 by NumPy| at the 99.9th percentile}.
    """

    path: Path
    bytes: int
    noise: float
    differences: dict[str, float]

    def __str__(self) -> str:
        """One line for a person."""
        found = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        return (
            f"{self.path}: {self.bytes / 1e6:.1f} MB, guided_absgrad with noise of {self.noise:g} "
            f"of the range; |difference| at the 99.9th percentile of the pixels: {found}"
        )


def export_explanation(
    module: nn.Module,
    path: str | os.PathLike[str],
    spec: ModelSpec,
    *,
    noise: float = 0.15,
    gradients: str | os.PathLike[str] | None = None,
    tolerance: float = 1e-3,
    providers: Sequence[str] | None = None,
    log: Callable[[str], None] | None = None,
) -> ExplanationReport:
    """Writes guided_absgrad of `module` as ONNX; the file appears once it is verified.

    Verified on every provider that can run here: the gradients as in `export_gradients`, and the
    maps against Algorithm 1 by NumPy over those gradients.

    Args:
        module: as for `export_gradients`.
        path: the .onnx file to write, replaced if it exists.
        spec: of the module.
        noise: std of the noise as a fraction of (max - min) of each image.
        gradients: what `export_gradients` wrote for this module; None: it is written for the time.
        tolerance: largest |difference| of the maps at the 99.9th percentile of their pixels.
        providers: as for `export_gradients`.
        log: called with a line for each step, or None.

    Returns:
        the report.

    Raises:
        ExportError: with the reason in one line; no file is left and an old one is untouched.
    """
    import onnx

    say = log or (lambda line: None)
    names = verifying(providers)
    with contextlib.ExitStack() as stack:
        aside, _ = stack.enter_context(writing(module, spec, path))
        if gradients is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gag_fast-"))
            gradients = Path(folder) / "gradients.onnx"
            export_gradients(module, gradients, spec, providers=providers, log=log)
        say(f"writing the explanation of {spec.name}")
        gradients = Path(gradients)
        source = native_source(gradients)
        read = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        aside.write_bytes(explanation_model(read, noise).SerializeToString())
        check_file(aside)
        found = {}
        for name in names:
            found[name] = _difference(aside, gradients, spec, noise, name)
            say(f"  {name}: difference of the maps {found[name]:.1e} (tolerance {tolerance:.1e})")
            refuse_wrong(name, f"the maps of {spec.name}", found[name], tolerance)
    file = Path(path)
    return ExplanationReport(file, file.stat().st_size, noise, found)


class _Graph:
    """Collects nodes; every value is named once, by what it is."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, name: str, value: Any, kind: Any = np.float32) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name


def explanation_model(gradients: Any, noise: float) -> Any:
    """The ModelProto of the explanation, from that of the gradients."""
    from onnx import TensorProto, helper

    images, batch = gradients.graph.input[0], _dimensions(gradients.graph.input[0])
    graph = _Graph()
    g = "gag/"  # before every name of ours: the classifier's own stay as they are
    axes = graph.constant(g + "image_axes", [1, 2, 3], np.int64)
    low = graph("ReduceMin", INPUT, axes, out=g + "low", keepdims=1)
    high = graph("ReduceMax", INPUT, axes, out=g + "high", keepdims=1)
    span = graph("Sub", high, low, out=g + "span")
    graph("Mul", span, graph.constant(g + "strength", noise), out=g + "std")
    start = graph("Mul", INPUT, graph.constant(g + "zero", 0), out=g + "start")
    size = graph("Shape", NOISE, out=g + "noise_size", start=0, end=1)
    trips = graph("Squeeze", size, out=g + "trips")
    go = graph.constant(g + "go", True, np.bool_)
    ends = [f"{g}{name}_end" for name in _STATE]
    graph.nodes.append(
        helper.make_node(
            "Loop", [trips, go, *[start] * 3], ends, name=g + "loop", body=_body(gradients, g)
        )
    )
    _maps(graph, g, ends)
    channels, height, width = batch[1:]
    values = [
        images,
        helper.make_tensor_value_info(TARGETS, TensorProto.INT64, [batch[0]]),
        helper.make_tensor_value_info(NOISE, TensorProto.FLOAT, ["n", channels, height, width]),
        helper.make_tensor_value_info(PERCENTS, TensorProto.FLOAT, ["k"]),
    ]
    maps = helper.make_tensor_value_info(MAPS, TensorProto.FLOAT, [batch[0], "k", height, width])
    whole = helper.make_graph(graph.nodes, "explanation", values, [maps], graph.constants)
    model = helper.make_model(
        whole, opset_imports=gradients.opset_import, ir_version=gradients.ir_version
    )
    for prop in gradients.metadata_props:
        model.metadata_props.add(key=prop.key, value=prop.value)
    model.metadata_props.add(key="noise", value=json.dumps(noise))
    classes = _dimensions(gradients.graph.output[1])[1]
    model.metadata_props.add(key="classes", value=json.dumps(classes))
    return model


def _dimensions(value: Any) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def _body(gradients: Any, g: str) -> Any:
    """One sample: its gradient, and the statistics with it (Welford's update)."""
    from onnx import TensorProto, helper

    graph = _Graph()
    sample = graph("Gather", NOISE, g + "index", out=g + "sample", axis=0)
    graph("Add", INPUT, graph("Mul", g + "std", sample, out=g + "scaled"), out=g + "noisy")
    for node in gradients.graph.node:
        copy = type(node)()
        copy.CopyFrom(node)
        copy.ClearField("input")
        copy.input.extend(g + "noisy" if name == INPUT else name for name in node.input)
        graph.nodes.append(copy)
    one = graph.constant(g + "one", 1)
    seen = graph("Cast", g + "index", out=g + "seen", to=TensorProto.FLOAT)
    count = graph("Add", seen, one, out=g + "count")
    off = graph("Sub", GRADIENTS, g + "mean", out=g + "off")
    step = graph("Div", off, count, out=g + "step")
    mean = graph("Add", g + "mean", step, out=g + "mean_next")
    now_off = graph("Sub", GRADIENTS, mean, out=g + "now_off")
    square = graph("Mul", off, now_off, out=g + "square")
    m2 = graph("Add", g + "m2", square, out=g + "m2_next")
    size = graph("Abs", GRADIENTS, out=g + "size")
    total = graph("Add", g + "total", size, out=g + "total_next")
    go = graph("Identity", g + "on", out=g + "on_next")
    shape = _dimensions(gradients.graph.input[0])
    images = [(name, TensorProto.FLOAT, shape) for name in (mean, m2, total)]
    inputs: list[Any] = [(g + "index", TensorProto.INT64, []), (g + "on", TensorProto.BOOL, [])]
    inputs += [(g + name, TensorProto.FLOAT, shape) for name in _STATE]
    return helper.make_graph(
        graph.nodes,
        "sample",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in [(go, TensorProto.BOOL, []), *images]],
        [*gradients.graph.initializer, *graph.constants],
    )


def _maps(graph: _Graph, g: str, ends: Sequence[str]) -> None:
    """From the statistics of all samples to maps: Equations 3.2 to 3.4 and Algorithm 1."""
    from onnx import TensorProto

    _, m2, total = ends
    n = graph("Cast", g + "trips", out=g + "n", to=TensorProto.FLOAT)
    one = graph.constant(g + "one_", 1)
    degrees = graph("Max", graph("Sub", n, one, out=g + "n-1"), one, out=g + "degrees")
    rows = graph.constant(g + "rows", [0, 0, -1], np.int64)  # [B,C,H*W]
    absmean = graph("Div", total, n, out=g + "absmean")
    absmean = graph("Reshape", absmean, rows, out=g + "absmean_rows")
    variance = graph("Div", m2, degrees, out=g + "variance")
    variance = graph("Reshape", variance, rows, out=g + "variance_rows")
    pixels = graph("Shape", variance, out=g + "pixels", start=2, end=3)
    nodes, top = graph.nodes, g + "descending"
    graph("TopK", variance, pixels, out=top, axis=2, largest=1, sorted=1)
    nodes[-1].output.append(g + "order")

    # numpy.percentile's rank, in float64; counted from the largest value, as TopK sorts.
    double = TensorProto.DOUBLE
    last = graph("Sub", pixels, graph.constant(g + "one_i", [1], np.int64), out=g + "last")
    last_d = graph("Cast", last, out=g + "last_d", to=double)
    share = graph("Cast", PERCENTS, out=g + "p_d", to=double)
    rank = graph("Mul", share, last_d, out=g + "p_ranks")
    rank = graph("Div", rank, graph.constant(g + "hundred", 100, np.float64), out=g + "rank")
    floor = graph("Floor", rank, out=g + "rank_floor")
    part = graph(
        "Cast", graph("Sub", rank, floor, out=g + "part_d"), out=g + "part", to=TensorProto.FLOAT
    )
    below = graph("Cast", floor, out=g + "below_up", to=TensorProto.INT64)
    below = graph("Sub", last, below, out=g + "below")
    above = graph("Sub", below, graph.constant(g + "step_i", [1], np.int64), out=g + "above_raw")
    above = graph("Max", above, graph.constant(g + "zero_i", [0], np.int64), out=g + "above")
    lower = graph("Gather", top, below, out=g + "lower", axis=2)  # [B,C,k]
    upper = graph("Gather", top, above, out=g + "upper", axis=2)
    gap = graph("Sub", upper, lower, out=g + "gap")
    q = graph("Add", lower, graph("Mul", gap, part, out=g + "share"), out=g + "q")
    q = graph("Transpose", q, out=g + "q_k", perm=[0, 2, 1])
    q = graph("Unsqueeze", q, graph.constant(g + "end", [3], np.int64), out=g + "q_rows")

    middle = graph.constant(g + "middle", [1], np.int64)
    variance = graph("Unsqueeze", variance, middle, out=g + "variance_k")  # [B,1,C,H*W]
    absmean = graph("Unsqueeze", absmean, middle, out=g + "absmean_k")
    passes = graph("GreaterOrEqual", variance, q, out=g + "passes")
    guide = graph("Where", passes, one, variance, out=g + "guide")
    guided = graph("Mul", guide, absmean, out=g + "guided")
    channel = graph.constant(g + "channel_axis", [2], np.int64)
    raw = graph("ReduceSum", guided, channel, out=g + "raw", keepdims=0)  # [B,k,H*W]
    low = graph("ReduceMin", raw, channel, out=g + "map_low", keepdims=1)
    high = graph("ReduceMax", raw, channel, out=g + "map_high", keepdims=1)
    span = graph("Sub", high, low, out=g + "map_span")
    flat = graph("Equal", span, g + "zero", out=g + "flat")  # a map of one value becomes zeros
    span = graph("Where", flat, one, span, out=g + "map_divisor")
    scaled = graph("Div", graph("Sub", raw, low, out=g + "lifted"), span, out=g + "map_rows")
    size = graph("Shape", INPUT, out=g + "map_size", start=2, end=4)
    keep = graph.constant(g + "keep", [0, 0], np.int64)
    shape = graph("Concat", keep, size, out=g + "map_shape", axis=0)
    graph("Reshape", scaled, shape, out=MAPS)


def _difference(path: Path, gradients: Path, spec: ModelSpec, noise: float, name: str) -> float:
    """|map - NumPy's| at the 99.9th percentile, over two images and three percents."""
    percents = np.array([0, 50, 85], np.float32)
    images = noise_images(spec, 2).numpy()
    normal = noise_images(spec, 5).numpy()[1:]
    targets = np.array([0, spec.num_classes - 1])
    try:
        session: Any = open_on(path, name, 1, 0, DEFAULTS).session
        source: Any = open_on(gradients, name, 1, 0, DEFAULTS).session
        worst = 0.0
        for one in range(2):
            x, t = images[one : one + 1], targets[one : one + 1]
            feed = {INPUT: x, TARGETS: t, NOISE: normal, PERCENTS: percents}
            (maps,) = session.run([MAPS], feed)
            right = _by_numpy(source, x, t, normal, percents, noise)
            worst = max(worst, float(np.quantile(np.abs(maps[0] - right), 0.999)))
    except ClassifierError as error:
        raise ExportError(f"{name} cannot run what was exported: {error}") from None
    return worst


def _by_numpy(
    source: Any,
    image: np.ndarray,
    target: np.ndarray,
    normal: np.ndarray,
    percents: np.ndarray,
    noise: float,
) -> np.ndarray:
    """Algorithm 1 in float64, maps [k,H,W] of one image."""
    std = np.float32(noise) * (image.max() - image.min())  # NumPy 1 would take float64
    stack = np.stack(
        [
            source.run([GRADIENTS], {INPUT: image + std * one, TARGETS: target})[0][0]
            for one in normal
        ]
    ).astype(np.float64)
    absmean, variance = np.abs(stack).mean(0), stack.var(0, ddof=1)
    maps = []
    for p in percents:
        q = np.percentile(variance, p, axis=(1, 2), keepdims=True)
        maps.append((np.where(variance >= q, 1, variance) * absmean).sum(0))
    raw = np.stack(maps)
    low, high = raw.min((1, 2), keepdims=True), raw.max((1, 2), keepdims=True)
    return (raw - low) / np.where(high > low, high - low, 1)
