"""What `evaluate` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gag_fast import measures
from gag_fast.presets import Preset


@dataclass
class Scores:
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
    values: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] = field(default_factory=dict)
    partitions: Any = None
    forwards: int = 0
    asked: int = 0

    def __getattr__(self, name: str) -> Any:
        """A measure by its name."""
        if name in measures.MEASURES:
            return self.__dict__.get("values", {}).get(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to_frame(self) -> Any:
        """A pandas frame with a row for each (image, map) and a column for each measure.

        Raises:
            ImportError: pandas is not installed.
        """
        import numpy as np
        import pandas

        found = {name: np.asarray(_on_host(value)) for name, value in self.values.items()}
        shape = next((v.shape for v in found.values()), (0,))
        places = np.indices(shape).reshape(len(shape), -1)
        index = dict(zip(("image", "map"), places))
        return pandas.DataFrame({**index, **{name: v.reshape(-1) for name, v in found.items()}})


def _on_host(value: Any) -> Any:
    return value.cpu() if hasattr(value, "cpu") else value
