"""What is asked of a reproduction: one value that says everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gag_fast._errors import GagFastError
from gag_fast.attribution.settings import settings_named
from gag_fast.experiments import maps
from gag_fast.experiments.cases import CASES

CONFIDENCE = 0.9  # Section 5


@dataclass(frozen=True)
class Experiment:
    """What is asked for.

    Attributes:
        tables: some of `maps.TABLES`.
        data: folder or table of images; for a case the folder of its structure.
        out: folder of everything that is written.
        model: NAME of `load_model`; None for a case, which has its own.
        weights: "default", "none" or a file.
        case: "imagenet-s", "isic" or "places365", or None.
        images: how many to draw by the seed; None: all that the classifier is confident about.
        confidence: smallest probability of the label.
        classes: only images of the first so many classes; None: all. The published figures of
            imagenet-s are of images in the first 406.
        n: gradients per image; None: the settings' own.
        seed: of the draw and of the maps.
        beside: the case whose published figures are printed beside; None: the case's own, if any.
        preset: of the scores; None: "official" for a case, else "paper".
        settings: of the methods; None: the case's, else gag_fast's defaults.
        providers, device, engine, workers: as in `gag_fast.runs.request.Request`.
    """

    tables: tuple[str, ...]
    data: Path
    out: Path
    model: str | None = None
    weights: str = "default"
    case: str | None = None
    images: int | None = None
    confidence: float = CONFIDENCE
    classes: int | None = None
    n: int | None = None
    seed: int = 0
    beside: str | None = None
    preset: str | None = None
    settings: str | None = None
    providers: str | None = None
    device: str | None = None
    engine: str = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        unknown = [t for t in self.tables if t not in maps.TABLES]
        if unknown or not self.tables or len(set(self.tables)) < len(self.tables):
            raise GagFastError(
                f"tables must be some of {', '.join(maps.TABLES)}, each once, "
                f"got {', '.join(self.tables) or 'none'}"
            )
        for case in (self.case, self.beside):
            if case is not None and case not in CASES:
                raise GagFastError(f"case must be one of {', '.join(CASES)}, got {case!r}")
        if (self.case is None) == (self.model is None):
            raise GagFastError("give a model or a case (which has its own model), one of the two")
        for name, value in (("images", self.images), ("classes", self.classes), ("n", self.n)):
            if value is not None and value < 1:
                raise GagFastError(f"{name} must be positive, got {value}")
        if not 0 <= self.confidence <= 1:
            raise GagFastError(f"confidence must be a probability, got {self.confidence}")

    @property
    def methods_settings(self) -> str | None:
        """The name of the methods' settings that apply, None for gag_fast's defaults."""
        return self.settings or (CASES[self.case].settings if self.case else None)

    @property
    def scoring(self) -> str:
        """The name of the scoring preset that applies."""
        return self.preset or ("official" if self.case else "paper")

    @property
    def samples(self) -> int:
        """Gradients per image that apply."""
        return settings_named(self.methods_settings).n if self.n is None else self.n
