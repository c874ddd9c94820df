"""The tables of docs/benchmarks.md, docs/onnx.md and README.md, made from a results folder.

Tests compare them with the folder's files.

python -m benchmarks.readme benchmarks/results/<device>
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine, memory
from benchmarks.suites import SUITES

PAGE = machine.ROOT / "docs" / "benchmarks.md"
README = machine.ROOT / "README.md"
ONNX = machine.ROOT / "docs" / "onnx.md"
BRIEF = (
    ("aggregation", "[8, 20, 3, 224, 224] float32", "one read (sum)"),
    ("aggregation", "[8, 20, 3, 224, 224] float32", "authors' recipe"),
    ("gradients", "EfficientNet-Lite0, 8 images x 20 samples", "Captum NoiseTunnel"),
    ("scoring", "paper preset, 2 images x 4 maps", "the authors' way"),
    ("scoring", "torchcam preset, 1 image", "torch-cam DeletionInsertionMetric"),
    ("run", "8 photographs x 3 methods", "its two engines alone"),
)
"""The README's rows: suite, job, and the case that ours is set beside."""

BEGIN, END = "<!-- benchmarks:begin {} -->", "<!-- benchmarks:end -->"


def memory_table(data: dict[str, Any]) -> str:
    """Peak memory above the inputs, one row a case."""
    job = f"{memory.STACK}, scoring {memory.IMAGES} images x {memory.MAPS} maps"
    lines = ["", f"## Peak memory above the inputs: aggregation of {job}", ""]
    lines += ["| case | MiB |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.0f} |" for name, value in data["memory_MiB"].items()]
    return "\n".join(lines) + "\n"


def scaling_table(data: dict[str, Any]) -> str:
    """Time against size, with the fitted exponent."""
    lines = ["", "## Scaling: time ~ size^slope", "", "| axis | ms at each size | slope |"]
    lines += ["| --- | --- | ---: |"]
    for row in data["scaling"]:
        points = ", ".join(f"{size}: {ms:.2f}" for size, ms in row["ms"].items())
        slope = "" if row["slope"] is None else f"{row['slope']:.2f}"
        lines.append(f"| {row['axis']} | {points} | {slope} |")
    return "\n".join(lines) + "\n"


def seconds(ms: float) -> str:
    """A median as tables have it."""
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1e3:.2f} s"


def brief(folder: Path) -> str:
    """The README's six rows."""
    lines = ["| job | gag_fast | beside | | × ours |", "| --- | ---: | --- | ---: | ---: |"]
    stamp = {}
    for suite, job, beside in BRIEF:
        data = json.loads((folder / f"{suite}.json").read_text())
        (group,) = (g for g in data["groups"] if g["group"] == job)
        times = {row["case"]: row["ms"] for row in group["rows"]}
        ours, theirs = group["rows"][0]["ms"], times[beside]
        cells = [f"{suite}: {job}", seconds(ours), beside, seconds(theirs), f"{theirs / ours:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
        stamp = data["stamp"]
    return "\n".join([f"Measured by `make bench` {machine.describe(stamp)}:", "", *lines, ""])


def section(folder: Path) -> str:
    """Every table, as docs/benchmarks.md has them."""
    lines, described = [], ""
    for suite in SUITES:
        path = folder / f"{suite}.json"
        if not path.exists():
            continue
        data = json.loads(path.read_text())
        where = machine.describe(data["stamp"])
        if where != described:
            lines += [f"Measured by `make bench` {where}:", ""]
            described = where
        lines += ["| job | case | median | × ours |", "| --- | --- | ---: | ---: |"]
        for group in data["groups"]:
            job = group["group"]
            for row in group["rows"]:
                time, case = seconds(row["ms"]), row["case"]
                if "pictures" in row:
                    case += f", {row['pictures']} pictures"
                lines.append(f"| {job} | {case} | {time} | {row['times_ours']:.2f} |")
                job = ""
            if group["fastest"] != group["rows"][0]["case"]:
                lines.append(f"| | *not the fastest: {group['fastest']} is* | | |")
            lines += [f"| | *{note}* | | |" for note in group.get("notes", ())]
        lines.append("")
    return "\n".join(lines)


def without_torch(folder: Path) -> str:
    """docs/onnx.md's two: gradients a second by engine, and Table 1 of the paper by way."""
    engines = ("torch engine", "ONNX Runtime, CPU", "OpenVINO", "auto")
    lines = []
    for suite, head in (
        ("onnx_gradients", f"| gradients/s | {' | '.join(engines)} | auto / torch |"),
        ("protocol", "| way | seconds | × the authors' rate |"),
    ):
        data = json.loads((folder / f"{suite}.json").read_text())
        lines += [f"`python -m benchmarks.all --suites {suite}` {machine.describe(data['stamp'])}:"]
        lines += ["", head, "| --- |" + " ---: |" * (head.count("|") - 2)]
        for group in data["groups"]:
            rows = {row["case"]: row for row in group["rows"]}
            if suite == "protocol":
                theirs = rows["the authors' way"]["ms"]
                lines += [
                    f"| {case} | {row['ms'] / 1e3:.2f} | {theirs / row['ms']:.1f} |"
                    for case, row in rows.items()
                ]
            elif "auto" in rows:
                cells = [f"{rows[name]['rate']:.1f}" if name in rows else "" for name in engines]
                ratio = rows["torch engine"]["ms"] / rows["auto"]["ms"]
                lines.append(f"| {group['group']} | {' | '.join(cells)} | {ratio:.2f} |")
        lines.append("")
    return "\n".join(lines)


def replaced(text: str, folder: Path, made: Callable[[Path], str] = section) -> str:
    """A page's text with what stands between its two marks made anew from a results folder."""
    begin = BEGIN.format(folder.relative_to(machine.ROOT).as_posix())
    head, _, rest = text.partition("<!-- benchmarks:begin")
    if not rest or END not in rest:
        raise ValueError(f"the page has no {begin} … {END} section to fill")
    tail = rest.partition(END)[2]
    return f"{head}{begin}\n{made(folder)}\n{END}{tail}"


def write(folder: Path) -> None:
    """Fill the pages from a results folder."""
    for page, made in PAGES.items():
        page.write_text(replaced(page.read_text(), folder.resolve(), made))


PAGES = {PAGE: section, README: brief, ONNX: without_torch}
"""Each page and what makes its tables."""


if __name__ == "__main__":
    write(Path(sys.argv[1]))
