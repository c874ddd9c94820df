"""Which methods there are, how they are put together, and what they are called.

A method name may carry suffixes, each after a slash, and a percent:

    guided_absgrad@65           percentile p of the guide
    smoothgrad/GA               processing variant of Section 6.2: +, -, A, G or GA
    integrated_gradients/R      reversed map of Section 4.3
    guided_absgrad/blur_ig      the aggregation over another modification's gradients

A name with a colon, `package.module:function`, is a method of the user's own (`own`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from torch import Tensor

from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._inputs import describe, doubt_share
from gag_fast._text import meant, nearest
from gag_fast.attribution import own
from gag_fast.attribution.blur_ig import blurred_path
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.forward import PROBABILITY
from gag_fast.attribution.grad_cam import grad_cam, grad_cam_pp, last_stage, upsample
from gag_fast.attribution.gradients import EngineOptions, GradientEngine
from gag_fast.attribution.guided_ig import guided_path
from gag_fast.attribution.integrated_gradients import straight_path
from gag_fast.attribution.kernel_shap import kernel_shap
from gag_fast.attribution.legrad import legrad
from gag_fast.attribution.noise import noisy
from gag_fast.attribution.occlusion import occlusion, windows
from gag_fast.attribution.processing import VARIANTS, Processing
from gag_fast.attribution.rise import rise
from gag_fast.attribution.samples import Sample, identity
from gag_fast.attribution.source import GradientSource
from gag_fast.attribution.xrai import BASE, xrai

Modification = Callable[..., Iterator[Sample]]

MODIFICATIONS: dict[str, Modification] = {
    "none": identity,
    "noise": noisy,
    "integrated_gradients": straight_path,
    "guided_ig": guided_path,
    "blur_ig": blurred_path,
}


@dataclass(frozen=True)
class Whole:
    """A method that makes its maps by itself.

    Attributes:
        raw: (source, images `[B,C,H,W]`, targets `[B]`, its own options) -> raw attributions
            `[B,c,h,w]`, which `channels="keep"` returns. Of GIVEN it gets what it has a parameter
            for.
        finish: (raw attributions, (H, W)) -> maps `[B,H,W]`, before they are normalised.
        pictures: of an image, by (its own options, (H, W)), where the method needs forward passes
            only: then its source is a `ForwardSource`. None: it needs gradients.
        score: what it explains where nobody says; None: what the source has by nature.
        layer: (engine, image `[1,C,H,W]`) -> the name of the layer that it looks at where its
            option `layer` names none; None: it looks at no one layer.
    """

    raw: Callable[..., Tensor]
    finish: Callable[[Tensor, tuple[int, int]], Tensor]
    pictures: Callable[[Mapping[str, Any], tuple[int, int]], int] | None = None
    score: str | None = None
    layer: Callable[[GradientEngine, Tensor], str] | None = None


GIVEN = frozenset({"score", "keys", "seed", "attribute"})
"""Parameters of a method that are no options of its own: what is explained, the images' ids, the
seed, and a function from another method's name to its raw attributions."""


def as_it_is(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `[B,H,W]` of raw ones `[B,1,H,W]`, signs and all."""
    return raw[:, 0]


def _masks(options: Mapping[str, Any], size: tuple[int, int]) -> int:
    return options.get("masks", _default(rise, "masks"))


def _windows(options: Mapping[str, Any], size: tuple[int, int]) -> int:
    rows, columns = windows(size, options.get("window"), options.get("stride"))
    return len(rows) * len(columns) + 1


def _coalitions(options: Mapping[str, Any], size: tuple[int, int]) -> int:
    return options.get("coalitions", _default(kernel_shap, "coalitions")) + 2


def _default(function: Callable[..., Any], name: str) -> Any:
    return inspect.signature(function).parameters[name].default


WHOLE: dict[str, Whole] = {
    "grad_cam": Whole(grad_cam, upsample, layer=last_stage),
    "grad_cam_pp": Whole(grad_cam_pp, upsample, layer=last_stage),
    "xrai": Whole(xrai, as_it_is),
    "legrad": Whole(legrad, upsample),
    "rise": Whole(rise, as_it_is, _masks, PROBABILITY),
    "occlusion": Whole(occlusion, as_it_is, _windows),
    "kernel_shap": Whole(kernel_shap, as_it_is, _coalitions),
}


def whole_named(method: own.Method) -> Whole:
    """The method that makes its maps by itself: ours of that name, or the user's own."""
    if isinstance(method, str) and not own.is_own(method):
        return WHOLE[method]

    def raw(source: GradientSource, images: Tensor, targets: Tensor, *, score: str) -> Tensor:
        return own.maps_of(method, source, images, targets, score)

    return Whole(raw, own.finish)


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
        whole: what `whole_named` knows, a method that uses none of the above.
        p: percent of the guide, where the name gives one.
        reverse: whether the map is reversed.
        aggregation: the method's name is that of an aggregation, open to any modification.
    """

    modification: str = "none"
    processing: Processing = _GRADIENTS
    value: str = "mean"
    guided: bool = False
    rectified: bool = False
    whole: own.Method | None = None
    p: float | None = None
    reverse: bool = False
    aggregation: bool = False

    @property
    def family(self) -> str:
        """Whose shares a reversed map goes by."""
        return "guided_backprop" if self.rectified else self.modification

    def percent(self, p: float) -> float:
        """The guide's percent where p is everybody's; 0 where there is no guide."""
        return (p if self.p is None else self.p) if self.guided else 0.0

    @property
    def forward_only(self) -> bool:
        """Whether it needs no gradient."""
        return self.whole is not None and whole_named(self.whole).pictures is not None

    def passes(self, n: int) -> int:
        """Forward and backward passes an image, at the least."""
        if self.forward_only:
            return 0
        return 1 if self.whole not in (None, "xrai") or self.modification == "none" else n


MethodName = Literal[
    "guided_absgrad",
    "absgrad",
    "smoothgrad",
    "vargrad",
    "vanilla",
    "integrated_gradients",
    "guided_ig",
    "blur_ig",
    "guided_backprop",
    "grad_cam",
    "grad_cam_pp",
    "xrai",
    "input_x_gradient",
    "legrad",
    "rise",
    "occlusion",
    "kernel_shap",
]
"""The names in METHODS, for type checkers and editors."""

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
    "grad_cam": Recipe(whole="grad_cam"),
    "grad_cam_pp": Recipe(whole="grad_cam_pp"),
    "xrai": Recipe(whole="xrai"),
    "input_x_gradient": Recipe(processing=_PATH),
    "legrad": Recipe(whole="legrad"),
    "rise": Recipe(whole="rise"),
    "occlusion": Recipe(whole="occlusion"),
    "kernel_shap": Recipe(whole="kernel_shap"),
}


ABOUT: dict[str, str] = {
    "guided_absgrad": "mean |gradient| of noisy copies, guided by the gradients' variance (--p)",
    "absgrad": "mean |gradient| of noisy copies",
    "smoothgrad": "mean gradient of noisy copies",
    "vargrad": "variance of the gradients of noisy copies",
    "vanilla": "the gradient of the image itself",
    "integrated_gradients": "gradients on the straight line from a baseline, times the distance",
    "guided_ig": "integrated gradients on a path that moves the pixels of least gradient first",
    "blur_ig": "integrated gradients on a path from a blurred image to the sharp one",
    "guided_backprop": "the gradient, negative values stopped at every ReLU",
    "grad_cam": "activations of a late layer, weighted by their mean gradients",
    "grad_cam_pp": "activations of a late layer, weighted pixel by pixel by positive gradients",
    "xrai": "regions of the image, ranked by the attribution that they hold",
    "input_x_gradient": "the gradient of the image, times the image",
    "legrad": "gradients of a transformer's attention, over its layers",
    "rise": "the class's score under random masks; needs no gradients",
    "occlusion": "how the class's score falls under a window that moves; needs no gradients",
    "kernel_shap": "Shapley values of regions, from random coalitions; needs no gradients",
}
"""Each method in one line."""


def names() -> list[str]:
    """The methods' names."""
    return list(METHODS)


def parse(text: own.Method) -> Recipe:
    """The recipe of a method name with its suffixes, or of a method of the user's own as it is.

    Raises:
        TypeError: neither a string nor a function or class.
        ValueError: an unknown name or suffix, or suffixes that do not go with the method.
    """
    if callable(text):
        own.function_of(text)  # refuses what explains nothing
        return Recipe(whole=text)
    if not isinstance(text, str):
        raise InputTypeError(
            "method must be a string, a function (model, images, targets) -> maps or a class of "
            f"attribution, got {type(text).__name__} {text!r}"
        )
    body, at, percent = text.partition("@")
    name, *suffixes = body.split("/")
    if own.is_own(name):
        own.function_of(name)  # refuses what cannot be had
        recipe = Recipe(whole=name)
    elif name in METHODS:
        recipe = METHODS[name]
    else:
        raise GagFastError(
            f"unknown method {name!r}; methods are {', '.join(METHODS)}, "
            f"and package.module:function for your own{meant(name, METHODS)}"
        )
    for suffix in suffixes:
        if suffix == "R":
            recipe = replace(recipe, reverse=True)
        elif suffix in VARIANTS:
            recipe = vary(recipe, suffix, name)
        elif suffix in MODIFICATIONS:
            recipe = modify(recipe, suffix, name)
        else:
            raise GagFastError(
                f"unknown suffix {suffix!r} in method {text!r}; suffixes are R, "
                f"{', '.join(VARIANTS)} and {', '.join(MODIFICATIONS)}"
            )
    if at:
        recipe = replace(recipe, p=_percent(percent, text))
        if not recipe.guided:
            raise GagFastError(f"method {text!r}: {body} takes no percent")
    return recipe


def _percent(text: str, method: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise GagFastError(f"method {method!r}: {text!r} is not a percent") from None
    if not 0 <= value <= 100:
        raise GagFastError(f"method {method!r}: p must lie in [0, 100], got {text}")
    doubt_share(value)
    return value


def vary(recipe: Recipe, variant: str, name: str) -> Recipe:
    """The recipe with a processing variant of Section 6.2.

    "+" and "-" take only positive or negative gradients, "A" absolute ones, "G" multiplies by the
    variance guide, "GA" does both. The guide needs a variance, so a method of one gradient (guided
    backpropagation, vanilla) gets those of noisy images.
    """
    if variant not in VARIANTS:
        raise GagFastError(f"processing must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if recipe.whole or recipe.value != "mean":
        raise GagFastError(f"{name} takes no processing variant, got {variant!r}")
    if variant in "+-":
        return replace(recipe, processing=replace(recipe.processing, sign=variant))
    if "G" in variant:
        if recipe.modification == "none" and recipe.processing.weighted:
            raise GagFastError(f"{name} is of one gradient, which has no variance, got {variant!r}")
        recipe = replace(recipe, guided=True)
        if recipe.modification == "none":
            recipe = replace(recipe, modification="noise")
    return replace(recipe, value="absmean") if "A" in variant else recipe


def modify(recipe: Recipe, modification: str, name: str) -> Recipe:
    """The recipe over the gradients of another modification."""
    if modification not in MODIFICATIONS:
        raise GagFastError(
            f"modification must be one of {', '.join(MODIFICATIONS)}, got {modification!r}"
        )
    if not (recipe.aggregation or recipe.rectified):
        raise GagFastError(f"{name} takes no other modification, got {modification!r}")
    return replace(recipe, modification=modification)


def _keywords(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def options_of(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Any]:
    """Of all options, those that this recipe's modification, or the whole method, takes."""
    known = _keywords(_function(recipe)) - GIVEN
    return {name: value for name, value in options.items() if name in known}


def _function(recipe: Recipe) -> Callable[..., Any]:
    return whole_named(recipe.whole).raw if recipe.whole else MODIFICATIONS[recipe.modification]


def counted(recipe: Recipe, n: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options where n is also the number of RISE's masks, unless they say it."""
    masks = {"masks": n} if recipe.whole == "rise" and n is not None else {}
    return {**masks, **options}


def base_of(recipe: Recipe, options: Mapping[str, Any]) -> dict[str, Recipe]:
    """The method, by its name, whose attributions a method makes its maps of; for most none.

    Raises:
        ValueError: it is no method of gradients.
    """
    if recipe.whole != "xrai":
        return {}
    name = options.get("base", BASE)
    base = parse(name)
    if base.whole is not None or base.reverse:
        raise GagFastError(f"base must be a method of gradients and not reversed, got {name!r}")
    return {name: base}


def cost_of(recipe: Recipe, how: Explanation, size: tuple[int, int]) -> tuple[int, int]:
    """What a method takes of an image: (passes without a gradient, gradients), at the least.

    Args:
        recipe: the method's.
        how: with the methods' options.
        size: (H, W) of an image.
    """
    if recipe.forward_only:
        assert recipe.whole is not None
        pictures = whole_named(recipe.whole).pictures
        assert pictures is not None
        return pictures(options_of(recipe, how.options), size), 0
    base = base_of(recipe, how.options)
    return 0, sum(r.passes(how.count) for r in (base or {"": recipe}).values())


def given_to(whole: Whole) -> frozenset[str]:
    """What of GIVEN a method has parameters for."""
    return GIVEN & _keywords(whole.raw)


def _own_options(recipe: Recipe, options: Mapping[str, Any] | None = None) -> set[str]:
    """Its options, among them those of the base that `options` name."""
    own = _keywords(_function(recipe)) - GIVEN
    return own.union(*map(_own_options, base_of(recipe, options or {}).values()))


def layer_rule(method: str) -> Callable[[GradientEngine, Tensor], str] | None:
    """How a method chooses the layer that it looks at, None where it looks at no one layer."""
    whole = parse(method).whole
    return None if whole is None else whole_named(whole).layer


def all_options() -> dict[str, list[str]]:
    """Every method option -> the methods that take it."""
    found: dict[str, list[str]] = {}
    for name, recipe in METHODS.items():
        for option in sorted(_own_options(recipe)):
            found.setdefault(option, []).append(name)
    return found


def recipes_of(methods: Sequence[own.Method] | Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Each method's recipe, by its name."""
    if isinstance(methods, Mapping):
        return dict(methods)
    if isinstance(methods, str) or not isinstance(methods, Sequence) or not methods:
        raise InputTypeError(f"methods must be a sequence of names, got {describe(methods)}")
    return {own.name_of(method): parse(method) for method in methods}


def share_of(how: Explanation, chosen: Sequence[str], methods: Sequence[str]) -> Explanation:
    """How to explain by some of several methods: without the options that only the others take."""
    theirs = set().union(*(_own_options(parse(method), how.options) for method in methods))
    own = set().union(*(_own_options(parse(method), how.options) for method in chosen))
    kept = {name: v for name, v in how.options.items() if name in own or name not in theirs}
    return replace(how, options=kept)


def check_fit(recipes: Mapping[str, Recipe], how: Explanation) -> None:
    """Refuses what the methods cannot do: unknown options, too few samples, reversed raw maps."""
    check_options(recipes, how.options)
    if how.keep and any(recipe.reverse for recipe in recipes.values()):
        raise GagFastError('reversed maps need channels="sum", got "keep"')
    bases = (base_of(recipe, how.options) for recipe in recipes.values())
    for text, recipe in {k: v for some in (recipes, *bases) for k, v in some.items()}.items():
        if how.count < 2 and (recipe.percent(how.p) != 0 or recipe.value == "variance"):
            raise GagFastError(
                f"{text} needs the variance of at least 2 gradients, got n = {how.count}"
            )


_KEYWORDS = (
    *("targets", "method", "methods", "image_ids", "processing", "modification"),
    "progress",
    *(f.name for kind in (Explanation, EngineOptions) for f in fields(kind)),
)


def check_options(recipes: Mapping[str, Recipe], options: Mapping[str, Any]) -> None:
    """Refuses options that none of the methods takes, and names what may have been meant."""
    here = sorted(set().union(*(_own_options(recipe, options) for recipe in recipes.values())))
    for name in options:
        if name in here:
            continue
        others = all_options()
        near = nearest(name, [*here, *_KEYWORDS, *others])
        hint = "" if near is None else f"did you mean {near!r}? "
        if name in others:
            hint = f"it is an option of {', '.join(others[name])}; "
        raise InputTypeError(
            f"{', '.join(recipes)}: unknown option {name!r}; {hint}"
            f"method options here are: {', '.join(here) or 'none'}"
        )
