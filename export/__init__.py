"""Writes a classifier as ONNX, verified against torch before the file gets its name."""

from gag_fast.export.onnx_file import ExportError, ExportReport, export_onnx

__all__ = ["ExportError", "ExportReport", "export_onnx"]
