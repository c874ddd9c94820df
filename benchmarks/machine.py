"""What a result was measured on: device, versions, commit, date, and what its memory can do."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def cpu_name() -> str:
    """The CPU as the kernel names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M)
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


def device_name(device: str = "cpu") -> str:
    """A folder-safe name of the device, e.g. `amd-epyc-2-cores` or `nvidia-h200`."""
    if device == "cuda":
        text = torch.cuda.get_device_name()
    else:
        text = f"{cpu_name()} {torch.get_num_threads()} cores"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def commit() -> str:
    """Short hash of HEAD, with `+` when the tree differs from it; `unknown` outside a checkout."""
    try:
        run = ["git", "-C", str(ROOT)]
        head = subprocess.run(
            [*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*run, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    # A run of the benchmarks rewrites its own results: those do not make the code another one.
    code = [
        line
        for line in changed
        if not line[3:].startswith(("benchmarks/results/", "README", "docs/benchmarks.md"))
    ]
    return head + ("+" if code else "")


def version(package: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def stamp(device: str = "cpu") -> dict[str, Any]:
    """Everything a result file must say of where it came from."""
    names = (
        "torch",
        "torchvision",
        "onnxruntime-gpu",
        "onnxruntime",
        "openvino",
        "numpy",
        "gag-fast",
    )
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "versions": {name: found for name in names if (found := version(name))},
        "python": platform.python_version(),
        "cuda": torch.version.cuda if device == "cuda" else None,
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def describe(stamp: dict[str, Any]) -> str:
    """Where a figure comes from, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    return (
        f"on {stamp['device']}, {stamp['threads']} threads, {versions}, "
        f"commit {stamp['commit']}, {stamp['date']}"
    )
