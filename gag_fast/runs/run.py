"""A whole run: a data set explained and scored into a folder, from the start or from where it is.

What can be wrong with the request is found before the first image is computed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from gag_fast import measures
from gag_fast._progress import Progress
from gag_fast._run_files import settings_hash
from gag_fast.attribution.registry import parse
from gag_fast.attribution.settings import settings_named
from gag_fast.classifier import Classifier
from gag_fast.classifier.providers import provider_list, why_not
from gag_fast.data import Dataset, open_dataset
from gag_fast.models import ModelSpec, device_of, load_model
from gag_fast.presets import Preset
from gag_fast.presets import preset as find_preset
from gag_fast.runs import settings as settings_module
from gag_fast.runs.folder import RunError, RunFolder
from gag_fast.runs.local import LocalEngine
from gag_fast.runs.plan import chunk_size, plan
from gag_fast.runs.request import Request, Summary
from gag_fast.runs.resume import Todo, find_todo
from gag_fast.runs.rows import FAILED
from gag_fast.runs.worker import Scored, Work, Worker

_NAMED = 20
"""So many failures are named one by one as they come; all are in the results."""


def run(request: Request, quiet: bool = False) -> Summary:
    """Explains and scores a data set; goes on with the folder's run when there is one.

    Args:
        request: what to do.
        quiet: no progress and no notes on stderr.

    Returns:
        Summary; not complete when a signal ended the run or images failed.

    Raises:
        ValueError: something that was asked for is impossible (subclasses say of what kind).
        DiskFullError: the disk is full; the folder stays resumable.
    """
    for method in request.methods:
        parse(method)
    loaded = load_model(request.model, request.weights)
    spec = loaded[1]
    dataset = _dataset(request, spec)
    measures.choose(request.metrics, masks=dataset.has_masks)
    preset = find_preset(request.preset)
    # On a Ray cluster the workers' machines must have it too.
    device = device_of(request.device, "cpu" if request.providers == "cpu" else "cuda")
    folder = RunFolder(request.out)
    with folder.locked():
        folder.remove_leftovers()
        # Without a part nothing depends on the settings of the first try: it may have been wrong.
        stored = folder.manifest() if folder.parts() else None
        progress = Progress(len(dataset), quiet=quiet)
        for note in dataset.notes:
            progress.note(note)
        onnx = _onnx(request, folder, loaded, progress)
        resolved = (stored or {}).get("resolved", {})
        worker = _worker(request, loaded, onnx, preset, device, resolved)
        work = worker.work
        size = chunk_size(len(dataset), device, request.chunk)
        asked = settings_module.settings_of(work, spec, dataset, size)
        if stored is None:
            folder.write_manifest(settings_module.manifest_of(asked, work, spec, dataset))
        else:
            _check_same(folder, stored, asked, progress)
        mark = settings_hash(asked if stored is None else stored["settings"])
        todo = find_todo(folder, plan(dataset, size), work.methods, mark, request.retry_failed)
        _tell(todo, len(dataset), folder, progress)
        summary = Summary(folder.path, len(dataset), todo.done, failures=dict(todo.failures))
        if todo.chunks:
            folder.write_session(_session(request, todo, worker.classifier))
            try:
                _compute(_engine(request, worker), folder, todo, summary, mark, progress)
            finally:
                progress.close()
        return summary


# ---- before the first image ----------------------------------------------------------------------


def _dataset(request: Request, spec: ModelSpec) -> Dataset:
    if isinstance(request.data, Dataset):
        dataset = request.data
        dataset.check_targets(spec.num_classes)
    else:
        dataset = open_dataset(request.data, spec.num_classes, spec.labels)
    return dataset.first(request.limit)


def _explaining(request: Request) -> dict[str, Any]:
    """n, noise, p, seed and options in full, for the manifest."""
    named = request.options.get("settings")
    n = 20 if named is None else settings_named(named).n
    return {
        "n": n if request.n is None else request.n,
        "noise": float(request.noise),
        "p": float(request.p),
        "seed": request.seed,
        "options": dict(request.options),
    }


def _worker(
    request: Request,
    loaded: tuple[nn.Module, ModelSpec],
    onnx: Path,
    preset: Preset,
    device: str,
    resolved: Mapping[str, Any],
) -> Worker:
    """The worker of this process, with every choice made that was left open.

    A start that goes on takes the choices of the first one (`resolved`): the batch size and the
    number of threads decide the last bits of a gradient, and a machine may offer others now.
    """
    threads = resolved.get("threads") or torch.get_num_threads()
    classifier = Classifier(
        onnx,
        providers=request.providers,
        batch_size=resolved.get("score_batch"),
        threads=threads,
    )
    _check_fit(classifier, loaded[1], onnx)
    work = Work(
        model=request.model,
        weights=_absolute_weights(request.weights),
        onnx=os.path.abspath(onnx),
        methods=tuple(request.methods),
        metrics=tuple(request.metrics),
        preset=preset,
        **_explaining(request),
        batch_size=request.batch_size or resolved.get("batch_size"),
        score_batch=classifier.batch_size,
        device=device,
        provider=classifier.providers[0].removesuffix("ExecutionProvider").lower(),
        keep_maps=request.keep_maps,
        threads=threads,
    )
    worker = Worker(work, loaded, classifier)
    if work.batch_size is None:
        worker.work = replace(work, batch_size=worker.choose_batch_size())
    return worker


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
            raise ValueError(f"{name} was asked for but cannot run: {reason}")
    path = folder.path / "model.onnx"
    if not path.exists():
        from gag_fast.export import export_onnx

        progress.note(f"exporting {request.model} to {path}")
        export_onnx(*loaded, path)
    return path


def _check_fit(classifier: Classifier, spec: ModelSpec, onnx: Path) -> None:
    """The scoring classifier must take the same images and know the same classes."""
    if classifier.num_classes != spec.num_classes:
        raise ValueError(
            f"{onnx} has {classifier.num_classes} classes, the model {spec.name} has "
            f"{spec.num_classes}"
        )
    if classifier.input_size not in (None, spec.preprocessing.size):
        raise ValueError(
            f"{onnx} takes images of {classifier.input_size} pixels, the model {spec.name} of "
            f"{spec.preprocessing.size}"
        )
    for name in ("mean", "std"):
        theirs, ours = getattr(classifier, name), getattr(spec.preprocessing, name)
        if theirs is not None and any(abs(a - b) > 1e-6 for a, b in zip(theirs, ours)):
            raise ValueError(
                f"{onnx} was exported with {name} {tuple(theirs)}, the model {spec.name} has {ours}"
            )


def _check_same(
    folder: RunFolder, stored: dict[str, Any], asked: dict[str, Any], progress: Progress
) -> None:
    if stored.get("format") != settings_module.FORMAT:
        raise RunError(
            f"{folder.path} was written in format {stored.get('format')}, this version writes "
            f"{settings_module.FORMAT}; give another folder"
        )
    differ = settings_module.differences(settings_module.completed(stored["settings"]), asked)
    if differ:
        raise RunError(
            f"{folder.path} holds a run with other settings ({'; '.join(differ)}); give another "
            "folder, or the same settings to go on with it"
        )
    news = settings_module.differences(stored.get("versions", {}), settings_module.versions())
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
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _session(request: Request, todo: Todo, classifier: Classifier) -> dict[str, Any]:
    return {
        "started": settings_module.now(),
        "pid": os.getpid(),
        "engine": request.engine,
        "workers": request.workers,
        "providers": list(classifier.providers),
        "images_to_do": sum(len(chunk.items) for chunk in todo.chunks),
        "versions": settings_module.versions(),
        "machine": settings_module.machine(),
    }


def _engine(request: Request, worker: Worker) -> Any:
    """An object with `run(chunks, stop) -> iterator of Scored`."""
    if request.engine == "ray":
        from gag_fast.runs.on_ray import RayEngine

        return RayEngine(worker.work, request.workers)
    return LocalEngine(worker, request.workers or 2, request.overlap)


# ---- the work ------------------------------------------------------------------------------------


def _compute(
    engine: Any,
    folder: RunFolder,
    todo: Todo,
    summary: Summary,
    settings_hash: str,
    progress: Progress,
) -> None:
    """Runs the engine and writes what it gives, until all is done or a signal comes."""
    stop = threading.Event()
    begin = time.monotonic()
    named = 0
    progress.start(todo.done)
    with _signals(stop, progress) as received:
        for scored in engine.run(iter(todo.chunks), stop):
            folder.write_part(scored.chunk.index, scored.table, settings_hash, scored.maps)
            failures = failures_of(scored)
            summary.failures |= failures
            summary.done += len(scored.chunk.items)
            summary.computed += len(scored.chunk.items)
            for image, reason in failures.items():
                named += 1
                if named <= _NAMED:
                    progress.note(f"failed: {image}: {reason}")
            progress.add(len(scored.chunk.items))
    summary.seconds = time.monotonic() - begin
    if summary.done < summary.images:
        summary.interrupted = received[0] if received else None


def failures_of(scored: Scored) -> dict[str, str]:
    """image -> reason, of a finished chunk; with the method where others went well."""
    rows = scored.table.select(["image", "method", "status", "error"]).to_pylist()
    by_image: dict[str, dict[str, str]] = {}
    count: dict[str, int] = {}
    for row in rows:
        count[row["image"]] = count.get(row["image"], 0) + 1
        if row["status"] == FAILED:
            by_image.setdefault(row["image"], {})[row["method"]] = row["error"]
    found = {}
    for image, errors in by_image.items():
        if len(set(errors.values())) == 1 and len(errors) == count[image]:
            found[image] = next(iter(errors.values()))
        else:
            found[image] = "; ".join(f"{method}: {why}" for method, why in errors.items())
    return found


@contextmanager
def _signals(stop: threading.Event, progress: Progress) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM sets `stop`, the second ends the process.

    Ending it is safe at any moment: parts appear whole or not at all.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        stop.set()
        progress.note("stopping: finishing the part in hand (again to stop at once)")

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
