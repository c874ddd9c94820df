"""Scoring presets: every choice that decides a number, as one frozen value object.

`preset("paper")` is the paper's definition, `"official"` what the authors' code computes, `"rise"`
RISE's code, `"torchcam"` torch-cam's `DeletionInsertionMetric` at its defaults. All fields can be
overridden: `preset("paper", lower_bound=60)`, and stored: `Preset.from_dict(p.to_dict()) == p`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from gag_fast._errors import GagFastError

PresetName = Literal["paper", "official", "rise", "torchcam"]
"""The names that `preset` takes."""

_CHOICES = {
    "threshold": ("percentile", "sorted"),
    "step_unit": ("fraction", "pixels", "count"),
    "order": ("rank", "sorted"),
    "recover_base": ("black", "mean"),
    "deletion_base": ("black", "mean"),
    "insertion_base": ("black", "mean", "blur"),
    "blur_kernel_form": ("gaussian", "folded"),
    "blur_padding": ("reflect", "zero"),
    "mae_form": ("mean", "sqrt"),
    "pointing": ("maximum", "centroid"),
    "product_base": ("mean", "black"),
    "cell_base": ("mean", "black"),
    "randomise_order": ("top_down", "bottom_up"),
}


# The least that a count may be, and the span of a number.
_COUNTS = {
    "information_points": 1,
    "infidelity_samples": 1,
    "mufidelity_grid": 2,
    "mufidelity_samples": 2,
    "idsds_grid": 2,
    "sensitivity_samples": 1,
    "randomise_groups": 0,
    "randomise_bins": 2,
}
_SPANS = {
    "pointing_share": (0, 1),
    "road_noise": (0, math.inf),
    "information_seeds": (0, 1),
    "information_minimum": (0, 1),
    "infidelity_noise": (0, math.inf),
    "mufidelity_share": (0, 1),
    "sensitivity_radius": (0, math.inf),
}


@dataclass(frozen=True)
class Preset:
    """How RCAP, deletion, insertion and the mask metrics are computed.

    "black" is a black pixel, (0 - mean) / std after normalisation; "mean" is 0 after
    normalisation, a mean grey. Percentiles and shares count pixels of one image.

    Attributes:
        name: which preset this came from.
        lower_bound: RCAP's lowest percentile, in percent.
        interval: distance of RCAP's percentiles, in percent; the thresholds are the percentiles
            100 - interval, 100 - 2 interval, ... down to lower_bound.
        threshold: "percentile": pixels >= the linear percentile (Eq. 4.1); "sorted": pixels
            strictly above `sorted(map)[int(H W r) - 1]`, as the authors' code has it.
        recover_base: what RCAP's recovered pixels lie on.
        step_unit: unit of `step`: "fraction" of the pixels, "pixels", or "count" of steps, of
            ceil(H W / count) pixels each.
        step: pixels moved from one point of a curve to the next, in that unit.
        last_point: whether the curves reach the point where every pixel is moved.
        order: "rank": most salient first, ties by pixel index, every step moves exactly its share
            (fractions are rounded half up); "sorted": pixels strictly above
            `sorted(map)[int(H W (1 - f)) - 1]`, ties move together.
        area_width: length of the x axis an area is taken over; the points are evenly spaced. None:
            x is the share of pixels really moved, in [0, 1].
        deletion_base: what deleted pixels become.
        insertion_base: what pixels are inserted onto.
        blur_kernel: side of the Gaussian blur's kernel in pixels, odd.
        blur_sigma: its standard deviation in pixels.
        blur_kernel_form: "gaussian": sampled at whole pixels and normalised to sum 1; "folded": an
            infinite Gaussian folded back at the kernel's ends, as RISE's `gkern` makes it.
        blur_padding: "reflect" without repeating the border, or "zero" in normalised space.
        mae_form: "mean": mean |M - T|; "sqrt": its square root, as the authors' code has it.
        dice_smooth: added to numerator and denominator of the Dice coefficient.
        pointing: pointing_game: "maximum", the pixels of the largest value; "centroid", the centre
            of the most salient `pointing_share` of the pixels.
        pointing_share: that share.
        perturb_seed: of everything drawn at random below; with it and the image's pixels every draw
            is fixed.
        road_shares: road: shares of the pixels that are removed.
        road_noise: standard deviation of the noise on what was filled in, in normalised units.
        information_shares: aic, sic: shares of the most salient pixels that are shown.
        information_seeds: share of the pixels that are shown from the start, at random.
        information_monotonous: whether a curve never falls.
        information_points: steps of the x axis.
        information_minimum: lowest value of the whole image that a curve is defined for.
        product_base: average_drop, increase, adcc: what a pixel without saliency becomes.
        infidelity_samples: infidelity: noises.
        infidelity_noise: their standard deviation in normalised units.
        infidelity_scaled: whether the map is scaled to fit best.
        mufidelity_grid: mufidelity: cells a side.
        mufidelity_share: share of the cells in a set.
        mufidelity_samples: sets.
        idsds_grid: idsds: cells a side.
        cell_base: mufidelity, idsds: what replaces a cell.
        sensitivity_samples: max_sensitivity: changed images.
        sensitivity_radius: largest change of a value, in normalised units.
        randomise_order: mprt, emprt: layers from the output ("top_down") or the input.
        randomise_groups: mprt: groups of layers; 0: every layer by itself.
        randomise_seed: of every layer's new weights.
        randomise_bins: emprt: bins of the histogram.

    Raises:
        ValueError: a value that cannot be; one line with the field and what was received.
    """

    name: str = "paper"
    lower_bound: float = 50.0
    interval: float = 10.0
    threshold: str = "percentile"
    recover_base: str = "black"
    step_unit: str = "fraction"
    step: float = 0.1
    last_point: bool = True
    order: str = "rank"
    area_width: float | None = 1.0
    deletion_base: str = "black"
    insertion_base: str = "blur"
    blur_kernel: int = 33
    blur_sigma: float = 16.0
    blur_kernel_form: str = "gaussian"
    blur_padding: str = "reflect"
    mae_form: str = "mean"
    dice_smooth: float = 1.0
    pointing: str = "maximum"
    pointing_share: float = 0.3
    perturb_seed: int = 0
    road_shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    road_noise: float = 0.01
    information_shares: tuple[float, ...] = (
        *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07),
        *(0.1, 0.13, 0.21, 0.34, 0.5, 0.75),
    )
    information_seeds: float = 0.01
    information_monotonous: bool = True
    information_points: int = 1000
    information_minimum: float = 0.0
    product_base: str = "mean"
    infidelity_samples: int = 20
    infidelity_noise: float = 0.2
    infidelity_scaled: bool = True
    mufidelity_grid: int = 9
    mufidelity_share: float = 0.2
    mufidelity_samples: int = 200
    idsds_grid: int = 4
    cell_base: str = "mean"
    sensitivity_samples: int = 10
    sensitivity_radius: float = 0.02
    randomise_order: str = "top_down"
    randomise_groups: int = 20
    randomise_seed: int = 43
    randomise_bins: int = 100

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise GagFastError(
                    f"preset: {name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        if not (0 < self.interval <= 100 and 0 <= self.lower_bound <= 100 - self.interval):
            raise GagFastError(
                "preset: lower_bound and interval must leave a percentile in [lower_bound, 100), "
                f"got lower_bound={self.lower_bound}, interval={self.interval}"
            )
        if not (self.step > 0 and math.isfinite(self.step)):
            raise GagFastError(f"preset: step must be positive, got {self.step}")
        if self.step_unit == "fraction":
            parts = round(1 / self.step)
            if abs(parts * self.step - 1) > 1e-9 or parts + self.last_point < 2:
                raise GagFastError(
                    f"preset: a fraction as step must divide 1 into whole steps, got {self.step}"
                )
        if self.step_unit != "fraction" and self.step != int(self.step):
            raise GagFastError(f"preset: step must be a whole number, got {self.step}")
        if self.order == "sorted" and self.step_unit != "fraction":
            raise GagFastError('preset: order "sorted" needs step_unit "fraction"')
        if self.area_width is not None and not self.area_width > 0:
            raise GagFastError(f"preset: area_width must be positive, got {self.area_width}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise GagFastError(f"preset: blur_kernel must be odd, got {self.blur_kernel}")
        if not self.blur_sigma > 0:
            raise GagFastError(f"preset: blur_sigma must be positive, got {self.blur_sigma}")
        if self.dice_smooth < 0:
            raise GagFastError(f"preset: dice_smooth must not be negative, got {self.dice_smooth}")

        self._check_measures()

    def _check_measures(self) -> None:
        """The fields of single measures."""
        for name in ("road_shares", "information_shares"):
            shares = tuple(float(v) for v in getattr(self, name))
            if not shares or not all(0 < v < 1 for v in shares):
                raise GagFastError(f"preset: {name} must be shares in (0, 1), got {shares}")
            object.__setattr__(self, name, shares)  # a list, as JSON has it, becomes a tuple
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < _COUNTS[name]:
                raise GagFastError(f"preset: {name} must be {_COUNTS[name]} or more, got {value!r}")
        for name, (low, high) in _SPANS.items():
            if not low <= getattr(self, name) <= high:
                raise GagFastError(
                    f"preset: {name} must lie in [{low}, {high}], got {getattr(self, name)!r}"
                )

    @property
    def percentiles(self) -> tuple[float, ...]:
        """RCAP's percentiles in percent, the highest first: 100 - k interval for k = 1 ... j."""
        # The tolerance lets an interval such as 0.1 reach its last percentile.
        j = math.floor((100 - self.lower_bound) / self.interval + 1e-9)
        return tuple(round(100 - k * self.interval, 9) for k in range(1, j + 1))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preset:
        """The reverse of `to_dict`."""
        return cls(**values)


PRESETS = {
    "paper": Preset(),
    "official": Preset(
        name="official",
        threshold="sorted",
        order="sorted",
        last_point=False,
        area_width=0.9,
        deletion_base="mean",
        mae_form="sqrt",
    ),
    "rise": Preset(
        name="rise",
        step_unit="pixels",
        step=224,
        deletion_base="mean",
        blur_kernel=11,
        blur_sigma=5.0,
        blur_kernel_form="folded",
        blur_padding="zero",
    ),
    "torchcam": Preset(
        name="torchcam",
        step_unit="count",
        step=20,
        area_width=None,
        deletion_base="mean",
        insertion_base="mean",
    ),
}


ABOUT: dict[str, str] = {
    "paper": "the paper's definitions: black pixels, 11 points, both ends",
    "official": "what the authors' published code computes, number for number",
    "rise": "RISE's published code: 224 pixels a step, mean grey, blur of kernel 11",
    "torchcam": "torch-cam's DeletionInsertionMetric at its defaults",
}
"""Each preset in one line."""


def preset(name: PresetName | Preset | Mapping[str, Any], **overrides: Any) -> Preset:
    """A preset by name, as a dict of its fields, or as it is; with some fields replaced.

    Args:
        name: "paper", "official", "rise" or "torchcam", a `Preset` or a dict of its fields.
        **overrides: fields and their values.

    Returns:
        The preset; one that is given is not changed.

    Raises:
        ValueError: no such preset, or no such field, or a value that cannot be; one line that names
            what was received.
    """
    return find(name, **overrides)


def find(name: str | Preset | Mapping[str, Any], **overrides: Any) -> Preset:
    """`preset` of a name that is not known before the program runs."""
    if isinstance(name, Mapping):
        given: Mapping[str, Any] = name
        base = PRESETS.get(str(given.get("name", "paper")), Preset())
        overrides = {**given, **overrides}
    elif isinstance(name, Preset):
        base = name
    elif name in PRESETS:
        base = PRESETS[name]
    else:
        raise GagFastError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    known = {field.name for field in fields(Preset)}
    unknown = sorted(set(overrides) - known)
    if unknown:
        raise GagFastError(f"preset has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return replace(base, **overrides)
