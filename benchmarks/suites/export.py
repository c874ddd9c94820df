"""Export: a verified ONNX file of EfficientNet-Lite0, beside torch's exporter alone."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.suites import Cases, Group
from gag_fast.export import export_onnx

BUDGET = 30.0  # seconds: one export takes ten


def verified() -> Group:
    """Export, check, compare at three batch sizes; beside the bare exporter."""

    def setup() -> Cases:
        module, spec = material.lite0()
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name) / "model.onnx"
        example = (torch.zeros(2, 3, spec.preprocessing.size, spec.preprocessing.size),)

        def bare(keep=folder):
            with contextlib.redirect_stdout(io.StringIO()):
                torch.onnx.export(
                    module, example, str(path), dynamo=True, verbose=False,
                    dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False,
                )  # fmt: skip

        return {"gag_fast.export": lambda: export_onnx(module, spec, path), "torch.onnx": bare}

    names = ("gag_fast.export", "torch.onnx")
    return Group("EfficientNet-Lite0 to ONNX", names, setup, floor="torch.onnx", unit="file")


def groups(device: str = "cpu") -> list[Group]:
    """All groups of the suite."""
    return [verified()]
