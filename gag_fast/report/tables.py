"""Tables in the paper's form: mean, bootstrap 95 % interval, n; the best mean of a metric in bold.

One `Summary` is computed and then written as text, Markdown, CSV or LaTeX.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gag_fast._text import one_line
from gag_fast.measures import Measure
from gag_fast.report.reading import Run
from gag_fast.report.statistics import Interval, bootstrap_means

DIGITS = 4


@dataclass(frozen=True)
class Summary:
    """Means of every method under every metric.

    Attributes:
        title: what the table is of.
        methods: row names.
        metrics: the columns.
        cells: `cells[method][metric column]`.
    """

    title: str
    methods: list[str]
    metrics: list[Measure]
    cells: dict[str, dict[str, Interval]]

    def best(self, metric: Measure) -> set[str]:
        """The methods with the best mean as printed; several when they print the same."""
        means = {m: round(self.cells[m][metric.column].mean, DIGITS) for m in self.methods}
        finite = [v for v in means.values() if math.isfinite(v)]
        if not finite:
            return set()
        top = max(finite) if metric.higher_is_better else min(finite)
        return {m for m, value in means.items() if value == top}


def summarize(run: Run, *, title: str | None = None, seed: int = 0) -> Summary:
    """The summary of a run; the bootstrap resamples images, the same ones for all methods."""
    metrics = run.metrics
    columns = [run.matrix(metric.column) for metric in metrics]
    stacked = np.concatenate(columns, axis=1) if columns else np.empty((len(run.images), 0))
    intervals = bootstrap_means(stacked, seed=seed)
    count = len(run.methods)
    cells = {
        method: {metric.column: intervals[k * count + row] for k, metric in enumerate(metrics)}
        for row, method in enumerate(run.methods)
    }
    return Summary(title or run.name, list(run.methods), metrics, cells)


def number(value: float, digits: int = DIGITS) -> str:
    """A fixed number of decimals, without the leading zero's sign for −0; "–" for NaN."""
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _range(cell: Interval) -> str:
    return f"[{number(cell.low)}, {number(cell.high)}]" if math.isfinite(cell.low) else ""


def _count(summary: Summary, method: str) -> str:
    """n of a method; a span when its metrics have different ones."""
    counts = sorted({cell.n for cell in summary.cells[method].values()})
    if not counts:
        return "0"
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


WIDE = 180
"""A terminal's table with longer lines has a row for each measure, if that makes it narrower."""


def to_text(summary: Summary) -> str:
    """A table for a terminal; the best mean of a measure carries a `*`."""
    head = ["method", *(f"{m.label} {m.arrow}" for m in summary.metrics), "n"]
    rows = []
    best = [summary.best(metric) for metric in summary.metrics]
    for method in summary.methods:
        row = [one_line(method)]
        for metric, winners in zip(summary.metrics, best):
            cell = summary.cells[method][metric.column]
            star = "*" if method in winners else " "
            row.append(f"{number(cell.mean)}{star} {_range(cell)}".rstrip(" "))
        rows.append([*row, _count(summary, method)])
    table = [head, *rows]
    turned = [list(row) for row in zip(*table, strict=True)]
    if _width(table) > max(WIDE, _width(turned)):
        table = turned
    widths = _widths(table)

    def line(row: list[str]) -> str:
        cells = [
            text.rjust(width) if head == "n" else text.ljust(width)
            for head, text, width in zip(table[0], row, widths, strict=True)
        ]
        return "  ".join(cells).rstrip()

    note = "mean [bootstrap 95 % interval]; * best mean"
    lines = [line(table[0]), "─" * _width(table), *map(line, table[1:])]
    return "\n".join([one_line(summary.title), *lines, note]) + "\n"


def _widths(table: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def _width(table: list[list[str]]) -> int:
    """Of a line, two blanks between the columns."""
    return sum(_widths(table)) + 2 * (len(table[0]) - 1)


def per_image_text(run: Run, metric: Measure, limit: int = 50) -> str:
    """One metric of every image, a column a method, for a terminal; the best of a row has a `*`.

    Of more than `limit` images the first ones are shown.
    """
    values = run.matrix(metric.column)
    rows = [[f"{metric.label} {metric.arrow}", *map(one_line, run.methods)]]
    for index, image in enumerate(run.images[:limit]):
        rounded = np.round(values[index], DIGITS)
        finite = rounded[np.isfinite(rounded)]
        best = (finite.max() if metric.higher_is_better else finite.min()) if finite.size else None
        row = [number(v) + ("*" if v == best else " ") for v in rounded]
        rows.append([one_line(image), *row])
    widths = _widths(rows)
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    left = len(run.images) - limit
    return "\n".join([*lines, *([f"… and {left:,} images more"] if left > 0 else [])]) + "\n"


def to_markdown(summary: Summary) -> str:
    """A GitHub table; the best mean of a column is bold."""
    head = ["method", *(f"{m.label} {m.arrow}" for m in summary.metrics), "n"]
    lines = [_pipe(head), _pipe([":--", *("--:" for _ in head[1:])])]
    best = [summary.best(metric) for metric in summary.metrics]
    for method in summary.methods:
        row = [_markdown(method)]
        for metric, winners in zip(summary.metrics, best):
            cell = summary.cells[method][metric.column]
            mean = number(cell.mean)
            mean = f"**{mean}**" if method in winners else mean
            row.append(f"{mean} {_range(cell)}".rstrip())
        lines.append(_pipe([*row, _count(summary, method)]))
    return "\n".join([f"### {_markdown(summary.title)}", "", *lines, ""])


def _pipe(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    """Text from data: what Markdown or HTML would read as markup is escaped."""
    text = one_line(" ".join(text.split()))
    for character in "\\`*_{}[]()#|~":
        text = text.replace(character, "\\" + character)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def to_csv(summary: Summary) -> str:
    """One row a (method, metric), full precision: method, metric, mean, low, high, n, best.

    A name that a spreadsheet would take for a formula has an apostrophe before it: see `csv_cell`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "metric", "mean", "low95", "high95", "n", "best"])
    best = [summary.best(metric) for metric in summary.metrics]
    for method in summary.methods:
        for metric, winners in zip(summary.metrics, best):
            found = summary.cells[method][metric.column]
            figures = (found.mean, found.low, found.high)
            numbers = ["" if math.isnan(v) else repr(v) for v in figures]
            writer.writerow(
                [csv_cell(method), metric.column, *numbers, found.n, int(method in winners)]
            )
    return buffer.getvalue()


def csv_cell(text: str) -> str:
    """A name as a CSV cell: one line, and no formula, whatever program opens the file.

    Spreadsheets compute cells that begin with =, +, - or @; an apostrophe before it says text.
    """
    text = one_line(text)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}


def latex_text(text: str) -> str:
    """Text from data: what LaTeX would read as a command is escaped."""
    text = one_line(text)
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(summary: Summary) -> str:
    """A booktabs table; intervals in small type under nothing but their own column."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    columns = "l" + "r@{\\,}l" * len(summary.metrics) + "r"
    head = ["Method"]
    head += [rf"\multicolumn{{2}}{{c}}{{{m.label} {arrows[m.arrow]}}}" for m in summary.metrics]
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join([*head, "$n$"]) + r" \\",
        r"\midrule",
    ]
    best = [summary.best(metric) for metric in summary.metrics]
    for method in summary.methods:
        row = [latex_text(method)]
        for metric, winners in zip(summary.metrics, best):
            cell = summary.cells[method][metric.column]
            mean = number(cell.mean).replace("–", "--")
            row.append(rf"\textbf{{{mean}}}" if method in winners else mean)
            row.append(rf"{{\scriptsize {_range(cell)}}}" if _range(cell) else "")
        lines.append(" & ".join([*row, _count(summary, method).replace("–", "--")]) + r" \\")
    caption = f"% {one_line(summary.title)}: mean and bootstrap 95 % interval"
    return "\n".join([caption, *lines, r"\bottomrule", r"\end{tabular}", ""])


FORMATS: dict[str, tuple[str, Callable[[Summary], str]]] = {
    "text": ("txt", to_text),
    "markdown": ("md", to_markdown),
    "csv": ("csv", to_csv),
    "latex": ("tex", to_latex),
}
"""Format name -> (file suffix, writer)."""
