"""torch module -> verified .onnx file that computes the gradients of its scores.

Inputs `images` float32 [B,C,H,W] and `targets` int64 [B]; outputs `gradients` float32 [B,C,H,W],
d logit[target] / d images, and the `logits` [B,K] themselves: the log odds where the classifier
gives probabilities, as for the module itself (`gag_fast.scores`).
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast import onnx_metadata
from gag_fast._errors import ClassifierError, first_line
from gag_fast.classifier.opening import DEFAULTS, open_on
from gag_fast.classifier.providers import CPU, installed, provider_list, why_not
from gag_fast.export.backward import gradient_graph
from gag_fast.export.writing import (
    INPUT,
    ExportError,
    check_file,
    innermost,
    noise_images,
    quiet,
    refuse_wrong,
    writing,
)
from gag_fast.models import Logits, ModelSpec
from gag_fast.scores import read, scores_of

TARGETS, GRADIENTS, LOGITS = "targets", "gradients", "logits"


@dataclass(frozen=True)
class GradientReport:
    """What was written and how it was verified.

    Attributes:
        path: the file.
        bytes: its size.
        opset: ONNX opset of the default domain.
        num_classes: K.
        fixed_batch: None where the batch is open, else its size.
        differences: {provider: {batch: largest relative difference of an image's gradient from
            torch's in float64, sum |difference| / sum |gradient|}}.
        own: the same of torch in float32: what float32 itself costs.
        tolerance: the bound the differences were held to.
    """

    path: Path
    bytes: int
    opset: int
    num_classes: int
    fixed_batch: int | None
    differences: dict[str, dict[int, float]]
    own: float
    tolerance: float

    def __str__(self) -> str:
        """One line for a person."""
        worst = ", ".join(f"{name} {max(d.values()):.1e}" for name, d in self.differences.items())
        batch = "any batch" if self.fixed_batch is None else f"batches of {self.fixed_batch}"
        return (
            f"{self.path}: {self.bytes / 1e6:.1f} MB, opset {self.opset}, gradients of "
            f"{self.num_classes} classes, {batch}; relative difference from float64: {worst}, "
            f"torch in float32 {self.own:.1e} (tolerance {self.tolerance:.1e})"
        )


def export_gradients(
    module: nn.Module,
    path: str | os.PathLike[str],
    spec: ModelSpec,
    *,
    batches: Sequence[int] = (1, 2, 5),
    tolerance: float = 5e-3,
    providers: Sequence[str] | None = None,
    log: Callable[[str], None] | None = None,
) -> GradientReport:
    """Writes the gradients of `module` as ONNX; the file appears once it is verified.

    Verified on every provider that can run here, each on its own: an image's gradient may differ
    from torch's in float64 by `tolerance`, sum |difference| / sum |gradient|, or by ten times what
    torch's own in float32 does. (A ReLU that rounding turns over moves a patch of a gradient, in
    any two float32 libraries, and by more than all other roundings together.)

    Args:
        module: gives scores float32 [B, K] of any kind for images [B, C, size, size]; it is not
            changed.
        path: the .onnx file to write, replaced if it exists.
        spec: its name, preprocessing and labels, which travel in the metadata.
        batches: sizes to verify with.
        tolerance: see above.
        providers: those that must be right, the CPU's always; None: all that can run here.
        log: called with a line for each step, or None.

    Returns:
        the report.

    Raises:
        ExportError: with the reason in one line: an operator without an ONNX form, or a provider
            that computes something else. No file is left and an old one is untouched.
    """
    say = log or (lambda line: None)
    names = verifying(providers)
    with writing(module, spec, path) as (aside, device):
        module = _giving_logits(module, noise_images(spec, 2).to(device), spec)
        say(f"tracing the gradient of {spec.name}")
        opset, fixed = _write(module, spec, aside, noise_images(spec, 3).to(device))
        say("checking the file with the ONNX checker")
        check_file(aside)
        cases = _cases(module, spec, [fixed] * 3 if fixed else batches, device)
        own = max(case.own for case in cases)
        bound = max(tolerance, 10 * own)
        found = {}
        for name in names:
            found[name] = _differences(aside, name, cases)
            worst = max(found[name].values())
            say(f"  {name}: relative difference {worst:.1e} (tolerance {bound:.1e})")
            refuse_wrong(name, f"the gradient of {spec.name}", worst, bound)
    file = Path(path)
    size = file.stat().st_size
    return GradientReport(file, size, opset, spec.num_classes, fixed, found, own, bound)


def _giving_logits(module: nn.Module, images: Tensor, spec: ModelSpec) -> nn.Module:
    """The module itself where it gives logits [B, K], else one that gives its classes' logits."""

    @torch.inference_mode()
    def scores(images: Tensor) -> Tensor:
        return scores_of(module(images), len(images))

    try:
        with torch.inference_mode():
            output = module(images)
    except Exception:
        return module  # what is wrong with it is said where it is traced
    raw = scores_of(output, len(images))
    reading = read(raw, spec.score, lambda: scores(torch.cat([images * 30, images * -30])))
    plain = isinstance(output, Tensor) and output.dim() == 2
    if plain and not (reading.applied or reading.single):
        return module
    return Logits(module, reading)


def verifying(providers: Sequence[str] | None) -> list[str]:
    """Full names of the providers that must be right, the CPU's first; None: all that run here.

    Raises:
        ExportError: one was named that cannot run here.
    """
    if providers is None:
        names = installed()
    else:
        names = [name for name, _ in provider_list(providers)]
        for name in names:
            if (reason := why_not(name)) is not None:
                raise ExportError(f"{name} was asked for but cannot run: {reason}")
    return [CPU, *(name for name in names if name != CPU)]


def _write(
    module: nn.Module, spec: ModelSpec, path: Path, images: Tensor
) -> tuple[int, int | None]:
    """Exports to `path`; returns the opset and the fixed batch, None where it is open."""
    try:
        return _export(module, spec, path, images, dynamic=True), None
    except Exception as error:
        failed = error
    if _missing_operator(failed) is None:  # perhaps only the open batch was too much to ask
        try:
            return _export(module, spec, path, images[:1], dynamic=False), 1
        except Exception as error:
            failed = error
    if (missing := _missing_operator(failed)) is not None:
        raise ExportError(
            f"the gradient of {spec.name} needs {missing}, which has no ONNX form yet: "
            "gag_fast.export.decompositions is where it would go"
        ) from failed
    cause = first_line(innermost(failed))
    raise ExportError(f"torch cannot export the gradient of {spec.name}: {cause}") from failed


def _export(
    module: nn.Module, spec: ModelSpec, path: Path, images: Tensor, *, dynamic: bool
) -> int:
    batch = torch.export.Dim("batch")
    with quiet():
        graph = gradient_graph(module, images, dynamic)
        targets = torch.arange(len(images), device=images.device)
        program = torch.export.export(
            graph,
            (images, targets),
            dynamic_shapes=({0: batch}, {0: batch}) if dynamic else None,
        )
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT, TARGETS],
            output_names=[GRADIENTS, LOGITS],
            verbose=False,
        )
        assert written is not None  # it is, with dynamo=True
        written.model.metadata_props.update(onnx_metadata.encode(spec, "logits"))
        written.save(str(path), external_data=False)
    return int(written.model.opset_imports[""])


def _missing_operator(error: BaseException) -> str | None:
    """The torch operator for which the exporter found no ONNX function, if that was the reason."""
    text = str(innermost(error))
    if "No ONNX function found" not in text and "No decompositions registered" not in text:
        return None
    match = re.search(r"OpOverload\(op='([\w.:]+)'", text) or re.search(r"(aten[.:]+\w+)", text)
    return match.group(1) if match else None


@dataclass(frozen=True)
class _Case:
    """A batch, its gradients in float64, and how far torch's float32 is from them."""

    feed: dict[str, np.ndarray]
    expected: Tensor
    own: float


def _cases(
    module: nn.Module, spec: ModelSpec, batches: Sequence[int], device: torch.device
) -> list[_Case]:
    exact = copy.deepcopy(module).double()
    cases = []
    for number, batch in enumerate(batches):
        images = noise_images(spec, batch + 100 * number)[:batch]
        targets = (torch.arange(batch) * 7 + number) % spec.num_classes
        try:
            expected = _gradient(exact, images.double().to(device), targets.to(device))
            found = _gradient(module, images.to(device), targets.to(device))
        except Exception as error:
            raise ExportError(
                f"torch has no gradient of {spec.name}: {first_line(error)}"
            ) from None
        feed = {INPUT: images.numpy(), TARGETS: targets.numpy()}
        cases.append(_Case(feed, expected, _distance(found, expected)))
    return cases


def _gradient(module: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    scores = module(images).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(scores, images)[0].double().cpu()


def _distance(found: Tensor, expected: Tensor) -> float:
    """The largest relative difference of an image's gradient; infinite where it is not finite."""
    difference = (found - expected).abs().flatten(1).sum(1)
    size = expected.abs().flatten(1).sum(1).clamp_min(torch.finfo(torch.float64).tiny)
    worst = float((difference / size).max())
    return worst if worst == worst else float("inf")


def _differences(path: Path, provider: str, cases: Sequence[_Case]) -> dict[int, float]:
    """{batch: the largest distance} of what the provider computes."""
    found: dict[int, float] = {}
    try:
        session: Any = open_on(path, provider, 1, 0, DEFAULTS).session
        for case in cases:
            off = _distance(_run(session, case.feed), case.expected)
            found[len(case.expected)] = max(off, found.get(len(case.expected), 0.0))
    except ClassifierError as error:
        raise ExportError(f"{provider} cannot run what was exported: {error}") from None
    return found


def _run(session: Any, feed: Mapping[str, np.ndarray]) -> Tensor:
    (gradients,) = session.run([GRADIENTS], dict(feed))
    return torch.from_numpy(gradients).double()
