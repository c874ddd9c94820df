"""Which methods there are, how they are put together, and what they are called.

A method name may carry suffixes, each after a slash, and a percent:

    guided_absgrad@65           percentile p of the guide
    smoothgrad/GA               processing variant of Section 6.2: +, -, A, G or GA
    integrated_gradients/R      reversed map of Section 4.3
    guided_absgrad/blur_ig      the aggregation over another modification's gradients
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gag_fast.attribution.blur_ig import blurred_path
from gag_fast.attribution.guided_ig import guided_path
from gag_fast.attribution.integrated_gradients import straight_path
from gag_fast.attribution.noise import noisy
from gag_fast.attribution.processing import VARIANTS, Processing
from gag_fast.attribution.samples import Sample, identity

Modification = Callable[..., Iterator[Sample]]

MODIFICATIONS: dict[str, Modification] = {
    "none": identity,
    "noise": noisy,
    "integrated_gradients": straight_path,
    "guided_ig": guided_path,
    "blur_ig": blurred_path,
}


_GRADIENTS = Processing()
_PATH = Processing(weighted=True)


@dataclass(frozen=True)
class Recipe:
    """One method, fully said.

    Attributes:
        modification: a name in MODIFICATIONS.
        processing: what its samples contribute.
        value: what is read from the statistics; see `processing.saliency`.
        guided: whether the variance guide multiplies it.
        rectified: guided backpropagation's rule in the backward pass.
        cam: Grad-CAM, which uses none of the above.
        p: percent of the guide, where the name gives one.
        reverse: whether the map is reversed.
        aggregation: the method's name is that of an aggregation, open to any modification.
    """

    modification: str = "none"
    processing: Processing = _GRADIENTS
    value: str = "mean"
    guided: bool = False
    rectified: bool = False
    cam: bool = False
    p: float | None = None
    reverse: bool = False
    aggregation: bool = False


METHODS: dict[str, Recipe] = {
    "guided_absgrad": Recipe("noise", value="absmean", guided=True, aggregation=True),
    "absgrad": Recipe("noise", value="absmean", aggregation=True),
    "smoothgrad": Recipe("noise", aggregation=True),
    "vargrad": Recipe("noise", value="variance", aggregation=True),
    "vanilla": Recipe(),
    "integrated_gradients": Recipe("integrated_gradients", _PATH),
    "guided_ig": Recipe("guided_ig", _PATH),
    "blur_ig": Recipe("blur_ig", _PATH),
    "guided_backprop": Recipe(rectified=True),
    "grad_cam": Recipe(cam=True),
}


def names() -> list[str]:
    """The methods' names."""
    return list(METHODS)


def parse(text: str) -> Recipe:
    """The recipe of a method name with its suffixes.

    Raises:
        TypeError: not a string.
        ValueError: an unknown name or suffix, or suffixes that do not go with the method.
    """
    if not isinstance(text, str):
        raise TypeError(f"method must be a string, got {type(text).__name__} {text!r}")
    body, at, percent = text.partition("@")
    name, *suffixes = body.split("/")
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; methods are {', '.join(METHODS)}")
    recipe = METHODS[name]
    for suffix in suffixes:
        if suffix == "R":
            recipe = replace(recipe, reverse=True)
        elif suffix in VARIANTS:
            recipe = vary(recipe, suffix, name)
        elif suffix in MODIFICATIONS:
            recipe = modify(recipe, suffix, name)
        else:
            raise ValueError(
                f"unknown suffix {suffix!r} in method {text!r}; suffixes are R, "
                f"{', '.join(VARIANTS)} and {', '.join(MODIFICATIONS)}"
            )
    if at:
        recipe = replace(recipe, p=_percent(percent, text))
        if not recipe.guided:
            raise ValueError(f"method {text!r}: {body} takes no percent")
    return recipe


def _percent(text: str, method: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"method {method!r}: {text!r} is not a percent") from None
    if not 0 <= value <= 100:
        raise ValueError(f"method {method!r}: p must lie in [0, 100], got {text}")
    return value


def vary(recipe: Recipe, variant: str, name: str) -> Recipe:
    """The recipe with a processing variant of Section 6.2.

    "+" and "-" take only positive or negative gradients, "A" absolute ones, "G" multiplies by the
    variance guide, "GA" does both. The guide needs a variance, so a method of one gradient (guided
    backpropagation, vanilla) gets those of noisy images.
    """
    if variant not in VARIANTS:
        raise ValueError(f"processing must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if recipe.cam or recipe.value != "mean":
        raise ValueError(f"{name} takes no processing variant, got {variant!r}")
    if variant in "+-":
        return replace(recipe, processing=replace(recipe.processing, sign=variant))
    if "G" in variant:
        recipe = replace(recipe, guided=True)
        if recipe.modification == "none":
            recipe = replace(recipe, modification="noise")
    return replace(recipe, value="absmean") if "A" in variant else recipe


def modify(recipe: Recipe, modification: str, name: str) -> Recipe:
    """The recipe over the gradients of another modification."""
    if modification not in MODIFICATIONS:
        raise ValueError(
            f"modification must be one of {', '.join(MODIFICATIONS)}, got {modification!r}"
        )
    if not (recipe.aggregation or recipe.rectified):
        raise ValueError(f"{name} takes no other modification, got {modification!r}")
    return replace(recipe, modification=modification)


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def options_of(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options, those that this recipe's modification (or Grad-CAM) takes."""
    known = {"layer"} if recipe.cam else _keywords(MODIFICATIONS[recipe.modification])
    return {name: value for name, value in options.items() if name in known}


def check_options(recipes: Mapping[str, Recipe], options: Mapping[str, Any]) -> None:
    """Refuses options that none of the methods takes."""
    known: set[str] = set()
    for recipe in recipes.values():
        known |= {"layer"} if recipe.cam else _keywords(MODIFICATIONS[recipe.modification])
    for name in options:
        if name not in known:
            takes = ", ".join(sorted(known)) or "none"
            raise TypeError(
                f"{', '.join(recipes)}: unknown option {name!r}; method options here are: {takes}"
            )
