"""The README's performance section, made from a results folder; tests hold the two equal.

python -m benchmarks.readme benchmarks/results/<device>
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import machine, memory
from benchmarks.suites import SUITES

README = machine.ROOT / "README.md"
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


def section(folder: Path) -> str:
    """The Markdown between the README's two marks."""
    lines, described = [], set()
    for suite in SUITES:
        path = folder / f"{suite}.json"
        if not path.exists():
            continue
        data = json.loads(path.read_text())
        where = machine.describe(data["stamp"])
        if where not in described:
            lines += [f"Measured by `make bench` {where}:", ""]
            described.add(where)
        lines += ["| job | case | median | × ours |", "| --- | --- | ---: | ---: |"]
        for group in data["groups"]:
            job = group["group"]
            for row in group["rows"]:
                time = f"{row['ms']:.1f} ms" if row["ms"] < 1000 else f"{row['ms'] / 1e3:.2f} s"
                lines.append(f"| {job} | {row['case']} | {time} | {row['times_ours']:.2f} |")
                job = ""
            if group["fastest"] != group["rows"][0]["case"]:
                lines.append(f"| | *not the fastest: {group['fastest']} is* | | |")
        lines.append("")
    return "\n".join(lines)


def replaced(text: str, folder: Path) -> str:
    """README text with its performance section made anew from a results folder."""
    begin = BEGIN.format(folder.relative_to(machine.ROOT).as_posix())
    head, _, rest = text.partition("<!-- benchmarks:begin")
    if not rest or END not in rest:
        raise ValueError(f"README.md has no {begin} … {END} section to fill")
    tail = rest.partition(END)[2]
    return f"{head}{begin}\n{section(folder)}\n{END}{tail}"


def write(folder: Path) -> None:
    """Fill README.md from a results folder."""
    README.write_text(replaced(README.read_text(), folder.resolve()))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
