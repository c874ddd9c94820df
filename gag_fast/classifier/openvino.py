"""OpenVINO as a provider: ONNX Runtime's plugin on Intel's processors, OpenVINO itself elsewhere.

`onnxruntime-ep-openvino` offers a device on Intel's processors alone, though OpenVINO's kernels run
on any x86 or ARM. So where the plugin has none, the `openvino` package compiles the same file and
`OpenVinoSession` has the few members of an InferenceSession that lanes use. Both get the same
settings: float32 unless told otherwise (OpenVINO's own choice on some processors is bfloat16), a
stream and a thread for each lane.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gag_fast._errors import ClassifierError, first_line

OPENVINO = "OpenVINOExecutionProvider"
PRECISIONS = ("f32", "bf16", "fp16")
_HINTS = {"f32": "f32", "bf16": "bf16", "fp16": "f16"}
_INSTALL = "pip install 'gag-fast[openvino]'"


def why_no_openvino() -> str | None:
    """Why OpenVINO cannot run here, or None."""
    if _plugin_device() is None and importlib.util.find_spec("openvino") is None:
        return f"it is not installed; {_INSTALL}"
    return None


def open_openvino(
    model: str | bytes,
    name: str,
    lanes: int,
    precision: str,
    given: Mapping[str, Any],
    batch: int | None = None,
) -> Any:
    """A session for `lanes` forward passes side by side, one thread each.

    Args:
        model: a path or the file's bytes.
        name: for messages.
        lanes: streams and threads.
        precision: one of PRECISIONS.
        given: OpenVINO's own properties of the CPU, on top of ours.
        batch: size of every batch that will come, where the file leaves it open: OpenVINO fuses
            chains of elementwise operators for shapes that it knows (EfficientNet-B0's gradient
            takes 33 ms instead of 47). None: any size may come.

    Raises:
        ClassifierError: in one line.
    """
    properties = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": str(lanes),
        "INFERENCE_NUM_THREADS": str(lanes),
        "ENABLE_CPU_PINNING": "NO",
        **{str(k): str(v) for k, v in given.items()},
    }
    device = _plugin_device()
    try:
        model = prepared(model, batch)
        if device is not None:
            return _plugin_session(model, device, properties)
        return OpenVinoSession(model, properties)
    except ClassifierError:
        raise
    except Exception as error:  # OpenVINO raises RuntimeError, ONNX Runtime kinds of its own
        raise ClassifierError(f"{name} cannot be loaded by OpenVINO: {first_line(error)}") from None


def prepared(model: str | bytes, batch: int | None = None) -> str | bytes:
    """The model as OpenVINO computes it right, and with its batch fixed; the file is untouched.

    OpenVINO 2026.4 keeps weights as its kernels want them under the address they came from and
    their shape. A square weight that a convolution and its transposed one share (or two matrix
    products, as in the two passes of a gradient) is then the wrong way round in one of them, and
    the result plainly wrong. Copies in memory have addresses of their own.
    """
    import onnx

    read = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(model)
    graphs = list(_graphs(read.graph))
    changes = sum(_copy_shared(graph) for graph in graphs)
    first = read.graph.input[0].type.tensor_type.shape.dim
    if batch is not None and first and first[0].dim_param:
        changes += sum(_fix(graph, first[0].dim_param, batch) for graph in reversed(graphs))
    return read.SerializeToString() if changes else model


def _fix(graph: Any, name: str, length: int) -> int:
    """Gives a length that the file leaves open, by its name; returns how often it was there."""
    found = 0
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == name:
                dimension.dim_value = length
                found += 1
    return found


def _copy_shared(graph: Any) -> int:
    """Gives each product of one graph weights of its own; returns the number of copies."""
    weights = {value.name: value for value in graph.initializer}
    met: set[str] = set()
    copies = 0
    for node in graph.node:
        at = _WEIGHT_OF.get(node.op_type)
        if at is None or node.input[at] not in weights:
            continue
        name = node.input[at]
        if name in met:
            copies += 1
            copy = graph.initializer.add()
            copy.CopyFrom(weights[name])
            copy.name = node.input[at] = f"{name}/{copies}"
        met.add(name)
    return copies


# Where each has its weight. A transposition becomes part of the product that reads it.
_WEIGHT_OF = {"Conv": 1, "ConvTranspose": 1, "MatMul": 1, "Gemm": 1, "Transpose": 0}


def _graphs(graph: Any) -> Iterator[Any]:
    """It and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


@functools.cache
def _plugin_device() -> Any:
    """The CPU as ONNX Runtime's OpenVINO plugin offers it, or None."""
    if importlib.util.find_spec("onnxruntime_ep_openvino") is None:
        return None
    import onnxruntime

    if not hasattr(onnxruntime, "register_execution_provider_library") or not _intel():
        return None
    import onnxruntime_ep_openvino

    try:
        onnxruntime.register_execution_provider_library(
            OPENVINO, onnxruntime_ep_openvino.get_library_path()
        )
    except Exception as error:  # registered before, or libraries that do not load
        if "already" not in str(error):
            return None
    cpu = onnxruntime.OrtHardwareDeviceType.CPU
    found = (d for d in onnxruntime.get_ep_devices() if d.ep_name == OPENVINO)
    return next((d for d in found if d.device.type == cpu), None)


def _intel() -> bool:
    """Loading the plugin costs memory and brings a second OpenVINO: only where it is of use."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return True  # not Linux: the plugin itself says


def _plugin_session(model: str | bytes, device: Any, properties: Mapping[str, str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    handle, path = tempfile.mkstemp(prefix="gag_fast-", suffix=".json")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"CPU": dict(properties)}, file)
        options.add_provider_for_devices([device], {"load_config": path})
        return onnxruntime.InferenceSession(model, options)
    finally:
        os.unlink(path)


@dataclass(frozen=True)
class _Value:
    """An input or output as ONNX Runtime's NodeArg shows it."""

    name: str
    type: str
    shape: list[Any]


class _Meta:
    def __init__(self, metadata: dict[str, str]) -> None:
        self.custom_metadata_map = metadata


class _Binding:
    """Tensors over the caller's memory, and the request that reads and writes them."""

    def __init__(self, compiled: Any) -> None:
        self.request = compiled.create_infer_request()

    def bind_input(
        self, name: str, device: str, index: int, kind: Any, shape: Sequence[int], address: int
    ) -> None:
        """Reads the named input from this memory, which must stay alive."""
        self.request.set_tensor(name, _tensor(kind, shape, address))

    bind_output = bind_input


def _tensor(kind: Any, shape: Sequence[int], address: int) -> Any:
    """An OpenVINO tensor over the memory at an address."""
    import ctypes

    import openvino

    dtype = np.dtype(kind)
    count = int(np.prod(shape))
    memory = (ctypes.c_byte * (count * dtype.itemsize)).from_address(address)
    return openvino.Tensor(np.frombuffer(memory, dtype).reshape(shape), shared_memory=True)


class OpenVinoSession:
    """A compiled model with the members of an InferenceSession that are used here."""

    def __init__(self, model: str | bytes, properties: Mapping[str, str]) -> None:
        read = _core().read_model(model=model)
        self._inputs = [_value(port) for port in read.inputs]
        self._outputs = [_value(port) for port in read.outputs]
        self._model = model
        self._compiled = _core().compile_model(read, "CPU", dict(properties))
        self._check_precision(properties["INFERENCE_PRECISION_HINT"])

    def _check_precision(self, hint: str) -> None:
        """Refuses another precision in place of the one asked for.

        OpenVINO takes bf16 for fp16 on processors that have units for it alone, unasked.
        """
        short = {given: name for name, given in _HINTS.items()}
        taken = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if hint in short and taken != hint:
            raise ClassifierError(
                f"OpenVINO does not compute in {short[hint]} on this processor, it would take "
                f"{short.get(taken, taken)}: ask for that, or for f32"
            )

    def get_inputs(self) -> list[_Value]:
        """In the file's order."""
        return self._inputs

    def get_outputs(self) -> list[_Value]:
        """In the file's order."""
        return self._outputs

    def get_providers(self) -> list[str]:
        """OpenVINO, and nothing to fall back to."""
        return [OPENVINO]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        """None of ONNX Runtime's."""
        return {}

    def get_modelmeta(self) -> _Meta:
        """The file's metadata_props."""
        import onnx

        if isinstance(self._model, bytes):
            model = onnx.load_from_string(self._model)
        else:
            model = onnx.load(self._model, load_external_data=False)
        return _Meta({prop.key: prop.value for prop in model.metadata_props})

    def io_binding(self) -> _Binding:
        """A request of its own: several run side by side."""
        return _Binding(self._compiled)

    def run_with_iobinding(self, binding: _Binding, options: Any = None) -> None:
        """Runs a bound request; releases Python's lock meanwhile."""
        binding.request.infer()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of these inputs, copied."""
        request = self._compiled.create_infer_request()
        request.infer(dict(feed))
        wanted = names or [value.name for value in self._outputs]
        return [request.get_tensor(name).data.copy() for name in wanted]


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


_TYPES = {"f32": "float", "f64": "double", "f16": "float16", "i64": "int64", "i32": "int32"}


def _value(port: Any) -> _Value:
    kind = port.get_element_type().get_type_name()
    shape = [
        dimension.get_length() if dimension.is_static else f"d{axis}"
        for axis, dimension in enumerate(port.get_partial_shape())
    ]
    return _Value(port.get_any_name(), f"tensor({_TYPES.get(kind, kind)})", shape)
