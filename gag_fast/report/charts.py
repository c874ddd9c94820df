"""Small SVG charts, drawn in Python so that a page shows them without running anything.

Series carry `data-m="k"`, the method's number; the style sheet gives them their colours, lighter
ones on a dark page, and the script dims the others while one is pointed at. Coordinates are in
units of a 360-wide view box, about a CSS pixel each. Every label is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from gag_fast.report.statistics import Interval

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 10, 34
STRIP_LIMIT = 80  # up to so many values a distribution is its points, beyond it is a density


@dataclass(frozen=True)
class Line:
    """A series over x: its middle and, where given, a band.

    Attributes:
        index: the method's number, which picks the colour.
        label: the method's name.
        x, y: `[points]`.
        low, high: `[points]`, the band's edges.
    """

    index: int
    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers within [low, high]."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [k * step for k in range(first, first + 4 * count) if k * step <= high + step * 1e-9]
    return [0.0 if abs(v) < step * 1e-9 else v for v in values]


def tick_label(value: float) -> str:
    """A tick's number without floating-point dust."""
    return f"{value:.6g}"


class _Axis:
    """A linear scale from data to view-box units."""

    def __init__(self, low: float, high: float, start: float, stop: float):
        if not high > low:
            low, high = low - 0.5, high + 0.5
        self.low, self.high, self.start, self.stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.stop - self.start), 2)


def _svg(height: float, body: list[str], label: str, width: float = WIDTH) -> Markup:
    return Markup(
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        + "".join(body)
        + "</svg>"
    )


def _text(x: float, y: float, text: object, kind: str = "", anchor: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    anchor = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x}" y="{y}"{kind}{anchor}>{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)


def _span(lines: Sequence[Line], include: Sequence[float] = ()) -> tuple[float, float]:
    """The range of everything a chart's lines and bands reach, with a little air."""
    parts = [a for line in lines for a in (line.y, line.low, line.high) if a is not None]
    values = np.concatenate([*(np.asarray(p, float) for p in parts), np.asarray(include, float)])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return low, high + 0.04 * (high - low)


def lines_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str,
    y_label: str = "",
    zero: bool = True,
    points: bool = False,
    height: float = 230,
    span: tuple[float, float] | None = None,
) -> Markup:
    """Lines with bands over a common x.

    Args:
        lines: the series, the first drawn on top. Beyond three of them only its band is shown
            until another is pointed at: bands on bands are one grey.
        label: what a screen reader says of the chart.
        x_label: below the axis.
        y_label: above the axis, where given.
        zero: whether the y axis starts at 0.
        points: marks the points, for a few measured values.
        height: of the view box.
        span: of the x axis; None: that of the lines.
    """
    low, high = _span(lines, (0.0,) if zero else ())
    if not zero:
        low -= 0.06 * (high - low)
    xs = np.concatenate([line.x for line in lines]) if lines else np.array([0.0, 1.0])
    ends = (float(xs.min()), float(xs.max())) if span is None else span
    x = _Axis(*ends, _LEFT, WIDTH - _RIGHT)
    top = _TOP + (14 if y_label else 0)
    y = _Axis(low, high, height - _BOTTOM, top)
    body = []
    for value in ticks(low, high, 4):
        body.append(f'<path class="grid" d="M{_LEFT} {y(value)}H{WIDTH - _RIGHT}"/>')
        body.append(_text(_LEFT - 6, y(value) + 3.5, tick_label(value), anchor="end"))
    for value in ticks(x.low, x.high, 5):
        body.append(_text(x(value), height - _BOTTOM + 16, tick_label(value), anchor="middle"))
    base = height - _BOTTOM
    body.append(f'<path class="axis" d="M{_LEFT} {base}H{WIDTH - _RIGHT}"/>')
    body.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 4, x_label, "title", "middle"))
    if y_label:
        body.append(_text(2, 10, y_label, "title"))
    for line in reversed(lines):
        if line.low is not None and line.high is not None:
            upper = [(x(a), y(b)) for a, b in zip(line.x, line.high) if math.isfinite(b)]
            lower = [(x(a), y(b)) for a, b in zip(line.x, line.low) if math.isfinite(b)]
            if upper:
                edge = _path(upper + lower[::-1])
                quiet = " quiet" if len(lines) > 3 and line is not lines[0] else ""
                body.append(f'<path class="band{quiet}" data-m="{line.index}" d="{edge}Z"/>')
    for line in reversed(lines):
        path = [(x(a), y(b)) for a, b in zip(line.x, line.y) if math.isfinite(b)]
        if not path:
            continue
        body.append(
            f'<path class="line" data-m="{line.index}" d="{_path(path)}">'
            f"<title>{escape(line.label)}</title></path>"
        )
        if points:
            body += [
                f'<circle class="dot" data-m="{line.index}" cx="{a}" cy="{b}" r="3"/>'
                for a, b in path
            ]
    return _svg(height, body, label)


def _density(values: np.ndarray, low: float, high: float, bins: int = 96) -> np.ndarray:
    """A smoothed histogram over [low, high], its peak scaled to 1: Gaussian, Silverman's width."""
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    width = (high - low) / bins
    spread = min(
        values.std(), float(np.subtract(*np.percentile(values, (75, 25)))) / 1.34 or np.inf
    )
    sigma = max(0.9 * spread * values.size**-0.2 / width, 0.7)
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    smooth = np.convolve(counts, kernel, "full")[reach : reach + bins]
    return smooth / smooth.max() if smooth.max() > 0 else smooth


def distributions(
    series: Sequence[tuple[int, str, np.ndarray]], *, label: str, x_label: str
) -> Markup:
    """One row a method: its values' density (or, when few, the values), quartiles and median.

    Args:
        series: (method's number, name, finite values).
        label: what a screen reader says of the chart.
        x_label: below the axis.
    """
    series = [(i, name, v) for i, name, v in series if v.size]
    row = 34
    height = _TOP + row * max(1, len(series)) + _BOTTOM
    if not series:
        return _svg(height, [_text(WIDTH / 2, height / 2, "no values", anchor="middle")], label)
    everything = np.concatenate([v for _, _, v in series])
    low, high = float(everything.min()), float(everything.max())
    air = 0.03 * (high - low) or 0.5
    low, high = low - air, high + air
    x = _Axis(low, high, 8, WIDTH - 8)
    base = height - _BOTTOM
    body = []
    for value in ticks(low, high, 5):
        body.append(f'<path class="grid" d="M{x(value)} {_TOP}V{base}"/>')
        body.append(_text(x(value), base + 16, tick_label(value), anchor="middle"))
    body.append(_text(WIDTH / 2, height - 4, x_label, "title", "middle"))
    for position, (index, name, values) in enumerate(series):
        floor = _TOP + row * (position + 1) - 5
        first, median, third = (float(q) for q in np.percentile(values, (25, 50, 75)))
        body.append(
            f'<g data-m="{index}"><title>{escape(name)}: median {median:.4f}, '
            f"quartiles {first:.4f} and {third:.4f}, n = {values.size}</title>"
        )
        if values.size > STRIP_LIMIT:
            density = _density(values, low, high)
            grid = np.linspace(low, high, 2 * density.size + 1)[1::2]
            top = [(x(a), round(floor - 24 * d, 2)) for a, d in zip(grid, density)]
            edge = _path([(x(low), floor), *top, (x(high), floor)])
            body.append(f'<path class="density" data-m="{index}" d="{edge}Z"/>')
        else:
            # Three heights in turn, so that near values stay apart and the picture is the same
            # each time.
            for k, value in enumerate(np.sort(values)):
                y = floor - 9 - 5 * (k % 3)
                body.append(
                    f'<circle class="dot soft" data-m="{index}" cx="{x(value)}" cy="{y}" r="3"/>'
                )
        body.append(f'<path class="range" data-m="{index}" d="M{x(first)} {floor}H{x(third)}"/>')
        body.append(
            f'<path class="median" data-m="{index}" d="M{x(median)} {floor - 4}V{floor + 4}"/></g>'
        )
    return _svg(height, body, label)


def rank_chart(
    rows: Sequence[tuple[int, str, Interval]], groups: Sequence[tuple[int, int]], *, label: str
) -> Markup:
    """Mean ranks with intervals, best first; a bar at the right joins rows not told apart.

    Args:
        rows: (method's number, name, mean rank), in order.
        groups: (first, last) rows of each bar.
        label: what a screen reader says of the chart.
    """
    row = 30
    height = _TOP + row * len(rows) + _BOTTOM
    bars_left = WIDTH - _RIGHT - 9 * len(groups)
    x = _Axis(1, max(2, len(rows)), 10, bars_left - 14)
    base = height - _BOTTOM
    body = []
    for value in ticks(x.low, x.high, min(6, len(rows) - 1)):
        if value == int(value):
            body.append(f'<path class="grid" d="M{x(value)} {_TOP}V{base}"/>')
            body.append(_text(x(value), base + 16, tick_label(value), anchor="middle"))
    body.append(_text((x.start + x.stop) / 2, height - 4, "mean rank", "title", "middle"))
    for position, (index, name, rank) in enumerate(rows):
        y = _TOP + row * position + 20
        body.append(f'<g data-m="{index}"><title>{escape(name)}: {rank.mean:.2f}</title>')
        right = x(rank.mean) > (x.start + x.stop) / 2
        edge = x.stop if right else x.start
        body.append(_text(edge, y - 8, name, anchor="end" if right else "start"))
        if math.isfinite(rank.low):
            body.append(
                f'<path class="range" data-m="{index}" d="M{x(rank.low)} {y}H{x(rank.high)}"/>'
            )
        body.append(
            f'<circle class="dot" data-m="{index}" cx="{x(rank.mean)}" cy="{y}" r="3.6"/></g>'
        )
    for position, (first, last) in enumerate(groups):
        left = bars_left + 9 * position
        top, bottom = _TOP + row * first + 12, _TOP + row * last + 26
        body.append(f'<path class="alike" d="M{left} {top}V{bottom}"/>')
    return _svg(height, body, label)


@dataclass(frozen=True)
class Point:
    """A method on two axes, each with its interval; `front`: no other is better on both."""

    index: int
    label: str
    x: Interval
    y: Interval
    front: bool


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within [low, high]; of many decades the powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 4 else (1,)
    values = [step * 10.0**power for power in powers for step in steps]
    return [v for v in values if low <= v <= high]


def scatter(points: Sequence[Point], *, label: str, x_label: str, falling: bool = False) -> Markup:
    """Points with error bars over a logarithmic x; a staircase joins those on the front.

    Args:
        points: with x > 0.
        label: what a screen reader says of the chart.
        x_label: below the axis.
        falling: a lower y is the better one.
    """
    height = 230.0
    ends = np.array([v for p in points for v in (p.x.mean, p.x.low, p.x.high)], float)
    ends = ends[np.isfinite(ends) & (ends > 0)]
    low, high = float(ends.min()) / 1.4, float(ends.max()) * 1.4
    place = _Axis(math.log10(low), math.log10(high), _LEFT, WIDTH - _RIGHT)
    ys = np.array([v for p in points for v in (p.y.mean, p.y.low, p.y.high)], float)
    ys = ys[np.isfinite(ys)]
    air = 0.08 * float(np.ptp(ys)) or 0.05
    y = _Axis(float(ys.min()) - air, float(ys.max()) + air, height - _BOTTOM, _TOP)
    base = height - _BOTTOM

    def x(value: float) -> float:
        return place(math.log10(max(value, low)))

    body = []
    for value in ticks(y.low, y.high, 4):
        body.append(f'<path class="grid" d="M{_LEFT} {y(value)}H{WIDTH - _RIGHT}"/>')
        body.append(_text(_LEFT - 6, y(value) + 3.5, tick_label(value), anchor="end"))
    for value in _decades(low, high):
        body.append(_text(x(value), base + 16, tick_label(value), anchor="middle"))
    body.append(f'<path class="axis" d="M{_LEFT} {base}H{WIDTH - _RIGHT}"/>')
    body.append(_text((_LEFT + WIDTH - _RIGHT) / 2, height - 4, x_label, "title", "middle"))
    front = sorted((p for p in points if p.front), key=lambda p: (p.x.mean, p.y.mean))
    if len(front) > 1:
        steps = f"M{x(front[0].x.mean)} {y(front[0].y.mean)}"
        for point in front[1:]:
            steps += f"H{x(point.x.mean)}V{y(point.y.mean)}"
        body.append(f'<path class="front" d="{steps}"/>')
    for point in points:
        across, up = x(point.x.mean), y(point.y.mean)
        body.append(f'<g data-m="{point.index}"><title>{escape(point.label)}</title>')
        if math.isfinite(point.x.low):
            edge = f"M{x(point.x.low)} {up}H{x(point.x.high)}"
            body.append(f'<path class="error" data-m="{point.index}" d="{edge}"/>')
        if math.isfinite(point.y.low):
            edge = f"M{across} {y(point.y.low)}V{y(point.y.high)}"
            body.append(f'<path class="error" data-m="{point.index}" d="{edge}"/>')
        body.append(f'<circle class="dot" data-m="{point.index}" cx="{across}" cy="{up}" r="4"/>')
        right = across > (_LEFT + WIDTH) / 2
        shift, anchor = (-7, "end") if right else (7, "start")
        below = (up < _TOP + 12) != falling
        name = _text(across + shift, up + (14 if below else -6), point.label, anchor=anchor)
        body.append(name + "</g>")
    return _svg(height, body, label)


def whisker(cell: Interval, low: float, high: float, index: int) -> Markup:
    """A mean with its interval on the column's common scale, for a table's cell."""
    width, height = 96, 10
    if not math.isfinite(cell.mean):
        return Markup("")
    x = _Axis(low, high, 5, width - 5)
    body = [f'<path class="axis" d="M0 {height / 2}H{width}"/>']
    if math.isfinite(cell.low):
        edge = f"M{x(cell.low)} {height / 2}H{x(cell.high)}"
        body.append(f'<path class="range" data-m="{index}" d="{edge}"/>')
    body.append(
        f'<circle class="dot" data-m="{index}" cx="{x(cell.mean)}" cy="{height / 2}" r="3.2"/>'
    )
    return Markup(
        f'<svg class="whisker" viewBox="0 0 {width} {height}" aria-hidden="true">'
        + "".join(body)
        + "</svg>"
    )


def bars(rows: Sequence[tuple[str, float, str]], *, label: str) -> Markup:
    """Horizontal bars: (name, value, text at the bar's end). Values are not negative."""
    row = 30
    height = row * max(1, len(rows)) + 4
    most = max((v for _, v, _ in rows if math.isfinite(v)), default=0.0) or 1.0
    body = []
    for position, (name, value, text) in enumerate(rows):
        y = row * position
        length = round(max(1.0, value / most * (WIDTH - 70)), 2) if math.isfinite(value) else 0
        body.append(_text(0, y + 11, name))
        body.append(f'<rect class="bar" x="0" y="{y + 15}" width="{length}" height="8" rx="2"/>')
        body.append(_text(length + 6, y + 23, text, "value"))
    return _svg(height, body, label)
