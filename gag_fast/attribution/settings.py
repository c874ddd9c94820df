"""The authors' settings by name: what their published code uses in the three cases of the paper.

Noise of 0.15 of the range and p = 85 are theirs and the defaults here; the rest is below. Their
noise is scaled by the range of the whole batch (`noise_range="batch"`), so maps made with these
settings depend on the images beside them; gag_fast's own default does not. What a map is stays as
in the paper: the guide is 1 at the percentile itself (Eq. 3.4), and each image's random baselines
are drawn from its own range.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gag_fast._errors import GagFastError


@dataclass(frozen=True)
class Settings:
    """Settings of one case.

    Attributes:
        n: noise samples.
        noise_range: whose range, see `noise.noise_std`.
        scores: methods that differentiate something else than the logit.
        options: of each modification.
        reverse: (l, m) of the reversed maps, by method; "" for the others.
    """

    n: int
    noise_range: str = "batch"
    scores: dict[str, str] = field(default_factory=lambda: {"integrated_gradients": "nll"})
    options: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            "integrated_gradients": {
                "baseline": "uniform",
                "baselines": 2,
                "rule": "endpoints",
                "steps": 5,
            },
            "guided_ig": {"fraction": 0.25, "max_dist": 0.1, "steps": 20},
            "blur_ig": {
                "max_sigma": 50.0,
                "grad_step": 0.01,
                "kernel_size": 41,
                "padding": "reflect",
                "steps": 20,
            },
        }
    )
    reverse: dict[str, tuple[float, float]] = field(default_factory=dict)


SAMPLES = 20
"""Gradients an image where nobody says otherwise."""

DEFAULT = Settings(n=SAMPLES, noise_range="image", scores={}, options={}, reverse={"": (0.07, 0.1)})
"""gag_fast's own."""

_NATURAL = {"": (0.07, 0.1), "guided_backprop": (0.03, 0.1)}
SETTINGS = {
    "official:imagenet": Settings(n=20, reverse=_NATURAL),
    "official:isic": Settings(
        n=10,
        reverse={
            "": (0.02, 0.3),
            "integrated_gradients": (0.01, 0.1),
            "guided_backprop": (0.005, 0.1),
        },
    ),
    "official:places365": Settings(n=10, reverse=_NATURAL),
}


def settings_named(name: str | None) -> Settings:
    """The settings of that name; None: gag_fast's own."""
    if name is None:
        return DEFAULT
    if name not in SETTINGS:
        raise GagFastError(f"settings must be one of {', '.join(SETTINGS)}, got {name!r}")
    return SETTINGS[name]
