"""What every export does before and after the graph itself is written."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from gag_fast._errors import GagFastError, first_line
from gag_fast._files import native_source, replacing
from gag_fast._runtime import require_onnxruntime
from gag_fast.classifier.providers import CPU
from gag_fast.models import ModelSpec

INPUT = "images"
_TWO_GIB = 2**31 - 2**20  # protobuf's limit, with room for the graph beside the weights


class ExportError(GagFastError):
    """The module could not be exported, or what was written does not compute the same."""


def checked_request(
    module: nn.Module, spec: ModelSpec, path: str | os.PathLike[str]
) -> tuple[Path, torch.device]:
    """The file to write and the device of the module.

    Raises:
        ExportError: a name that is no .onnx file's, or a module that fits in none.
    """
    require_onnxruntime()  # what is written is checked
    path = Path(path)
    if path.suffix != ".onnx":
        raise ExportError(f"the file's name must end in .onnx, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ExportError(f"there is no folder {path.parent} to write {path.name} into")
    tensors = [*module.parameters(), *module.buffers()]
    odd = sorted({str(t.dtype) for t in tensors if t.is_floating_point()} - {"torch.float32"})
    if odd:
        raise ExportError(f"the module must be float32, got parameters of {', '.join(odd)}")
    if sum(t.numel() * t.element_size() for t in tensors) > _TWO_GIB:
        raise ExportError(f"{spec.name} holds over 2 GiB of weights: it does not fit in one file")
    return path, tensors[0].device if tensors else torch.device("cpu")


@contextlib.contextmanager
def writing(
    module: nn.Module, spec: ModelSpec, path: str | os.PathLike[str]
) -> Iterator[tuple[Path, torch.device]]:
    """A name to write the file under, and the module's device.

    The module is in eval mode inside. The file takes its own name when the block ends well, else
    it goes and an old one stays.

    Raises:
        ExportError: as `checked_request`.
    """
    file, device = checked_request(module, spec, path)
    with evaluating(module), replacing(file) as aside:
        yield aside, device


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode for the time of the block."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def noise_images(spec: ModelSpec, batch: int) -> torch.Tensor:
    """Standard normal images [batch, C, size, size], the same at every call."""
    p = spec.preprocessing
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, len(p.mean), p.size, p.size, generator=generator)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints and logs pages of progress; what matters of it is in its exception."""
    text = io.StringIO()
    loggers = [
        logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(text),
            contextlib.redirect_stderr(text),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def innermost(error: BaseException) -> BaseException:
    """What the exporter wraps, at length: the exception that the module or an operator raised."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def check_file(path: Path) -> None:
    """The ONNX checker, with shape inference."""
    import onnx

    try:
        onnx.checker.check_model(native_source(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the ONNX checker refuses the exported file: {first_line(error)}"
        ) from None


def refuse_wrong(provider: str, what: str, off: float, tolerance: float) -> None:
    """Refuses what a provider computes where it is further off than the tolerance, or NaN.

    Raises:
        ExportError: that names the provider.
    """
    if off <= tolerance:
        return
    others = "" if provider == CPU else "; name those that shall run it (providers=...)"
    raise ExportError(
        f"{provider} computes {what} wrong: difference {off:.1e}, over the tolerance "
        f"{tolerance:.1e}; no file was written{others}"
    )
