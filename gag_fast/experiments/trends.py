"""The paper's claims about Tables 1, 2 and 3, checked on the scores of a run.

Each claim is a plain sentence with a verdict on the means, the numbers found, and in how many of
the paper's own cases its figures support the claim. Differences carry a 95 % bootstrap interval
over the images; with too few images there is no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gag_fast.experiments import published
from gag_fast.experiments.maps import GRADIENT_METHODS, PERCENTS, PROCESSED, VARIANTS, rows_of
from gag_fast.experiments.tables import Scores, complete_images, make_table
from gag_fast.report.statistics import bootstrap_means

Cells = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Finding:
    """One published claim, and how it fares.

    Attributes:
        table: where it is made.
        claim: in words.
        holds: whether the means here agree; None when there are too few images to say.
        here: what was found, with numbers.
        paper: in how many of the paper's cases its own figures support the claim, "2 of 3".
    """

    table: str
    claim: str
    holds: bool | None
    here: str
    paper: str


@dataclass(frozen=True)
class _Claim:
    table: str
    text: str
    check: Callable[[Cells], bool]
    tell: Callable[[Cells], str]
    pair: tuple[str, str, str] | None = None  # metric, row, row: a difference to give an interval
    needs: str | None = None  # a metric that only data with masks have


def findings(scores: Scores, tables: Sequence[str], minimum: int = 0) -> list[Finding]:
    """The claims on these tables that the scores can decide.

    Args:
        scores: metric -> method -> `[images]`.
        tables: those whose methods are all there.
        minimum: how many images a verdict needs; with fewer `holds` is None.
    """
    found = []
    for name in tables:
        table = make_table(name, scores)
        cells = table.cells
        for claim in _CLAIMS:
            if claim.table != name or claim.needs not in (None, *scores):
                continue
            here = claim.tell(cells)
            if claim.pair is not None:
                here += f" (difference {_difference(scores, name, *claim.pair)})"
            holds = bool(claim.check(cells)) if table.images >= minimum else None
            found.append(Finding(name, claim.text, holds, here, _in_the_paper(claim)))
    return found


def to_markdown(found: Sequence[Finding]) -> str:
    """A list: what holds, then what does not, then what too few images leave open."""
    lines = []
    for holds, title in (
        (True, "Hold here:"),
        (False, "Do not hold here:"),
        (None, "Open, too few images for a verdict:"),
    ):
        part = [f for f in found if f.holds is holds]
        if part:
            lines += [title, ""]
            lines += [
                f"- {f.table}: {f.claim}. Here: {f.here}. In the paper: {f.paper} cases."
                for f in part
            ]
            lines.append("")
    return "\n".join(lines).rstrip()


def _difference(scores: Scores, table: str, metric: str, first: str, second: str) -> str:
    labels = rows_of(table)
    kept = complete_images(scores, list(labels.values()))
    values = scores[metric][labels[first]][kept] - scores[metric][labels[second]][kept]
    interval = bootstrap_means(values[:, None])[0]
    if interval.n < 2:
        return f"of {interval.n} images, no interval"
    return f"{interval.mean:+.4f}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}"


def _in_the_paper(claim: _Claim) -> str:
    tables = [published.published(claim.table, case) for case in published.IMAGES]
    given = [cells for cells in tables if claim.needs in (None, *next(iter(cells.values())))]
    return f"{sum(claim.check(cells) for cells in given)} of {len(given)}"


# ---- the claims ---------------------------------------------------------------------------------


def _column(cells: Cells, metric: str, rows: Sequence[str]) -> np.ndarray:
    return np.array([cells[row][metric] for row in rows])


def _ranking(cells: Cells, metric: str, rows: Sequence[str], highest_first: bool) -> list[str]:
    return sorted(rows, key=lambda row: cells[row][metric], reverse=highest_first)


_GUIDED = [f"GAG-{p}" for p in PERCENTS if p > 0]
_ALL = [f"GAG-{p}" for p in PERCENTS]


def _rises(cells: Cells) -> bool:
    return bool((np.diff(_column(cells, "rcap", _GUIDED)) > 0).all())


def _gain(cells: Cells) -> float:
    return 100 * (cells["GAG-85"]["rcap"] / cells["GAG-0"]["rcap"] - 1)


def _spread(cells: Cells, metric: str) -> float:
    return float(np.ptp(_column(cells, metric, _ALL)))


def _falls(cells: Cells, metric: str) -> bool:
    return bool((np.diff(_column(cells, metric, _GUIDED)) < 0).all())


def _first(metric: str, row: str, highest_first: bool) -> Callable[[Cells], bool]:
    """Whether `row` leads the gradient methods."""
    return lambda cells: _place(cells, metric, row, highest_first) == 1


def _place(cells: Cells, metric: str, row: str, highest_first: bool) -> int:
    return 1 + _ranking(cells, metric, GRADIENT_METHODS, highest_first).index(row)


def _order(metric: str, highest_first: bool) -> Callable[[Cells], str]:
    def tell(cells: Cells) -> str:
        ranked = _ranking(cells, metric, GRADIENT_METHODS, highest_first)
        return ", ".join(f"{row} {cells[row][metric]:.4f}" for row in ranked)

    return tell


def _reversed_worse(metric: str, higher_is_better: bool) -> Callable[[Cells], bool]:
    def check(cells: Cells) -> bool:
        plain = _column(cells, metric, PROCESSED)
        turned = _column(cells, metric, [f"{name}^R" for name in PROCESSED])
        return bool((turned < plain).all() if higher_is_better else (turned > plain).all())

    return check


def _pairs(metric: str) -> Callable[[Cells], str]:
    def tell(cells: Cells) -> str:
        return ", ".join(
            f"{name} {cells[name][metric]:.4f} → {cells[f'{name}^R'][metric]:.4f}"
            for name in PROCESSED
        )

    return tell


def _ratios(metric: str) -> Callable[[Cells], str]:
    return lambda cells: ", ".join(f"{v} {cells[v][metric]:.2f}" for v in VARIANTS)


def _sensitive(cells: Cells) -> bool:
    """Whether RCAP moves more than DAUC and IAUC under A, G and GA."""

    def moved(metric: str) -> float:
        return float(np.mean([abs(cells[v][metric] - 1) for v in ("A", "G", "GA")]))

    return moved("rcap") > max(moved("dauc"), moved("iauc"))


_REVERSED = "reversed (Proposition 1), each of SG, IG, GB, Guided IG and BlurIG"
_CLAIMS = (
    _Claim(
        "table1",
        "RCAP rises with every step of p from 15 to 85",
        _rises,
        lambda c: ", ".join(f"{row[4:]}: {c[row]['rcap']:.4f}" for row in _ALL),
    ),
    _Claim(
        "table1",
        "GAG-85 has the best RCAP",
        lambda c: c["GAG-85"]["rcap"] == max(_column(c, "rcap", _ALL)),
        lambda c: ", ".join(
            f"{row} {c[row]['rcap']:.4f}" for row in _ranking(c, "rcap", _ALL, True)[:3]
        ),
    ),
    _Claim(
        "table1",
        "GAG-85's RCAP is more than a quarter above GAG-0's",
        lambda c: _gain(c) > 25,
        lambda c: f"{_gain(c):+.1f} % (paper: +41.7, +51.4, +44.2 %)",
        ("rcap", "GAG-85", "GAG-0"),
    ),
    _Claim(
        "table1",
        "DAUC and IAUC stay within 0.02 over all p",
        lambda c: _spread(c, "dauc") < 0.02 and _spread(c, "iauc") < 0.02,
        lambda c: f"DAUC within {_spread(c, 'dauc'):.4f}, IAUC within {_spread(c, 'iauc'):.4f}",
    ),
    _Claim(
        "table1",
        "MAE falls with every step of p from 15 to 85",
        lambda c: _falls(c, "mae"),
        lambda c: ", ".join(f"{row[4:]}: {c[row]['mae']:.4f}" for row in _ALL),
        needs="mae",
    ),
    _Claim(
        "table2",
        "GAG has the best RCAP of the gradient methods",
        _first("rcap", "GAG", True),
        _order("rcap", True),
    ),
    _Claim(
        "table2",
        "VarGrad's RCAP comes next, below GAG's",
        lambda c: (
            _place(c, "rcap", "VarGrad", True) == 2 and c["GAG"]["rcap"] > c["VarGrad"]["rcap"]
        ),
        lambda c: (
            f"GAG {c['GAG']['rcap']:.4f}, VarGrad {c['VarGrad']['rcap']:.4f}, place "
            f"{_place(c, 'rcap', 'VarGrad', True)}"
        ),
        ("rcap", "GAG", "VarGrad"),
    ),
    _Claim(
        "table2",
        "SmoothGrad's RCAP is less than two thirds of GAG's",
        lambda c: c["SG"]["rcap"] < 2 / 3 * c["GAG"]["rcap"],
        lambda c: f"{c['SG']['rcap'] / c['GAG']['rcap']:.2f} of it",
        ("rcap", "GAG", "SG"),
    ),
    _Claim(
        "table2",
        "Vanilla has the lowest RCAP of the gradient methods",
        lambda c: c["VG"]["rcap"] == min(_column(c, "rcap", GRADIENT_METHODS)),
        lambda c: (
            f"VG {c['VG']['rcap']:.4f}, place {_place(c, 'rcap', 'VG', True)} of "
            f"{len(GRADIENT_METHODS)}"
        ),
    ),
    _Claim(
        "table2",
        "GAG has the lowest log-cosh Dice loss of the gradient methods",
        _first("log_cosh_dice", "GAG", False),
        _order("log_cosh_dice", False),
        needs="log_cosh_dice",
    ),
    _Claim(
        "table2",
        "GAG has the lowest MAE of the gradient methods",
        _first("mae", "GAG", False),
        _order("mae", False),
        needs="mae",
    ),
    _Claim(
        "table2",
        "GAG is among the first three of the gradient methods by IAUC",
        lambda c: _place(c, "iauc", "GAG", True) <= 3,
        lambda c: f"place {_place(c, 'iauc', 'GAG', True)}: {_order('iauc', True)(c)}",
    ),
    _Claim(
        "table2",
        "by DAUC GAG is in the lower half of the gradient methods",
        lambda c: _place(c, "dauc", "GAG", False) > len(GRADIENT_METHODS) / 2,
        lambda c: f"place {_place(c, 'dauc', 'GAG', False)}: {_order('dauc', False)(c)}",
    ),
    _Claim(
        "table2",
        "Grad-CAM has a higher IAUC than every gradient method",
        lambda c: c["Grad-CAM"]["iauc"] > max(_column(c, "iauc", GRADIENT_METHODS)),
        lambda c: f"Grad-CAM {c['Grad-CAM']['iauc']:.4f}, GAG {c['GAG']['iauc']:.4f}",
        ("iauc", "Grad-CAM", "GAG"),
    ),
    _Claim(
        "table2",
        "Grad-CAM has a higher (worse) DAUC than every gradient method",
        lambda c: c["Grad-CAM"]["dauc"] > max(_column(c, "dauc", GRADIENT_METHODS)),
        lambda c: (
            f"Grad-CAM {c['Grad-CAM']['dauc']:.4f}, worst of the others "
            f"{max(_column(c, 'dauc', GRADIENT_METHODS)):.4f}"
        ),
    ),
    _Claim(
        "table2",
        f"{_REVERSED} has a lower RCAP",
        _reversed_worse("rcap", True),
        _pairs("rcap"),
    ),
    _Claim(
        "table2",
        f"{_REVERSED} has a higher DAUC",
        _reversed_worse("dauc", False),
        _pairs("dauc"),
    ),
    _Claim(
        "table2",
        f"{_REVERSED} has a lower IAUC",
        _reversed_worse("iauc", True),
        _pairs("iauc"),
    ),
    _Claim(
        "table2",
        f"{_REVERSED} has a higher log-cosh Dice loss",
        _reversed_worse("log_cosh_dice", False),
        _pairs("log_cosh_dice"),
        needs="log_cosh_dice",
    ),
    _Claim(
        "table2",
        f"{_REVERSED} has a higher MAE",
        _reversed_worse("mae", False),
        _pairs("mae"),
        needs="mae",
    ),
    _Claim(
        "table3",
        "positive gradients alone do not lower RCAP, DAUC falls and IAUC does not",
        lambda c: c["+"]["rcap"] >= 1 and c["+"]["dauc"] < 1 and c["+"]["iauc"] >= 1,
        lambda c: (
            f"RCAP {c['+']['rcap']:.2f}, DAUC {c['+']['dauc']:.2f}, IAUC {c['+']['iauc']:.2f}"
        ),
    ),
    _Claim(
        "table3",
        "negative gradients alone worsen DAUC and IAUC, by little",
        lambda c: 1 < c["-"]["dauc"] <= 1.15 and 0.85 <= c["-"]["iauc"] < 1,
        lambda c: (
            f"RCAP {c['-']['rcap']:.2f}, DAUC {c['-']['dauc']:.2f}, IAUC {c['-']['iauc']:.2f}"
        ),
    ),
    _Claim(
        "table3",
        "the guide improves RCAP more than absolute gradients do, both together most",
        lambda c: c["GA"]["rcap"] >= c["G"]["rcap"] > c["A"]["rcap"] and c["G"]["rcap"] > 1,
        _ratios("rcap"),
    ),
    _Claim(
        "table3",
        "A, G and GA do not lower IAUC",
        lambda c: min(c[v]["iauc"] for v in ("A", "G", "GA")) >= 1,
        _ratios("iauc"),
    ),
    _Claim(
        "table3",
        "RCAP moves more under A, G and GA than DAUC and IAUC do",
        _sensitive,
        lambda c: (
            f"RCAP {_ratios('rcap')(c)}; DAUC {_ratios('dauc')(c)}; IAUC {_ratios('iauc')(c)}"
        ),
    ),
)
