"""The page's charts as files of their own: SVG that needs no style sheet, and PDF.

A chart in the page takes its colours from the style sheet by class and by the method's number.
Here every mark gets its own (those of a light page), and the few marks that the charts are made of
(paths of straight lines, circles, rectangles, text) are written as a one-page PDF with Helvetica,
which every reader has.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

_CSS = Path(__file__).with_name("report.css")
_FONT = "Helvetica, Arial, sans-serif"
_TEXT = 11  # the style sheet's size


@dataclass(frozen=True)
class Ink:
    """How a mark is drawn: colours as "#rrggbb", None for none."""

    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    opacity: float = 1.0
    round: bool = False


@cache
def palette() -> dict[str, str]:
    """The light page's colours by name, out of its style sheet: "ink", "m0", ..."""
    first = _CSS.read_text(encoding="utf-8").split("}", 1)[0]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", first))


def ink_of(classes: str, method: str | None) -> Ink:
    """The style sheet's rules for a mark's classes, as it draws them on a light page.

    Raises:
        KeyError: a class that this table does not know.
    """
    colours = palette()
    own = colours[f"m{int(method) % 10}"] if method is not None else colours["accent"]
    names = classes.split()
    if not names:
        return Ink(fill=colours["soft"])
    kind = names[0]
    table = {
        "grid": Ink(stroke=colours["rule"]),
        "axis": Ink(stroke=colours["rule"]),
        "line": Ink(stroke=own, width=1.8, round=True),
        "front": Ink(stroke=colours["soft"], width=1.2),
        "band": Ink(fill=own, opacity=0.13),
        "density": Ink(fill=own, opacity=0.32),
        "dot": Ink(fill=own, opacity=0.55 if "soft" in names else 1.0),
        "range": Ink(stroke=own, width=2.2, round=True),
        "error": Ink(stroke=own, width=1.2),
        "median": Ink(stroke=colours["ink"], width=2.0, round=True),
        "alike": Ink(stroke=colours["ink"], width=3.0, round=True),
        "bar": Ink(fill=colours["accent"], opacity=0.8),
        "title": Ink(fill=colours["soft"]),
        "value": Ink(fill=colours["ink"]),
    }
    return table[kind]


def to_svg(chart: str) -> str:
    """A chart of `charts` as a file that any program draws alike."""
    root = ElementTree.fromstring(chart)
    width, height = _size(root)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    root.set("font-family", _FONT)
    root.set("font-size", str(_TEXT))
    for mark in root.iter():
        if mark.tag in ("path", "circle", "rect", "text"):
            ink = ink_of(mark.get("class", ""), mark.get("data-m"))
            mark.set("fill", ink.fill or "none")
            if ink.stroke:
                mark.set("stroke", ink.stroke)
                mark.set("stroke-width", f"{ink.width:g}")
            if ink.opacity < 1:
                mark.set("fill-opacity", f"{ink.opacity:g}")
            if ink.round:
                mark.set("stroke-linecap", "round")
                mark.set("stroke-linejoin", "round")
        mark.attrib.pop("class", None)
        mark.attrib.pop("data-m", None)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def to_pdf(chart: str, title: str = "") -> bytes:
    """A chart of `charts` as a PDF of one page, as large as the chart."""
    root = ElementTree.fromstring(chart)
    width, height = _size(root)
    body = [f"1 0 0 -1 0 {height:g} cm"]  # from here on y goes down, as in SVG
    states: dict[float, str] = {}
    for mark in root.iter():
        if mark.tag in ("path", "circle", "rect", "text"):
            ink = ink_of(mark.get("class", ""), mark.get("data-m"))
            name = states.setdefault(ink.opacity, f"G{len(states)}")
            body += ["q", f"/{name} gs", *_drawn(mark, ink), "Q"]
    return _document("\n".join(body), width, height, states, title)


def _size(root: ElementTree.Element) -> tuple[float, float]:
    _, _, width, height = map(float, root.get("viewBox", "0 0 0 0").split())
    return width, height


# ---- PDF ----------------------------------------------------------------------------------------


def _drawn(mark: ElementTree.Element, ink: Ink) -> Iterator[str]:
    if mark.tag == "text":
        yield from _text(mark, ink)
        return
    if ink.fill:
        yield f"{_rgb(ink.fill)} rg"
    if ink.stroke:
        yield f"{_rgb(ink.stroke)} RG {ink.width:g} w {'1 J 1 j' if ink.round else '0 J 0 j'}"
    if mark.tag == "path":
        yield from _path(mark.get("d", ""))
    elif mark.tag == "circle":
        yield from _circle(*(float(mark.get(k, 0)) for k in ("cx", "cy", "r")))
    else:
        x, y, width, height = (float(mark.get(k, 0)) for k in ("x", "y", "width", "height"))
        yield f"{x:g} {y:g} {width:g} {height:g} re"
    yield "f" if ink.fill else "S"


def _path(commands: str) -> Iterator[str]:
    """The straight lines that the charts draw: M, L, H, V and Z."""
    x = y = 0.0
    for letter, numbers in re.findall(r"([MLHVZ])([^MLHVZ]*)", commands):
        values = [float(v) for v in numbers.split()]
        if letter == "Z":
            yield "h"
            continue
        if letter == "H":
            x = values[0]
        elif letter == "V":
            y = values[0]
        else:
            x, y = values
        yield f"{x:g} {y:g} {'m' if letter == 'M' else 'l'}"


def _circle(x: float, y: float, r: float) -> Iterator[str]:
    k = 0.5523 * r  # four Bézier arcs, within 0.03 % of the circle
    yield f"{x + r:g} {y:g} m"
    for a, b, c, d, e, f in (
        (x + r, y + k, x + k, y + r, x, y + r),
        (x - k, y + r, x - r, y + k, x - r, y),
        (x - r, y - k, x - k, y - r, x, y - r),
        (x + k, y - r, x + r, y - k, x + r, y),
    ):
        yield f"{a:.3f} {b:.3f} {c:.3f} {d:.3f} {e:.3f} {f:.3f} c"


def _text(mark: ElementTree.Element, ink: Ink) -> Iterator[str]:
    text = "".join(mark.itertext()).encode("cp1252", "replace")
    x, y = float(mark.get("x", 0)), float(mark.get("y", 0))
    x -= {"middle": 0.5, "end": 1.0}.get(mark.get("text-anchor", ""), 0.0) * _text_width(text)
    escaped = re.sub(rb"([\\()])", rb"\\\1", text).decode("cp1252")
    yield f"{_rgb(ink.fill or '#000000')} rg"
    yield f"BT /F1 {_TEXT} Tf 1 0 0 -1 {x:.2f} {y:.2f} Tm ({escaped}) Tj ET"


def _text_width(text: bytes) -> float:
    return sum(_WIDTHS[c - 32] if 32 <= c < 127 else 556 for c in text) * _TEXT / 1000


# Helvetica's advance widths of the characters from space to ~, in thousandths of the size.
_WIDTHS = (
    *(278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278),
    *(556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556),
    *(1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778),
    *(667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556),
    *(333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556),
    *(556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584),
)


def _rgb(colour: str) -> str:
    return " ".join(f"{int(colour[i : i + 2], 16) / 255:.3f}" for i in (1, 3, 5))


def _document(
    body: str, width: float, height: float, states: dict[float, str], title: str
) -> bytes:
    stream = zlib.compress(body.encode("cp1252", "replace"), 9)
    graphics = " ".join(f"/{name} << /ca {a:g} /CA {a:g} >>" for a, name in states.items())
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width:g} {height:g}] /Contents 4 0 R "
        f"/Resources << /Font << /F1 5 0 R >> /ExtGState << {graphics} >> >> >>".encode(),
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Title <feff%b> >>" % title.encode("utf-16-be").hex().encode(),
    ]
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 6 0 R >>\n" % (len(objects) + 1)
    out += b"startxref\n%d\n%%%%EOF\n" % table
    return bytes(out)
