"""torch module -> verified .onnx file with a dynamic batch, float32, one file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gag_fast import onnx_metadata
from gag_fast._errors import GagFastError, first_line
from gag_fast._files import native_source
from gag_fast.export.writing import (
    INPUT,
    ExportError,
    check_file,
    innermost,
    noise_images,
    quiet,
    writing,
)
from gag_fast.models import ModelSpec, adapted
from gag_fast.scores import read, scores_of

OUTPUT = "scores"


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was verified.

    Attributes:
        path: the file.
        bytes: its size.
        opset: ONNX opset of the default domain.
        num_classes: K.
        score: what the output is, one of `scores.SCORES`.
        max_abs_diff: {batch: largest |ONNX Runtime - torch| over all scores}.
        tolerance: the bound those were held to, in the units of the scores.
    """

    path: Path
    bytes: int
    opset: int
    num_classes: int
    score: str
    max_abs_diff: dict[int, float]
    tolerance: float

    def __str__(self) -> str:
        """One line for a person."""
        diffs = ", ".join(f"batch {b}: {d:.2e}" for b, d in self.max_abs_diff.items())
        return (
            f"{self.path}: {self.bytes / 1e6:.1f} MB, opset {self.opset}, {self.num_classes} "
            f"classes, {self.score}; max |ONNX Runtime - torch| {diffs} "
            f"(tolerance {self.tolerance:.1e})"
        )


def export_onnx(
    module: nn.Module,
    spec: ModelSpec | str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    *,
    batches: Sequence[int] = (1, 3, 16),
    tolerance: float = 1e-4,
    log: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes `module` as ONNX; the file appears under its name only once it is verified.

    Verified: the ONNX checker with shape inference, then the scores of ONNX Runtime's CPU provider
    against torch's on seeded normal noise, at each batch size of `batches`.

    Args:
        module: gives scores float32 [B, K] for images [B, C, size, size], as `scores.scores_of`
            finds them in its output; put in eval mode for the time of the call.
        spec: its name, preprocessing, labels and kind of scores, which travel in the metadata.
        path: the .onnx file to write, replaced if it exists.
        batches: sizes to verify with.
        tolerance: largest allowed difference, relative to max(1, largest |score|).
        log: called with a line for each step, or None.

    Returns:
        the report.

    Raises:
        ExportError: with the reason in one line; no file is left and an old one is untouched.
    """
    say = log or (lambda line: None)
    if not isinstance(spec, ModelSpec) or path is None:
        raise ExportError(
            "export_onnx needs to know what images the model takes: export_onnx(model, "
            "gag_fast.ModelSpec('name', gag_fast.Preprocessing(size=224, mean=(...), std=(...)), "
            "num_classes=K), 'a.onnx')"
        )
    with writing(module, spec, path) as (aside, device):
        inputs = {b: noise_images(spec, b).to(device) for b in batches}
        module = _one_tensor(module, inputs[batches[0]], spec)
        expected = {b: _scores(module, x, spec) for b, x in inputs.items()}
        score = _kind(module, torch.cat(list(expected.values())), spec, device)
        say(f"exporting {spec.name} ({score}, {spec.num_classes} classes)")
        opset = _write(module, spec, score, aside, device)
        say("checking the file with the ONNX checker")
        check_file(aside)
        say("comparing ONNX Runtime with torch")
        diffs = _compare(aside, {b: x.cpu() for b, x in inputs.items()}, expected)
        bound = tolerance * max(1.0, *(float(e.abs().max()) for e in expected.values()))
        for batch, diff in diffs.items():
            say(f"  batch {batch}: max |difference| {diff:.2e} (tolerance {bound:.1e})")
        worst = max(diffs.values())
        if not worst <= bound:  # also when it is NaN
            raise ExportError(
                f"the exported {spec.name} differs from torch by {worst:.2e}, over the tolerance "
                f"{bound:.1e}; no file was written"
            )
    file = Path(path)
    return ExportReport(file, file.stat().st_size, opset, spec.num_classes, score, diffs, bound)


def _scores(module: nn.Module, images: torch.Tensor, spec: ModelSpec) -> torch.Tensor:
    """What torch says: float32 [B, K] on the CPU."""
    try:
        with torch.inference_mode():
            scores = module(images)
    except Exception as error:
        raise ExportError(
            f"{spec.name} fails on a batch of {len(images)}: {first_line(error)}"
        ) from None
    got = list(scores.shape)
    if got != [len(images), spec.num_classes] and (got, spec.num_classes) != ([len(images), 1], 2):
        raise ExportError(
            f"{spec.name} must give scores [B, {spec.num_classes}], got {got} for a batch of "
            f"{len(images)}"
        )
    return scores.float().cpu()


def _one_tensor(module: nn.Module, images: torch.Tensor, spec: ModelSpec) -> nn.Module:
    """The module with its scores as its only output."""
    try:
        with torch.inference_mode():
            output = module(images)
    except Exception as error:
        raise ExportError(
            f"{spec.name} fails on a batch of {len(images)}: {first_line(error)}"
        ) from None
    try:
        scores_of(output, len(images))
    except GagFastError:
        got = list(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ExportError(
            f"{spec.name} must give scores [B, {spec.num_classes}], got {got} for a batch of "
            f"{len(images)}"
        ) from None
    return adapted(module, output)


def _kind(module: nn.Module, scores: torch.Tensor, spec: ModelSpec, device: torch.device) -> str:
    """What the scores are, as the spec says or the numbers show."""
    noise = noise_images(spec, 2).to(device)

    def far() -> torch.Tensor:
        return _scores(module, torch.cat([noise * 30, noise * -30]), spec)

    return read(scores, spec.score, far).kind


def _write(module: nn.Module, spec: ModelSpec, score: str, path: Path, device: torch.device) -> int:
    """Exports to `path`; returns the opset."""
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                (noise_images(spec, 2).to(device),),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
            assert program is not None  # it is, with dynamo=True
            program.model.metadata_props.update(onnx_metadata.encode(spec, score))
            program.save(str(path), external_data=False)
    except Exception as error:
        cause = first_line(innermost(error))
        raise ExportError(f"torch cannot export {spec.name}: {cause}") from error
    return int(program.model.opset_imports[""])


def _compare(
    path: Path, inputs: dict[int, torch.Tensor], expected: dict[int, torch.Tensor]
) -> dict[int, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        native_source(path), options, providers=["CPUExecutionProvider"]
    )
    diffs = {}
    for batch, x in inputs.items():
        (got,) = session.run([OUTPUT], {INPUT: x.numpy()})
        if got.shape != tuple(expected[batch].shape):
            raise ExportError(
                f"the exported file gives {got.shape} for batch {batch}, "
                f"torch gives {tuple(expected[batch].shape)}"
            )
        diffs[batch] = float((torch.from_numpy(got) - expected[batch]).abs().max())
    return diffs
