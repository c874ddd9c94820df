"""Maps of images by several methods that share the gradients they have in common."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._progress import Progress
from gag_fast.aggregate import GradientStats
from gag_fast.attribution import registry
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.forward import ByEngine, ByScorer, ForwardSource, Scorer
from gag_fast.attribution.gradients import EngineOptions, GradientEngine, module_engine
from gag_fast.attribution.inputs import ImageIds, as_images, as_keys, as_targets
from gag_fast.attribution.noise import noise_std
from gag_fast.attribution.own import Method
from gag_fast.attribution.processing import Processing, accumulate, min_max, saliency
from gag_fast.attribution.registry import Recipe
from gag_fast.attribution.reverse import reverse_maps
from gag_fast.attribution.samples import Job
from gag_fast.attribution.source import GradientSource, at_points, groups


@dataclass(frozen=True)
class Pass:
    """What some methods of a call cost together, and read their maps from.

    Attributes:
        methods: their names; each of them alone would cost the same.
        rows: of the batch.
        modification: what modified the images, "" where the methods make their maps themselves.
        stats: the statistics of the gradients by processing; empty for the latter.
        seconds: that it took.
        layer: the model's layer that they look at, by its name; None where it is no one layer.
    """

    methods: tuple[str, ...]
    rows: slice
    modification: str
    stats: Mapping[Processing, GradientStats]
    seconds: float
    layer: str | None = None


def explain_as(
    model: nn.Module | GradientSource | Scorer,
    images: Tensor | np.ndarray,
    targets: Any,
    methods: Sequence[Method] | Mapping[str, Recipe],
    how: Explanation,
    *,
    image_ids: ImageIds = None,
    engine: EngineOptions | None = None,
    watch: Callable[[Pass], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Saliency maps by several methods.

    Args:
        model: a module, a source of gradients that is already at work or, for methods that need no
            gradients, a Classifier.
        images: `[B,C,H,W]` floating point.
        targets: class or classes, None for the predicted ones.
        methods: names with suffixes and methods of the user's own, or name -> recipe.
        how: everything else that decides the maps.
        image_ids: what the images' random numbers hang on, see `inputs.as_keys`.
        engine: how a module's gradients are computed; not beside a source.
        watch: is told of every pass when it is done.
        progress: counts the gradients.

    Returns:
        name -> maps, as `gag_fast.explain` returns them.

    Raises:
        TypeError, ValueError: one line that names what was received.
    """
    recipes = registry.recipes_of(methods)
    registry.check_fit(recipes, how)
    batch = as_images(images)
    with _at_work(model, engine or EngineOptions(), len(batch), recipes, how) as sources:
        source = sources.first(recipes)
        source.check(batch)
        call = _Call(
            images=batch,
            keys=as_keys(image_ids, batch),
            targets=as_targets(targets, source, batch),
            std=_noise_of(batch, how),
            how=how,
            watch=watch,
            progress=progress or Progress(0, quiet=True),
        )
        maps = _all_maps(sources, call, recipes)
    _warn_of_blanks(maps, recipes)
    if isinstance(images, np.ndarray):
        return {text: value.numpy() for text, value in maps.items()}
    return maps


@dataclass(frozen=True)
class _Sources:
    """What explains: by gradients, by forward passes, or both.

    Attributes:
        kind: what was given, for a person.
        gradients: None where it gives none.
        forwards: likewise.
    """

    kind: str
    gradients: GradientSource | None = None
    forwards: ForwardSource | None = None

    def first(self, recipes: Mapping[str, Recipe]) -> GradientSource | ForwardSource:
        """The one that knows the classes: that of gradients, where any method needs them."""
        found = [self.of(text, recipe) for text, recipe in recipes.items()]
        return next((source for source in found if source is self.gradients), found[0])

    def of(self, text: str, recipe: Recipe) -> GradientSource | ForwardSource:
        """What explains by a method."""
        if recipe.forward_only:
            if self.forwards is None:
                raise GagFastError(
                    f"{text} needs the scores of pictures: explain a Classifier or the module "
                    f"itself, not a {self.kind}"
                )
            return self.forwards
        if self.gradients is None:
            raise GagFastError(
                f"{text} needs gradients, which a {self.kind} does not give; explain the module "
                "itself, or OnnxGradients"
            )
        return self.gradients


@contextlib.contextmanager
def _at_work(
    model: nn.Module | GradientSource | Scorer,
    options: EngineOptions,
    images: int,
    recipes: Mapping[str, Recipe],
    how: Explanation,
) -> Iterator[_Sources]:
    """The source that was given, or an engine for the module for as long as the call lasts."""
    kind = type(model).__name__
    given = None if isinstance(model, nn.Module) else _given(model)
    if given is not None:
        if said := options.given():
            raise InputTypeError(
                f"{', '.join(said)}: said to the engine where it is made, not beside "
                f"a {kind} that is at work"
            )
        yield given
        return
    passes = images * sum(recipe.passes(how.count) for recipe in recipes.values())
    with GradientEngine.of(model, options, passes) as engine:  # type: ignore[arg-type]
        yield _Sources(kind, engine, ByEngine(engine))


def _given(model: Any) -> _Sources | None:
    """Sources that are at work already; None for something else."""
    kind = type(model).__name__
    if isinstance(model, Scorer):
        return _Sources(kind, forwards=ByScorer(model))
    if isinstance(model, GradientEngine):
        return _Sources(kind, model, ByEngine(model))
    return _Sources(kind, model) if isinstance(model, GradientSource) else None


@dataclass(frozen=True)
class _Call:
    """What is explained, and how: the same for all methods of a call."""

    images: Tensor
    keys: Tensor
    targets: Tensor
    std: Tensor
    how: Explanation
    watch: Callable[[Pass], None] | None
    progress: Progress

    def now(self) -> float:
        """A clock that stands when all that was asked of the device is done."""
        if self.watch is not None and self.images.is_cuda:
            torch.cuda.synchronize(self.images.device)
        return time.perf_counter()


def _warn_of_blanks(maps: Mapping[str, Tensor], recipes: Mapping[str, Recipe]) -> None:
    """Says so where no gradient of any image was other than zero."""
    of_gradients = [text for text, recipe in recipes.items() if recipe.whole is None]
    if of_gradients and not any(bool(maps[text].any()) for text in of_gradients):
        warnings.warn(
            f"{', '.join(of_gradients)}: the maps are zero everywhere, as the gradients of the "
            "score are; is the classification layer trained, and the score not saturated?",
            stacklevel=5,
        )


def _noise_of(images: Tensor, how: Explanation) -> Tensor:
    """Standard deviation of each image's noise, float32 `[B]`."""
    if how.stdevs is not None:
        return torch.full((len(images),), how.stdevs, device=images.device)
    return noise_std(images, how.noise, how.noise_range or how.case.noise_range)


def _all_maps(sources: _Sources, call: _Call, recipes: Mapping[str, Recipe]) -> dict[str, Tensor]:
    shared: dict[tuple[Any, ...], dict[str, Recipe]] = {}
    for text, recipe in recipes.items():
        source = sources.of(text, recipe)
        score = _score_of(source, call.how, recipe)
        if score not in source.scores:
            only = ", ".join(source.scores)
            if recipe.forward_only:
                raise GagFastError(f"{text} explains the {score}, but a {sources.kind} only {only}")
            raise GagFastError(
                f"{text} differentiates the {score}, but a {sources.kind} only {only}"
            )
        key = (recipe.whole, recipe.modification, recipe.rectified, score)
        shared.setdefault(key, {})[text] = recipe
    found: dict[str, Tensor] = {}
    call.progress.total = sum(len(call.images) * _gradients(call.how, g) for g in shared.values())
    with call.progress:
        for (whole, modification, rectified, score), group in shared.items():
            before = call.progress.done
            if whole is not None:
                found |= _whole_maps(sources, call, group, score)
            else:
                assert sources.gradients is not None
                found |= _pass_maps(sources.gradients, call, group, modification, rectified, score)
            call.progress.reach(before + len(call.images) * _gradients(call.how, group))
    for text, recipe in recipes.items():
        if recipe.reverse:
            keep, swap = call.how.shares(recipe.family)
            found[text] = reverse_maps(found[text], keep, swap, call.keys, call.how.seed)
    return {text: found[text] for text in recipes}


def _score_of(source: GradientSource | ForwardSource, how: Explanation, recipe: Recipe) -> str:
    """What is explained: as asked, else by the settings, the method or the source."""
    if how.score is not None:
        return how.score
    if isinstance(source, ForwardSource):
        assert recipe.whole is not None
        return registry.whole_named(recipe.whole).score or source.natural
    return how.case.scores.get(recipe.modification, "logit")


def _options(how: Explanation, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """The options of methods that read the same gradients."""
    recipe = next(iter(recipes.values()))
    return {
        **how.case.options.get(recipe.modification, {}),
        **registry.options_of(recipe, how.options),
    }


def _gradients(how: Explanation, recipes: Mapping[str, Recipe]) -> int:
    """Gradients an image of methods that share them; 1 of a method that makes its maps itself."""
    recipe = next(iter(recipes.values()))
    if recipe.passes(how.count) == 1:
        return 1
    options = _options(how, recipes)
    return (options.get("steps") or how.count) * (options.get("baselines") or 1)


def _whole_maps(
    sources: _Sources, call: _Call, recipes: Mapping[str, Recipe], score: str
) -> dict[str, Tensor]:
    """Maps of a method that makes them by itself."""
    name, recipe = next(iter(recipes.items()))
    whole = registry.whole_named(recipe.whole or name)

    def attribute(base: str) -> Tensor:
        raw = replace(call.how, normalize=False, channels="keep")
        method = registry.base_of(recipe, {"base": base})
        return _all_maps(sources, replace(call, how=raw, watch=None), method)[base]

    can_be_given = {
        "score": score,
        "keys": call.keys,
        "seed": call.how.seed,
        "attribute": attribute,
    }
    options = registry.options_of(recipe, call.how.options)
    options |= {key: can_be_given[key] for key in registry.given_to(whole)}
    begin = call.now()
    maps = whole.raw(sources.of(name, recipe), call.images, call.targets, **options)
    maps = maps.to(call.images.device)
    if not call.how.keep:
        maps = whole.finish(maps, (call.images.shape[2], call.images.shape[3]))
        if call.how.normalize:
            maps = min_max(maps)
    if call.watch is not None:
        rows = slice(0, len(call.images))
        layer = None
        if isinstance(sources.gradients, GradientEngine) and whole.layer is not None:
            layer = sources.gradients.layer
        call.watch(Pass(tuple(recipes), rows, "", {}, call.now() - begin, layer))
    return dict.fromkeys(recipes, maps)


def _pass_maps(
    source: GradientSource,
    call: _Call,
    recipes: Mapping[str, Recipe],
    modification: str,
    rectified: bool,
    score: str,
) -> dict[str, Tensor]:
    """Maps of the methods that read the same gradients, group after group of images."""
    how = call.how
    options = _options(how, recipes)
    rule: dict[str, Any] = {}
    if rectified:
        source, rule = module_engine(source, next(iter(recipes))), {"rectified": True}
    # A guided path needs each gradient before the next; without modification there is only one.
    samples = 1 if modification in ("none", "guided_ig") else options.get("steps") or how.count
    processings = list({recipe.processing for recipe in recipes.values()})
    pieces: dict[str, list[Tensor]] = {text: [] for text in recipes}
    batch = source.batch_size(call.images[0])
    most = call.progress.done + len(call.images) * _gradients(how, recipes)

    def gradients(points: Tensor, **more: Any) -> Tensor:
        found = at_points(source, points, **more)
        call.progress.reach(min(call.progress.done + points.shape[0] * points.shape[1], most))
        return found

    for rows, at_once in groups(len(call.images), samples, batch):
        begin = call.now()
        job = Job(
            images=call.images[rows].contiguous(memory_format=source.memory_format),
            rows=rows,
            keys=call.keys[rows],
            gradient=partial(gradients, targets=call.targets[rows], score=score, **rule),
            n=how.count,
            at_once=at_once,
            seed=how.seed,
            std=call.std[rows],
        )
        stats = accumulate(registry.MODIFICATIONS[modification](job, **options), processings)
        for text, value in _read(stats, how, recipes):
            pieces[text].append(value)
        if call.watch is not None:
            name = f"{modification}, rectified" if rectified else modification
            call.watch(Pass(tuple(recipes), rows, name, stats, call.now() - begin))
    if isinstance(source, GradientEngine) and rectified and source.rectifiers == 0:
        warnings.warn(
            "guided_backprop met no rectifier (ReLU and its kind) in the model: "
            "its gradients are the vanilla ones",
            stacklevel=6,
        )
    return {text: torch.cat(parts) for text, parts in pieces.items()}


def _read(
    stats: Mapping[Processing, Any], how: Explanation, recipes: Mapping[str, Recipe]
) -> Iterator[tuple[str, Tensor]]:
    """Each method's maps; those that differ only in p are read together.

    A mean without a guide apart from one with it: they are read in two ways, and a map must have
    the same bits whatever is asked for beside it.
    """
    together: dict[tuple[Processing, str, bool], dict[str, float]] = {}
    for text, recipe in recipes.items():
        percent = recipe.percent(how.p)
        apart = percent != 0 and recipe.value != "absmean"
        together.setdefault((recipe.processing, recipe.value, apart), {})[text] = percent
    for (processing, value, _), percents in together.items():
        maps = saliency(
            stats[processing],
            value,
            list(percents.values()),
            total=processing.weighted,
            normalize=how.normalize,
            keep=how.keep,
        )
        yield from zip(percents, maps, strict=True)
