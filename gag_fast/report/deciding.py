"""Until the ranking is decided: the rule of a run that stops then, and what was decided when.

Nothing of it is stored: a run's manifest has the rule, its rows come in the random order in which
they were computed, and the decisions follow from both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gag_fast._errors import GagFastError
from gag_fast.measures import MEASURES, Measure
from gag_fast.report.anytime import Decision, Race
from gag_fast.report.reading import Run


@dataclass(frozen=True)
class Rule:
    """When a run may stop.

    Attributes:
        measure: name of the measure that ranks the methods; one of a bounded range.
        error: the chance of any wrong decision.
        seed: of the random order in which the images are taken.

    Raises:
        ValueError: an unknown measure, one without bounds, or an error rate outside (0, 1).
    """

    measure: str
    error: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise GagFastError(f"there is no measure {self.measure!r} to decide by")
        low, high = MEASURES[self.measure].span
        if not (math.isfinite(low) and math.isfinite(high)):
            raise GagFastError(
                f"{self.measure} cannot decide a ranking: its values have no bounds "
                f"({low:g} to {high:g})"
            )
        if not 0 < self.error < 1:
            raise GagFastError(f"the error rate must be between 0 and 1, got {self.error}")

    @property
    def about(self) -> Measure:
        """The measure."""
        return MEASURES[self.measure]

    def race(self, methods: int, images: int) -> Race:
        """A race of so many methods over a data set of so many images."""
        low, high = self.about.span
        better = self.about.higher_is_better
        return Race(methods, images, low=low, high=high, higher_is_better=better, error=self.error)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Rule | None:
        """The rule in a manifest's settings, None where there is none that can be read."""
        found = settings.get("until_decided")
        if not isinstance(found, dict):
            return None
        try:
            return cls(str(found["measure"]), float(found["error"]), int(found["seed"]))
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class Decided:
    """How the ranking of a run's methods stands.

    Attributes:
        rule: when it may stop.
        methods: their names.
        seen, images: of the data set's images, how many were looked at.
        settled_at: after how many the whole ranking was decided, None if it was not.
        decisions: pairs that were decided, the earliest first.
        open: pairs (of names) that were not.
    """

    rule: Rule
    methods: list[str]
    seen: int
    images: int
    settled_at: int | None
    decisions: list[Decision]
    open: list[tuple[str, str]]

    @property
    def ranking(self) -> list[str]:
        """The methods, the one that beats most others first."""
        wins = [sum(d.better == k for d in self.decisions) for k in range(len(self.methods))]
        return [self.methods[k] for k in sorted(range(len(wins)), key=lambda k: -wins[k])]

    def sentence(self) -> str:
        """What was found, in a sentence."""
        chance = f"{100 * self.rule.error:g} %"
        if self.settled_at is not None:
            return (
                f"The ranking by {self.rule.about.label} was settled after {self.settled_at:,} of "
                f"{self.images:,} images, with at most {chance} chance of any error: "
                f"{' > '.join(self.ranking)}."
            )
        pairs = ", ".join(f"{a} and {b}" for a, b in self.open)
        return (
            f"After {self.seen:,} of {self.images:,} images the ranking by "
            f"{self.rule.about.label} is not settled at an error rate of {chance}; open: {pairs}."
        )


def decided(run: Run) -> Decided | None:
    """The decisions of a run; None where it was not asked to stop by them."""
    settings = run.section("settings") or {}
    rule, images = Rule.of(settings), settings.get("images")
    if rule is None or not isinstance(images, int) or len(run.methods) < 2:
        return None
    scores = np.full((len(run.images), len(run.methods)), np.nan)
    if rule.measure in run.scores:
        scores = run.matrix(rule.measure)
    race = rule.race(len(run.methods), max(images, len(run.images)))
    race.update(scores)
    return standing(rule, race, run.methods)


def standing(rule: Rule, race: Race, methods: Sequence[str]) -> Decided:
    """How a race stands."""
    return Decided(
        rule,
        list(methods),
        race.seen,
        race.images,
        race.settled_at,
        sorted(race.decisions.values(), key=lambda d: (d.image, d.better, d.worse)),
        [(methods[a], methods[b]) for a, b in race.pairs if (a, b) not in race.decisions],
    )
