"""What `evaluate` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
from torch import Tensor
from typing_extensions import TypeVar  # with a default, which typing has from Python 3.13 on

from gag_fast import measures
from gag_fast._inputs import Array
from gag_fast.presets import Preset

Kind = TypeVar("Kind", bound="Tensor | Array", default=Any)
"""What the images were: torch tensors or NumPy arrays. All results are of that kind."""


class Measured(Generic[Kind]):
    """The measures as attributes, for type checkers and editors; what was not asked for is None."""

    if TYPE_CHECKING:
        rcap: Kind
        dauc: Kind
        iauc: Kind
        log_cosh_dice: Kind
        mae: Kind
        gini: Kind
        entropy: Kind
        pointing_game: Kind
        relevance_mass: Kind
        relevance_rank: Kind
        srg: Kind
        road: Kind
        aic: Kind
        sic: Kind
        average_drop: Kind
        increase: Kind
        adcc: Kind
        infidelity: Kind
        mufidelity: Kind
        idsds: Kind
        max_sensitivity: Kind
        mprt: Kind
        emprt: Kind


@dataclass(repr=False)
class Scores(Measured[Kind]):
    """Results of `evaluate`: [B], or [B, M] for maps [B, M, H, W]; the kind of the images.

    Every measure is an attribute by its name (`scores.rcap`), None where it was not asked for.

    Attributes:
        preset: the preset, every field.
        values: measure -> result, of those asked for, in the order of the table of measures.
        curves: curve -> probabilities of the target class [B(, M), steps], of the curves that
            those measures are read off.
        pixels: like `curves`: how many pixels were recovered, deleted or inserted.
        partitions: RCAP's shares of the saliency, sum M_pk / sum M: [B(, M), j]; None without rcap.
        forwards: distinct pictures that were scored.
        asked: points of all curves: what scoring them one by one would have taken.
    """

    preset: Preset
    values: dict[str, Kind] = field(default_factory=dict)
    curves: dict[str, Kind] = field(default_factory=dict)
    pixels: dict[str, Kind] = field(default_factory=dict)
    partitions: Kind | None = None
    forwards: int = 0
    asked: int = 0

    if not TYPE_CHECKING:  # or a checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            """A measure by its name."""
            if name in measures.MEASURES:
                return self.__dict__.get("values", {}).get(name)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to_frame(self) -> Any:
        """A pandas frame with a row for each (image, map) and a column for each measure.

        Returns:
            `pandas.DataFrame`: `image` and, for maps [B, M, H, W], `map` are their indexes from 0;
            then the measures by name, float32.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame needs pandas: pip install pandas") from None
        found = self._arrays()
        shape = next((v.shape for v in found.values()), (0,))
        places = np.indices(shape).reshape(len(shape), -1)
        index = dict(zip(("image", "map"), places))
        return pandas.DataFrame({**index, **{name: v.reshape(-1) for name, v in found.items()}})

    def _arrays(self) -> dict[str, Array]:
        return {name: np.asarray(_on_host(value)) for name, value in self.values.items()}

    def _means(self) -> list[tuple[str, list[str]]]:
        """Each measure with its mean over the images, of every map where there are several."""
        return [
            (name, [_mean(column) for column in np.atleast_2d(value.T)])
            for name, value in self._arrays().items()
        ]

    def __repr__(self) -> str:
        """Shape, preset and each measure's mean over the images; never the values."""
        shape = next((list(v.shape) for v in self._arrays().values()), [])
        words = [str(shape), self.preset.name]
        for name, means in self._means():
            several = ", ".join(means)
            words.append(f"{name}=[{several}]" if len(means) > 1 else f"{name}={several}")
        return f"Scores({', '.join(words)})"

    def _repr_html_(self) -> str:
        """The means as a table, a column for each map."""
        rows = []
        for name, means in self._means():
            row = measures.measure(name)
            cells = "".join(f"<td>{mean}</td>" for mean in means)
            rows.append(f"<tr><th title='{escape(row.about)}'>{row.label} {row.arrow}</th>{cells}")
        shape = next((list(v.shape) for v in self._arrays().values()), [])
        heading = f"Means of {shape}, preset {escape(self.preset.name)}"
        return f"<table><caption>{heading}</caption>{''.join(rows)}</table>"


def _mean(values: Array) -> str:
    """The mean of those that are defined, in four digits; with how many they are of fewer."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "nan"
    few = "" if len(known) == len(values) else f" ({len(known)} of {len(values)})"
    return f"{known.mean(dtype=np.float64):.4g}{few}"


def _on_host(value: Any) -> Any:
    return value.cpu() if hasattr(value, "cpu") else value
