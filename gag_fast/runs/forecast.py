"""What a run will cost, found without running it: pictures, explanations, time.

The first image that can be read is explained and scored once, in a folder that goes away again;
its pictures are counted and its times multiplied by the number of images. Of RISE's thousands of
pictures only a few are made, and the others counted at the measured rate.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from gag_fast import measures
from gag_fast._errors import GagFastError
from gag_fast.attribution.registry import cost_of, recipes_of
from gag_fast.measures import Measure, Need
from gag_fast.metrics import plan
from gag_fast.runs.chunks import Chunk
from gag_fast.runs.decoding import Decoder
from gag_fast.runs.opening import Opened, opened
from gag_fast.runs.request import Request
from gag_fast.runs.worker import Explained, Worker


@dataclass(frozen=True)
class Forecast:
    """What is expected of a run.

    Attributes:
        images: of the whole data set.
        methods: names of the maps of each image.
        costs: method -> (passes without a gradient, gradients) of an image, at the least.
        measures: those that are asked for.
        alone: measure -> pictures an image that it would take by itself.
        together: pictures an image that all of them take.
        rate: pictures a second that the classifier is measured at here.
        explain_seconds: of one image, all methods.
        score_seconds: of one image, all measures.
    """

    images: int
    methods: tuple[str, ...]
    costs: dict[str, tuple[int, int]]
    measures: tuple[Measure, ...]
    alone: dict[str, int]
    together: int
    rate: float
    explain_seconds: float
    score_seconds: float

    @property
    def shared(self) -> int:
        """Pictures an image that are saved, as several measures or methods want them."""
        return sum(self.alone.values()) - self.together

    def __str__(self) -> str:
        """The table, and the times under it."""
        width = max(len(m.label) for m in self.measures)
        maps = "map" if len(self.methods) == 1 else f"{len(self.methods)} maps"
        lines = [f"pictures an image, {maps} ({', '.join(self.methods)}):"]
        lines += [
            f"  {m.label.ljust(width)}  {self.alone[m.name]:>7,}   {m.cost}" for m in self.measures
        ]
        total = self.together * self.images
        forward = total / self.rate if self.rate else 0.0
        lines += [
            f"  {'shared'.ljust(width)}  {-self.shared:>7,}",
            f"  {'in all'.ljust(width)}  {self.together:>7,}",
        ]
        for method, (forwards, gradients) in self.costs.items():
            what = f"{forwards:,} pictures" if forwards else f"{gradients:,} gradients"
            lines.append(f"explaining an image by {method}: {what}")
        again = [m.label for m in self.measures if Need.GRADIENTS in m.needs]
        besides = f", and maps again for {', '.join(again)}" if again else ""
        lines += [
            f"{self.images:,} images: {total:,} pictures, {_time(forward)} at the "
            f"{self.rate:,.0f} pictures/s measured here",
            f"explaining: {_time(self.explain_seconds * self.images)} "
            f"({self.explain_seconds:.2f} s an image)",
            f"scoring: {_time(self.score_seconds * self.images)} "
            f"({self.score_seconds:.2f} s an image), pictures and all else that measures "
            f"do{besides}",
        ]
        return "\n".join(lines)


def forecast(request: Request) -> Forecast:
    """Counts and times one image of a run; the request's folder is not touched.

    Raises:
        ValueError: something that was asked for is impossible, or no image can be read.
    """
    with tempfile.TemporaryDirectory(prefix="gag-fast-") as folder:
        made = Path(request.out) / "model.onnx"  # by a start before this one
        onnx = made if request.onnx is None and made.is_file() else request.onnx
        aside = replace(request, out=folder, onnx=onnx, chunk=1, keep_maps=False)
        with opened(_shortened(aside), quiet=True) as run:
            return _measured(run, request)


FEW = 64
"""So many of RISE's masks are made."""


LONG = 5.0
"""Scoring that takes so many seconds is timed once."""


def _shortened(request: Request) -> Request:
    """The request with few masks instead of thousands."""
    how = request.explanation
    recipes = recipes_of(request.methods).values() if request.methods else ()
    if not any(recipe.whole == "rise" for recipe in recipes):
        return request
    few = min(FEW, how.options.get("masks", FEW))
    return replace(request, explanation=replace(how, options={**how.options, "masks": few}))


def _measured(run: Opened, request: Request) -> Forecast:
    worker = run.worker
    chosen = measures.named(worker.work.metrics)
    explained = _first(run)  # this once for whatever is done at a first time only
    explained = worker.explain(explained.chunk, explained.decoded)
    seconds = _seconds(worker, explained)
    if seconds < LONG:  # then what is done at a first time only counts
        seconds = _seconds(worker, explained)
    maps = torch.stack(list(explained.maps.values()), dim=1)
    found = plan(
        worker.classifier,
        explained.images,
        maps,
        explained.targets,
        worker.work.metrics,
        worker.work.preset,
    )
    size = (worker.spec.preprocessing.size,) * 2
    recipes = recipes_of(request.methods) if request.methods else {}
    costs = {m: cost_of(recipe, request.explanation, size) for m, recipe in recipes.items()}
    made = sum(cost_of(r, worker.work.explanation, size)[0] for r in recipes.values())
    rate = _rate(worker, explained.images)
    missing = sum(forwards for forwards, _ in costs.values()) - made
    return Forecast(
        images=run.images,
        methods=tuple(explained.maps),
        costs=costs,
        measures=chosen,
        alone={m.name: found.distinct(m.curves) for m in chosen},
        together=len(found),
        rate=rate,
        explain_seconds=explained.seconds + missing / rate,
        score_seconds=seconds,
    )


def _seconds(worker: Worker, explained: Explained) -> float:
    begin = time.perf_counter()
    worker.score(explained)
    return time.perf_counter() - begin


def _first(run: Opened) -> Explained:
    """The first image that can be read, explained."""
    reason = "there is none"
    with Decoder(run.worker.spec.preprocessing, 1) as decoder:
        for chunk in run.todo.chunks:
            decoded = decoder.submit(chunk.items[0]).result()
            if decoded.error is None:
                explained = run.worker.explain(Chunk(0, chunk.items[:1]), [decoded])
                if explained.maps:
                    return explained
            reason = decoded.error or next(iter(explained.errors.values()), reason)
    raise GagFastError(f"no image can be read and explained: {reason}")


def _rate(worker: Worker, images: torch.Tensor) -> float:
    """Pictures a second, every lane of the classifier at work."""
    clf = worker.classifier
    batches = images[:1].expand(4 * clf.batch_size, -1, -1, -1)
    clf(batches)
    begin = time.perf_counter()
    clf(batches)
    return len(batches) / (time.perf_counter() - begin)


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
