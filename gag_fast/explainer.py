"""Saliency maps of a torch classifier, by any method of the paper, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, overload

from torch import Tensor, nn

from gag_fast._errors import GagFastError, within_memory
from gag_fast._inputs import Array, Channels, Foreign, adopted
from gag_fast._progress import Progress, Report
from gag_fast.attribution import registry
from gag_fast.attribution.explaining import explain_as
from gag_fast.attribution.explanation import SCORES as DIFFERENTIATED
from gag_fast.attribution.explanation import Explanation, MethodOptions
from gag_fast.attribution.forward import Scorer
from gag_fast.attribution.gradients import EngineOptions
from gag_fast.attribution.inputs import ImageIds
from gag_fast.attribution.own import Method, name_of
from gag_fast.attribution.registry import MethodName
from gag_fast.attribution.source import GradientSource
from gag_fast.scores import SCORES


class _Common(MethodOptions, total=False):
    """The keywords that `explain` and `explain_many` share, for the overloads."""

    image_ids: ImageIds
    settings: str | None
    normalize: bool
    channels: Channels
    reverse: bool | Sequence[float] | None
    stdevs: float | None
    noise_range: Literal["image", "batch"] | None
    score: Literal["logit", "nll", "logits", "probabilities", "sigmoid"] | None
    memory: int | None
    channels_last: bool | None
    fuse: bool | None
    compile: bool
    progress: Report


class _Options(_Common, total=False):
    """The keywords of `explain`."""

    processing: Literal["+", "-", "A", "G", "GA"] | None
    modification: Literal["noise", "none", "integrated_gradients", "guided_ig", "blur_ig"] | None


def methods() -> list[str]:
    """The names that `explain` takes as `method`; for suffixes see `explain_many`."""
    return registry.names()


@overload
def explain(  # type: ignore[overload-overlap]  # NumPy speaks DLPack too
    model: nn.Module | GradientSource | Scorer,
    images: Array,
    targets: Any = None,
    method: MethodName | Method = "guided_absgrad",
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    **options: Unpack[_Options],
) -> Array: ...
@overload
def explain(
    model: nn.Module | GradientSource | Scorer,
    images: Tensor | Foreign,
    targets: Any = None,
    method: MethodName | Method = "guided_absgrad",
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    **options: Unpack[_Options],
) -> Tensor: ...
@within_memory
def explain(
    model: nn.Module | GradientSource | Scorer,
    images: Tensor | Array | Foreign,
    targets: Any = None,
    method: MethodName | Method = "guided_absgrad",
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    *,
    processing: str | None = None,
    modification: str | None = None,
    image_ids: ImageIds = None,
    settings: str | None = None,
    normalize: bool = True,
    channels: Channels = "sum",
    reverse: bool | Sequence[float] | None = None,
    stdevs: float | None = None,
    noise_range: str | None = None,
    score: str | None = None,
    memory: int | None = None,
    channels_last: bool | None = None,
    fuse: bool | None = None,
    compile: bool = False,
    progress: Report = False,
    **method_options: Unpack[MethodOptions],
) -> Tensor | Array:
    """Saliency maps by one method.

    Args:
        model: gives logits `[B,K]` for images `[B,C,H,W]`, or probabilities (`score`); left as it
            was, to the last flag. Or a source of gradients that is already at work: a
            `GradientEngine`, to prepare the model once for many calls. For rise, occlusion and
            kernel_shap also a `Classifier`, whose probability they explain, by its session.
        images: `[B,C,H,W]` floating point, normalised as the model wants them, on its device: a
            tensor, a NumPy array, or an array that speaks DLPack (JAX, CuPy, TensorFlow).
        targets: class whose logit is explained: one for all, or `[B]`; None: the predicted ones.
        method: one of `methods()`, with suffixes as in `explain_many`, or one of your own: a
            function (model, images, targets) -> maps, an attribution class of Captum, or
            `package.module:name` of either (`gag_fast.attribution.own`).
        n: gradients per image, noise samples or steps on a path; 20 unless `settings` says else.
            Here, where there is one method, also the masks of rise, which otherwise are 4,000.
        noise: standard deviation of the Gaussian noise as a fraction of (max - min) of that image.
        p: percent in [0, 100] of the variance guide (Eq. 3.4), where the method has one.
        seed: of the noise, which is a function of (seed, image id, sample) alone; images have the
            same id, and meet the same noise, unless `image_ids` gives them others.
        batch_size: modified images per forward and backward pass; None: by a memory bound.
        processing: a variant of Section 6.2: "+", "-", "A", "G" or "GA".
        modification: what modifies the input, for an aggregation (guided_absgrad, absgrad,
            smoothgrad, vargrad) or guided_backprop: "noise", "none", "integrated_gradients",
            "guided_ig" or "blur_ig".
        reverse: True, or shares (l, m), for the reversed map of Section 4.3.
        image_ids, settings, normalize, channels, stdevs, noise_range, score: see `explain_many`.
        memory, channels_last, fuse, compile, progress: likewise.
        **method_options: the method's own, see `explain_many`.

    Returns:
        `[B,H,W]` in [0, 1], float32 (float64 for a float64 model), on the images' device; a NumPy
        array for NumPy images, else a tensor. `normalize` and `channels` change that, see
        `explain_many`.

    Raises:
        TypeError, ValueError: one line that names what was received.
    """
    recipe, name = registry.parse(method), name_of(method)
    if processing is not None:
        recipe = registry.vary(recipe, processing, name)
    if modification is not None:
        recipe = registry.modify(recipe, modification, name)
    if reverse:
        recipe = replace(recipe, reverse=True)
    kind, differentiated = _two_scores(score)
    how = Explanation(
        n=n,
        noise=noise,
        p=p,
        seed=seed,
        settings=settings,
        normalize=normalize,
        channels=channels,
        reverse=reverse,
        stdevs=stdevs,
        noise_range=noise_range,
        score=differentiated,
        options=registry.counted(recipe, n, method_options),
    )
    engine = EngineOptions(batch_size, memory, channels_last, fuse, compile, kind)
    maps = explain_as(
        model,
        adopted(images, "images"),
        targets,
        {name: recipe},
        how,
        image_ids=image_ids,
        engine=engine,
        progress=Progress(0, "gradients", report=progress),
    )
    return maps[name]


@overload
def explain_many(  # type: ignore[overload-overlap]  # NumPy speaks DLPack too
    model: nn.Module | GradientSource | Scorer,
    images: Array,
    targets: Any = None,
    methods: Sequence[MethodName | Method] = ("guided_absgrad",),
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    **options: Unpack[_Common],
) -> dict[str, Array]: ...
@overload
def explain_many(
    model: nn.Module | GradientSource | Scorer,
    images: Tensor | Foreign,
    targets: Any = None,
    methods: Sequence[MethodName | Method] = ("guided_absgrad",),
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    **options: Unpack[_Common],
) -> dict[str, Tensor]: ...
@within_memory
def explain_many(
    model: nn.Module | GradientSource | Scorer,
    images: Tensor | Array | Foreign,
    targets: Any = None,
    methods: Sequence[MethodName | Method] = ("guided_absgrad",),
    n: int | None = None,
    noise: float = 0.15,
    p: float = 85,
    seed: int = 0,
    batch_size: int | None = None,
    *,
    image_ids: ImageIds = None,
    settings: str | None = None,
    normalize: bool = True,
    channels: Channels = "sum",
    reverse: bool | Sequence[float] | None = None,
    stdevs: float | None = None,
    noise_range: str | None = None,
    score: str | None = None,
    memory: int | None = None,
    channels_last: bool | None = None,
    fuse: bool | None = None,
    compile: bool = False,
    progress: Report = False,
    **method_options: Unpack[MethodOptions],
) -> dict[str, Tensor] | dict[str, Array]:
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
        methods: names with suffixes, and methods of your own as in `explain`, whose maps are found
            under `module:name`.
        n: gradients per image.
        noise: fraction of each image's range.
        p: percent of the guide where the name has none.
        seed: of the noise, random baselines and the pairs of reversed maps.
        batch_size: modified images per pass.
        image_ids: integers `[B]`, one for each image; the noise is a function of (seed, id, sample,
            pixel) alone, so an image's map depends neither on its place nor on its neighbours.
            None: 0 for all, so that all images, and perturbed copies of them, meet the same noise
            (each scaled by its own range). "pixels": a hash of the image's values. A run's rows
            have theirs in the column `image_id`.
        settings: the authors', by name: "official:imagenet", "official:isic" or
            "official:places365"; options given beside it win.
        normalize: min-max each map to [0, 1]; a map of equal values becomes zeros.
        channels: "sum", or "keep" for the raw attribution `[B,C,H,W]`, signed where the method is
            (grad_cam, grad_cam_pp, legrad: `[B,1,h,w]` of their layer or patches; xrai, rise,
            occlusion, kernel_shap: `[B,1,H,W]`).
        reverse: shares (l, m) of `/R`: the top l stay, the m just below them are exchanged with
            the lowest m.
        stdevs: standard deviation of the noise in the images' unit, instead of `noise`.
        noise_range: "image", or "batch" as in the authors' code (see `attribution.noise`).
        score: what the model gives, "logits", "probabilities" or "sigmoid" (`gag_fast.scores`);
            None: what it shows. Or what is differentiated, "logit" (the default; log odds of a
            model that gives probabilities) or "nll", the negative logarithm of the probability;
            for rise, occlusion and kernel_shap "logit" or "probability". Where nobody says, rise
            explains the probability, as its paper does, the other two what calling the model
            gives: a module's logit, a Classifier's probability.
        memory: bytes that one pass may keep for its backward; see `GradientEngine`.
        channels_last: memory format of the passes; see `GradientEngine`.
        fuse: see `GradientEngine`; None: only from 32 gradients on.
        compile: see `GradientEngine`.
        progress: True for a bar on stderr or in the notebook, counted in gradients (plain lines
            where neither is there); or a function that is called with (done, total).
        **method_options: the methods' own: `baseline`, `baselines`, `rule` (integrated_gradients),
            `baseline`, `fraction`, `max_dist` (guided_ig), `max_sigma`, `grad_step`, `sqrt`,
            `kernel_size`, `padding` (blur_ig), `steps` (all three), `layer` (grad_cam,
            grad_cam_pp), `eps` (grad_cam_pp), `base` (xrai, beside the base's own), `layers`
            (legrad), `masks`, `grid`, `keep` (rise), `window`, `stride` (occlusion), `coalitions`,
            `segments` (kernel_shap) and `baseline` (the last three), told in the modules of
            `gag_fast.attribution`.

    Returns:
        For each name, in order, maps as `explain` returns them.

    Raises:
        TypeError, ValueError: one line that names what was received.
    """
    kind, differentiated = _two_scores(score)
    how = Explanation(
        n=n,
        noise=noise,
        p=p,
        seed=seed,
        settings=settings,
        normalize=normalize,
        channels=channels,
        reverse=reverse,
        stdevs=stdevs,
        noise_range=noise_range,
        score=differentiated,
        options=method_options,
    )
    engine = EngineOptions(batch_size, memory, channels_last, fuse, compile, kind)
    return explain_as(
        model,
        adopted(images, "images"),
        targets,
        methods,
        how,
        image_ids=image_ids,
        engine=engine,
        progress=Progress(0, "gradients", report=progress),
    )


def _two_scores(score: str | None) -> tuple[str | None, str | None]:
    """What the model gives, and what is differentiated: `score` may say the one or the other."""
    if score not in (None, *SCORES, *DIFFERENTIATED):
        raise GagFastError(
            f"score must be one of {', '.join(DIFFERENTIATED)} (what is differentiated) or "
            f"{', '.join(SCORES)} (what the model gives), got {score!r}"
        )
    return (score, None) if score in SCORES else (None, score)
