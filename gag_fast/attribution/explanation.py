"""How to explain: everything that decides a map beside the model, the image and the method.

The public functions take these as keywords and a run stores them, but between the two they travel
as one value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

import numpy as np
from torch import Tensor, nn

from gag_fast._errors import GagFastError, InputTypeError
from gag_fast._inputs import as_percents, check_channels, describe
from gag_fast.attribution.noise import RANGES
from gag_fast.attribution.settings import Settings, settings_named
from gag_fast.attribution.source import SCORES as DIFFERENTIATED

SCORES = (*DIFFERENTIATED, "probability")
"""What may be explained; the last by methods that need no gradient."""


class MethodOptions(TypedDict, total=False):
    """The options that are a method's own; each is told in the method's module.

    `baseline`, `baselines`, `rule`, `steps`: integrated_gradients. `baseline`, `fraction`,
    `max_dist`, `steps`: guided_ig. `max_sigma`, `grad_step`, `sqrt`, `kernel_size`, `padding`,
    `steps`: blur_ig. `layer`: grad_cam, grad_cam_pp. `eps`: grad_cam_pp. `base`: xrai. `layers`:
    legrad. `masks`, `grid`, `keep`, `baseline`: rise. `window`, `stride`, `baseline`: occlusion.
    `coalitions`, `segments`, `baseline`: kernel_shap.
    """

    baseline: Tensor | float | str | None
    baselines: int
    rule: str
    steps: int | None
    fraction: float
    max_dist: float
    max_sigma: float
    grad_step: float
    sqrt: bool
    kernel_size: int | None
    padding: str
    layer: str | nn.Module | None
    eps: float
    base: str
    layers: int | None
    masks: int
    grid: int
    keep: float
    window: int | tuple[int, int] | list[int] | None
    stride: int | tuple[int, int] | list[int] | None
    coalitions: int
    segments: int | str | Tensor


@dataclass(frozen=True, repr=False)
class Explanation:
    """How to explain, checked.

    Attributes:
        n: gradients per image, noise samples or steps on a path; None: the settings' own number.
        noise: standard deviation of the Gaussian noise as a fraction of (max - min) of an image.
        p: percent of the variance guide (Eq. 3.4) where the method's name has none.
        seed: of the noise, of random baselines and of the pairs of reversed maps.
        settings: the authors' settings by name, or None for gag_fast's own.
        normalize: min-max each map to [0, 1].
        channels: "sum", or "keep" for raw attributions.
        reverse: shares (l, m) of reversed maps; None: the settings' own.
        stdevs: standard deviation of the noise in the images' unit, instead of `noise`.
        noise_range: "image" or "batch"; None: the settings' own.
        score: what is explained, "logit" or "nll", and where no gradient is needed "logit" or
            "probability"; None: the settings' own, and the method's.
        options: the methods' own, see `MethodOptions`.

    Raises:
        TypeError, ValueError: one line that names what was received.
    """

    n: int | None = None
    noise: float = 0.15
    p: float = 85.0
    seed: int = 0
    settings: str | None = None
    normalize: bool = True
    channels: str = "sum"
    reverse: bool | Sequence[float] | None = None
    stdevs: float | None = None
    noise_range: str | None = None
    score: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """What differs from the defaults."""
        changed = {**self.changed(), **self.options}
        words = (
            f"{k}={describe(v) if isinstance(v, Tensor) else repr(v)}" for k, v in changed.items()
        )
        return f"Explanation({', '.join(words)})"

    def __post_init__(self) -> None:
        settings_named(self.settings)
        check_channels(self.channels)
        if self.n is not None:
            object.__setattr__(self, "n", _count(self.n))
        object.__setattr__(self, "noise", _amount("noise", self.noise))
        if self.stdevs is not None:
            object.__setattr__(self, "stdevs", _amount("stdevs", self.stdevs))
        object.__setattr__(self, "p", _one_percent(self.p))
        object.__setattr__(self, "reverse", _shares(self.reverse))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InputTypeError(f"seed must be an integer, got {describe(self.seed)}")
        if not -(2**63) <= self.seed < 2**63:
            raise GagFastError(f"seed must have 64 bits, from -2^63 to 2^63 - 1, got {self.seed}")
        for name, known in (("noise_range", RANGES), ("score", SCORES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise GagFastError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        object.__setattr__(self, "options", dict(self.options))

    @property
    def case(self) -> Settings:
        """The settings behind the name."""
        return settings_named(self.settings)

    @property
    def count(self) -> int:
        """Gradients per image, whoever decides them."""
        return self.case.n if self.n is None else self.n

    @property
    def keep(self) -> bool:
        """Whether channels stay apart."""
        return check_channels(self.channels)

    def shares(self, family: str) -> tuple[float, float]:
        """Shares (l, m) of a family's reversed maps (Section 4.3)."""
        if isinstance(self.reverse, tuple):
            return self.reverse
        return self.case.reverse.get(family, self.case.reverse[""])

    def changed(self) -> dict[str, Any]:
        """The fields that differ from the defaults, by name; `options` aside."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name != "options" and getattr(self, f.name) != f.default
        }


def _count(n: Any) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise GagFastError(f"n must be a positive integer, got {n!r}")
    return int(n)


def _amount(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputTypeError(f"{name} must be a number, got {describe(value)}")
    if not 0 <= value < float("inf"):
        raise GagFastError(f"{name} must be finite and not negative, got {value!r}")
    return float(value)


def _one_percent(p: Any) -> float:
    percents, single = as_percents(p)
    if not single:
        raise InputTypeError(f'p must be one percent, got {p!r}; for several name methods "...@65"')
    return percents[0]


def _shares(reverse: Any) -> tuple[float, float] | None:
    if reverse is None or isinstance(reverse, bool):
        return None
    if not isinstance(reverse, Sequence) or len(reverse) != 2:
        raise InputTypeError(f"reverse must be True or two shares (l, m), got {describe(reverse)}")
    return float(reverse[0]), float(reverse[1])
