"""load_model: a classifier by name."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from gag_fast._errors import first_line
from gag_fast._inputs import describe
from gag_fast._text import meant
from gag_fast.models import sources
from gag_fast.models.adapter import adapted
from gag_fast.models.sources import LITE0, Built
from gag_fast.models.spec import ModelError, ModelSpec, Preprocessing, state_hash
from gag_fast.models.weights import fill_state, read_state
from gag_fast.scores import check_score, read, scores_of

log = logging.getLogger("gag_fast")
FORMS = "timm:NAME, hf:ID-or-FOLDER, a file of torch.export (.pt2) and package.module:function"


def model_names() -> list[str]:
    """The names `load_model` knows beside the forms of FORMS."""
    return [LITE0, *sources.torchvision_names()]


def load_model(
    name: str | os.PathLike[str],
    weights: str | os.PathLike[str] = "default",
    *,
    score: str | None = None,
) -> tuple[nn.Module, ModelSpec]:
    """Loads a classifier in eval mode.

    Args:
        name: one of `model_names()` (`efficientnet_lite0` and every classifier of torchvision),
            `timm:NAME`, `hf:ID-or-FOLDER` of transformers, a file of torch.export, or
            `package.module:function`. The function takes no arguments and returns an `nn.Module`
            giving scores [B, K]; the module may carry the attributes `preprocessing` (a
            `Preprocessing` or a dict of some of its fields), `labels` (K class names) and `score`.
            The working directory is searched for the package too.
        weights: "default": the pretrained ones (for a function or a file: the module as it is);
            "none": random, the same at every call; otherwise a file that
            `torch.load(weights_only=True)` reads, holding a state dict or a dict with one under
            "state_dict" or "model". The file must hold every parameter and no others; a "module."
            prefix is taken off. The size of the classification layer follows the file.
        score: what the output is, one of `scores.SCORES`; None: what the model shows.

    Returns:
        the module, on the CPU, in eval mode, float32 as built, and its `ModelSpec`. A module that
        returns objects, dicts or tuples comes in one that returns the scores in them.

    Raises:
        ModelError: the name is unknown, the package missing, the file unreadable or not fitting,
            or the module's output no scores. One line that names what was received.
    """
    name, weights = os.fspath(name), os.fspath(weights)
    check_score(score)
    state = None if weights in ("default", "none") else read_state(Path(weights))
    built = _build(name, weights, state)
    module, labels = built.module, built.labels
    if state is not None:
        fill_state(module, state, weights)
    module.eval()
    module, classes, kind = _probe(module, name, built.preprocessing, score or built.score)
    if labels is not None and len(labels) != classes:
        labels = None  # the weights are for other classes, and a wrong name is worse than none
    own = ":" in name and not name.startswith(("timm:", "hf:"))
    provenance = {
        "default": "as returned by the function" if own else "pretrained",
        "none": "random, seed 0",
    }.get(weights, Path(weights).name)
    spec = ModelSpec(
        name, built.preprocessing, classes, labels, provenance, state_hash(module), kind
    )
    return module, spec


def given_model(
    given: nn.Module | tuple[nn.Module, ModelSpec], score: str | None = None
) -> tuple[nn.Module, ModelSpec]:
    """A module at hand, as `load_model` would give it: a copy in eval mode on the CPU, its spec.

    Args:
        given: the module and what it takes; or the module alone, whose attributes `preprocessing`,
            `labels` and `score` say it as those of a function's module do.
        score: what the output is; None: what the spec or the module says, else what it shows.

    Raises:
        ModelError: it is no module, cannot be copied, or is none that the spec is of.
    """
    module, spec = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
    if not isinstance(module, nn.Module) or not isinstance(spec, ModelSpec | None):
        raise ModelError(
            "the model must be a name, a torch.nn.Module or (module, gag_fast.ModelSpec(...)), got "
            f"{describe(given)}"
        )
    name = type(module).__qualname__ if spec is None else spec.name
    try:
        own = copy.deepcopy(module).eval().cpu()
    except Exception as error:
        raise ModelError(f"{name} cannot be copied: {first_line(error)}") from None
    if spec is None:
        said = getattr(module, "preprocessing", None)
        preprocessing = sources.preprocessing_from(said, name)
        labels, score = getattr(module, "labels", None), score or getattr(module, "score", None)
        if said is None:
            log.warning(
                "%s says nothing of its preprocessing; taking %s: give (module, "
                "gag_fast.ModelSpec(...))",
                name,
                preprocessing,
            )
    else:
        preprocessing, labels, score = spec.preprocessing, spec.labels, score or spec.score
    own, classes, kind = _probe(own, name, preprocessing, score)
    if spec is not None and spec.num_classes != classes:
        raise ModelError(f"{name} has {classes} classes, its spec says {spec.num_classes}")
    sha256 = state_hash(own)
    weights = "as given" if spec is None else spec.weights
    labels = None if labels is None or len(labels) != classes else tuple(labels)
    return own, ModelSpec(name, preprocessing, classes, labels, weights, sha256, kind)


def _build(name: str, weights: str, state: sources.State) -> Built:
    if name == LITE0:
        return sources.lite0(weights, state)
    if name.startswith("timm:"):
        return sources.timm_model(name.removeprefix("timm:"), weights, state)
    if name.startswith("hf:"):
        return sources.hf_model(name.removeprefix("hf:"), weights, state)
    if name.endswith(".pt2"):
        if weights != "default":
            raise ModelError(f"{name} has its weights in it; --weights {weights} cannot be had")
        return sources.exported_model(Path(name))
    if name.endswith(".onnx"):
        raise ModelError(
            f"{name} is an ONNX file, which scores: give it as --onnx, beside the --model that it "
            "was exported from"
        )
    if os.path.isfile(name):
        raise ModelError(
            f"{name} is no file of torch.export (.pt2); weights go beside a model's name: "
            f"--weights {name}"
        )
    if ":" in name:
        return sources.by_function(name, weights)
    known = model_names()
    if name not in known:
        raise ModelError(
            f"unknown model {name!r}; known are {LITE0}, torchvision's classifiers, {FORMS}"
            f"{meant(name, known)}"
        )
    return sources.torchvision_model(name, weights, state)


def _probe(
    module: nn.Module, name: str, preprocessing: Preprocessing, score: str | None
) -> tuple[nn.Module, int, str]:
    """The module giving one tensor, K, and what the scores are, from a black image and noise."""
    weights = (p for p in module.parameters() if p.is_floating_point())
    parameter = next(weights, torch.zeros(()))
    black = torch.tensor(preprocessing.black).reshape(1, -1, 1, 1)
    black = black.expand(1, -1, preprocessing.size, preprocessing.size)
    noise = torch.randn(black.shape, generator=torch.Generator().manual_seed(0))
    black, noise = (x.to(parameter.device, parameter.dtype) for x in (black.contiguous(), noise))

    def run(images: Tensor) -> object:
        try:
            with torch.inference_mode():
                return module(images)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{name} fails on an input of shape {tuple(images.shape)}: {first_line(error)}"
            ) from None

    def scores(images: Tensor) -> Tensor:
        return scores_of(run(images), len(images))

    output = run(black)
    try:
        first = scores_of(output, 1)
    except ValueError:
        got = tuple(output.shape) if isinstance(output, Tensor) else describe(output)
        raise ModelError(
            f"{name} must give logits [B, K], got {got} for a batch of 1; wrap it in a module "
            "whose forward returns one row of scores an image"
        ) from None
    raw = torch.cat([first, scores(torch.cat([noise, -noise]))])
    reading = read(raw, score, lambda: scores(torch.cat([noise * 30, noise * -30])))
    return adapted(module, output), max(2, raw.shape[1]), reading.kind
