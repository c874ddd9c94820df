"""ONNX files that others wrote, brought to the one form that scores: float32 images to scores.

A file may take float16, uint8 pixels, or images with channels last, and give several outputs, or
float16. What lies between is written into the graph itself, as ONNX nodes before its input and
after its output, so every provider runs it and nothing else knows of it.

    images float32 [B,C,H,W] → (pixels, 0 to 255) → (channels last) → (its dtype) → the file's graph
    → the output asked for → float32 [B,K]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gag_fast._errors import ClassifierError, first_line

_IMAGES, _SCORES = "gag_fast_images", "gag_fast_scores"
_COLOURS = (1, 3, 4)

Dim = int | str | None


@dataclass(frozen=True)
class Wanted:
    """What a caller says of a file.

    Attributes:
        output: name of the output that holds the scores; None: the only one that can.
        mean, std: what images were normalised with, where the file takes pixels.
    """

    output: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


@dataclass(frozen=True)
class Port:
    """An input or output of a file: its name, element type and axes."""

    name: str
    type: str
    shape: tuple[Dim, ...]

    @classmethod
    def of(cls, value: Any) -> Port:
        """That of a protobuf ValueInfo."""
        import onnx

        tensor = value.type.tensor_type
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        dims = (
            d.dim_value if d.HasField("dim_value") else d.dim_param or None
            for d in tensor.shape.dim
        )
        return cls(value.name, f"tensor({kind})", tuple(dims))


def adapted(path: Path, wanted: Wanted) -> bytes | None:
    """The file as a model of the plain form; None where it has that form, or is no ONNX file.

    Raises:
        ClassifierError: it cannot be brought to that form; with the reason and the remedy.
    """
    import onnx

    try:
        model = onnx.load_from_string(path.read_bytes())
    except Exception:  # ONNX Runtime says what is wrong with it
        return None
    weights = {value.name for value in model.graph.initializer}
    inputs = [Port.of(v) for v in model.graph.input if v.name not in weights]
    outputs = [Port.of(v) for v in model.graph.output]
    name = path.name
    if not inputs and not outputs:  # an empty file is a model without a graph
        return None
    if len(inputs) != 1 or not outputs:
        raise ClassifierError(
            f"{name} must have one input and one output, it has "
            f"{', '.join(i.name for i in inputs)} and {', '.join(o.name for o in outputs)}"
        )
    given, out = inputs[0], _scores(name, outputs, wanted.output)
    if given.type not in ("tensor(float)", "tensor(float16)", "tensor(uint8)") or (
        len(given.shape) != 4
    ):
        raise ClassifierError(
            f"{name} must take images float32 [B, C, H, W], it takes {given.type} "
            f"{list(given.shape)}; float16, uint8 and [B, H, W, C] do too"
        )
    if out.type not in ("tensor(float)", "tensor(float16)"):
        raise ClassifierError(f"{name} must give float32 scores [B, K], it gives {out.type}")
    floats = given.type == out.type == "tensor(float)"
    alone = len(outputs) == 1 and len(out.shape) != 1
    if floats and alone and not _channels_last(given.shape):
        return None
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        _rewire(model, name, given, out, wanted)
        return model.SerializeToString()
    except ClassifierError:
        raise
    except Exception as error:
        raise ClassifierError(
            f"{name} needs nodes around its graph and cannot be read as one piece: "
            f"{first_line(error)}"
        ) from None


def _scores(file: str, outputs: Sequence[Port], name: str | None) -> Port:
    """The output that holds the scores."""
    listed = ", ".join(f"{o.name} {list(o.shape)}" for o in outputs)
    if name is not None:
        for out in outputs:
            if out.name == name:
                return out
        raise ClassifierError(f"{file} has no output {name!r}; it has {listed}")
    able = [o for o in outputs if "float" in o.type and len(o.shape) in (1, 2)]
    if len(outputs) == 1 or len(able) == 1:
        return (able or list(outputs))[0]
    raise ClassifierError(
        f"{file} has several outputs, {listed}: name the scores with output= (--output)"
    )


def _channels_last(shape: Sequence[Dim]) -> bool:
    """[B, H, W, C]: the last axis is as long as colours are many, the second is not."""
    return shape[3] in _COLOURS and shape[1] not in _COLOURS


def _rewire(model: Any, file: str, given: Port, out: Port, wanted: Wanted) -> None:
    """Puts the nodes before the input and after the output, and names the new ones."""
    import onnx
    from onnx import TensorProto, helper

    graph, last = model.graph, _channels_last(given.shape)
    batch, *sides = (given.shape[i] for i in ((0, 3, 1, 2) if last else (0, 1, 2, 3)))
    before: list[Any] = []
    at = _IMAGES

    def then(kind: str, *constants: np.ndarray, **attributes: Any) -> None:
        nonlocal at
        names = [f"gag_fast_{kind}_{len(before)}_{i}" for i in range(len(constants))]
        for name, value in zip(names, constants, strict=True):
            graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        result = f"gag_fast_{kind}_{len(before)}"
        before.append(helper.make_node(kind, [at, *names], [result], **attributes))
        at = result

    if given.type == "tensor(uint8)":
        for kind, value in _to_pixels(file, wanted, sides[0]):
            then(kind, *value)
    if last:
        then("Transpose", perm=[0, 2, 3, 1])
    if given.type == "tensor(uint8)":
        then("Cast", to=TensorProto.UINT8)
    elif given.type == "tensor(float16)":
        then("Cast", to=TensorProto.FLOAT16)
    for node in graph.node:
        node.input[:] = [at if name == given.name else name for name in node.input]
    after = [helper.make_node("Cast", [out.name], [f"{_SCORES}_cast"], to=TensorProto.FLOAT)]
    if len(out.shape) == 1:
        column = onnx.numpy_helper.from_array(np.array([-1, 1], np.int64), "gag_fast_column")
        graph.initializer.append(column)
        after.append(helper.make_node("Reshape", [f"{_SCORES}_cast", "gag_fast_column"], [_SCORES]))
    else:
        after.append(helper.make_node("Identity", [f"{_SCORES}_cast"], [_SCORES]))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    shape = [batch, *sides]
    classes = out.shape[1] if len(out.shape) == 2 else 1
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(_IMAGES, TensorProto.FLOAT, shape))
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info(_SCORES, TensorProto.FLOAT, [out.shape[0], classes])
    )


def _to_pixels(
    file: str, wanted: Wanted, channels: Dim
) -> list[tuple[str, tuple[np.ndarray, ...]]]:
    """Nodes from normalised images to 0 ... 255."""
    if wanted.mean is None or wanted.std is None:
        raise ClassifierError(
            f"{file} takes pixels (uint8): say what the images are normalised with, mean=(0, 0, 0) "
            "and std=(1, 1, 1) for images in [0, 1]"
        )
    if isinstance(channels, int) and channels != len(wanted.mean):
        raise ClassifierError(f"{file} takes {channels} channels, got mean {tuple(wanted.mean)}")
    mean, std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (wanted.mean, wanted.std))
    return [
        ("Mul", (std * 255,)),
        ("Add", (mean * 255,)),
        ("Round", ()),
        ("Max", (np.array(0, np.float32),)),
        ("Min", (np.array(255, np.float32),)),
    ]
