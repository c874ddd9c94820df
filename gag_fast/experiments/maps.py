"""Which saliency maps each table needs, in names that `explain_many` takes."""

from __future__ import annotations

from collections.abc import Sequence

from gag_fast._errors import GagFastError
from gag_fast.attribution.registry import parse
from gag_fast.attribution.settings import settings_named

TABLES = ("table1", "table2", "table3", "methods")
"""The paper's three tables, and one of all the methods there are."""

# The paper's short names. GAG's method name states p, so that Table 1's GAG-85 and Table 2's GAG
# are one map.
SHORT = {
    "Grad-CAM": "grad_cam",
    "GAG": "guided_absgrad@85",
    "VarGrad": "vargrad",
    "SG": "smoothgrad",
    "IG": "integrated_gradients",
    "GB": "guided_backprop",
    "Guided IG": "guided_ig",
    "BlurIG": "blur_ig",
    "VG": "vanilla",
}
GRADIENT_METHODS = tuple(name for name in SHORT if name != "Grad-CAM")
PROCESSED = ("SG", "IG", "GB", "Guided IG", "BlurIG")  # the methods that Sections 6.1 and 6.2 vary
VARIANTS = ("+", "-", "A", "G", "GA")
PERCENTS = (0, 15, 25, 35, 45, 55, 65, 75, 85)


def rows_of(table: str) -> dict[str, str]:
    """The maps behind a table: the paper's label -> method name.

    Table 3's own rows are averages over methods; here are the maps that they are averaged from,
    labelled "SG +", and the methods as they are, labelled "SG".
    """
    if table == "table1":
        return {f"GAG-{p}": f"guided_absgrad@{p}" for p in PERCENTS}
    if table == "table2":
        return {**SHORT, **{f"{name}^R": f"{SHORT[name]}/R" for name in PROCESSED}}
    if table == "table3":
        plain = {name: SHORT[name] for name in PROCESSED}
        return plain | {f"{name} {v}": f"{SHORT[name]}/{v}" for name in PROCESSED for v in VARIANTS}
    if table == "methods":
        return {**SHORT, "AbsGrad": "absgrad"}
    raise GagFastError(f"table must be one of {', '.join(TABLES)}, got {table!r}")


def methods_of(tables: Sequence[str]) -> tuple[str, ...]:
    """The methods of several tables, each once, in the order of the tables."""
    return tuple(dict.fromkeys(name for table in tables for name in rows_of(table).values()))


def passes(method: str, n: int, settings: str | None = None) -> int:
    """Forward and backward passes that a method costs for each image, made alone.

    Methods that share a modification (noise: GAG, VarGrad, SmoothGrad) share its passes when they
    are made together.

    Args:
        method: a name that `explain_many` takes.
        n: noise samples or path steps, where the settings give no other number of steps.
        settings: name of the authors' settings, or None.
    """
    recipe = parse(method)
    if recipe.whole or recipe.modification == "none":
        return 1
    options = {} if settings is None else settings_named(settings).options
    own = options.get(recipe.modification, {})
    return own.get("steps", n) * own.get("baselines", 1)
