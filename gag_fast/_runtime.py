"""Whether ONNX Runtime is there: it comes by an extra, since its flavours exclude one another."""

from __future__ import annotations

from gag_fast._errors import GagFastError


def require_onnxruntime() -> None:
    """Does nothing where ONNX Runtime is installed.

    Raises:
        GagFastError: saying how to install it.
    """
    try:
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError:
        raise GagFastError(
            "ONNX Runtime is not installed, which runs and checks .onnx files; "
            "pip install 'gag-fast[gpu]' for NVIDIA cards and processors, or 'gag-fast[cpu]'"
        ) from None
