"""Saliency maps of a torch classifier, by any method of the paper, in one call."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast import ops
from gag_fast._inputs import as_percents, check_channels, describe, from_array
from gag_fast.attribution import registry
from gag_fast.attribution.grad_cam import grad_cam, upsample
from gag_fast.attribution.gradients import SCORES, GradientEngine
from gag_fast.attribution.noise import RANGES, noise_std
from gag_fast.attribution.processing import accumulate, min_max, saliency
from gag_fast.attribution.registry import Recipe
from gag_fast.attribution.reverse import reverse_maps
from gag_fast.attribution.samples import Job
from gag_fast.attribution.settings import Settings, settings_named

_DEFAULTS = Settings(n=20, noise_range="image", scores={}, options={}, reverse={"": (0.07, 0.1)})


def methods() -> list[str]:
    """The names that `explain` takes as `method`; for suffixes see `explain_many`."""
    return registry.names()


def explain(
    model: nn.Module | GradientEngine,
    images: Tensor | np.ndarray,
    targets: Any = None,
    method: str = "guided_absgrad",
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    *,
    processing: str | None = None,
    modification: str | None = None,
    **options: Any,
) -> Any:
    """Saliency maps by one method.

    Args:
        model: gives logits `[B,K]` for images `[B,C,H,W]`; left as it was, to the last flag. Or a
            `GradientEngine` that is already at work, to prepare the model once for many calls.
        images: `[B,C,H,W]` floating point, normalised as the model wants them, on its device.
        targets: class whose logit is explained: one for all, or `[B]`; None: the predicted ones.
        method: one of `methods()`, with suffixes as in `explain_many`.
        n: gradients per image, noise samples or steps on a path; 20 unless `settings` says else.
        noise: standard deviation of the Gaussian noise as a fraction of (max - min) of that image.
        p: percent in [0, 100] of the variance guide (Eq. 3.4), where the method has one.
        seed: of the noise, which is a function of (seed, image, sample) alone.
        batch_size: modified images per forward and backward pass; None: by a memory bound.
        processing: a variant of Section 6.2: "+", "-", "A", "G" or "GA".
        modification: what modifies the input, for an aggregation (guided_absgrad, absgrad,
            smoothgrad, vargrad) or guided_backprop: "noise", "none", "integrated_gradients",
            "guided_ig" or "blur_ig".
        **options: the other keywords of `explain_many`, the methods' own among them.

    Returns:
        `[B,H,W]` in [0, 1], float32 (float64 for a float64 model), on the images' device; a NumPy
        array for NumPy images. `normalize` and `channels` change that, see `explain_many`.

    Raises:
        TypeError, ValueError: one line that names what was received.
    """
    recipe = registry.parse(method)
    if processing is not None:
        recipe = registry.vary(recipe, processing, method)
    if modification is not None:
        recipe = registry.modify(recipe, modification, method)
    if options.get("reverse"):
        recipe = replace(recipe, reverse=True)
    maps = _explain(
        model,
        images,
        targets,
        {method: recipe},
        n=n,
        noise=noise,
        p=p,
        seed=seed,
        batch_size=batch_size,
        **options,
    )
    return maps[method]


def explain_many(
    model: nn.Module | GradientEngine,
    images: Tensor | np.ndarray,
    targets: Any = None,
    methods: Sequence[str] = ("guided_absgrad",),
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    *,
    image_ids: Sequence[int] | Tensor | None = None,
    settings: str | None = None,
    normalize: bool = True,
    channels: str = "sum",
    reverse: bool | Sequence[float] | None = None,
    stdevs: float | None = None,
    noise_range: str | None = None,
    score: str | None = None,
    memory: int | None = None,
    channels_last: bool | None = None,
    fuse: bool | None = None,
    compile: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Saliency maps by several methods, which share the gradients they have in common.

    A method's name may carry suffixes: `guided_absgrad@65` (percent p), `smoothgrad/GA` (variant of
    Section 6.2: `+ - A G GA`), `integrated_gradients/R` (reversed map of Section 4.3) and
    `guided_absgrad/blur_ig` (the aggregation over another modification). However many of
    guided_absgrad, absgrad, smoothgrad and vargrad are asked for, at whatever percents, the model
    runs n times forward and backward per image. Memory does not grow with n.

    Args:
        model: as in `explain`, like all arguments that are not named here.
        images: `[B,C,H,W]`.
        targets: classes.
        methods: names with suffixes.
        n: gradients per image.
        noise: fraction of each image's range.
        p: percent of the guide where the name has none.
        seed: of the noise, random baselines and the pairs of reversed maps.
        batch_size: modified images per pass.
        image_ids: integers `[B]` that stand for the images in random numbers; None: a hash of their
            pixels. Either way an image's map does not depend on its place or its neighbours.
        settings: the authors', by name: "official:imagenet", "official:isic" or
            "official:places365"; options given beside it win.
        normalize: min-max each map to [0, 1]; a map of equal values becomes zeros.
        channels: "sum", or "keep" for the raw attribution `[B,C,H,W]`, signed where the method is
            (grad_cam: `[B,1,h,w]` of its layer).
        reverse: shares (l, m) of `/R`: the top l stay, the m below change places with the lowest m.
        stdevs: standard deviation of the noise in the images' unit, instead of `noise`.
        noise_range: "image", or "batch" as in the authors' code (see `attribution.noise`).
        score: what is differentiated, "logit" or "nll".
        memory: bytes that one pass may keep for its backward; see `GradientEngine`.
        channels_last: memory format of the passes; see `GradientEngine`.
        fuse: see `GradientEngine`; None: not for less than 32 gradients in all.
        compile: see `GradientEngine`.
        **options: the methods' own: `baseline`, `baselines`, `rule` (integrated_gradients),
            `baseline`, `fraction`, `max_dist` (guided_ig), `max_sigma`, `grad_step`, `sqrt`,
            `kernel_size`, `padding` (blur_ig), `steps` (all three) and `layer` (grad_cam), told in
            the modules of `gag_fast.attribution`.

    Returns:
        For each name, in order, maps as `explain` returns them.
    """
    if isinstance(methods, str) or not isinstance(methods, Sequence) or not methods:
        raise TypeError(f"methods must be a sequence of names, got {describe(methods)}")
    return _explain(
        model,
        images,
        targets,
        {text: registry.parse(text) for text in methods},
        n=n,
        noise=noise,
        p=p,
        seed=seed,
        batch_size=batch_size,
        image_ids=image_ids,
        settings=settings,
        normalize=normalize,
        channels=channels,
        reverse=reverse,
        stdevs=stdevs,
        noise_range=noise_range,
        score=score,
        memory=memory,
        channels_last=channels_last,
        fuse=fuse,
        compile=compile,
        **options,
    )


@dataclass(frozen=True)
class _Call:
    """A call, checked: everything that is the same for all its methods."""

    images: Tensor
    keys: Tensor
    targets: Tensor
    std: Tensor
    n: int
    p: float
    seed: int
    settings: Settings
    score: str | None
    normalize: bool
    keep: bool
    reverse: tuple[float, float] | None
    options: Mapping[str, Any]


def _explain(
    model: nn.Module | GradientEngine,
    images: Tensor | np.ndarray,
    targets: Any,
    recipes: Mapping[str, Recipe],
    *,
    n: int | None,
    noise: float,
    p: float,
    seed: int,
    batch_size: int | None,
    image_ids: Sequence[int] | Tensor | None = None,
    settings: str | None = None,
    normalize: bool = True,
    channels: str = "sum",
    reverse: bool | Sequence[float] | None = None,
    stdevs: float | None = None,
    noise_range: str | None = None,
    score: str | None = None,
    memory: int | None = None,
    channels_last: bool | None = None,
    fuse: bool | None = None,
    compile: bool = False,
    **options: Any,
) -> dict[str, Any]:
    registry.check_options(recipes, options)
    chosen = _DEFAULTS if settings is None else settings_named(settings)
    keep = check_channels(channels)
    if keep and any(recipe.reverse for recipe in recipes.values()):
        raise ValueError('reversed maps need channels="sum", got "keep"')
    over = chosen.noise_range if noise_range is None else noise_range
    if over not in RANGES:
        raise ValueError(f"noise_range must be one of {', '.join(RANGES)}, got {noise_range!r}")
    if score is not None and score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an integer, got {describe(seed)}")
    for name, value in (("noise", noise), ("stdevs", 0.0 if stdevs is None else stdevs)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {describe(value)}")
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    batch = _as_images(images)
    percents, single = as_percents(p)
    if not single:
        raise TypeError(f'p must be one percent, got {p!r}; for several name methods "...@65"')
    percent = percents[0]
    count = _as_count(chosen.n if n is None else n, recipes, percent)
    # Tracing and checking the fused model costs about as much as three passes of one image.
    passes = sum(1 if r.cam or r.modification == "none" else count for r in recipes.values())
    little = len(batch) * passes < 32
    with contextlib.ExitStack() as stack:
        if isinstance(model, GradientEngine):
            engine = model
        else:
            engine = stack.enter_context(
                GradientEngine(
                    model,
                    batch_size=batch_size,
                    memory=memory,
                    channels_last=channels_last,
                    fuse=False if fuse is None and little else fuse,
                    compile=compile,
                )
            )
        engine.check(batch)
        call = _Call(
            images=batch,
            keys=_as_keys(image_ids, batch),
            targets=_as_targets(targets, engine, batch),
            std=noise_std(batch, noise, over)
            if stdevs is None
            else torch.full((len(batch),), float(stdevs), device=batch.device),
            n=count,
            p=percent,
            seed=seed,
            settings=chosen,
            score=score,
            normalize=normalize,
            keep=keep,
            reverse=_as_shares(reverse),
            options=options,
        )
        maps = _all_maps(engine, call, recipes)
    if isinstance(images, np.ndarray):
        return {text: value.numpy() for text, value in maps.items()}
    return maps


def _all_maps(
    engine: GradientEngine, call: _Call, recipes: Mapping[str, Recipe]
) -> dict[str, Tensor]:
    passes: dict[tuple[Any, ...], dict[str, Recipe]] = {}
    for text, recipe in recipes.items():
        score = call.score or call.settings.scores.get(recipe.modification, "logit")
        key = (recipe.cam, recipe.modification, recipe.rectified, score)
        passes.setdefault(key, {})[text] = recipe
    found: dict[str, Tensor] = {}
    for (cam, modification, rectified, score), group in passes.items():
        if cam:
            found.update(_cam_maps(engine, call, group, score))
        else:
            found.update(_pass_maps(engine, call, group, modification, rectified, score))
    for text, recipe in recipes.items():
        if recipe.reverse:
            table = call.settings.reverse
            shares = call.reverse or table.get(_family(recipe), table[""])
            found[text] = reverse_maps(found[text], *shares, call.keys, call.seed)
    return {text: found[text] for text in recipes}


def _family(recipe: Recipe) -> str:
    return "guided_backprop" if recipe.rectified else recipe.modification


def _pass_maps(
    engine: GradientEngine,
    call: _Call,
    recipes: Mapping[str, Recipe],
    modification: str,
    rectified: bool,
    score: str,
) -> dict[str, Tensor]:
    """Maps of the methods that read the same gradients, group after group of images."""
    samples = registry.MODIFICATIONS[modification]
    options = {
        **call.settings.options.get(modification, {}),
        **registry.options_of(next(iter(recipes.values())), call.options),
    }
    pieces: dict[str, list[Tensor]] = {text: [] for text in recipes}
    for rows, at_once in _groups(engine, call, modification, options):
        targets = call.targets[rows]
        job = Job(
            images=call.images[rows].contiguous(memory_format=engine.memory_format),
            rows=rows,
            keys=call.keys[rows],
            gradient=partial(engine, targets=targets, score=score, rectified=rectified),
            n=call.n,
            at_once=at_once,
            seed=call.seed,
            std=call.std[rows],
        )
        stats = accumulate(
            samples(job, **options), list({recipe.processing for recipe in recipes.values()})
        )
        for text, value in _read(stats, call, recipes):
            pieces[text].append(value)
    if rectified and engine.rectifiers == 0:
        warnings.warn(
            "guided_backprop met no rectifier (ReLU and its kind) in the model: "
            "its gradients are the vanilla ones",
            stacklevel=5,
        )
    return {text: torch.cat(parts) for text, parts in pieces.items()}


def _read(
    stats: Mapping[Any, Any], call: _Call, recipes: Mapping[str, Recipe]
) -> Iterator[tuple[str, Tensor]]:
    """Each method's maps; those that differ only in p are read together."""
    together: dict[tuple[Any, str], dict[str, float]] = {}
    for text, recipe in recipes.items():
        percent = (call.p if recipe.p is None else recipe.p) if recipe.guided else 0.0
        together.setdefault((recipe.processing, recipe.value), {})[text] = percent
    for (processing, value), percents in together.items():
        maps = saliency(
            stats[processing],
            value,
            list(percents.values()),
            total=processing.weighted,
            normalize=call.normalize,
            keep=call.keep,
        )
        yield from zip(percents, maps, strict=True)


def _groups(
    engine: GradientEngine, call: _Call, modification: str, options: Mapping[str, Any]
) -> Iterator[tuple[slice, int]]:
    """Which images go side by side, and how many samples of each fill a batch."""
    total = len(call.images)
    # A guided path needs each gradient before the next; without modification there is only one.
    samples = 1 if modification in ("none", "guided_ig") else options.get("steps") or call.n
    group, at_once = engine.plan(total, samples, call.images[0])
    batch = group * at_once
    for first in range(0, total, group):
        rows = slice(first, min(first + group, total))
        yield rows, min(samples, max(at_once, batch // (rows.stop - rows.start)))


def _cam_maps(
    engine: GradientEngine, call: _Call, recipes: Mapping[str, Recipe], score: str
) -> dict[str, Tensor]:
    options = registry.options_of(next(iter(recipes.values())), call.options)
    raw = grad_cam(engine, call.images, call.targets, score=score, **options)
    if not call.keep:
        raw = upsample(raw, (call.images.shape[2], call.images.shape[3]))
        if call.normalize:
            raw = min_max(raw)
    return dict.fromkeys(recipes, raw)


def _as_images(images: Any) -> Tensor:
    batch = from_array(images, "images") if isinstance(images, np.ndarray) else images
    if not isinstance(batch, Tensor):
        raise TypeError(f"images must be a tensor or an array, got {describe(images)}")
    if not batch.is_floating_point():
        raise TypeError(
            f"images must be floating point, normalised for the model, got {describe(images)}"
        )
    if batch.dim() != 4 or 0 in batch.shape:
        raise ValueError(f"images must be [B,C,H,W] with no empty axis, got {describe(images)}")
    batch = batch.detach()
    finite = torch.isfinite(batch).flatten(1).all(1)
    if not finite.all():
        raise ValueError(f"images[{int((~finite).nonzero()[0])}] has values that are not finite")
    return batch if batch.dtype in (torch.float32, torch.float64) else batch.float()


def _as_count(n: Any, recipes: Mapping[str, Recipe], p: float) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n must be a positive integer, got {n!r}")
    for text, recipe in recipes.items():
        guided = recipe.guided and (p if recipe.p is None else recipe.p) != 0
        if (guided or recipe.value == "variance") and n < 2:
            raise ValueError(f"{text} needs the variance of at least 2 gradients, got n = {n}")
    return int(n)


def _as_shares(reverse: Any) -> tuple[float, float] | None:
    if reverse is None or isinstance(reverse, bool):
        return None
    if not isinstance(reverse, Sequence) or len(reverse) != 2:
        raise TypeError(f"reverse must be True or two shares (l, m), got {describe(reverse)}")
    return float(reverse[0]), float(reverse[1])


def _as_keys(image_ids: Any, images: Tensor) -> Tensor:
    if image_ids is None:
        return ops.image_keys(images)
    keys = torch.as_tensor(image_ids, device=images.device)
    if keys.is_floating_point() or keys.dtype == torch.bool or keys.shape != images.shape[:1]:
        raise ValueError(
            f"image_ids must be {len(images)} integers, one per image, got {describe(image_ids)}"
        )
    return keys.to(torch.int64)


def _as_targets(targets: Any, engine: GradientEngine, images: Tensor) -> Tensor:
    if targets is None:
        return engine.logits(images).argmax(1)
    given = torch.as_tensor(targets)
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise TypeError(f"targets must be integers, got {describe(targets)}")
    if given.numel() == 1:
        given = given.reshape(()).expand(len(images))
    if given.shape != images.shape[:1]:
        raise ValueError(
            f"targets must be one class, or one for each of {len(images)} images, "
            f"got {describe(targets)}"
        )
    classes = engine.classes(images[0])
    low, high = int(given.min()), int(given.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"target {wrong} is not one of the model's {classes} classes (from 0)")
    return given.to(images.device, torch.int64)
