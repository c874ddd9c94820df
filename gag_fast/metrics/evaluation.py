"""RCAP, deletion, insertion, log-cosh Dice and MAE of finished saliency maps.

What becomes of the unusual (each is tested):
  ties                 broken by pixel index where a preset moves exact shares; together otherwise
  a constant map       a legal map; RCAP recovers the whole image at every percentile
  a map of zeros       RCAP is 0: it has no saliency to account for
  a non-finite map     its results are NaN, nothing is scored for it, others are not touched
  negative saliency    refused for RCAP, whose shares of the sum need M >= 0; else only ranks count
  NaN from the model   the results that use that probability are NaN
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gag_fast import measures, ops, perturb
from gag_fast.classifier import Classifier
from gag_fast.classifier.ahead import prepared_ahead, uploaded
from gag_fast.classifier.lanes import image_shape
from gag_fast.measures import Measure
from gag_fast.metrics.case import Case, Points
from gag_fast.metrics.inputs import Batch, check_batch
from gag_fast.metrics.scores import Scores
from gag_fast.perturb import Bank, Plan
from gag_fast.presets import Preset
from gag_fast.presets import preset as find_preset


def evaluate(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    metrics: str | Sequence[str] = ("rcap", "dauc", "iauc"),
    preset: str | Preset | Mapping[str, Any] = "paper",
    masks: Any = None,
    *,
    max_bytes: int = 2**30,
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
        metrics: names of the table of measures (gag_fast/measures.py); "log_cosh_dice" and "mae"
            need masks and come with them.
        preset: "paper", "official", "rise", "torchcam", a `Preset` or a dict of its fields.
        masks: [B, H, W] ground truth in [0, 1], or None.
        max_bytes: bound on the memory for sources, ranks and sorted values; images are taken in
            groups that keep it (at least one at a time). The classifier's own buffers, which do
            not grow with B, come on top.

    Returns:
        `Scores`, float32.

    Raises:
        TypeError, ValueError: naming what was received.
    """
    used = find_preset(preset)
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive number, got {max_bytes!r}")
    chosen = measures.choose(metrics, masks=masks is not None)
    batch = check_batch(clf, images, maps, targets, masks, nonnegative=_nonnegative(chosen))
    black = clf.black(batch.images.shape[1])
    at_a_time = 3 if clf.backend.queues else 1  # groups that `prepared_ahead` has in memory
    size = _group_size(batch, used, max_bytes // at_a_time)
    parts = (batch.part(start, start + size) for start in range(0, len(batch.images), size))

    def prepare(part: Batch) -> tuple[Case, _Prepared | None]:
        case = part.case(black, used)
        return case, _prepare(case, chosen) if measures.curves_of(chosen) else None

    groups = [
        _score_group(clf, case, chosen, prepared)
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


def rcap(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    lower_bound: float = 50,
    interval: float = 10,
    **options: Any,
) -> Any:
    """ReCover And Predict by Eq. 4.1: [B], or [B, M] for maps [B, M, H, W].

    Args:
        clf, images, maps, targets: as in `evaluate`.
        lower_bound: the lowest percentile, in percent.
        interval: distance of the percentiles, in percent.
        options: further arguments of `evaluate`.
    """
    chosen = find_preset(options.pop("preset", "paper"), lower_bound=lower_bound, interval=interval)
    return evaluate(clf, images, maps, targets, ("rcap",), chosen, **options).rcap


def plan(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    metrics: str | Sequence[str] = ("rcap", "dauc", "iauc"),
    preset: str | Preset | Mapping[str, Any] = "paper",
) -> Plan:
    """The list of masked images that `evaluate` would score for one group; print it."""
    chosen = measures.choose(metrics, masks=False)
    batch = check_batch(clf, images, maps, targets, None, nonnegative=_nonnegative(chosen))
    case = batch.case(clf.black(batch.images.shape[1]), find_preset(preset))
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
    counts: dict[str, Tensor]


def _nonnegative(chosen: Sequence[Measure]) -> str | None:
    """The first measure that has no meaning for negative saliency."""
    return next((m.name for m in chosen if m.nonnegative), None)


def _group_size(batch: Batch, preset: Preset, max_bytes: int) -> int:
    """Images whose sources, ranks and sorted values fit into the bound."""
    _, channels, height, width = batch.images.shape
    copies = 2 + 2 * (preset.insertion_base == "blur")  # the parts, and the bank made of them
    # Ranks, order and its 64-bit copy; the map, its values descending and ascending.
    per_map = 4 + 4 + 8 + 3 * batch.maps.element_size()
    per_image = height * width * (4 * channels * copies + per_map * batch.maps.shape[1])
    return max(1, max_bytes // per_image)


def _prepare(case: Case, chosen: Sequence[Measure]) -> _Prepared:
    wanted = {c.name: measures.function_of(c)(case) for c in measures.curves_of(chosen)}
    needed = {base for want in wanted.values() for base in (want.top, want.rest)}
    bank = perturb.make_bank(case.images, case.black, case.preset, needed)
    found = perturb.make_plan(case.ranked, bank, wanted, case.given.shape[1])
    return _Prepared(found, bank, {name: want.counts for name, want in wanted.items()})


def _score_group(
    clf: Classifier, case: Case, chosen: Sequence[Measure], prepared: _Prepared | None
) -> _Group:
    """Everything of a group of images, on the classifier's device."""
    forwards = asked = 0
    if prepared is not None:
        forwards, asked = len(prepared.plan), prepared.plan.asked
        case.curves = _points(clf, case, prepared)
    nan = torch.full((), torch.nan, dtype=torch.float64, device=case.images.device)
    return _Group(
        {m.name: torch.where(case.finite, measures.function_of(m)(case), nan) for m in chosen},
        {name: points.probabilities for name, points in case.curves.items()},
        {name: points.pixels for name, points in case.curves.items()},
        case.extras,
        forwards,
        asked,
    )


def _points(clf: Classifier, case: Case, prepared: _Prepared) -> dict[str, Points]:
    """The probabilities at every point of every curve."""
    plan = prepared.plan
    values, shared = _run(clf, case, prepared)
    # Appending a NaN gives the points of maps that are not finite (-1) their value.
    values = torch.cat([values, values.new_full((1,), torch.nan)])
    curves = {}
    for name, counts in prepared.counts.items():
        at = uploaded(torch.from_numpy(plan.points[name]), values.device)
        p = values[at]
        for s in range(plan.shared):
            p = torch.where(at == s, shared[s][case.targets][:, None, None], p)
        curves[name] = Points(p, case.by_map(counts))
    return curves


def _run(clf: Classifier, case: Case, prepared: _Prepared) -> tuple[Tensor, Tensor]:
    """Probabilities: of its image's target [N] for each slot, of all classes [shared, K]."""
    plan, bank, _ = prepared
    device = clf.device
    ranks = case.ranked.ranks
    values = torch.empty(len(plan), device=device)
    shared = torch.empty(plan.shared, clf.num_classes or 0, device=device)
    slots = uploaded(torch.from_numpy(plan.slots), device)
    owner = uploaded(torch.from_numpy(np.maximum(plan.owner, 0)), device)
    classes = case.targets[owner][:, None]
    batch = clf.batch_size

    def fill(buffer: Tensor, job: int) -> int:
        part = slots[job * batch : (job + 1) * batch]
        out = buffer[: part.shape[0]]
        ops.compose_(out, bank.sources, bank.fill, ranks, part)
        return part.shape[0]

    def collect(raw: Tensor, job: int) -> None:
        first = job * batch
        p = clf.probabilities(raw)
        values[first : first + len(p)] = p.gather(1, classes[first : first + len(p)])[:, 0]
        if first < plan.shared:
            alone = p[: plan.shared - first]
            shared[first : first + len(alone)] = alone

    clf.drive(-(-len(plan) // batch), image_shape(bank.sources), fill, collect)
    return values, shared
