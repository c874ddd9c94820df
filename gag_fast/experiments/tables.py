"""Rows of a run in the form of the paper's tables, beside the published figures."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gag_fast.experiments import published
from gag_fast.experiments.maps import PROCESSED, VARIANTS, rows_of
from gag_fast.measures import Need, measure, named

TITLES = {
    "table1": "Table 1. Guided AbsoluteGrad with different p (Section 5.1)",
    "table2": "Table 2. Gradient-based methods, and five of them reversed (Section 6.1)",
    "table3": "Table 3. Gradient processing: a variant's metric over its method's own, averaged "
    "over SG, IG, GB, Guided IG and BlurIG (Section 6.2)",
    "methods": "All methods",
}

Scores = Mapping[str, Mapping[str, np.ndarray]]
"""metric -> method name -> `[images]`, NaN where an image has no score."""


@dataclass(frozen=True)
class Table:
    """One of the paper's tables, reproduced.

    Attributes:
        name: one of `maps.TABLES`.
        metrics: the columns.
        cells: row label -> metric -> mean over the images, or Table 3's ratio.
        images: images that the means are over (those that every row has a score for).
        extra: further columns: header -> row label -> text.
        case: the published case beside which it is printed.
    """

    name: str
    metrics: tuple[str, ...]
    cells: dict[str, dict[str, float]]
    images: int
    extra: dict[str, dict[str, str]] = field(default_factory=dict)
    case: str | None = None

    @property
    def paper(self) -> dict[str, dict[str, float]]:
        """The published rows, {} without a case."""
        if self.case is None or self.name not in published.TABLES:
            return {}
        return published.published(self.name, self.case)

    @property
    def digits(self) -> int:
        """Decimals, as the paper prints them."""
        return 2 if self.name == "table3" else 4


def heading(metric: str) -> str:
    """How the paper's tables head a metric, with the mark of its better direction."""
    row = measure(metric)
    return f"{row.paper_label or row.label}{row.arrow}"


def in_papers_order(metrics: Iterable[str]) -> tuple[str, ...]:
    """Metrics as the paper's tables have them: those of masks first."""
    rows = sorted(named(metrics), key=lambda row: Need.MASK not in row.needs)
    return tuple(row.name for row in rows)


def complete_images(scores: Scores, methods: Sequence[str]) -> np.ndarray:
    """bool `[images]`: those that every method has a score for.

    All means are over them, so that the means are over the same images.
    """
    columns = [scores["rcap"][method] for method in methods]
    return np.isfinite(np.stack(columns)).all(axis=0)


def make_table(
    name: str,
    scores: Scores,
    case: str | None = None,
    passes: Mapping[str, int] | None = None,
) -> Table:
    """Reproduces a table from the scores of every map.

    Args:
        name: one of `maps.TABLES`.
        scores: of at least the methods in `rows_of(name)`.
        case: whose published figures to print beside, or None.
        passes: method -> forward and backward passes per image, for the extra column of Table 2
            and of all methods.
    """
    labels = rows_of(name)
    kept = complete_images(scores, list(labels.values()))
    metrics = in_papers_order(scores)
    means = {
        label: {metric: _mean(scores[metric][method][kept]) for metric in metrics}
        for label, method in labels.items()
    }
    extra = {}
    if name == "table3":
        means = {v: {m: _ratio(means, v, m) for m in metrics} for v in VARIANTS}
    elif name in ("table2", "methods") and passes is not None:
        extra["fwd+bwd"] = {label: str(passes[method]) for label, method in labels.items()}
    return Table(name, metrics, means, int(kept.sum()), extra, case)


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]  # some images may have no mask
    return float(values.mean()) if values.size else math.nan


def _ratio(means: Mapping[str, Mapping[str, float]], variant: str, metric: str) -> float:
    """Mean over the methods of (variant's metric / the method's own)."""
    ratios = [
        means[f"{method} {variant}"][metric] / means[method][metric]
        for method in PROCESSED
        if means[method][metric]
    ]
    return float(np.mean(ratios)) if ratios else math.nan


# ---- printing -----------------------------------------------------------------------------------


def best(table: Table, cells: Mapping[str, Mapping[str, float]], metric: str) -> set[str]:
    """The rows with the best printed figure; Grad-CAM is left out, as it is no gradient method."""
    rows = {
        row: round(values[metric], table.digits)
        for row, values in cells.items()
        if row != "Grad-CAM" and metric in values and math.isfinite(values[metric])
    }
    if not rows:
        return set()
    top = (max if measure(metric).higher_is_better else min)(rows.values())
    return {row for row, value in rows.items() if value == top}


def grid(table: Table, bold: tuple[str, str] = ("**", "**")) -> list[list[str]]:
    """The table as cells of text, header first; the best of each column between `bold`."""
    paper = table.paper
    headers = ["" if table.name != "table3" else "variant"]
    headers += [heading(m) for m in table.metrics]
    headers += [f"paper {heading(m)}" for m in table.metrics if m in next(iter(paper.values()), {})]
    lines = [headers + list(table.extra)]
    for row, values in table.cells.items():
        line = [row]
        for cells in (table.cells, paper):
            for metric in table.metrics:
                if metric in cells.get(row, {}):
                    text = f"{cells[row][metric]:.{table.digits}f}"
                    mark = row in best(table, cells, metric)
                    line.append(f"{bold[0]}{text}{bold[1]}" if mark else text)
        lines.append(line + [column[row] for column in table.extra.values()])
        assert len(lines[-1]) == len(lines[0]), values
    return lines


def to_text(table: Table) -> str:
    """For a terminal; the best of each column has a star."""
    lines = grid(table, bold=("", "*"))
    widths = [max(len(line[i].rstrip("*")) for line in lines) for i in range(len(lines[0]))]
    rendered = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        for width, cell in zip(widths[1:], line[1:], strict=True):
            mark = "*" if cell.endswith("*") else " "
            cells.append(cell.rstrip("*").rjust(width) + mark)
        rendered.append("  ".join(cells).rstrip())
    rule = "─" * max(len(line) for line in rendered)
    return "\n".join([_title(table), rendered[0], rule, *rendered[1:]])


def to_markdown(table: Table) -> str:
    """A GitHub table; the best of each column in bold."""
    lines = grid(table)
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    body = ["| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:])]
    return "\n".join([f"**{_title(table)}**", "", *body])


def to_csv(table: Table) -> str:
    """All digits; the published figures in columns `paper_<metric>`."""
    paper = table.paper
    given = [m for m in table.metrics if m in next(iter(paper.values()), {})]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", *table.metrics, *(f"paper_{m}" for m in given), *table.extra])
    for row, values in table.cells.items():
        figures = [repr(values[m]) for m in table.metrics]
        theirs = [paper.get(row, {}).get(m, "") for m in given]
        writer.writerow([row, *figures, *theirs, *(column[row] for column in table.extra.values())])
    return file.getvalue()


def _title(table: Table) -> str:
    beside = ""
    if table.case is not None and table.paper:
        beside = f"; paper: {table.case}, {published.IMAGES[table.case]:,} images"
    return f"{TITLES[table.name]}; {table.images} images{beside}"
