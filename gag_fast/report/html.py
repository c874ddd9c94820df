"""One self-contained page of one run or more: no network, text from data escaped everywhere."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from gag_fast import __version__
from gag_fast.report import page
from gag_fast.report.compare import Comparison, two_runs
from gag_fast.report.reading import Run
from gag_fast.report.statistics import MIN_IMAGES
from gag_fast.report.tables import Summary, number

_HERE = Path(__file__).parent


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _signed(value: float) -> str:
    """A difference with its sign, a real minus among them."""
    text = number(value)
    if text == "–":
        return text
    return "+" + text if value > 0 and float(text) != 0 else text.replace("-", "−")


def _p_value(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _breakable(text: str) -> Markup:
    """A method's name that may be broken at its underscores and before its percent."""
    return Markup(str(escape(text)).replace("_", "_<wbr>").replace("@", "<wbr>@"))


def _sortable(value: float) -> float:
    return 2.0 if math.isnan(value) else value


def _colors(methods: int) -> str:
    """Which method has which colour; from the eleventh on, colours return with dashed lines."""
    rules = []
    for index in range(methods):
        rules.append(f'[data-m="{index}"]{{--c:var(--m{index % page.COLORS})}}')
        if index >= page.COLORS:
            rules.append(
                f'.line[data-m="{index}"]{{stroke-dasharray:{3 + index // page.COLORS * 2} 3}}'
            )
    return "\n".join(rules)


def render(
    runs: Sequence[Run],
    *,
    title: str | None = None,
    lead: str = "",
    summaries: Sequence[Summary] | None = None,
    credits: dict[str, str] | None = None,
) -> str:
    """The page as text.

    Args:
        runs: at least one; a second and further ones are compared with the first.
        title: the page's heading; default: the runs' names.
        lead: a sentence below it.
        summaries: of the runs, when they are computed already.
        credits: image name -> whose photograph it is.
    """
    parts = contents(runs, summaries=summaries, credits=credits)
    return render_contents(parts, title=title, lead=lead)


@dataclass(frozen=True)
class Contents:
    """What a page shows: a section a run, and the comparisons of the others with the first.

    Attributes:
        names: of the runs.
        sections: of the runs.
        comparisons: (first's name, other's name, lines).
    """

    names: list[str]
    sections: list[page.Section]
    comparisons: list[tuple[str, str, list[Comparison]]]


def contents(
    runs: Sequence[Run],
    *,
    summaries: Sequence[Summary] | None = None,
    credits: dict[str, str] | None = None,
) -> Contents:
    """Computes what a page shows; arguments as `render`."""
    names = [s.title for s in summaries] if summaries else distinct_names(runs)
    sections = [
        page.build(
            run,
            f"run{index}",
            summary=summaries[index] if summaries else None,
            title=names[index],
            credits=credits,
        )
        for index, run in enumerate(runs)
    ]
    comparisons = [(names[0], names[k], two_runs(runs[0], runs[k])) for k in range(1, len(runs))]
    return Contents(names, sections, comparisons)


def render_contents(parts: Contents, *, title: str | None = None, lead: str = "") -> str:
    """The page of contents that are there already; title and lead as in `render`."""
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    style += _colors(max(len(section.methods) for section in parts.sections))
    return _template().render(
        title=title or " and ".join(parts.names),
        lead=lead,
        sections=parts.sections,
        comparisons=parts.comparisons,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        version=__version__,
        number=number,
        signed=_signed,
        breakable=_breakable,
        p_value=_p_value,
        sortable=_sortable,
        min_images=MIN_IMAGES,
    )


def distinct_names(runs: Sequence[Run]) -> list[str]:
    """The runs' names, with as much of their paths as tells them apart."""
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    return names
