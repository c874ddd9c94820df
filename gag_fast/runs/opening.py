"""Opening a run: everything before its first image, and every choice that was left open.

What can be wrong with the request is found here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gag_fast import measures
from gag_fast._errors import GagFastError
from gag_fast._progress import Progress, Report
from gag_fast._run_files import settings_hash
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.attribution.registry import check_fit, layer_rule, recipes_of
from gag_fast.attribution.source import GradientSource
from gag_fast.classifier import Classifier
from gag_fast.classifier.providers import provider_list, why_not
from gag_fast.data import Dataset, open_dataset
from gag_fast.measures import Measure, Need
from gag_fast.metrics.robustness import resettable
from gag_fast.models import ModelSpec, device_of, given_model, load_model
from gag_fast.presets import Preset
from gag_fast.presets import find as find_preset
from gag_fast.report.deciding import Rule
from gag_fast.runs import manifest
from gag_fast.runs.chunks import chunk_size, cut
from gag_fast.runs.deciding import Decider
from gag_fast.runs.folder import RunError, RunFolder
from gag_fast.runs.given import open_maps
from gag_fast.runs.gradients import FILE, choose, needs_module
from gag_fast.runs.keeping import Keeper
from gag_fast.runs.request import Request
from gag_fast.runs.resume import Todo, find_todo
from gag_fast.runs.same_network import check_same_network, first_images
from gag_fast.runs.worker import Work, Worker, needing_module, scoring, set_threads, source_of

NAMED = 20
"""So many images are named one by one; all are in the results."""


@dataclass(frozen=True)
class Opened:
    """A run whose first missing image can be computed.

    Attributes:
        folder: locked for this process.
        images: of the whole data set.
        worker: with models that are at work.
        todo: what is there, and what is missing.
        settings_hash: what every part carries.
        progress: where notes go.
        keeper: whose maps stay.
        decider: what stops the run before its end, where one was asked for.
    """

    folder: RunFolder
    images: int
    worker: Worker
    todo: Todo
    settings_hash: str
    progress: Progress
    keeper: Keeper
    decider: Decider | None = None


@contextmanager
def opened(request: Request, quiet: bool = False, progress_to: Report = True) -> Iterator[Opened]:
    """Opens the request's run, a new one or the folder's; holds its lock and models meanwhile.

    Raises:
        ValueError: something that was asked for is impossible (subclasses say of what kind).
    """
    if request.methods:
        check_fit(recipes_of(request.methods), request.explanation)
    open_maps(request.maps)  # refuses those that are not there
    loaded = _loaded(request)
    spec = loaded[1]
    dataset, choice = _dataset(request, spec)
    chosen = _measures(request, dataset, loaded[0])
    preset = find_preset(request.preset)
    for name in request.presets:
        find_preset(name)
    # On a Ray cluster the workers' machines must have it too.
    device = device_of(request.device, "cpu" if request.providers == "cpu" else "cuda")
    folder = RunFolder(request.out)
    with folder.locked():
        folder.remove_leftovers()
        # Without a part nothing depends on the settings of the first try: it may have been wrong.
        stored = folder.manifest() if folder.parts() else None
        if stored is None:
            _remove_exports(folder, spec)
        progress = Progress(len(dataset), quiet=quiet, report=progress_to)
        for note in dataset.notes:
            progress.note(note)
        onnx = _onnx(request, folder, loaded, progress)
        metrics = _metrics(request, chosen)
        choices = _Choices.of(stored)
        with _worker(
            request, metrics, loaded, dataset, onnx, preset, device, choices, progress
        ) as worker:
            size = chunk_size(len(dataset), device, request.chunk)
            mark = _settled(folder, stored, worker, dataset, size, progress, choice)
            rule = request.until_decided
            chunks = cut(dataset, size, None if rule is None else rule.seed)
            todo = find_todo(folder, chunks, worker.work.names, mark, request.retry_failed)
            _tell(todo, len(dataset), folder, progress)
            done = _done(folder, todo)
            keeper = Keeper(folder, worker.work.names, worker.work.metrics, request.keep_maps)
            keeper.take_up(done)
            decider = _decider(rule, worker.work.names, len(dataset), folder, done)
            if decider is not None and decider.settled:
                todo.chunks.clear()
            if todo.chunks:
                folder.write_session(_session(request, todo, worker.classifier))
            yield Opened(folder, len(dataset), worker, todo, mark, progress, keeper, decider)


def _loaded(request: Request) -> tuple[nn.Module, ModelSpec]:
    """The module that explains, with its spec."""
    if isinstance(request.model, str):
        return load_model(request.model, request.weights, score=request.score)
    return given_model(request.model, request.score)


def _remove_exports(folder: RunFolder, spec: ModelSpec) -> None:
    """Removes what a first try exported of other weights."""
    import onnx

    for name in ("model.onnx", FILE):
        path = folder.path / name
        if not path.is_file():
            continue
        try:
            said = onnx.load(str(path), load_external_data=False).metadata_props
        except Exception:  # it is opened later, which says what is wrong
            continue
        theirs = {entry.key: entry.value for entry in said}.get("weights_sha256")
        if theirs and theirs != spec.weights_sha256:
            path.unlink()


def _done(folder: RunFolder, todo: Todo) -> dict[int, Path]:
    """Number -> part, of those that count: not those to compute again."""
    again = {chunk.index for chunk in todo.chunks}
    foreign = set(todo.foreign)
    return {k: p for k, p in folder.parts().items() if k not in again and p not in foreign}


def _measures(request: Request, dataset: Dataset, module: nn.Module) -> tuple[Measure, ...]:
    """The measures that are asked for and can be had."""
    again = [
        name
        for name in request.metrics
        if name != "all" and Need.GRADIENTS in measures.measure(name).needs
    ]
    if again and request.maps:
        raise GagFastError(
            f"{again[0]} explains every image again, by the method that made the map: it cannot be "
            f"had of maps from elsewhere ({', '.join(request.maps)})"
        )
    return measures.choose(
        request.metrics,
        masks=dataset.has_masks,
        model=not request.maps,
        weights=bool(resettable(module)),
    )


def _metrics(request: Request, chosen: Sequence[Measure]) -> tuple[str, ...]:
    """The metrics by name: those that were asked for, and for "all" every one that there can be."""
    if "all" in request.metrics:
        return tuple(m.name for m in chosen)
    return tuple(request.metrics)


def _decider(
    rule: Rule | None,
    methods: Sequence[str],
    images: int,
    folder: RunFolder,
    done: Mapping[int, Path],
) -> Decider | None:
    """Knows the rows that are there."""
    if rule is None:
        return None
    decider = Decider(rule, methods, images)
    for chunk, path in sorted(done.items()):
        table = folder.read_part(path, columns=decider.columns)
        if table is not None:
            decider.offer(chunk, table)
    return decider


def _dataset(request: Request, spec: ModelSpec) -> tuple[Dataset, str]:
    """The images of the run, and which ones of the source they are."""
    if isinstance(request.data, Dataset):
        dataset = request.data
        dataset.check_targets(spec.num_classes)
    else:
        dataset = open_dataset(request.data, spec.num_classes, spec.labels)
    chosen = dataset.first(request.limit)
    if len(chosen) == len(dataset):
        return chosen, "all"
    return chosen, f"the first {len(chosen):,} of {len(dataset):,}"


@dataclass(frozen=True)
class _Choices:
    """What a start that goes on takes from the first one.

    The batch size and the number of threads decide the last bits of a gradient, and a machine may
    offer others now; images had their noise by another rule once.
    """

    batch_size: int | None = None
    score_batch: int | None = None
    threads: int | None = None
    layer: str | None = None
    gradients: str | None = None
    image_ids: str = "name"

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> _Choices:
        """Those of a manifest; None: all still to be made."""
        if stored is None:
            return cls()
        resolved, settings = stored.get("resolved", {}), manifest.completed(stored["settings"])
        return cls(
            batch_size=resolved.get("batch_size"),
            score_batch=resolved.get("score_batch"),
            threads=resolved.get("threads"),
            layer=resolved.get("layer"),
            gradients=settings["gradients"],
            image_ids=settings["image_ids"],
        )


@contextmanager
def _worker(
    request: Request,
    metrics: tuple[str, ...],
    loaded: tuple[nn.Module, ModelSpec],
    dataset: Dataset,
    onnx: Path,
    preset: Preset,
    device: str,
    choices: _Choices,
    progress: Progress,
) -> Iterator[Worker]:
    """The worker of this process, with every choice made that was left open."""
    module, spec = loaded
    threads = choices.threads or torch.get_num_threads()
    set_threads(threads)
    classifier = scoring(onnx, spec, request.providers, choices.score_batch, threads, request)
    _check_fit(classifier, spec, onnx)
    if request.onnx is not None and not request.trust_onnx:
        progress.note(
            check_same_network(classifier, module, spec, lambda: first_images(dataset, spec))
        )
    batch_size = request.batch_size or choices.batch_size
    needing = needing_module(request.methods, metrics)
    with source_of(module, device, batch_size, needing, spec.score) as engine:
        chosen = choose(
            request.gradients,
            choices.gradients,
            Path(request.out) / FILE,
            loaded,
            engine,
            provider=request.providers,
            device=device,
            threads=threads,
            progress=progress,
        )
        work = Work(
            model=spec.name,
            weights=_absolute_weights(request.weights),
            onnx=os.path.abspath(onnx),
            methods=tuple(request.methods),
            maps={name: os.path.abspath(path) for name, path in request.maps.items()},
            metrics=metrics,
            preset=preset,
            presets=tuple(find_preset(name) for name in request.presets),
            explanation=request.explanation,
            image_ids=choices.image_ids,
            batch_size=batch_size
            or (1 if engine is None else engine.batch_size(_blank(spec, device))),
            score_batch=classifier.batch_size,
            device=device,
            provider=classifier.providers[0].removesuffix("ExecutionProvider").lower(),
            until_decided=request.until_decided,
            gradients=chosen.name,
            gradients_file=chosen.file,
            keep_maps=request.keep_maps,
            threads=threads,
            score=request.score,
            output=request.output,
            layer=choices.layer or _layer(request, engine, spec, device, progress),
        )
        _tell_torch(work, chosen.source, progress)
        yield Worker(work, spec, chosen.source, classifier, engine)


def _layer(
    request: Request,
    engine: GradientEngine | None,
    spec: ModelSpec,
    device: str,
    progress: Progress,
) -> str | None:
    """The layer that methods look at where nobody named one, chosen once for the whole run."""
    looking = [m for m in request.methods if layer_rule(m)]
    if not looking or engine is None or request.explanation.options.get("layer") is not None:
        return None
    rule = layer_rule(looking[0])
    assert rule is not None
    pixels = torch.randn(_blank(spec, "cpu").shape, generator=torch.Generator().manual_seed(0))
    layer = rule(engine, pixels[None].to(device))
    progress.note(f"{', '.join(looking)}: at the layer {layer}; name another with --layer")
    return layer


def _tell_torch(work: Work, source: GradientSource | None, progress: Progress) -> None:
    """Names the methods that exported gradients do not serve."""
    if source is None or work.gradients_file is None:
        return
    if inside := [m for m in work.methods if needs_module(m, work.explanation, source)]:
        progress.note(f"gradients by torch for {', '.join(inside)}, which need the module")


def _blank(spec: ModelSpec, device: str) -> torch.Tensor:
    """An image of the model's shape `[C,H,W]`, by which memory is measured."""
    preprocessing = spec.preprocessing
    shape = (len(preprocessing.mean), preprocessing.size, preprocessing.size)
    return torch.zeros(shape, device=device)


def _absolute_weights(weights: str | os.PathLike[str]) -> str:
    """A weights file by a path that holds in every process; "default" and "none" as they are."""
    text = os.fspath(weights)
    return text if text in ("default", "none") else os.path.abspath(text)


def _onnx(
    request: Request, folder: RunFolder, loaded: tuple[nn.Module, ModelSpec], progress: Progress
) -> Path:
    """The classifier's file, exported when nobody gave one and no earlier start made it."""
    if request.onnx is not None:
        return Path(request.onnx)
    if request.providers is not None:  # said before the export, which takes its time
        name = provider_list(request.providers)[0][0]
        if (reason := why_not(name)) is not None:
            raise GagFastError(f"{name} was asked for but cannot run: {reason}")
    path = folder.path / "model.onnx"
    if not path.exists():
        from gag_fast.export import export_onnx

        progress.note(f"exporting {loaded[1].name} to {path}")
        export_onnx(*loaded, path)
    return path


def _check_fit(classifier: Classifier, spec: ModelSpec, onnx: Path) -> None:
    """The scoring classifier must take the same images and know the same classes."""
    if classifier.num_classes != spec.num_classes:
        raise GagFastError(
            f"{onnx} has {classifier.num_classes} classes, the model {spec.name} has "
            f"{spec.num_classes}"
        )
    if classifier.input_size not in (None, spec.preprocessing.size):
        raise GagFastError(
            f"{onnx} takes images of {classifier.input_size} pixels, the model {spec.name} of "
            f"{spec.preprocessing.size}"
        )
    for name in ("mean", "std"):
        theirs, ours = getattr(classifier, name), getattr(spec.preprocessing, name)
        if theirs is not None and any(abs(a - b) > 1e-6 for a, b in zip(theirs, ours)):
            raise GagFastError(
                f"{onnx} was exported with {name} {tuple(theirs)}, the model {spec.name} has {ours}"
            )


def _settled(
    folder: RunFolder,
    stored: dict[str, Any] | None,
    worker: Worker,
    dataset: Dataset,
    size: int,
    progress: Progress,
    choice: str,
) -> str:
    """The settings' hash, once the folder's manifest holds these settings."""
    asked = manifest.settings_of(worker.work, worker.spec, dataset, size)
    if stored is None:
        folder.write_manifest(
            manifest.manifest_of(asked, worker.work, worker.spec, dataset, choice)
        )
    else:
        _check_same(folder, stored, asked, progress)
    return settings_hash(asked if stored is None else stored["settings"])


def _check_same(
    folder: RunFolder, stored: dict[str, Any], asked: dict[str, Any], progress: Progress
) -> None:
    if stored.get("format") != manifest.FORMAT:
        raise RunError(
            f"{folder.path} was written in format {stored.get('format')}, this version writes "
            f"{manifest.FORMAT}; give another folder"
        )
    differ = manifest.differences(manifest.completed(stored["settings"]), asked)
    if differ:
        raise RunError(
            f"{folder.path} holds a run with other settings ({'; '.join(differ)}); give another "
            "folder, or the same settings to go on with it"
        )
    news = manifest.differences(stored.get("versions", {}), manifest.versions())
    if news:
        progress.note(f"note: versions differ from those of the first start: {'; '.join(news)}")


def _tell(todo: Todo, images: int, folder: RunFolder, progress: Progress) -> None:
    """What is known of the folder before work starts."""
    if todo.done:
        progress.note(f"{folder.path}: {todo.done} of {images} images are done already")
    for what, names in (
        ("changed since their rows were written, computing them again", todo.changed),
        ("are no longer there, their rows stay", todo.gone),
    ):
        if names:
            progress.note(f"images that {what}: {_some(names)}")
    for what, paths in (
        ("cannot be used, computing them again", todo.broken),
        ("are not of this run, they count for nothing", todo.foreign),
    ):
        if paths:
            progress.note(f"parts that {what}: {_some([path.name for path in paths])}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _session(request: Request, todo: Todo, classifier: Classifier) -> dict[str, Any]:
    return {
        "started": manifest.now(),
        "pid": os.getpid(),
        "engine": request.engine,
        "workers": request.workers,
        "providers": list(classifier.providers),
        "images_to_do": sum(len(chunk.items) for chunk in todo.chunks),
        "versions": manifest.versions(),
        "machine": manifest.machine(),
    }
