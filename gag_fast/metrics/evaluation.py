"""Scores of finished saliency maps: any measures of the table, on one plan of pictures.

What becomes of the unusual (each is tested; single measures say more in their docstrings):
  ties                 broken by pixel index where a preset moves exact shares; together otherwise
  a constant map       a legal map; RCAP recovers the whole image at every percentile
  a map of zeros       RCAP is 0: it has no saliency to account for
  a non-finite map     its results are NaN, nothing is scored for it, others are not touched
  negative saliency    refused by measures that have no meaning then; else ranks or signs count
  an empty mask        NaN for measures of where saliency lies, as nothing can be said
  NaN from the model   the results that use that probability are NaN
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from gag_fast import measures, ops, perturb
from gag_fast._errors import GagFastError, within_memory
from gag_fast._inputs import Array, adopted
from gag_fast._progress import Progress, Report
from gag_fast.classifier import Classifier
from gag_fast.classifier.ahead import prepared_ahead, uploaded
from gag_fast.classifier.lanes import image_shape
from gag_fast.measures import Measure, Need
from gag_fast.metrics.case import Case, Points
from gag_fast.metrics.inputs import Batch, as_maps, check_again, check_batch
from gag_fast.metrics.robustness import resettable
from gag_fast.metrics.scores import Scores
from gag_fast.perturb import Bank, Masked, Plan
from gag_fast.presets import Preset, PresetName
from gag_fast.presets import find as find_preset


def evaluate(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    metrics: str | Sequence[str] = ("rcap", "dauc", "iauc"),
    preset: str | Preset | Mapping[str, Any] = "paper",
    masks: Any = None,
    *,
    model: Any = None,
    explain: Callable[..., Tensor] | Sequence[Callable[..., Tensor]] | None = None,
    image_ids: Any = None,
    max_bytes: int = 2**30,
    progress: Report = False,
) -> Scores:
    """Scores saliency maps with a classifier.

    All metrics share one list of distinct masked images, which fill the classifier's batches
    across maps, metrics and images. On the CPU the results are the same to the bit for any batch
    size, order of images, choice of metrics and number of threads.

    Args:
        clf: what scores; its mean and std say what black is.
        images: [B, C, H, W], normalised for the model; torch (CPU or CUDA) or NumPy.
        maps: [B, H, W], or [B, M, H, W] for M maps of each image; the larger the more salient.
        targets: [B] class indexes.
        metrics: names of the table of measures (gag_fast/measures.py), or "all": every one that
            what is given allows. "log_cosh_dice" and "mae" need masks and come with them.
        preset: "paper", "official", "rise", "torchcam", a `Preset` or a dict of its fields.
        masks: [B, H, W] ground truth in [0, 1], or None.
        model: what made the maps, for the measures that explain again.
        explain: how: (model, images [B, C, H, W], targets [B]) -> maps [B, H, W]; one for all M
            maps or one for each. One that has a parameter image_ids is given them.
        image_ids: those that the maps were made with [B], or None: a changed image keeps its own.
        max_bytes: bound on the memory for sources, ranks, sorted values and what the measures'
            functions hold; images are taken in groups that keep it (at least one at a time). The
            classifier's own buffers and what `explain` takes, which do not grow with B or are its
            own business, come on top.
        progress: whether maps are counted on stderr, or a function that is told (done, total).

    Returns:
        `Scores`, float32.

    Raises:
        TypeError, ValueError: naming what was received.
    """
    images = adopted(images, "images")
    used = find_preset(preset)
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise GagFastError(f"max_bytes must be a positive number, got {max_bytes!r}")
    chosen = measures.choose(
        metrics,
        masks=masks is not None,
        model=model is not None,
        weights=isinstance(model, torch.nn.Module) and bool(resettable(model)),
        negative="all" in metrics and bool((as_maps(maps, "maps") < 0).any()),
    )
    batch = check_batch(
        clf, images, maps, targets, masks, nonnegative=_nonnegative(chosen), ids=image_ids
    )
    again = check_again(model, explain, batch.maps.shape[1], chosen)
    colours = clf.colours(batch.images.shape[1])
    at_a_time = 3 if clf.backend.queues else 1  # groups that `prepared_ahead` has in memory
    size = _group_size(batch, used, chosen, max_bytes // at_a_time)
    parts = (batch.part(start, start + size) for start in range(0, len(batch.images), size))

    def prepare(part: Batch) -> tuple[Case, _Prepared | None]:
        case = part.case(colours, used, model, again)
        return case, _prepare(case, chosen) if measures.curves_of(chosen) else None

    with Progress(len(batch.images) * batch.maps.shape[1], "maps", report=progress) as counted:
        groups = [
            _score_group(clf, case, chosen, prepared, counted)
            for case, prepared in prepared_ahead(clf.backend, parts, prepare)
        ]

    def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        return {name: batch.like_given(torch.cat([p[name] for p in parts])) for name in parts[0]}

    extras = joined([g.extras for g in groups])
    return Scores(
        used,
        values=joined([g.values for g in groups]),
        curves=joined([g.curves for g in groups]),
        pixels=joined([g.pixels for g in groups]),
        partitions=extras.get("partitions"),
        forwards=sum(g.forwards for g in groups),
        asked=sum(g.asked for g in groups),
    )


class _Options(TypedDict, total=False):
    """What `rcap` passes on to `evaluate`."""

    preset: PresetName | Preset | Mapping[str, Any]
    masks: Any
    image_ids: Any
    max_bytes: int
    progress: Report


@overload
def rcap(
    clf: Classifier,
    images: Array,
    maps: Any,
    targets: Any,
    lower_bound: float = 50,
    interval: float = 10,
    **options: Unpack[_Options],
) -> Array: ...
@overload
def rcap(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    lower_bound: float = 50,
    interval: float = 10,
    **options: Unpack[_Options],
) -> Tensor: ...
@within_memory
def rcap(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    lower_bound: float = 50,
    interval: float = 10,
    **options: Unpack[_Options],
) -> Tensor | Array:
    """ReCover And Predict by Eq. 4.1: [B], or [B, M] for maps [B, M, H, W].

    Args:
        clf, images, maps, targets: as in `evaluate`.
        lower_bound: the lowest percentile, in percent.
        interval: distance of the percentiles, in percent.
        **options: further arguments of `evaluate`.

    Raises:
        TypeError, ValueError: as `evaluate`, and percentiles that cannot be.
    """
    used = find_preset(options.get("preset", "paper"), lower_bound=lower_bound, interval=interval)
    more: dict[str, Any] = {name: v for name, v in options.items() if name != "preset"}
    return evaluate(clf, images, maps, targets, ("rcap",), used, **more).rcap


def plan(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    metrics: str | Sequence[str] = ("rcap", "dauc", "iauc"),
    preset: str | Preset | Mapping[str, Any] = "paper",
) -> Plan:
    """The list of pictures that `evaluate` would score for one group; print it.

    Measures that show none may be among the metrics; what they need is not looked at.
    """
    chosen = measures.choose(metrics, masks=True, model=True)
    batch = check_batch(clf, images, maps, targets, None, nonnegative=_nonnegative(chosen))
    case = batch.case(clf.colours(batch.images.shape[1]), find_preset(preset))
    return _prepare(case, chosen).plan


class _Group(NamedTuple):
    """What was found of a group of images: [B, M(, ...)] each."""

    values: dict[str, Tensor]
    curves: dict[str, Tensor]
    pixels: dict[str, Tensor]
    extras: dict[str, Tensor]
    forwards: int
    asked: int


class _Prepared(NamedTuple):
    """The pictures of a group: the plan, what they are made of, and pixels moved at each point."""

    plan: Plan
    bank: Bank
    counts: dict[str, Tensor | None]


def _nonnegative(chosen: Sequence[Measure]) -> str | None:
    """The first measure that has no meaning for negative saliency."""
    return next((m.name for m in chosen if m.nonnegative), None)


_BESIDE = {
    **{"gini": 32, "entropy": 32, "relevance_mass": 16, "infidelity": 8, "mufidelity": 8},
    **{"idsds": 8, "adcc": 56, "max_sensitivity": 24, "mprt": 64, "emprt": 32},
}
"""Bytes for a pixel of a map that a measure's function takes at its peak: float64, sorts, ranks."""


def _group_size(batch: Batch, preset: Preset, chosen: Sequence[Measure], max_bytes: int) -> int:
    """Images whose sources, ranks, sorted values and working memory fit into the bound."""
    _, channels, height, width = batch.images.shape
    names = {m.name for m in chosen}
    copies = 2 + 2 * (preset.insertion_base == "blur")  # the parts, and the bank made of them
    copies += 2 * bool(names & {"adcc", "max_sensitivity"})  # changed images
    # Ranks, order and its 64-bit copy; the map, its values descending and ascending, and what is
    # not finite put to zero. Measures take turns, so the hungriest counts.
    per_map = 4 + 4 + 8 + 4 * batch.maps.element_size()
    per_map += max(_BESIDE.get(name, 0) for name in names)
    per_image = height * width * (4 * channels * copies + per_map * batch.maps.shape[1])
    if "mufidelity" in names:  # which cells each set holds, as truth values and in float64
        per_image += 9 * preset.mufidelity_samples * preset.mufidelity_grid**2
    if names & {"aic", "sic"}:  # pixels in eight bits, and those known from the start
        per_image += height * width * (channels + 1)
    return max(1, max_bytes // per_image)


def _prepare(case: Case, chosen: Sequence[Measure]) -> _Prepared:
    wanted = {c.name: measures.function_of(c)(case) for c in measures.curves_of(chosen)}
    masked = [want for want in wanted.values() if isinstance(want, Masked)]
    needed = {base for want in masked for base in (want.top, want.rest)}
    bank = perturb.make_bank(case.images, case.black, case.preset, needed)
    found = perturb.make_plan(case.ranked, bank, wanted, case.given.shape[1])
    return _Prepared(
        found, bank, {name: getattr(want, "counts", None) for name, want in wanted.items()}
    )


def _score_group(
    clf: Classifier,
    case: Case,
    chosen: Sequence[Measure],
    prepared: _Prepared | None,
    counted: Progress,
) -> _Group:
    """Everything of a group of images, on the classifier's device."""
    forwards = asked = 0
    before, maps = counted.done, case.maps.shape[0] * case.maps.shape[1]
    again = [m for m in chosen if Need.GRADIENTS in m.needs]
    jobs = len(again) + (prepared is not None)  # what takes long, each counted the same

    def reach(done: float) -> None:
        counted.reach(before + int(maps * done / max(jobs, 1)))

    if prepared is not None:
        forwards, asked = len(prepared.plan), prepared.plan.asked
        case.curves = _points(clf, case, prepared, reach)
    done = float(prepared is not None)
    nan = torch.full((), torch.nan, dtype=torch.float64, device=case.images.device)
    values = {}
    for m in chosen:
        values[m.name] = torch.where(case.finite, measures.function_of(m)(case), nan)
        done += m in again
        reach(done)
    counted.reach(before + maps)
    return _Group(
        values,
        {name: points.probabilities for name, points in case.curves.items()},
        {name: p.pixels for name, p in case.curves.items() if p.pixels is not None},
        case.extras,
        forwards,
        asked,
    )


def _points(
    clf: Classifier, case: Case, prepared: _Prepared, reach: Callable[[float], None]
) -> dict[str, Points]:
    """The probabilities at every point of every curve."""
    plan = prepared.plan
    answers = _run(clf, case, prepared, reach)
    # Appending a NaN gives the points of maps that are not finite (-1) their value.
    values = torch.cat([answers.target, answers.target.new_full((1,), torch.nan)])
    first = torch.cat([answers.first, answers.first.new_zeros(1)])
    curves = {}
    for name, counts in prepared.counts.items():
        at = uploaded(torch.from_numpy(plan.points[name]), values.device)
        p, hit = values[at], first[at]
        for s in range(plan.shared):
            alone = answers.shared[s]
            p = torch.where(at == s, alone[case.targets][:, None, None], p)
            hit = torch.where(at == s, (alone.argmax() == case.targets)[:, None, None], hit)
        curves[name] = Points(p, hit, None if counts is None else case.by_map(counts))
    return curves


class _Answers(NamedTuple):
    """What the classifier said of every picture of a plan.

    Attributes:
        target: probability of its image's target [N].
        first: whether that is the highest one [N].
        shared: probabilities of all classes of the pictures that belong to no image [shared, K].
    """

    target: Tensor
    first: Tensor
    shared: Tensor


def _run(
    clf: Classifier, case: Case, prepared: _Prepared, reach: Callable[[float], None]
) -> _Answers:
    """Shows the classifier every picture of the plan, in full batches; tells the share done."""
    plan, bank, _ = prepared
    device = clf.device
    ranks = case.ranked.ranks
    values = torch.empty(len(plan), device=device)
    highest = torch.empty(len(plan), dtype=torch.bool, device=device)
    composed = len(plan.slots)
    shared = torch.empty(plan.shared, clf.num_classes or 0, device=device)
    slots = uploaded(torch.from_numpy(plan.slots), device)
    owner = uploaded(torch.from_numpy(np.maximum(plan.owner, 0)), device)
    classes = case.targets[owner][:, None]
    batch = clf.batch_size

    def fill(buffer: Tensor, job: int) -> int:
        start, stop = job * batch, min((job + 1) * batch, len(plan))
        part = slots[start:stop]
        if part.shape[0]:
            ops.compose_(buffer[: part.shape[0]], bank.sources, bank.fill, ranks, part)
        for at in range(max(start, composed), stop):
            write, arguments = plan.made[at - composed]
            write(buffer[at - start], *arguments)
        return stop - start

    collected = itertools.count(1)

    def collect(raw: Tensor, job: int) -> None:
        first = job * batch
        p = clf.probabilities(raw)
        mine = classes[first : first + len(p)]
        values[first : first + len(p)] = p.gather(1, mine)[:, 0]
        highest[first : first + len(p)] = p.argmax(dim=1) == mine[:, 0]
        if first < plan.shared:
            alone = p[: plan.shared - first]
            shared[first : first + len(alone)] = alone
        reach(min(1.0, next(collected) * batch / len(plan)))

    clf.drive(-(-len(plan) // batch), image_shape(bank.sources), fill, collect)
    return _Answers(values, highest, shared)
