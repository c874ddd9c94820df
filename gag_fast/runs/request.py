"""What a user asks of a run, and how it turned out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from gag_fast._errors import GagFastError
from gag_fast.attribution.explanation import Explanation
from gag_fast.data import Dataset
from gag_fast.models import ModelSpec
from gag_fast.presets import Preset
from gag_fast.report.deciding import Rule

ENGINES = ("local", "ray")
GRADIENTS = ("torch", "onnx", "auto")


@dataclass(frozen=True)
class Request:
    """A run as it is asked for.

    Attributes:
        data: folder, table, shards or `Dataset`.
        out: the run folder; what it holds already is not computed again.
        model: NAME of `load_model`, by which every process of the run loads it; or a module that
            is at hand, with its `ModelSpec` or alone (`models.given_model`), which the local engine
            takes.
        weights: as `load_model` takes them.
        onnx: the classifier that scores; None: the model is exported to `out`/model.onnx.
        trust_onnx: score with `onnx` even where it is another network than the model.
        score: what the model and `onnx` give, "logits", "probabilities" or "sigmoid"; None: what
            they show.
        output: name of the output of `onnx` that holds the scores, where there are several.
        methods: names that `explain_many` takes; may be empty beside `maps`.
        maps: maps that were computed elsewhere, scored beside the others: name -> folder or file
            with one for each image (`runs.given`).
        metrics: names that `evaluate` takes.
        preset: name or value of the scoring preset.
        presets: further presets to score the same maps under, by what depends on a preset.
        explanation: how to explain; the methods' options must be JSON values.
        batch_size: modified images in one backward pass; None: by memory.
        providers: "cpu", "cuda", "tensorrt" or "openvino" for the classifier; None: the best that
            works.
        device: "cpu" or "cuda" for the gradients; None: the GPU where there is one and
            `providers` is not "cpu".
        gradients: "torch", "onnx" (ONNX Runtime, of a graph exported to `out`/gradients.onnx) or
            "auto": the faster one here, measured once and kept by later starts. Methods that look
            into the module stay with torch.
        limit: only so many images; None: all.
        chunk: images a part; None: 8, on a GPU 64, more where that would make too many parts.
        keep_maps: store every saliency map, not only those of the images that the report shows.
        until_decided: take the images in a random order, and stop once the ranking of the methods
            is decided by this rule; None: compute all.
        engine: "local" or "ray".
        workers: processes that decode (local; default 2), or Ray's workers (default: one a GPU,
            or 2).
        overlap: gradients of one chunk while another is scored (local engine); the rows are the
            same without.
        retry_failed: compute the parts with failed rows again.
    """

    data: str | os.PathLike[str] | Dataset
    out: str | os.PathLike[str]
    model: str | nn.Module | tuple[nn.Module, ModelSpec]
    weights: str = "default"
    onnx: str | os.PathLike[str] | None = None
    trust_onnx: bool = False
    score: str | None = None
    output: str | None = None
    methods: Sequence[str] = ("guided_absgrad",)
    maps: Mapping[str, str | os.PathLike[str]] = field(default_factory=dict)
    metrics: Sequence[str] = ("rcap", "dauc", "iauc")
    preset: str | Preset = "paper"
    presets: Sequence[str] = ()
    explanation: Explanation = field(default_factory=Explanation)
    batch_size: int | None = None
    providers: str | None = None
    device: str | None = None
    gradients: str = "torch"
    limit: int | None = None
    chunk: int | None = None
    keep_maps: bool = False
    until_decided: Rule | None = None
    engine: str = "local"
    workers: int | None = None
    overlap: bool = True
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise GagFastError(f"engine must be {' or '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "ray" and not isinstance(self.model, str):
            raise GagFastError(
                "Ray's workers load the model by its name: give package.module:function for a "
                "function that returns it"
            )
        if self.gradients not in GRADIENTS:
            raise GagFastError(
                f"gradients must be one of {', '.join(GRADIENTS)}, got {self.gradients!r}"
            )
        for name in ("methods", "metrics"):
            values = tuple(getattr(self, name))
            may_be_empty = name == "methods" and self.maps
            if not (values or may_be_empty) or len(set(values)) != len(values):
                raise GagFastError(f"{name} must be one or more different names, got {values}")
            object.__setattr__(self, name, values)
        if both := sorted(set(self.maps) & set(self.methods)):
            raise GagFastError(f"maps and methods are both called {', '.join(both)}: name one anew")
        object.__setattr__(self, "presets", tuple(self.presets))
        own = self.preset if isinstance(self.preset, str) else self.preset.name
        if len({own, *self.presets}) != 1 + len(self.presets):
            raise GagFastError(
                f"presets must be others than {own}, each once, got {', '.join(self.presets)}"
            )
        for name in ("limit", "chunk", "workers", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise GagFastError(f"{name} must be 1 or more, got {value}")
        if self.until_decided is not None:
            measure = self.until_decided.measure
            ranked = (*self.methods, *self.maps)
            if len(ranked) < 2:
                raise GagFastError(
                    f"a ranking to decide needs two methods or more, got {', '.join(ranked)}"
                )
            if not {measure, "all"} & set(self.metrics):
                raise GagFastError(f"{measure} is to decide, but not among the metrics")


@dataclass(repr=False)
class Summary:
    """How a run stands when `run` returns.

    Attributes:
        out: the run folder.
        images: of the whole data set.
        done: images whose rows are there, failed ones included.
        computed: images computed by this call.
        seconds: of this call, loading and exporting left out.
        failures: image -> reason.
        interrupted: the signal that ended it, None when it came to its end.
        settled: the ranking was decided, so that no more images were needed.
    """

    out: Path
    images: int
    done: int = 0
    computed: int = 0
    seconds: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    interrupted: int | None = None
    settled: bool = False

    def __repr__(self) -> str:
        """How far it is, and what failed."""
        words = [f"{self.done} of {self.images} images"]
        if self.settled:
            words.append("the ranking is decided")
        if self.failures:
            words.append(f"{len(self.failures)} failed")
        if self.interrupted is not None:
            words.append(f"interrupted by signal {self.interrupted}")
        return f"Summary({self.out}: {', '.join(words)})"

    def to_frame(self) -> Any:
        """The rows that are there, as a pandas DataFrame; needs pandas."""
        from gag_fast.runs.folder import RunFolder

        return RunFolder(self.out).read().to_pandas()

    @property
    def complete(self) -> bool:
        """Whether everything asked for was done, and nothing failed."""
        return (self.done == self.images or self.settled) and not self.failures
