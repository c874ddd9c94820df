"""Writes a classifier and its gradients as ONNX, verified before a file gets its name."""

from gag_fast.export.explanation import ExplanationReport, export_explanation
from gag_fast.export.gradients import GradientReport, export_gradients
from gag_fast.export.onnx_file import ExportReport, export_onnx
from gag_fast.export.web import export_web
from gag_fast.export.writing import ExportError

__all__ = [
    "ExplanationReport",
    "ExportError",
    "ExportReport",
    "GradientReport",
    "export_explanation",
    "export_gradients",
    "export_onnx",
    "export_web",
]
