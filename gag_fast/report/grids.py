"""The page's tables as data, and as files: CSV for a program, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from gag_fast._text import one_line
from gag_fast.report.tables import csv_cell, latex_text

Value = str | float | int


@dataclass(frozen=True)
class Grid:
    """One table.

    Attributes:
        name: of its file.
        title: what it is of.
        head: the columns' names.
        rows: texts and numbers, as many as `head`.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Value]]


def to_csv(grid: Grid) -> str:
    """Full precision; text that a spreadsheet would take for a formula is made plain."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([csv_cell(name) for name in grid.head])
    for row in grid.rows:
        writer.writerow([csv_cell(v) if isinstance(v, str) else _exact(v) for v in row])
    return buffer.getvalue()


def to_latex(grid: Grid) -> str:
    """A booktabs table, numbers to four decimals."""
    texts = [isinstance(value, str) for value in grid.rows[0]] if grid.rows else []
    columns = "".join("l" if text else "r" for text in texts) or "l" * len(grid.head)
    lines = [
        "% " + one_line(grid.title),
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _line([latex_text(name) for name in grid.head]),
        r"\midrule",
        *(_line([_latex(value) for value in row]) for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _exact(value: float | int) -> str:
    return "" if value != value else repr(value)


def _latex(value: Value) -> str:
    if isinstance(value, str):
        return latex_text(value)
    if value != value:
        return "--"
    if isinstance(value, int):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.4g}"
