"""`gag_fast.run`: what `gag-fast evaluate` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

from torch import nn

from gag_fast._errors import InputTypeError
from gag_fast._progress import Report
from gag_fast.attribution.explanation import Explanation, MethodOptions
from gag_fast.attribution.own import Method, importable
from gag_fast.attribution.registry import MethodName
from gag_fast.data import Dataset
from gag_fast.measures import MeasureName
from gag_fast.models import ModelSpec
from gag_fast.presets import Preset, PresetName
from gag_fast.report.deciding import Rule
from gag_fast.runs.request import Request, Summary
from gag_fast.runs.run import run as run_request


def run(
    data: str | os.PathLike[str] | Dataset,
    model: str | nn.Module | tuple[nn.Module, ModelSpec],
    methods: Sequence[MethodName | Method] | MethodName | Method,
    out: str | os.PathLike[str],
    *,
    maps: Mapping[str, str | os.PathLike[str]] | None = None,
    metrics: Sequence[MeasureName | Literal["all"]] = ("rcap", "dauc", "iauc"),
    preset: PresetName | Preset = "paper",
    presets: Sequence[PresetName] = (),
    weights: str = "default",
    onnx: str | os.PathLike[str] | None = None,
    trust_onnx: bool = False,
    score: Literal["logits", "probabilities", "sigmoid"] | None = None,
    output: str | None = None,
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85.0,
    seed: int = 0,
    settings: str | None = None,
    batch_size: int | None = None,
    providers: str | None = None,
    device: str | None = None,
    gradients: str = "torch",
    limit: int | None = None,
    chunk: int | None = None,
    keep_maps: bool = False,
    until_decided: Rule | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
    progress: Report = True,
    **method_options: Unpack[MethodOptions],
) -> Summary:
    """Explains and scores a data set into a folder; goes on with the folder's run if there is one.

    Args:
        data: a folder with a sub-folder for each class, a flat folder, a table (path, label, mask),
            .tar shards, Parquet or Arrow files that hold the pictures (a split of them:
            FOLDER/validation), or a `Dataset`.
        model: NAME of `load_model`, `package.module:function` among them; or a module that is at
            hand: (module, ModelSpec), or the module alone, whose attribute `preprocessing` says
            what it takes. The run goes on only with the same weights. Not with Ray, whose workers
            need a name.
        methods: what `explain_many` takes, one or several: names, and your own by
            `package.module:function` or as they are, functions and classes that can be imported.
            May be empty beside `maps`.
        out: the run folder.
        maps: maps that were computed elsewhere: name -> folder of .npy, .npz or .zarr with one for
            each image, by the image's name; scored beside the others, without gradients.
        metrics: names that `evaluate` takes.
        preset: of the scores.
        presets: further ones to score the same maps under.
        weights: as `load_model` takes them.
        onnx: the classifier that scores; None: the model is exported to `out`/model.onnx.
        trust_onnx: score with `onnx` even where it is another network than the model.
        score: what the model gives, "logits", "probabilities" or "sigmoid"; None: what it shows.
        output: name of the output of `onnx` that holds the scores, where there are several.
        n, noise, p, seed, settings: as in `explain`.
        batch_size: modified images in one backward pass; None: by memory.
        providers: what scores; None: the best that works.
        device: of the gradients, "cpu" or "cuda"; None: a GPU if there is one.
        gradients: what computes them, "torch", "onnx" or "auto" (the faster one here).
        limit: only so many images.
        chunk: images a part.
        keep_maps: keep every saliency map, not only those of the images that the report shows.
        until_decided: stop once this rule (`report.deciding.Rule`) has decided the ranking.
        engine: "local" or "ray".
        workers: decoding processes, or Ray's workers.
        retry_failed: try the failed images again.
        quiet: no progress and no notes on stderr.
        progress: a bar on a terminal or in a notebook, else plain lines; False: none; or a function
            that is called with (done, total) images.
        **method_options: the methods' own, as in `explain_many`.

    Returns:
        `Summary`: `.complete`, `.failures`, `.to_frame()` with a row for each image and method.

    Raises:
        ValueError: something that was asked for is impossible; one line.
    """
    if isinstance(method_options.get("layer"), nn.Module):
        raise InputTypeError(
            "a run names its layer, so that it can go on: give layer= as in model.named_modules()"
        )
    several = (methods,) if isinstance(methods, str) or callable(methods) else methods
    how = Explanation(
        n=n, noise=noise, p=p, seed=seed, settings=settings, options=dict(method_options)
    )
    request = Request(
        data=data,
        out=out,
        model=model,
        weights=weights,
        onnx=onnx,
        trust_onnx=trust_onnx,
        score=score,
        output=output,
        methods=tuple(map(importable, several)),
        maps=maps or {},
        metrics=metrics,
        preset=preset,
        presets=presets,
        explanation=how,
        batch_size=batch_size,
        providers=providers,
        device=device,
        gradients=gradients,
        limit=limit,
        chunk=chunk,
        keep_maps=keep_maps,
        until_decided=until_decided,
        engine=engine,
        workers=workers,
        retry_failed=retry_failed,
    )
    return run_request(request, quiet, progress)
