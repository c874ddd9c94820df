"""One chunk of images, from decoded pixels to result rows. The same code under every engine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch

from gag_fast import measures
from gag_fast._errors import GagFastError, first_line
from gag_fast._text import storable
from gag_fast.attribution.explaining import Pass, explain_as
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.forward import PROBABILITY, Scorer
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.attribution.inputs import BY_PIXELS, as_keys, id_of_name
from gag_fast.attribution.processing import Processing, min_max
from gag_fast.attribution.registry import layer_rule, parse, share_of
from gag_fast.attribution.source import GradientSource
from gag_fast.classifier import Classifier
from gag_fast.images import normalise
from gag_fast.measures import CURVES, MEASURES, Measure, Need
from gag_fast.metrics import Scores, evaluate
from gag_fast.models import ModelSpec, load_model
from gag_fast.presets import Preset
from gag_fast.report.deciding import Rule
from gag_fast.report.gallery import LIVE_ABSMEAN, LIVE_IMAGES, LIVE_VARIANCE
from gag_fast.report.shown import focus_of, measure_of
from gag_fast.runs.chunks import Chunk
from gag_fast.runs.decoding import Decoded
from gag_fast.runs.given import MapError, open_maps
from gag_fast.runs.gradients import again, needs_module
from gag_fast.runs.keeping import candidates, reduced
from gag_fast.runs.rows import FAILED, OK, table_of, under


@dataclass(frozen=True)
class Work:
    """Everything that decides the rows of a chunk; what a process elsewhere needs to compute it.

    Attributes:
        model, weights: as `load_model` takes them.
        onnx: the classifier's file.
        methods: names that `explain_many` takes.
        maps: of methods that were computed elsewhere, by their names: see `given`.
        metrics: names that `evaluate` takes.
        preset: the scoring preset.
        presets: further ones to score under, by what depends on a preset.
        explanation: how to explain.
        image_ids: whence an image's random numbers: from its "name" in the data set or, in folders
            that were begun before, from its "pixels".
        batch_size: modified images in one backward pass; None: the engine's choice.
        score_batch: images in one forward pass of the classifier, None for its choice.
        device: of the gradients, "cpu" or "cuda".
        provider: "cpu", "cuda", "tensorrt" or "openvino", of the classifier.
        gradients: what computes them: "torch", or "onnx:" and a provider.
        gradients_file: the exported graph of gradients, None for torch.
        until_decided: the rule by which the run stops, None: it computes all. It decides no row,
            but the order of the images.
        keep_maps: return all maps with the rows, not only those that may be shown.
        threads: torch's threads on the CPU; None: as it is.
        score, output: of the classifier's file, as `Classifier` takes them.
        layer: that methods look at where `explanation` names none; None: none does.
    """

    model: str
    weights: str
    onnx: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    preset: Preset
    presets: tuple[Preset, ...] = ()
    explanation: Explanation = field(default_factory=Explanation)
    maps: Mapping[str, str] = field(default_factory=dict)
    image_ids: str = "name"
    batch_size: int | None = None
    score_batch: int | None = None
    device: str = "cpu"
    provider: str = "cpu"
    until_decided: Rule | None = None
    gradients: str = "torch"
    gradients_file: str | None = None
    keep_maps: bool = False
    threads: int | None = None
    score: str | None = None
    output: str | None = None
    layer: str | None = None

    def how(self, methods: Sequence[str]) -> Explanation:
        """How to explain by some of the methods, with the choices that were left open."""
        how = share_of(self.explanation, methods, self.methods)
        if self.layer is None or not any(map(layer_rule, methods)):
            return how
        return replace(how, options={**how.options, "layer": self.layer})

    @property
    def names(self) -> tuple[str, ...]:
        """Of all methods: an image has a row for each."""
        return (*self.methods, *self.maps)


class Said(Protocol):
    """What a request and a work both say of the classifier's file."""

    @property
    def score(self) -> str | None:
        """What its output is."""

    @property
    def output(self) -> str | None:
        """Which output that is."""


def scoring(
    onnx: str | os.PathLike[str],
    spec: ModelSpec,
    providers: str | None,
    batch_size: int | None,
    threads: int | None,
    said: Said,
) -> Classifier:
    """The classifier that scores; a file without metadata takes the images that the model takes.

    Nor does such a file show that its logits are of independent classes, as the model's are.
    """
    independent = "sigmoid" if spec.score == "sigmoid" else None
    return Classifier(
        onnx,
        providers=providers,
        batch_size=batch_size,
        threads=threads,
        mean=spec.preprocessing.mean,
        std=spec.preprocessing.std,
        score=said.score or independent,
        output=said.output,
    )


@dataclass
class Explained:
    """A chunk between its two stages."""

    chunk: Chunk
    decoded: list[Decoded]
    images: torch.Tensor
    targets: torch.Tensor
    ids: torch.Tensor
    maps: dict[str, torch.Tensor]
    errors: dict[str, str]
    missing: dict[tuple[int, str], str]  # (image, method) without a map, and why
    seconds: float
    watched: Watched


class Watched:
    """What is seen of a chunk's passes: each method's seconds, and the noisy gradients' statistics.

    Attributes:
        seconds: method -> of the gradients it needs, for all images of the chunk.
        statistics: mean |g| and variance `[rows, C, H, W]` of every group of images; empty where
            no method needs noisy gradients.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.statistics: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, done: Pass) -> None:
        """Takes note of a pass."""
        for method in done.methods:
            self.seconds[method] = self.seconds.get(method, 0.0) + done.seconds
        stats = done.stats.get(Processing())
        guided = any(method.partition("@")[0] == "guided_absgrad" for method in done.methods)
        if done.modification == "noise" and guided and stats is not None and stats.count > 1:
            both = (stats.absmean(), stats.variance())
            self.statistics.append(tuple(v.float().cpu().numpy() for v in both))  # type: ignore


@dataclass
class Scored:
    """A finished chunk: its rows, and its maps where they are kept."""

    chunk: Chunk
    table: pa.Table
    maps: dict[str, np.ndarray] | None


class MethodError(GagFastError):
    """A method that cannot explain this model, whatever the image."""


class Worker:
    """Holds the model twice (one for gradients, ONNX Runtime for scores) and computes chunks.

    `explain` and `score` may run in two threads, each for one chunk at a time.

    Args:
        work: what to compute.
        spec: of the model.
        source: its gradients, at work as long as the worker is; None where nothing needs any.
        classifier: what scores.
        engine: likewise with the module, for methods that need it; None: `source` is that.
    """

    def __init__(
        self,
        work: Work,
        spec: ModelSpec,
        source: GradientSource | None,
        classifier: Classifier,
        engine: GradientSource | None = None,
    ) -> None:
        self.work = work
        self.spec = spec
        self.source = source
        self.engine = source if engine is None else engine
        self.classifier = classifier
        self.given = open_maps(work.maps)

    def explain(self, chunk: Chunk, decoded: Sequence[Decoded]) -> Explained:
        """The chunk's maps.

        An image that could not be decoded takes part as a black one: the shape of the batch, and
        with it the bits of the other images' gradients, must not depend on it.

        Raises:
            MethodError: a method refuses the model or its settings.
        """
        begin = time.perf_counter()
        work, watched = self.work, Watched()
        set_threads(work.threads)  # the setting belongs to a thread, and this may be a new one
        images = self._images(decoded)
        targets = self._targets(chunk, images)
        ids = self._ids(chunk, images)
        maps: dict[str, torch.Tensor] = {}
        errors: dict[str, str] = {}
        try:
            if work.methods:
                maps = dict(self._explain(images, targets, work.methods, ids, watched))
        except (RuntimeError, MemoryError) as first:
            # Out of memory, or one method's fault: the others may well work alone.
            watched = Watched()
            for method in work.methods:
                try:
                    maps.update(self._explain(images, targets, (method,), ids, watched))
                except (RuntimeError, MemoryError) as error:
                    errors[method] = first_line(error)
            if not maps and len(work.methods) == 1:
                errors[work.methods[0]] = first_line(first)
        except (ValueError, TypeError) as error:
            raise MethodError(str(error)) from error
        found, missing = self._given(chunk, images)
        maps |= found
        seconds = time.perf_counter() - begin
        return Explained(
            chunk, list(decoded), images, targets, ids, maps, errors, missing, seconds, watched
        )

    def score(self, explained: Explained) -> Scored:
        """The chunk's rows: every (image, method) has one, whatever happened to it."""
        begin = time.perf_counter()
        methods = [m for m in self.work.names if m in explained.maps]
        failures: dict[tuple[int, str], str] = {}
        scores: Scores | None = None
        further: dict[str, torch.Tensor] = {}
        probabilities = torch.empty(0)
        try:
            probabilities = self.classifier(explained.images).float().cpu()
            if methods:
                stack = torch.stack([explained.maps[m] for m in methods], dim=1)
                finite = torch.isfinite(stack).flatten(2).all(dim=2)
                # A broken map takes part as a blank one, for the same reason as above.
                stack = torch.where(finite[..., None, None], stack, torch.zeros_like(stack))
                failures = {
                    (i, methods[k]): "the saliency map is not finite"
                    for i, k in (~finite).nonzero().tolist()
                }
                scores = self._evaluate(explained, stack)
                further = self._further(explained, stack)
        except (RuntimeError, MemoryError) as error:
            reason = f"scoring failed: {first_line(error)}"
            failures = {(i, m): reason for i in range(len(explained.decoded)) for m in methods}
        seconds = time.perf_counter() - begin
        rows = []
        count = len(explained.decoded) * len(self.work.names)
        for i, (item, decoded) in enumerate(zip(explained.chunk.items, explained.decoded)):
            for method in self.work.names:
                row: dict[str, Any] = {
                    "image": item.image,
                    "method": method,
                    "target": item.target,
                    "seed": self.work.explanation.seed,
                    "image_id": int(explained.ids[i]),
                    "chunk": explained.chunk.index,
                    "decode_seconds": decoded.seconds,
                    "explain_seconds": explained.seconds / count,
                    "method_seconds": explained.watched.seconds.get(method, math.nan)
                    / len(explained.decoded),
                    "score_seconds": seconds / count,
                    "image_sha256": decoded.sha256,
                    "image_bytes": decoded.bytes,
                    "image_mtime_ns": decoded.mtime_ns,
                    "mask_sha256": decoded.mask_sha256,
                    "mask_bytes": decoded.mask_bytes,
                    "mask_mtime_ns": decoded.mask_mtime_ns,
                    "status": OK,
                }
                fault = (
                    decoded.error
                    or explained.errors.get(method)
                    or explained.missing.get((i, method))
                    or failures.get((i, method))
                )
                if fault is None:
                    row["target"] = int(explained.targets[i])
                    row |= _judged(probabilities[i], row["target"])
                    if scores is not None:
                        has_mask = decoded.mask is not None
                        row |= _figures(scores, i, methods.index(method), has_mask)
                    place = methods.index(method)
                    row |= {name: float(values[i, place]) for name, values in further.items()}
                    fault = _not_finite(row)
                if fault is not None:
                    row |= {"status": FAILED, "error": storable(fault)}
                rows.append(row)
        further_columns = [under(m, p.name) for p in self.work.presets for m in self._varying()]
        table = table_of(rows, measures.named(self.work.metrics), further_columns)
        return Scored(explained.chunk, table, self._kept(explained, table))

    def _images(self, decoded: Sequence[Decoded]) -> torch.Tensor:
        size, channels = self.spec.preprocessing.size, len(self.spec.preprocessing.mean)
        black = np.zeros((size, size, channels), np.uint8)
        pixels = np.stack([black if d.pixels is None else d.pixels for d in decoded])
        return normalise(pixels, self.spec.preprocessing).to(self.work.device)

    def _targets(self, chunk: Chunk, images: torch.Tensor) -> torch.Tensor:
        """The labels; where one is missing, the class that the model predicts."""
        given = [item.target for item in chunk.items]
        if None not in given:
            return torch.tensor(given, device=images.device)
        scores = self.classifier(images) if self.engine is None else self.engine.logits(images)
        predicted = scores.argmax(dim=1).tolist()
        return torch.tensor(
            [p if g is None else g for g, p in zip(given, predicted)], device=images.device
        )

    def _ids(self, chunk: Chunk, images: torch.Tensor) -> torch.Tensor:
        """What the images' random numbers hang on, int64 `[B]`."""
        if self.work.image_ids == BY_PIXELS:
            return as_keys(BY_PIXELS, images)
        return torch.tensor([id_of_name(item.image) for item in chunk.items])

    def _explain(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        methods: tuple[str, ...],
        ids: torch.Tensor,
        watched: Watched,
    ) -> Mapping[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for source, chosen in self._shares(methods):
            how = self.work.how(chosen)
            found |= explain_as(source, images, targets, chosen, how, image_ids=ids, watch=watched)
        return found

    def _shares(
        self, methods: Sequence[str]
    ) -> Iterator[tuple[GradientSource | Scorer, tuple[str, ...]]]:
        """What explains which of the methods.

        The session that scores those that need no gradient, torch those that the run's source of
        gradients cannot.
        """
        rest = of_gradients(methods)
        if forward := tuple(m for m in methods if m not in rest):
            yield self.classifier, forward
        if not rest:
            return
        assert self.source is not None, "refused when the run was opened"
        if self.source is self.engine:
            yield self.source, rest
            return
        how, source = self.work.explanation, self.source
        inside = tuple(m for m in rest if needs_module(m, how, source))
        for own, chosen in (
            (source, tuple(m for m in rest if m not in inside)),
            (self.engine, inside),
        ):
            if own is not None and chosen:
                yield own, chosen

    def _given(
        self, chunk: Chunk, images: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], dict[tuple[int, str], str]]:
        """The maps that were computed elsewhere, each scaled to [0, 1] like ours; what is missing.

        An image without a map takes part with a blank one, like one that could not be decoded.
        """
        maps: dict[str, torch.Tensor] = {}
        missing: dict[tuple[int, str], str] = {}
        shape = (images.shape[2], images.shape[3])
        for name, given in self.given.items():
            stack = torch.zeros(len(images), *shape)
            for i, item in enumerate(chunk.items):
                try:
                    stack[i] = torch.from_numpy(given.map_of(item.image, shape))
                except MapError as error:
                    missing[i, name] = str(error)
            maps[name] = min_max(stack).to(images.device)
        return maps, missing

    def _evaluate(self, explained: Explained, maps: torch.Tensor) -> Scores | None:
        masks = None
        if any(d.mask is not None for d in explained.decoded):
            height, width = maps.shape[-2:]
            empty = np.zeros((height, width), np.uint8)
            stacked = np.stack([empty if d.mask is None else d.mask for d in explained.decoded])
            masks = torch.from_numpy(stacked).to(maps.device).gt(0).float()
        chosen = measures.named(self.work.metrics)
        metrics = [m.name for m in chosen if masks is not None or Need.MASK not in m.needs]
        if not metrics:
            return None
        return evaluate(
            self.classifier,
            explained.images,
            maps,
            explained.targets,
            metrics=metrics,
            preset=self.work.preset,
            masks=masks,
            model=self._module,
            explain=[self._again(m) for m in self.work.names if m in explained.maps],
            image_ids=explained.ids,
        )

    @property
    def _module(self) -> Any:
        """What the measures that explain again are given: the module, or a source without one."""
        return getattr(self.engine, "module", self.source)

    def _again(self, method: str) -> Callable[..., torch.Tensor]:
        """A method as those measures call it: by the worker's own source, or by another model."""

        def explain(
            model: Any, images: torch.Tensor, targets: torch.Tensor, image_ids: torch.Tensor
        ) -> torch.Tensor:
            device = self.work.device
            how = self.work.how((method,))
            if not of_gradients((method,)) and how.score is None:
                how = replace(how, score=PROBABILITY)  # as the session does, whatever the model
            given = (images.to(device), targets.to(device), (method,), how)
            if model is self._module:
                own = next(source for source, _ in self._shares((method,)))
                return explain_as(own, *given, image_ids=image_ids)[method]
            with source_of(
                model, device, self.work.batch_size, (method,), self.spec.score
            ) as source:
                assert source is not None
                return explain_as(source, *given, image_ids=image_ids)[method]

        return explain

    def _varying(self) -> list[Measure]:
        """The measures whose values depend on the preset, and need neither mask nor gradients."""
        chosen = measures.named(self.work.metrics)
        return [m for m in chosen if m.parameters and not {Need.MASK, Need.GRADIENTS} & m.needs]

    def _further(self, explained: Explained, maps: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same maps under the further presets: column -> `[images, methods]`."""
        found = {}
        varying = self._varying()
        for preset in self.work.presets if varying else ():
            scores = evaluate(
                self.classifier,
                explained.images,
                maps,
                explained.targets,
                metrics=[m.name for m in varying],
                preset=preset,
            )
            for measure in varying:
                found[under(measure, preset.name)] = scores.values[measure.name]
        return found

    def _kept(self, explained: Explained, table: pa.Table) -> dict[str, np.ndarray] | None:
        """The maps of the images that may be shown, of all where all are kept."""
        focus, measure = focus_of(self.work.names), measure_of(self.work.metrics)
        shown = candidates(table, explained.chunk.index, focus, measure)
        names = np.array([item.image for item in explained.chunk.items])
        maps = {m: v.cpu().to(torch.float16).numpy() for m, v in explained.maps.items()}
        found = {"images": names, **maps}
        statistics = explained.watched.statistics
        if sum(len(absmean) for absmean, _ in statistics) == len(names):
            absmean, variance = (np.concatenate(parts) for parts in zip(*statistics))
            found |= {LIVE_IMAGES: names, LIVE_ABSMEAN: absmean, LIVE_VARIANCE: variance}
        return reduced(found, {c.image for c in shown}, self.work.keep_maps)


def set_threads(threads: int | None) -> None:
    """torch's threads on the CPU: another number cuts sums elsewhere, and gives other last bits."""
    if threads is not None:
        torch.set_num_threads(threads)


def of_gradients(methods: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that need gradients."""
    return tuple(m for m in methods if not parse(m).forward_only)


def needing_module(methods: Sequence[str], metrics: Sequence[str]) -> tuple[str, ...]:
    """The methods for which the module must be at work: all, where a measure explains again."""
    again = any(Need.GRADIENTS in m.needs for m in measures.named(metrics))
    return tuple(methods) if again else of_gradients(methods)


def source_of(
    module: torch.nn.Module,
    device: str,
    batch_size: int | None,
    methods: Sequence[str],
    score: str | None,
) -> AbstractContextManager[GradientEngine | None]:
    """The model's gradients, held open for a whole run: the model is copied once, not a chunk.

    None where there are no methods, only maps from elsewhere.
    """
    if not methods:
        return nullcontext()
    return GradientEngine(module.to(device), batch_size=batch_size, score=score)


@contextmanager
def open_worker(work: Work) -> Iterator[Worker]:
    """A worker in a process that has nothing of the model yet."""
    set_threads(work.threads)
    module, spec = load_model(work.model, work.weights, score=work.score)
    needing = needing_module(work.methods, work.metrics)
    with source_of(module, work.device, work.batch_size, needing, spec.score) as engine:
        source: GradientSource | None = engine
        if work.gradients_file is not None:
            source = again(work.gradients_file, work.gradients, work.threads)
        classifier = scoring(work.onnx, spec, work.provider, work.score_batch, work.threads, work)
        yield Worker(work, spec, source, classifier, engine)


def _judged(probabilities: torch.Tensor, target: int) -> dict[str, Any]:
    """What the classifier says of the whole image."""
    return {"predicted": int(probabilities.argmax()), "confidence": float(probabilities[target])}


def _figures(scores: Scores, image: int, method: int, has_mask: bool) -> dict[str, Any]:
    """The metrics and curves of one map; those of masks only where the image has one."""
    found: dict[str, Any] = {
        name: float(values[image, method])
        for name, values in scores.values.items()
        if has_mask or Need.MASK not in MEASURES[name].needs
    }
    for name in [name for name in found if MEASURES[name].undefined]:
        if np.isnan(found[name]):
            del found[name]  # not defined for this image, which is no fault of it
    for name, curve in scores.curves.items():
        if CURVES[name].column:
            found[name] = curve[image, method].tolist()
    return found


def _not_finite(row: Mapping[str, Any]) -> str | None:
    names = [n for n in ("confidence", *MEASURES) if not np.isfinite(row.get(n, 0.0))]
    return f"not a finite number: {', '.join(names)}" if names else None
