"""An ONNX file as a session that is ready to run on the provider asked for."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gag_fast._errors import ClassifierError, first_line
from gag_fast._files import cache_folder, native_source
from gag_fast._runtime import require_onnxruntime
from gag_fast.classifier.foreign import Wanted, adapted
from gag_fast.classifier.lanes import Backend, CallableBackend
from gag_fast.classifier.openvino import OPENVINO, PRECISIONS, open_openvino
from gag_fast.classifier.providers import (
    CPU,
    CUDA,
    TENSORRT,
    Providers,
    preload,
    provider_list,
    why_not,
    with_defaults,
)
from gag_fast.classifier.sessions import CpuSession, CudaSession, run_once
from gag_fast.models import ModelSpec

log = logging.getLogger("gag_fast")

MAX_VALUES = 1 << 30
"""Of one batch of images, 4 GiB: what a file may ask to be allocated."""
MAX_CLASSES = 1 << 22


@contextlib.contextmanager
def _no_log() -> Iterator[None]:
    """ONNX Runtime prints a provider's failure and goes on; ours is an exception."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def open_session(
    model: str | bytes, name: str, providers: list[tuple[str, dict[str, Any]]], options: Any
) -> Any:
    """An InferenceSession whose first provider is the one asked for.

    Raises:
        ClassifierError: the model is none, or the provider was not given.
    """
    import onnxruntime

    wanted = providers[0][0]
    reason = why_not(wanted)
    if reason is not None:
        raise ClassifierError(f"{wanted} was asked for but cannot run: {reason}")
    if wanted != CPU:
        preload()
    try:
        with _no_log():
            session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise ClassifierError(
            f"{name} cannot be loaded by ONNX Runtime: {first_line(error)}"
        ) from None
    got = session.get_providers()
    if got[0] != wanted:
        raise ClassifierError(
            f"{wanted} was asked for, ONNX Runtime gave {got[0]}: its libraries do not load or do "
            "not fit the driver; pip install 'onnxruntime-gpu[cuda,cudnn]', or use providers='cpu'"
        )
    return session


def session_options(threads: int) -> Any:
    """Options of a session whose forward pass runs in `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


@dataclass(frozen=True)
class Facts:
    """What an ONNX file says of itself.

    Attributes:
        channels: C, or None where it is open.
        size: (H, W), or None where either is open.
        classes: K, or None where only a pass can tell.
        fixed_batch: the batch size, or None where it is dynamic.
        metadata: its metadata_props.
    """

    channels: int | None
    size: tuple[int, int] | None
    classes: int | None
    fixed_batch: int | None
    metadata: dict[str, str]


@dataclass(frozen=True)
class Opened:
    """A session ready to run.

    Attributes:
        backend: drives it.
        providers: what ONNX Runtime really gave, in order of preference.
        facts: of the file.
        key: what a measured batch size depends on: file, version, device, options.
        path: the file, or None.
        spec: what is known of the model where no metadata says it.
    """

    backend: Backend
    providers: tuple[str, ...]
    facts: Facts
    key: tuple[str, ...] = ()
    path: Path | None = None
    spec: ModelSpec | None = None


def opened_callable(
    function: Callable[[torch.Tensor], object],
    name: str,
    device: torch.device,
    classes: int | None,
    size: tuple[int, int] | None,
    spec: ModelSpec | None = None,
) -> Opened:
    """A function of a batch of images, ready to run."""
    facts = Facts(None, size, classes, None, {})
    return Opened(CallableBackend(function, device), (name,), facts, spec=spec)


DEFAULTS: dict[str, Any] = {
    "tf32": False,
    "cuda_graph": False,
    "prefer_nhwc": False,
    "conv_search": "EXHAUSTIVE",
    "precision": "f32",
    "fp16": False,
}
"""The options of a session: what `Classifier` takes beside a file and its providers."""


@dataclass(frozen=True)
class Session:
    """An ONNX Runtime session, or OpenVINO's in its shape, on the provider it was asked for.

    Attributes:
        session: it.
        stream: the CUDA stream it works on, or None on the CPU.
        key: version, provider and device, what a measured batch size depends on beside the model.
    """

    session: Any
    stream: torch.cuda.Stream | None
    key: tuple[str, ...]

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs, in order of preference."""
        return tuple(self.session.get_providers())


def open_on(
    path: Path,
    providers: str | Providers | None,
    threads: int,
    device: int,
    options: Mapping[str, Any],
    wanted: Wanted | None = None,
    batch: int | None = None,
) -> Session:
    """Loads a file on the providers asked for; None: CUDA where it works, else the CPU.

    With `wanted` it is a classifier, brought to the plain form (see `foreign`). With `batch` no
    other size of batch will come, which OpenVINO makes use of (see `openvino`).

    Raises:
        ClassifierError: in one line, with the fix where there is one.
    """
    if not path.is_file():
        raise ClassifierError(f"there is no file {path}")
    require_onnxruntime()
    if providers is not None:
        chosen = provider_list(providers)
        if (reason := why_not(chosen[0][0])) is not None:
            raise ClassifierError(f"{chosen[0][0]} was asked for but cannot run: {reason}")
    elif (reason := why_not(CUDA)) is None:
        chosen = [(CUDA, {})]
    else:
        log.info("CUDA is not used: %s", reason)
        chosen = [(CPU, {})]
    check_precision(chosen[0][0], options["precision"])
    convert = options["fp16"] and chosen[0][0] != OPENVINO  # which has fp16 of its own
    plain = None if wanted is None else adapted(path, wanted)
    model: str | bytes = plain or native_source(path)
    if convert:
        model = as_float16(model, path.name)
    try:
        return _open(path, model, chosen, threads, device, options, batch)
    except ClassifierError as error:
        if providers is not None or chosen[0][0] == CPU:
            raise
        log.warning("CUDA is not used: %s", error)
        return _open(path, model, [(CPU, {})], threads, device, options)


def open_classifier(
    path: Path,
    providers: str | Providers | None,
    threads: int,
    device: int,
    options: Mapping[str, Any],
    wanted: Wanted,
) -> Opened:
    """A classifier's file, loaded as `open_on` does, with a backend that drives its lanes."""
    opened = open_on(path, providers, threads, device, options, wanted)
    facts = _facts(opened.session, path.name)
    classes = facts.classes or 0
    backend: Backend
    if opened.stream is not None:
        backend = CudaSession(opened.session, classes, opened.stream)
    else:
        whole = facts.fixed_batch is not None
        backend = CpuSession(opened.session, threads, classes, whole)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    settings = (f"{k}={v}" for k, v in options.items())
    key = (digest, *opened.key, str(threads), *settings)
    return Opened(backend, opened.providers, facts, key, path)


def _open(
    path: Path,
    model: str | bytes,
    chosen: list[tuple[str, dict[str, Any]]],
    threads: int,
    device: int,
    options: Mapping[str, Any],
    batch: int | None = None,
) -> Session:
    import onnxruntime

    first, given = chosen[0]
    stream, where = None, processor()
    if first == OPENVINO:
        precision = options["precision"]
        session = open_openvino(model, path.name, threads, precision, given, batch)
    elif first in (CUDA, TENSORRT):
        stream, where = torch.cuda.Stream(device), torch.cuda.get_device_name(device)
        cache = engine_cache() if any(name == TENSORRT for name, _ in chosen) else None
        names = [name for name, _ in chosen]
        if first == TENSORRT and CUDA not in names:
            chosen = [*chosen, (CUDA, {})]  # for the nodes that TensorRT leaves
        full = [
            (
                name,
                with_defaults(
                    name, given, stream=stream.cuda_stream, device=device, cache=cache, **options
                ),
            )
            for name, given in chosen
        ]
        session = open_session(model, path.name, full, session_options(threads))
    else:
        # One thread a pass, as many passes as threads: see CpuSession.
        session = open_session(model, path.name, chosen, session_options(1))
    return Session(session, stream, (onnxruntime.__version__, first, where))


def check_precision(provider: str, precision: str) -> None:
    """Refuses a precision that the provider does not compute in.

    Raises:
        ClassifierError: naming both, and what there is.
    """
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ClassifierError(f"precision must be one of {known}, got {precision!r}")
    if precision == "bf16" and provider not in (OPENVINO, TENSORRT):
        raise ClassifierError(
            f"{provider} does not compute in bf16; openvino and tensorrt do, and cuda in fp16"
        )


def _facts(session: Any, name: str) -> Facts:
    """Reads the signature of a graph of the plain form (see `foreign`)."""
    given, out = session.get_inputs()[0], session.get_outputs()[0]
    batch, channels, height, width = (d if isinstance(d, int) else None for d in given.shape)
    size = None if height is None or width is None else (height, width)
    check_bounds(given.shape, out.shape, name)
    classes = out.shape[1] if len(out.shape) == 2 and isinstance(out.shape[1], int) else None
    if classes is None:
        # The file does not say: one image does.
        x = np.zeros((batch or 1, channels or 3, *(size or (224, 224))), np.float32)
        try:
            (scores,) = run_once(session, x)
        except Exception as error:
            raise ClassifierError(
                f"{name} fails on an input of shape {x.shape}: {first_line(error)}"
            ) from None
        if scores.ndim != 2 or scores.shape[0] != x.shape[0]:
            raise ClassifierError(
                f"{name} must give scores [B, K], it gives {list(scores.shape)} for a batch of "
                f"{x.shape[0]}"
            )
        classes = scores.shape[1]
        check_bounds(given.shape, (None, classes), name)
    return Facts(channels, size, classes, batch, dict(session.get_modelmeta().custom_metadata_map))


def check_bounds(taken: Sequence[object], given: Sequence[object], name: str) -> None:
    """Refuses sizes that no classifier has, before memory is asked for by them.

    Args:
        taken: the shape of the images in the file, names where it leaves a length open.
        given: likewise of the scores.
        name: the file's, for the message.
    """
    fixed = [d for d in taken if isinstance(d, int)]
    if any(d < 1 for d in fixed) or math.prod(fixed) > MAX_VALUES:
        raise ClassifierError(f"{name} takes images {list(taken)}: no batch of that shape can be")
    classes = [d for d in given[1:] if isinstance(d, int)]
    if any(not 0 < d <= MAX_CLASSES for d in classes):
        raise ClassifierError(f"{name} gives scores {list(given)}: no classifier has such classes")


def as_float16(model: str | bytes, name: str) -> bytes:
    """The model computing in float16, with float32 inputs and outputs."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        loaded = onnx.load(model) if isinstance(model, str) else onnx.load_from_string(model)
        converted = convert_float_to_float16(loaded, keep_io_types=True)
    except Exception as error:
        raise ClassifierError(
            f"{name} cannot be converted to float16: {first_line(error)}"
        ) from None
    return converted.SerializeToString()


def engine_cache() -> Path | None:
    """A folder for TensorRT's engines and timings, or None where none can be made."""
    folder = cache_folder() / "tensorrt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


@functools.cache
def processor() -> str:
    """The CPU's name, as far as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
