"""Finds and loads the native libraries; registers the operators with torch. Imports only torch."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

CPU_LIBRARY = "_gag_fast_cpu"
CUDA_LIBRARY = "_gag_fast_cuda"
FEATURES = ("avx2", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl")


def _find(name: str) -> Path | None:
    """The library `name`, in GAG_FAST_LIBRARY_DIR or along the package's path, or None."""
    import gag_fast

    override = os.environ.get("GAG_FAST_LIBRARY_DIR")
    folders = [override] if override else list(gag_fast.__path__)
    for folder in folders:
        path = Path(folder) / f"{name}.so"
        if path.is_file():
            return path
    return None


def _load_cpu() -> Path:
    path = _find(CPU_LIBRARY)
    if path is None:
        raise ImportError(
            f"gag_fast's native library {CPU_LIBRARY}.so is not built; "
            "run `pip install .` (or `pip install -e .` to work in the checkout)"
        )
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"{path} does not load with torch {torch.__version__} (needs >= 2.10): {error}"
        ) from error
    return path


def _load_cuda() -> tuple[Path | None, str]:
    """The CUDA library and why it is or is not loaded."""
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} is a build without CUDA"
    path = _find(CUDA_LIBRARY)
    if path is None:
        return None, "built without nvcc; install nvcc and reinstall gag_fast with GAG_FAST_CUDA=1"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return None, f"{path} does not load: {error}"
    return path, "loaded"


cpu_library = _load_cpu()
cuda_library, cuda_status = _load_cuda()


def _facts() -> dict[str, Any]:
    """What the build says of itself: the compiled module, or its file for other Pythons."""
    try:
        from gag_fast import _build_info  # type: ignore[attr-defined]  # compiled
    except ImportError:
        return {**_written_facts(), "cpu_features": _cpu_features()}
    return {**_build_info.build_info(), "cpu_features": _build_info.cpu_features()}


def _written_facts() -> dict[str, Any]:
    """The facts of build_facts.json, which lies beside the CPU library."""
    path = cpu_library.with_name("build_facts.json")
    if not path.is_file():
        return {}
    facts: dict[str, Any] = {k.lower(): v for k, v in json.loads(path.read_text()).items()}
    for name in ("cuda_architectures", "sanitizers"):
        facts[name] = facts[name].split(",") if facts[name] else []
    return {**facts, "torch_minimum": "2.10", "cuda_version": facts["cuda_version"] or None}


def _cpu_features() -> list[str]:
    """The SIMD features that the kernels are chosen by, as the system lists them."""
    if platform.machine() in ("aarch64", "arm64"):
        return ["neon"]
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    listed = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return [name for name in FEATURES if name in listed]


def build_info() -> dict[str, Any]:
    """Facts of this build and this machine.

    Returns:
        dict with `version`, `compiler`, `cxx_flags`, `torch_built_with`, `torch`,
        `cuda_version`, `cuda_architectures`, `cuda_library` (why it is or is not loaded),
        `cpu_features` and `sanitizers`.
    """
    return {
        **_facts(),
        "torch": torch.__version__,
        "cpu_library": str(cpu_library),
        "cuda_library": cuda_status if cuda_library is None else str(cuda_library),
    }
