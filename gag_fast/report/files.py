"""Every figure and every table of a page as files of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gag_fast.report.compare import Comparison
from gag_fast.report.figures import to_pdf, to_svg
from gag_fast.report.grids import Grid, Value, to_csv, to_latex
from gag_fast.report.html import Contents
from gag_fast.report.page import Chart, Section
from gag_fast.report.standings import Standing

Files = Iterator[tuple[str, bytes]]


def figure_files(contents: Contents) -> Files:
    """(file name, content) of every chart, as SVG and as PDF."""
    for section in contents.sections:
        for kind, charts in _charts(section):
            for chart in charts:
                name = _name(contents, section.key, kind, chart.title)
                yield f"{name}.svg", to_svg(chart.svg).encode()
                yield f"{name}.pdf", to_pdf(chart.svg, f"{kind}: {chart.title}")


def table_files(contents: Contents) -> Files:
    """(file name, content) of every table, as CSV and as LaTeX."""
    grids = [grid for section in contents.sections for grid in _section(contents, section)]
    for position, (first, second, lines) in enumerate(contents.comparisons, start=1):
        title = f"{second} against {first}"
        grids.append(_comparison(f"comparison-{position}", title, first, second, lines))
    for grid in grids:
        if grid.rows:
            yield f"{grid.name}.csv", to_csv(grid).encode()
            yield f"{grid.name}.tex", to_latex(grid).encode()


def _charts(section: Section) -> Iterator[tuple[str, list[Chart]]]:
    yield "ranks", section.ranks
    yield "cost", section.cost_charts
    yield "curve", section.curves
    yield "distribution", section.distributions
    yield "percentile", section.ablation
    if section.throughput is not None:
        yield "throughput", [section.throughput]


def _name(contents: Contents, key: str, *words: str) -> str:
    """A file's name of plain characters; the run's key in front where there are several."""
    text = "-".join(words if len(contents.sections) == 1 else (key, *words))
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:80]


def _section(contents: Contents, section: Section) -> Iterator[Grid]:
    methods = [name for _, name in section.methods]
    head = [
        "method",
        *(x for m in section.metrics for x in (m.label, f"{m.label} low", f"{m.label} high")),
        "n",
    ]
    rows: list[list[Value]] = []
    for _, method, cells, n in section.summary:
        values = [v for c in cells for v in (c.value.mean, c.value.low, c.value.high)]
        rows.append([method, *values, n])
    title = f"{section.title}: mean and bootstrap 95 % interval"
    yield Grid(_name(contents, section.key, "summary"), title, head, rows)
    meanings: list[list[Value]] = [[m.label, m.arrow, m.about] for m in section.metrics]
    name = _name(contents, section.key, "measures")
    yield Grid(name, "What the measures mean", ["measure", "better", "meaning"], meanings)
    for standing in section.standings:
        name = _name(contents, section.key, "pairs", standing.metric.column)
        yield _standing(name, methods, standing)
    if section.paired:
        name = _name(contents, section.key, "against", section.focus)
        title = f"{section.title}: against {section.focus}"
        yield _comparison(name, title, section.focus, "method", section.paired)
    if section.costs:
        rows = [
            [method, *(cost.values[k].mean for cost in section.costs)]
            for k, method in enumerate(methods)
        ]
        head = ["method", *(f"{cost.unit} an image" for cost in section.costs)]
        yield Grid(_name(contents, section.key, "cost"), "Cost of an image", head, rows)
    name = _name(contents, section.key, "failures")
    yield Grid(name, "Failures", ["image", "method", "reason"], section.failures)


def _standing(name: str, methods: list[str], standing: Standing) -> Grid:
    rows: list[list[Value]] = []
    for a, b in standing.pairs:
        pair = standing.pairs[a, b]
        rows.append(
            [
                *(methods[a], methods[b], *standing.wins(a, b)),
                *(-pair.difference.mean, -pair.difference.high, -pair.difference.low),
                *(standing.p_value(a, b), pair.sign_p, standing.verdict(a, b)),
                *(standing.ranks[a].mean, standing.ranks[b].mean),
            ]
        )
    head = [
        *("first", "second", "first better", "equal", "second better"),
        *("difference", "low95", "high95", "Wilcoxon p (Holm)", "sign test p", "first is"),
        *("first's mean rank", "second's mean rank"),
    ]
    return Grid(name, f"Pairs of methods by {standing.metric.label}", head, rows)


def _comparison(name: str, title: str, first: str, second: str, lines: list[Comparison]) -> Grid:
    head = [
        *("method", "metric", first, second, "difference", "low95", "high95"),
        *("Wilcoxon p (Holm)", "sign test p (Holm)", "higher", "lower", "n", "verdict"),
    ]
    rows: list[list[Value]] = []
    for line in lines:
        mean = line.result.difference
        rows.append(
            [
                *(line.method, line.metric.label, line.first, line.second),
                *(mean.mean, mean.low, mean.high, line.adjusted, line.sign_adjusted),
                *(line.result.higher, line.result.lower, mean.n, line.verdict),
            ]
        )
    return Grid(name, title, head, rows)
