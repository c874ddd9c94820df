"""The tables and Figure 4 as pictures. Needs matplotlib, the [plot] extra; nothing else does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gag_fast.experiments import tables
from gag_fast.experiments.propositions import FIGURE4, MAPS, Figure4

_HERE, _PAPER = "#2563a8", "#b0b4ba"


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError:
        raise ImportError("figures need matplotlib; pip install 'gag-fast[plot]'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "gag-fast"  # the same file for the same numbers
    from matplotlib import pyplot

    return pyplot


def _save(pyplot: Any, figure: Any, path: Path) -> Path:
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, metadata=metadata, bbox_inches="tight")
    pyplot.close(figure)
    return path


def table(made: tables.Table, path: Path) -> Path:
    """One panel a metric: Table 1 as lines over p, the others as bars; published figures in grey.

    Args:
        made: the table.
        path: .svg, .png or .pdf.
    """
    pyplot = _pyplot()
    count = len(made.metrics)
    rows = list(made.cells)
    height = 2.6 if made.name == "table1" else 0.6 + 0.24 * len(rows)
    figure, axes = pyplot.subplots(1, count, figsize=(2.7 * count, height), squeeze=False)
    paper = made.paper
    for place, (axis, metric) in enumerate(zip(axes[0], made.metrics, strict=True)):
        here = [made.cells[row][metric] for row in rows]
        theirs = [paper.get(row, {}).get(metric) for row in rows]
        given = any(value is not None for value in theirs)
        if made.name == "table1":
            percents = [int(row.removeprefix("GAG-")) for row in rows]
            if given:
                axis.plot(percents, theirs, "s--", color=_PAPER, ms=3, label="paper")
            axis.plot(percents, here, "o-", color=_HERE, ms=3, label="here")
            axis.set_xlabel("p")
            axis.margins(y=0.2)
        else:
            places = list(range(len(rows)))
            if given:
                axis.barh([p + 0.2 for p in places], theirs, 0.4, color=_PAPER, label="paper")
                axis.barh([p - 0.2 for p in places], here, 0.4, color=_HERE, label="here")
            else:
                axis.barh(places, here, 0.7, color=_HERE, label="here")
            axis.set_yticks(places, rows if place == 0 else [""] * len(rows))
            axis.invert_yaxis()
            if made.name == "table3":
                axis.axvline(1, color="black", lw=0.6)
        axis.set_title(tables.heading(metric), fontsize=10)
        axis.tick_params(labelsize=8)
        if given and place == 0:
            axis.legend(fontsize=7)
    figure.tight_layout()
    return _save(pyplot, figure, path)


def figure4(made: Figure4, path: Path) -> Path:
    """Figure 4: the object, the four maps, and how their saliency falls off.

    In (f) and (g) the curves are a map's sorted values, the grey part is the focus area, and the
    yellow strip shows which share of each fifth of the pixels lies on the object.
    """
    pyplot = _pyplot()
    figure = pyplot.figure(figsize=(11, 5.2))
    grid = figure.add_gridspec(2, 10, height_ratios=(1, 1.15))
    named = zip("bcde", MAPS, made.maps)  # Figure 4 has the first four maps
    pictures = [("(a) object", made.mask), *((f"({k}) {name}", map_) for k, name, map_ in named)]
    for place, (title, picture) in enumerate(pictures):
        axis = figure.add_subplot(grid[0, 2 * place : 2 * place + 2])
        axis.imshow(picture.numpy(), cmap="viridis", vmin=0, vmax=1)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    focus = 100 - FIGURE4.lower_bound
    colours = ("tab:orange", "tab:blue", "tab:green", "tab:pink")
    for side, pair in enumerate(((0, 1), (2, 3))):
        axis = figure.add_subplot(grid[1, 5 * side : 5 * side + 5])
        for i in pair:
            ranked, order = made.maps[i].flatten().sort(descending=True, stable=True)
            step = max(1, len(ranked) // 200)  # what a line of this size can show
            values, share = ranked.numpy()[::step], np.linspace(0, 100, len(ranked))[::step]
            axis.plot(share, values, color=colours[i], label=MAPS[i])
            inside = share <= focus
            axis.fill_between(share[inside], values[inside], color="0.6", alpha=0.35, lw=0)
        # Both maps of a pair rank the pixels alike, so one strip serves for both.
        on_object = made.mask.flatten()[order].reshape(5, -1).mean(1)
        axis.bar(
            [10, 30, 50, 70, 90],
            on_object.numpy(),
            width=18,
            color="gold",
            alpha=0.45,
            label="share on object",
        )
        axis.axvline(focus, color="0.3", lw=0.8, ls=":")
        axis.set_xticks([0, 20, 40, 60, 80, 100])
        axis.set_xlabel("pixels, most salient first, %")
        axis.set_title(f"({'fg'[side]}) {MAPS[pair[0]]} and {MAPS[pair[1]]}", fontsize=10)
        axis.set_ylim(0, 1.05)
        axis.legend(fontsize=8)
    figure.tight_layout()
    return _save(pyplot, figure, path)
