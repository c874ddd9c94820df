"""Which of ONNX Runtime's providers can run here, why not, and the options they get."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gag_fast._errors import ClassifierError
from gag_fast.classifier.openvino import OPENVINO, why_no_openvino

CPU, CUDA, TENSORRT = (f"{n}ExecutionProvider" for n in ("CPU", "CUDA", "Tensorrt"))
NAMES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO}
"""The short names that `providers` takes."""

Providers = Sequence[str | tuple[str, Mapping[str, Any]]]


def provider_list(providers: str | Providers) -> list[tuple[str, dict[str, Any]]]:
    """Providers as (full name, options); cpu, cuda, tensorrt and openvino are short names."""
    entries = [providers] if isinstance(providers, str) else list(providers)
    found = []
    for entry in entries:
        name, options = (entry, {}) if isinstance(entry, str) else entry
        found.append((NAMES.get(name.lower(), name), dict(options)))
    if not found:
        raise ClassifierError("providers must name at least one provider, got an empty list")
    return found


def why_not(provider: str) -> str | None:
    """Why a provider cannot run here and what would help, or None if nothing speaks against it."""
    import onnxruntime

    if provider == OPENVINO:
        return why_no_openvino()
    available = onnxruntime.get_available_providers()
    if provider not in available:
        if provider in (CUDA, TENSORRT):
            return (
                "the installed onnxruntime is built without it; "
                "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        return f"the installed onnxruntime knows only {', '.join(available)}"
    if provider not in (CUDA, TENSORRT):
        return None
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver on this machine (libcuda.so.1); use providers='cpu'"
    if not torch.cuda.is_available():
        reason = f"torch {torch.__version__} "
        reason += (
            "is a build without CUDA" if torch.version.cuda is None else "finds no CUDA device"
        )
        return f"{reason}; use providers='cpu'"
    return None


def installed() -> list[str]:
    """The providers that can run here: the CPU's first."""
    return [name for name in (CPU, OPENVINO, CUDA, TENSORRT) if why_not(name) is None]


@functools.cache
def preload() -> None:
    """Loads CUDA's and cuDNN's libraries from torch's or NVIDIA's wheels, where they lie."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        with contextlib.redirect_stdout(None), contextlib.suppress(Exception):
            onnxruntime.preload_dlls()


def with_defaults(
    provider: str,
    given: Mapping[str, Any],
    *,
    stream: int,
    device: int,
    tf32: bool,
    cuda_graph: bool,
    prefer_nhwc: bool,
    conv_search: str,
    fp16: bool,
    precision: str = "f32",
    cache: Path | None,
) -> dict[str, Any]:
    """A provider's options: ours, with what the caller gave on top."""
    ours: dict[str, Any] = {}
    if provider == CUDA:
        ours = {
            "use_tf32": str(int(tf32)),
            "cudnn_conv_algo_search": conv_search,
            "enable_cuda_graph": str(int(cuda_graph)),
            "prefer_nhwc": str(int(prefer_nhwc)),
        }
    elif provider == TENSORRT:
        ours = {
            "trt_fp16_enable": fp16,
            "trt_bf16_enable": precision == "bf16",
            "trt_cuda_graph_enable": cuda_graph,
        }
        if cache is not None:
            ours |= {
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": str(cache),
                "trt_timing_cache_enable": True,
                "trt_timing_cache_path": str(cache),
            }
    if provider in (CUDA, TENSORRT):
        ours |= {"user_compute_stream": str(stream), "device_id": device}
    return {**ours, **given}
