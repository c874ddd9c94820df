"""What the page says of a run: charts, tables and pictures, ready for the template."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from gag_fast.measures import CURVES, Measure
from gag_fast.report import charts
from gag_fast.report.compare import Comparison, against_method
from gag_fast.report.cost import Cost, costs
from gag_fast.report.deciding import Decided, decided
from gag_fast.report.disagreement import Disagreement, disagreements
from gag_fast.report.gallery import Group, gallery, preset_of
from gag_fast.report.payload import pack, script_json
from gag_fast.report.reading import Run
from gag_fast.report.shown import COUNT, focus_of
from gag_fast.report.standings import Standing, standings
from gag_fast.report.statistics import Interval
from gag_fast.report.tables import Summary, number, summarize

COLORS = 10  # the style sheet's; more methods than that start over with another dash
MAX_FAILURES = 500
MAX_METHODS = 50


@dataclass(frozen=True)
class Cell:
    """A summary cell: the mean, its interval, whether it is the best, and a small drawing."""

    mean: str
    interval: str
    best: bool
    drawing: Markup
    sort: float
    value: Interval


@dataclass(frozen=True)
class Chart:
    """A titled drawing; `note` stands under the title."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """Everything the page shows of one run; empty parts are left out of the page."""

    key: str
    title: str
    facts: list[tuple[str, str]]
    methods: list[tuple[int, str]]
    metrics: list[Measure]
    summary: list[tuple[int, str, list[Cell], int]]
    focus: str
    paired: list[Comparison]
    standings: list[Standing]
    ranks: list[Chart]
    decided: Decided | None
    disagreements: list[Disagreement]
    costs: list[Cost]
    cost_charts: list[Chart]
    distributions: list[Chart]
    curves: list[Chart]
    ablation: list[Chart]
    throughput: Chart | None
    groups: list[Group]
    failures: list[tuple[str, str, str]]
    failure_counts: list[tuple[str, int]]
    failed: int
    rows: Markup
    total_rows: int
    settings: str

    @property
    def cards(self) -> int:
        """Images of the gallery."""
        return sum(len(group.cards) for group in self.groups)

    @property
    def live(self) -> int:
        """Those of them that have a slider for p."""
        return sum(card.live is not None for group in self.groups for card in group.cards)


def build(
    run: Run,
    key: str = "run0",
    *,
    summary: Summary | None = None,
    title: str | None = None,
    gallery_count: int = COUNT,
    credits: dict[str, str] | None = None,
) -> Section:
    """The section of one run.

    Args:
        run: the run.
        key: a prefix for the ids in the page, unique in it.
        summary: its summary when the caller has one already.
        title: its heading, without a summary.
        gallery_count: images a group of the gallery.
        credits: image name -> whose it is, shown with the picture.
    """
    summary = summary or summarize(run, title=title)
    of_all = len(run.methods)
    run, summary = _leading(run, summary)
    focus = focus_method(run)
    standing = standings(run)
    cost = costs(run, summary)
    labels = run.setting("labels")
    failures = [
        (run.images[run.image[row]], run.methods[run.method[row]], reason)
        for row, reason in sorted(run.errors.items())
    ]
    return Section(
        key=key,
        title=summary.title,
        facts=facts(run, of_all),
        methods=list(enumerate(run.methods)),
        metrics=run.metrics,
        summary=_summary_rows(summary),
        focus=focus,
        paired=against_method(run, focus) if len(run.methods) > 1 else [],
        standings=standing,
        ranks=[_ranks(run, of_metric) for of_metric in standing],
        decided=decided(run),
        disagreements=disagreements(run),
        costs=cost,
        cost_charts=[_cost(summary, c, m) for c in cost for m in summary.metrics],
        distributions=_distributions(run),
        curves=_curves(run),
        ablation=_ablation(summary, run.setting("p")),
        throughput=_throughput(run),
        groups=_groups(run, focus, gallery_count, label_reader(labels), credits or {}),
        failures=failures[:MAX_FAILURES],
        failure_counts=_reasons(failures),
        failed=len(failures),
        rows=script_json(pack(run)),
        total_rows=run.rows,
        settings=json.dumps(_short(run.manifest), indent=2, ensure_ascii=False, default=str),
    )


def focus_method(run: Run) -> str:
    """The method others are compared with: the first guided_absgrad, else the first of all."""
    return focus_of(run.methods)


def label_reader(labels: Any) -> Callable[[int], str]:
    """Class index -> name, from a manifest's list of labels; the index where there is none."""

    def name(index: int) -> str:
        if isinstance(labels, Sequence) and not isinstance(labels, str) and index < len(labels):
            return str(labels[index])
        return f"class {index}"

    return name


def _leading(run: Run, summary: Summary) -> tuple[Run, Summary]:
    """The methods that a page can show: all, or the MAX_METHODS with the best means.

    Methods are compared in pairs, so thousands of them would take hours and be read by nobody. The
    files of the tables hold every one.
    """
    if len(run.methods) <= MAX_METHODS or not summary.metrics:
        return run, summary
    metric = summary.metrics[0]
    sign = -1.0 if metric.higher_is_better else 1.0
    means = [sign * summary.cells[name][metric.column].mean for name in run.methods]
    order = np.argsort(np.where(np.isfinite(means), means, np.inf), kind="stable")
    chosen = {*order[:MAX_METHODS].tolist(), run.methods.index(focus_method(run))}
    few = run.of_methods(sorted(chosen))
    return few, replace(summary, methods=few.methods)


def facts(run: Run, of_all: int | None = None) -> list[tuple[str, str]]:
    """What a reader must know of a run before believing its numbers.

    `of_all`: how many methods it has, where the page shows the best of them.
    """
    methods = f"{len(run.methods):,}"
    if of_all not in (None, len(run.methods)):
        methods += f" of {of_all:,}: the best; the tables' files hold all"
    shown, whole = len(run.images), (run.section("data") or {}).get("images")
    whole = whole if type(whole) is int else None
    images = f"{shown:,}" if whole in (None, shown) else f"{shown:,} of {whole:,}"
    source = run.setting("source")
    model_hash, onnx_hash = run.setting("model_sha256"), run.setting("onnx_sha256")
    given: list[tuple[str, Any]] = [
        ("data set", Path(source).name if isinstance(source, str) else None),
        ("images", images),
        ("choice of images", run.setting("choice")),
        ("methods", methods),
        ("model", _name_of(run, "model")),
        ("weights, SHA-256", model_hash[:12] if isinstance(model_hash, str) else None),
        ("ONNX file, SHA-256", onnx_hash[:12] if isinstance(onnx_hash, str) else None),
        ("preset", _name_of(run, "preset")),
        ("samples n", run.setting("n")),
        ("noise", run.setting("noise")),
        ("percentile p", run.setting("p")),
        ("seed", run.setting("seed")),
        ("made", str(run.setting("created", ""))[:10] or None),
        ("commit", run.setting("commit")),
        ("versions", _versions(run)),
        ("failed rows", f"{int((~run.ok).sum()):,}"),
    ]
    return [(label, str(value)) for label, value in given if value is not None]


def _name_of(run: Run, key: str) -> Any:
    section = run.section(key)
    value = run.setting(key)
    return value if value is not None or section is None else section.get("name")


def _versions(run: Run) -> str | None:
    versions = run.section("versions") or {}
    shown = [k for k in ("gag_fast", "torch", "onnxruntime-gpu", "onnxruntime") if k in versions]
    return ", ".join(f"{name} {versions[name]}" for name in shown) or None


def _summary_rows(summary: Summary) -> list[tuple[int, str, list[Cell], int]]:
    spans = {}
    for metric in summary.metrics:
        intervals = [summary.cells[m][metric.column] for m in summary.methods]
        ends = np.array([v for i in intervals for v in (i.mean, i.low, i.high)], float)
        ends = ends[np.isfinite(ends)]
        spans[metric.column] = (float(ends.min()), float(ends.max())) if ends.size else (0.0, 1.0)
    best = [summary.best(metric) for metric in summary.metrics]
    rows = []
    for index, method in enumerate(summary.methods):
        mine = summary.cells[method]
        cells = []
        for metric, winners in zip(summary.metrics, best):
            value, (low, high) = mine[metric.column], spans[metric.column]
            ends_text = f"{number(value.low)} – {number(value.high)}"
            cells.append(
                Cell(
                    mean=number(value.mean),
                    interval=ends_text if np.isfinite(value.low) else "",
                    best=method in winners,
                    drawing=charts.whisker(value, low, high, index),
                    sort=value.mean if np.isfinite(value.mean) else -1e308,
                    value=value,
                )
            )
        rows.append((index, method, cells, max((c.n for c in mine.values()), default=0)))
    return rows


def _ranks(run: Run, standing: Standing) -> Chart:
    rows = [(k, run.methods[k], standing.ranks[k]) for k in standing.order]
    place = {k: position for position, k in enumerate(standing.order)}
    groups = [(place[group[0]], place[group[-1]]) for group in standing.alike()]
    title = f"{standing.metric.label} {standing.metric.arrow}"
    label = f"Mean rank of each method by {standing.metric.label}"
    return Chart(title, f"{standing.n:,} images", charts.rank_chart(rows, groups, label=label))


def _cost(summary: Summary, cost: Cost, metric: Measure) -> Chart:
    points = [
        charts.Point(
            k,
            method,
            cost.values[k],
            summary.cells[method][metric.column],
            k in cost.fronts[metric.column],
        )
        for k, method in enumerate(summary.methods)
        if cost.values[k].mean > 0 and np.isfinite(summary.cells[method][metric.column].mean)
    ]
    title = f"{metric.label} {metric.arrow} by {cost.unit}"
    svg = charts.scatter(
        points,
        label=f"{metric.label} of each method against its {cost.unit} an image",
        x_label=f"{cost.unit} an image",
        falling=not metric.higher_is_better,
    )
    return Chart(title, "", svg)


def _distributions(run: Run) -> list[Chart]:
    drawn = []
    for metric in run.metrics:
        values = run.scores[metric.column]
        series = []
        for index, method in enumerate(run.methods):
            mine = values[run.method == index]
            series.append((index, method, mine[np.isfinite(mine)]))
        title = f"{metric.label} {metric.arrow}"
        label = f"Distribution of {metric.label} for each method"
        drawn.append(Chart(title, "", charts.distributions(series, label=label, x_label="")))
    return drawn


def _steps(run: Run, name: str, count: int) -> np.ndarray:
    """The x of a curve: shares of the pixels, by the run's preset (the paper's when unknown)."""
    used = preset_of(run)
    if name == "recover":
        shares = 1 - np.array(used.percentiles) / 100
        return shares if shares.size == count else np.linspace(shares[0], shares[-1], count)
    return np.linspace(0.0, 1.0 if used.last_point else 1.0 - used.step, count)


def _curves(run: Run) -> list[Chart]:
    drawn = []
    for name, curves in run.curves.items():
        x = _steps(run, name, curves.shape[1])
        lines = []
        for index, method in enumerate(run.methods):
            mine = curves[run.method == index]
            mine = mine[np.isfinite(mine).all(axis=1)].astype(np.float64)
            if not mine.size:
                continue
            mean = mine.mean(axis=0)
            low = high = None
            if len(mine) > 1:
                error = 1.96 * mine.std(axis=0, ddof=1) / np.sqrt(len(mine))
                low, high = np.maximum(mean - error, 0), np.minimum(mean + error, 1)
            lines.append(charts.Line(index, method, x, mean, low, high))
        about = CURVES[name]
        svg = charts.lines_chart(
            lines,
            label=f"Mean {name} curve of each method",
            x_label=about.x_label,
            points=curves.shape[1] <= 6,
        )
        drawn.append(Chart(about.title, about.about, svg))
    return drawn


def _ablation(summary: Summary, plain: float | None) -> list[Chart]:
    """One chart a metric over p, for methods that were run at three or more percents.

    `plain` is the percent of a method named without one.
    """
    families: dict[str, list[tuple[float, str]]] = {}
    for method in summary.methods:
        name, at, percent = method.partition("@")
        if re.fullmatch(r"\d+(\.\d+)?", percent):
            families.setdefault(name, []).append((float(percent), method))
        elif not at and plain is not None:
            families.setdefault(name, []).append((plain, method))
    families = {name: sorted(v) for name, v in families.items() if len(v) > 2}
    if not families:
        return []
    drawn = []
    for metric in summary.metrics:
        lines = []
        for index, (name, members) in enumerate(families.items()):
            cells = [summary.cells[m][metric.column] for _, m in members]
            x = np.array([p for p, _ in members])
            y, low, high = (
                np.array([getattr(c, k) for c in cells]) for k in ("mean", "low", "high")
            )
            lines.append(charts.Line(index, name, x, y, low, high))
        label = f"Mean {metric.label} over the percentile p"
        svg = charts.lines_chart(
            lines, label=label, x_label="percentile p", zero=False, points=True, height=210
        )
        drawn.append(Chart(f"{metric.label} {metric.arrow}", "", svg))
    return drawn


def _stage_seconds(run: Run) -> list[tuple[str, float]]:
    """Seconds that each stage worked in all. Decoding is stored with every row of an image."""
    _, first = np.unique(run.image, return_index=True)
    stages = []
    for title, column in (
        ("decode", "decode_seconds"),
        ("explain", "explain_seconds"),
        ("score", "score_seconds"),
    ):
        if column in run.columns:
            values = (
                run.columns[column][first] if column.startswith("decode") else run.columns[column]
            )
            stages.append((title, float(np.nansum(values))))
    return stages


def _throughput(run: Run) -> Chart | None:
    stages = [(title, seconds) for title, seconds in _stage_seconds(run) if seconds > 0]
    if not stages:
        return None
    images = len(run.images)
    rows = [
        (f"{title}: {seconds:,.1f} s in all", images / seconds, f"{images / seconds:,.2f}")
        for title, seconds in stages
    ]
    note = f"images a second that each stage alone would reach, {len(run.methods)} methods each"
    return Chart("Stages", note, charts.bars(rows, label="Images a second of each stage"))


def _groups(run, focus, count, label_of, credits) -> list[Group]:
    if not run.metrics:
        return []
    groups = gallery(run, run.metrics[0], focus, count=count, label_of=label_of, credits=credits)
    return groups if any(card.tiles for group in groups for card in group.cards) else []


def _reasons(failures: list[tuple[str, str, str]]) -> list[tuple[str, int]]:
    """Reasons by frequency; the image's own name in them counts as the same reason."""
    counter = Counter(reason.replace(image, "…") for image, _, reason in failures)
    return counter.most_common(20)


def _short(value: Any) -> Any:
    """A manifest without its long lists (labels, hashes of every file)."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list) and len(value) > 20:
        return [*map(_short, value[:5]), f"… {len(value) - 5:,} more"]
    return value
