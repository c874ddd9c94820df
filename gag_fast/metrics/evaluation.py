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
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gag_fast import ops, perturb
from gag_fast.classifier import Classifier
from gag_fast.classifier.lanes import image_shape
from gag_fast.metrics.inputs import Batch, check_batch, check_metrics
from gag_fast.metrics.masks import log_cosh_dice, mae
from gag_fast.perturb import Bank, Plan, Ranked
from gag_fast.presets import Preset
from gag_fast.presets import preset as find_preset

_CURVE_OF = {"rcap": "recover", "dauc": "deletion", "iauc": "insertion"}


@dataclass
class Scores:
    """Results of `evaluate`: [B], or [B, M] for maps [B, M, H, W]; the kind of the images.

    Attributes:
        rcap, dauc, iauc: None where not asked for.
        log_cosh_dice, mae: None without masks.
        curves: "recover", "deletion", "insertion": probabilities of the target class
            [B(, M), steps], of the curves asked for.
        partitions: RCAP's shares of the saliency, sum M_pk / sum M: [B(, M), j]; None without rcap.
        pixels: like `curves`: how many pixels were recovered, deleted or inserted.
        preset: the preset, every field.
        forwards: distinct masked images that were scored.
        asked: points of all curves: what scoring them one by one would have taken.
    """

    preset: Preset
    rcap: Any = None
    dauc: Any = None
    iauc: Any = None
    log_cosh_dice: Any = None
    mae: Any = None
    partitions: Any = None
    curves: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)
    forwards: int = 0
    asked: int = 0


def evaluate(
    clf: Classifier,
    images: Any,
    maps: Any,
    targets: Any,
    metrics: Sequence[str] = ("rcap", "dauc", "iauc"),
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
        metrics: of "rcap", "dauc", "iauc"; "log_cosh_dice" and "mae" need masks and come with them.
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
    chosen = find_preset(preset)
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive number, got {max_bytes!r}")
    asked = check_metrics(metrics, masks is not None)
    curves = tuple(_CURVE_OF[m] for m in asked)
    batch = check_batch(clf, images, maps, targets, masks, nonnegative="rcap" in asked)
    black = clf.black(batch.images.shape[1])
    scores = Scores(chosen)
    parts: list[dict[str, Tensor]] = []
    if curves:
        size = _group_size(batch, chosen, max_bytes)
        for start in range(0, batch.images.shape[0], size):
            part = batch.part(start, start + size)
            parts.append(_score_group(clf, part, black, chosen, curves, scores))
    results = {name: torch.cat([part[name] for part in parts]) for name in (parts or [{}])[0]}
    if batch.masks is not None:
        results["log_cosh_dice"] = log_cosh_dice(batch.maps, batch.masks, chosen.dice_smooth)
        results["mae"] = mae(batch.maps, batch.masks, chosen.mae_form)
    for name, value in results.items():
        value = batch.like_given(value)
        kind, _, curve = name.partition(".")
        if curve:
            getattr(scores, kind)[curve] = value
        else:
            setattr(scores, name, value)
    return scores


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
    metrics: Sequence[str] = ("rcap", "dauc", "iauc"),
    preset: str | Preset | Mapping[str, Any] = "paper",
) -> Plan:
    """The list of masked images that `evaluate` would score for one group; print it."""
    chosen = find_preset(preset)
    curves = tuple(_CURVE_OF[m] for m in check_metrics(metrics, False))
    batch = check_batch(clf, images, maps, targets, None, nonnegative="recover" in curves)
    return _prepare(batch, clf.black(batch.images.shape[1]), chosen, curves)[0]


def _group_size(batch: Batch, preset: Preset, max_bytes: int) -> int:
    """Images whose sources, ranks and sorted values fit into the bound."""
    _, channels, height, width = batch.images.shape
    copies = 2 + 2 * (preset.insertion_base == "blur")  # the parts, and the bank made of them
    # Ranks, order and its 64-bit copy; the map, its values descending and ascending.
    per_map = 4 + 4 + 8 + 3 * batch.maps.element_size()
    per_image = height * width * (4 * channels * copies + per_map * batch.maps.shape[1])
    return max(1, max_bytes // per_image)


def _prepare(
    batch: Batch, black: Tensor, preset: Preset, curves: tuple[str, ...]
) -> tuple[Plan, Bank, Ranked, dict[str, Tensor]]:
    ranked = perturb.rank(batch.maps.flatten(0, 1))
    counts = {}
    if "recover" in curves:
        counts["recover"] = perturb.recover_counts(ranked, preset)
    for curve in ("deletion", "insertion"):
        if curve in curves:
            counts[curve] = perturb.curve_counts(ranked, preset)
    bank = perturb.make_bank(batch.images, black, preset, curves)
    found = perturb.make_plan(ranked, bank, preset, counts, batch.maps.shape[1])
    return found, bank, ranked, counts


def _score_group(
    clf: Classifier,
    batch: Batch,
    black: Tensor,
    preset: Preset,
    curves: tuple[str, ...],
    scores: Scores,
) -> dict[str, Tensor]:
    """Everything of a group of images, float64 on the classifier's device."""
    plan, bank, ranked, counts = _prepare(batch, black, preset, curves)
    scores.forwards += len(plan)
    scores.asked += plan.asked
    values, shared = _run(clf, plan, bank, ranked, batch.targets)
    shape = batch.maps.shape[:2]
    found: dict[str, Tensor] = {}
    for curve in curves:
        at = torch.from_numpy(plan.points[curve]).to(values.device)
        # Appending a NaN gives the points of non-finite maps (-1) their value.
        p = torch.cat([values, values.new_full((1,), torch.nan)])[at]
        for s in range(plan.shared):
            p = torch.where(at == s, shared[s][batch.targets][:, None, None], p)
        found[f"curves.{curve}"] = p
        found[f"pixels.{curve}"] = counts[curve].reshape(*shape, -1)
    if "recover" in curves:
        share = _shares(ranked, counts["recover"]).reshape(*shape, -1)
        found["partitions"] = share
        # No saliency at all: 0, whatever is predicted. Not so for NaN, which stays NaN.
        found["rcap"] = (share * found["curves.recover"].double()).mean(dim=-1)
    for name, curve in (("dauc", "deletion"), ("iauc", "insertion")):
        if curve in curves:
            pixels = batch.maps.shape[-2] * batch.maps.shape[-1]
            found[name] = _area(
                found[f"curves.{curve}"].double(), found[f"pixels.{curve}"], pixels, preset
            )
    return found


def _run(
    clf: Classifier, plan: Plan, bank: Bank, ranked: Ranked, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Probabilities: of its image's target [N] for each slot, of all classes [shared, K]."""
    device = clf.device
    values = torch.empty(len(plan), device=device)
    shared = torch.empty(plan.shared, clf.num_classes or 0, device=device)
    slots = torch.from_numpy(plan.slots).to(device)
    owner = torch.from_numpy(np.maximum(plan.owner, 0)).to(device)
    classes = targets[owner][:, None]
    batch = clf.batch_size

    def fill(buffer: Tensor, job: int) -> int:
        part = slots[job * batch : (job + 1) * batch]
        out = buffer[: part.shape[0]]
        ops.compose_(out, bank.sources, bank.fill, ranked.ranks, part)
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


def _shares(ranked: Ranked, counts: Tensor) -> Tensor:
    """Sum of the `count` largest values over the sum of all: float64; 0 where the sum is 0."""
    shares = torch.empty(counts.shape, dtype=torch.float64, device=counts.device)
    for row, values in enumerate(ranked.descending):
        sums = values.double().cumsum(0)
        count = counts[row]
        part = torch.where(count > 0, sums[(count - 1).clamp(min=0)], 0.0)
        shares[row] = torch.where(sums[-1] > 0, part / sums[-1], 0.0)
    shares[~ranked.finite] = torch.nan
    return shares


def _area(curve: Tensor, counts: Tensor, pixels: int, preset: Preset) -> Tensor:
    """Trapezoid area under curves [.., steps]."""
    if preset.area_width is None:
        return torch.trapezoid(curve, counts.double() / pixels, dim=-1)
    inner = curve.sum(dim=-1) - (curve[..., 0] + curve[..., -1]) / 2
    return preset.area_width * inner / (curve.shape[-1] - 1)
