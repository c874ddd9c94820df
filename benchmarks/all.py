"""`make bench`: every suite, as tables and plots in benchmarks/results/<device>/, and the README's.

    python -m benchmarks.all [--suites aggregation,gradients,…] [--only TEXT] [--budget SECONDS]

Each group's cases are interleaved in one process and compared by the ratio of their medians.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import machine, memory, readme, scaling
from benchmarks.suites import SUITES, Group
from benchmarks.timing import interleave, paired_ratio

RESULTS = machine.ROOT / "benchmarks" / "results"
MISSING = "not installed, or refused as wrong"


def measure(group: Group, budget: float) -> dict[str, Any]:
    """Time one group's cases; the ratios are those of the others to ours."""
    cases = group.setup()
    slow = budget >= 20 or group.rounds is not None
    times = interleave(
        cases,
        rounds=group.rounds or 25,
        warmup=1 if slow else 2,
        budget=None if group.rounds else budget,
    )
    ours = times[next(iter(times))]
    rows = []
    for name, timing in times.items():
        ratio, low, high = paired_ratio(timing, ours)
        row: dict[str, Any] = {
            "case": name,
            "ms": timing.median * 1e3,
            "quartiles_ms": [s * 1e3 for s in timing.spread],
            "times_ours": ratio,
            "times_ours_quartiles": [low, high],
            "rate": group.units / timing.median,
        }
        if group.bytes:
            row["bytes_per_s"] = group.bytes / timing.median
        if pictures := group.pictures.get(name):
            row |= {"pictures": pictures, "ms_a_picture": timing.median * 1e3 / pictures}
            if group.unit == "picture":
                row["rate"] = pictures / timing.median
        rows.append(row)
    result: dict[str, Any] = {"group": group.name, "unit": group.unit, "rows": rows}
    result["notes"] = list(group.notes)
    if group.floor in times:
        result["share_of_floor"] = times[group.floor].median / ours.median
        result["floor"] = group.floor
    if group.operations:
        result["operations_per_s"] = group.operations / ours.median
        result["operations_per_byte"] = group.operations / group.bytes
    fastest = min(times, key=lambda name: times[name].median)
    contenders = [name for name in times if name not in (group.floor, group.part)]
    result["fastest"] = min(contenders, key=lambda name: times[name].median)
    result["fastest_of_all"] = fastest
    result["missing"] = [name for name in group.names if name not in times]
    return result


def run_suite(name: str, budget: float, only: str = "") -> list[dict[str, Any]]:
    """Every group of a suite, or those whose names hold a text."""
    module = importlib.import_module(f"benchmarks.suites.{name}")
    results = []
    for group in module.groups():
        if only not in group.name:
            continue
        results.append(measure(group, getattr(module, "BUDGET", budget)))
        print(text(results[-1]), flush=True)
    return results


def text(result: dict[str, Any]) -> str:
    """One group as plain lines."""
    lines = [f"\n{result['group']}"]
    for row in result["rows"]:
        low, high = row["times_ours_quartiles"]
        lines.append(
            f"  {row['case']:28} {row['ms']:10.2f} ms  {row['times_ours']:8.2f} x ours"
            f"  ({low:.2f} … {high:.2f})  {row['rate']:9.1f} {result['unit']}s/s"
            + (f"  {row['pictures']} pictures" if "pictures" in row else "")
        )
    if "share_of_floor" in result:
        lines.append(f"  {100 * result['share_of_floor']:.0f} % of the rate of {result['floor']}")
    lines += [f"  {note}" for note in result.get("notes", ())]
    ours = result["rows"][0]["case"]
    if result["fastest"] != ours:
        lines.append(f"  not the fastest: {result['fastest']} is")
    for case in result["missing"]:
        lines.append(f"  {case}: {MISSING}")
    return "\n".join(lines)


def with_others(
    results: list[dict[str, Any]], path: Path, stamp: dict[str, Any]
) -> list[dict[str, Any]]:
    """The results with those of the file's other groups, where the same code measured them here."""
    old = json.loads(path.read_text()) if path.exists() else {"stamp": None, "groups": []}
    if old["stamp"] != stamp:
        return results
    new = {result["group"]: result for result in results}
    kept = [new.pop(group["group"], group) for group in old["groups"]]
    return [*kept, *new.values()]


def markdown(suite: str, results: list[dict[str, Any]], stamp: dict[str, Any]) -> str:
    """A suite as a Markdown page."""
    lines = [
        f"# {suite}",
        "",
        f"`python -m benchmarks.all --suites {suite}` {machine.describe(stamp)}",
        "",
    ]
    for result in results:
        lines += [f"## {result['group']}", ""]
        shown = any("pictures" in row for row in result["rows"])
        last = "pictures | ms a picture" if shown else "GB/s"
        lines += [f"| case | ms | × ours (quartiles) | {result['unit']}s/s | {last} |"]
        lines += ["| --- | ---: | ---: | ---: | ---: |" + " ---: |" * shown]
        for row in result["rows"]:
            low, high = row["times_ours_quartiles"]
            end = f"{row['bytes_per_s'] / 1e9:.1f}" if "bytes_per_s" in row else ""
            if shown:
                end = f"{row['pictures']} | {row['ms_a_picture']:.2f}" if "pictures" in row else "|"
            lines.append(
                f"| {row['case']} | {row['ms']:.2f} | {row['times_ours']:.2f} "
                f"({low:.2f}–{high:.2f}) | {row['rate']:.1f} | {end} |"
            )
        if "share_of_floor" in result:
            share = f"{100 * result['share_of_floor']:.0f} % of {result['floor']}'s rate"
            work = result.get("operations_per_s", 0)
            lines += ["", f"Reaches {share}" + (f", {work / 1e9:.0f} Gop/s." if work else ".")]
        if result["fastest"] != result["rows"][0]["case"]:
            lines += ["", f"Not the fastest here: {result['fastest']} is."]
        lines += [
            f"\n{case}: not installed, or refused for being wrong; not measured."
            for case in result["missing"]
        ]
        lines += [f"\n{note}" for note in result.get("notes", ())]
        lines.append("")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], title: str, path: Path) -> None:
    """Times of all cases relative to ours, one bar group a job, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["case"] for result in results for row in result["rows"]))
    height = 0.8 / len(names)
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.16 * len(names) * len(results)))
    for index, name in enumerate(names):
        points = [
            (y + index * height, row["ms"])
            for y, result in enumerate(results)
            for row in result["rows"]
            if row["case"] == name
        ]
        if points:
            axes.barh(*zip(*points, strict=True), height=height, label=name)
    axes.set_yticks([y + 0.4 for y in range(len(results))], [r["group"] for r in results])
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds a call (median)")
    axes.set_title(title)
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Measure, write, regenerate the tables of the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--only", default="", help="the groups whose names hold this text")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds a group (default 6)")
    parser.add_argument("--out", type=Path, help="folder (default benchmarks/results/<device>)")
    args = parser.parse_args(argv)
    chosen = args.suites.split(",")
    unknown = sorted(set(chosen) - set(SUITES))
    if unknown:
        parser.error(f"unknown suites {unknown}; there are {', '.join(SUITES)}")
    out = args.out or RESULTS / machine.device_name()
    out.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    for suite in chosen:
        print(f"\n== {suite}", flush=True)
        stamp = machine.stamp()
        results = run_suite(suite, args.budget, args.only)
        if not results:
            continue
        if args.only:
            results = with_others(results, out / f"{suite}.json", stamp)
        data: dict[str, Any] = {"stamp": stamp, "groups": results}
        page = markdown(suite, results, stamp)
        if suite == "aggregation":
            data["memory_MiB"] = memory.measure()
            data["scaling"] = scaling.measure()
            page += readme.memory_table(data) + readme.scaling_table(data)
            print(readme.memory_table(data) + readme.scaling_table(data), flush=True)
        (out / f"{suite}.json").write_text(json.dumps(data, indent=1) + "\n")
        (out / f"{suite}.md").write_text(page)
        plot(results, f"{suite}: {stamp['device']}", out / f"{suite}.svg")
    if args.out is None:
        readme.write(out)
    print(f"\n{time.perf_counter() - begin:.0f} s; results in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
