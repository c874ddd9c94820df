"""gag-fast doctor: what is installed and works here, and what to do about what does not."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from gag_fast import __version__
from gag_fast._errors import first_line
from gag_fast._text import one_line

SUMMARY = "what is installed and works here, and the fix for what does not"
EXAMPLE = "  gag-fast doctor"

OK, WRONG, OPTIONAL = "ok", "WRONG", "-"
"""Marks of a line: all is well; must be put right; not there, and needed for some things only."""

_FLAVOURS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")

# module -> (what it is for, how it is installed)
_EXTRAS = {
    "pandas": ("Scores.to_frame()", "pip install pandas"),
    "matplotlib": ("gag_fast.plot, figures of reports", "pip install 'gag-fast[plot]'"),
    "timm": ("models timm:NAME", "pip install 'gag-fast[timm]'"),
    "transformers": ("models hf:NAME", "pip install 'gag-fast[hf]'"),
    "ray": ("--engine ray", "pip install 'gag-fast[ray]'"),
    "zarr": ("maps from .zarr", "pip install 'gag-fast[zarr]'"),
    "argcomplete": ("completion in the shell", "pip install 'gag-fast[completion]'"),
}


class Finding(NamedTuple):
    """One line: of what, its mark, what was found, and what to do about it."""

    name: str
    mark: str
    text: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options: none."""


def run(args: argparse.Namespace) -> int:
    """Runs the command: 1 if a line is WRONG."""
    findings = list(examine())
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        fix = f"; fix: {finding.fix}" if finding.fix else ""
        line = f"{finding.mark:<5}  {finding.name:<{width}}  {finding.text}{fix}"
        print(one_line(line))
    wrong = [finding.name for finding in findings if finding.mark == WRONG]
    print(f"to be put right: {', '.join(wrong)}" if wrong else "everything that is needed works")
    return 1 if wrong else 0


def examine() -> Iterator[Finding]:
    """Every line, from the ground up."""
    yield Finding("gag_fast", OK, f"{__version__}, {os.path.dirname(os.path.dirname(__file__))}")
    yield Finding("python", OK, f"{platform.python_version()}, {sys.executable}")
    yield from _packages()
    yield from _build()
    yield from _devices()
    yield from _providers()
    for module, (purpose, fix) in _EXTRAS.items():
        if find_spec(module) is None:
            yield Finding(module, OPTIONAL, f"not installed: {purpose}", fix)
        else:
            yield Finding(module, OK, f"{_version(module)}: {purpose}")


def _packages() -> Iterator[Finding]:
    """What the package's own metadata asks for, with the least version."""
    try:
        asked = importlib.metadata.requires("gag-fast") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", OPTIONAL, "gag-fast itself is not installed, only on the path")
        return
    for text in asked:
        found = re.fullmatch(r"([\w.-]+)>=([\d.]+)", text)
        if found is None:  # an extra's
            continue
        name, least = found.groups()
        have = _version(name)
        if have is None:
            yield Finding(name, WRONG, "not installed", f"pip install '{name}>={least}'")
        elif _numbers(have) < _numbers(least):
            fix = f"pip install '{name}>={least}'"
            yield Finding(name, WRONG, f"{have}, needed is {least} or newer", fix)
        else:
            yield Finding(name, OK, have)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    """2.10.0rc1+cu130 as [2, 10, 0]."""
    return [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]


def _build() -> Iterator[Finding]:
    """The native libraries: whether they load, and whether they compute."""
    try:
        from gag_fast._library import build_info
    except ImportError as error:
        yield Finding("native", WRONG, first_line(error), "pip install --force-reinstall gag-fast")
        return
    info = build_info()
    built = f"{info.get('compiler', 'unknown compiler')}, torch {info.get('torch_built_with', '?')}"
    yield Finding("native", OK, f"{info['cpu_library']} by {built}")
    yield Finding("simd", OK, ", ".join(info["cpu_features"]) or "none")
    yield _first_map()


def _first_map() -> Finding:
    import torch

    from gag_fast.aggregate import guided_absgrad

    grads = torch.arange(96.0).reshape(2, 3, 4, 4).sin()
    found = guided_absgrad(grads, p=0)
    wanted = grads.abs().mean(0).sum(0)
    wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
    if torch.allclose(found, wanted, atol=1e-6):
        return Finding("operators", OK, "a map is computed, and right")
    fix = "build anew: pip install --force-reinstall --no-cache-dir gag-fast"
    return Finding("operators", WRONG, "a map is wrong", fix)


def _devices() -> Iterator[Finding]:
    """Processors, and CUDA with the kernels for it."""
    import torch

    yield Finding("cpu", OK, f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()}")
    if not torch.cuda.is_available():
        what = "a build without it" if torch.version.cuda is None else "finds no device"
        yield Finding("cuda", OPTIONAL, f"torch {torch.__version__}: {what}")
        return
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Finding("cuda", OK, ", ".join(names))
    from gag_fast._library import cuda_library, cuda_status

    if cuda_library is None:
        fix = "install nvcc and build with GAG_FAST_CUDA=1, or install the wheel for CUDA"
        yield Finding("cuda kernels", WRONG, cuda_status, fix)
    else:
        yield Finding("cuda kernels", OK, str(cuda_library))


def _providers() -> Iterator[Finding]:
    """ONNX Runtime, and what it can compute on."""
    flavours = [f"{name} {_version(name)}" for name in _FLAVOURS if _version(name)]
    if find_spec("onnxruntime") is None:
        fix = "pip install 'gag-fast[gpu]' (NVIDIA cards and processors) or 'gag-fast[cpu]'"
        yield Finding("onnxruntime", WRONG, "not installed", fix)
        return
    if len(flavours) > 1:
        fix = f"pip uninstall {' '.join(_FLAVOURS)}, then pip install 'gag-fast[gpu]'"
        text = f"flavours that overwrite one another: {', '.join(flavours)}"
        yield Finding("onnxruntime", WRONG, text, fix)
    else:
        yield Finding("onnxruntime", OK, flavours[0] if flavours else "of unknown origin")
    from gag_fast.classifier.providers import NAMES, installed, why_not

    works = installed()
    for short, name in NAMES.items():
        if name in works:
            yield Finding(f"provider {short}", OK, f"{name} can run")
            continue
        reason, _, fix = (why_not(name) or "").partition("; ")
        mark = WRONG if _expected(short) else OPTIONAL
        yield Finding(f"provider {short}", mark, reason, fix)


def _expected(provider: str) -> bool:
    """Whether a provider that cannot run here is a fault: the CPU's, and CUDA's beside a GPU."""
    import torch

    return provider == "cpu" or (provider == "cuda" and torch.cuda.is_available())
