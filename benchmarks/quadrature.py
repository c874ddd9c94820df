"""Would an adaptive quadrature of the deletion and insertion curves save forward passes?

    python -m benchmarks.quadrature [--photos FOLDER] [--images 24]

Full curves (RISE's preset, 225 points each) of real maps are taken once; then the areas that fewer
points would have given are computed from them: adaptively, by halving the intervals whose midpoint
lies off the chord until the estimated error is below a tolerance, and with the same number of
points evenly spaced. An adaptive rule earns its place if it comes closer with as many passes.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import trapezoid

from benchmarks import machine, material
from benchmarks.material import photographs
from gag_fast.explainer import explain_many
from gag_fast.metrics import evaluate

METHODS = ("guided_absgrad", "smoothgrad", "vanilla")
TOLERANCES = (0.003, 0.001, 0.0003)
FIRST = 9  # points that the adaptive rule begins with


@dataclass(frozen=True)
class Area:
    """An area under a curve from some of its points, and how many they were."""

    value: float
    points: int


def area_from(curve: np.ndarray, at: np.ndarray) -> Area:
    """Trapezoids on [0, 1] through the points with the indexes `at`."""
    return Area(float(trapezoid(curve[at], at / (len(curve) - 1))), len(at))


def adaptive(curve: np.ndarray, tolerance: float) -> Area:
    """Trapezoids on [0, 1], halved where the midpoint lies furthest off the chord.

    Halving an interval shows by how much its trapezoid was off; each half is then taken to be off
    by an eighth of that (a trapezoid's error goes with the cube of its width). The interval with
    the largest error is halved until they sum to no more than `tolerance`.
    """
    last = len(curve) - 1
    known = {round(i * last / (FIRST - 1)) for i in range(FIRST)}
    heap: list[tuple[float, int, int]] = []
    ends = sorted(known)
    for left, right in itertools.pairwise(ends):
        heapq.heappush(heap, (-np.inf, left, right))  # nothing known yet: halved once each
    estimate = np.inf
    while heap and estimate > tolerance:
        _, left, right = heapq.heappop(heap)
        middle = (left + right) // 2
        known.add(middle)
        t = (middle - left) / (right - left)
        chord = curve[left] * (1 - t) + curve[right] * t
        error = abs(curve[middle] - chord) * (right - left) / last / 2
        for a, b in ((left, middle), (middle, right)):
            if b - a > 1:
                heapq.heappush(heap, (-error / 8, a, b))
        estimate = sum(-e for e, _, _ in heap)
    return area_from(curve, np.array(sorted(known)))


def even(curve: np.ndarray, points: int) -> Area:
    """Trapezoids on `points` evenly spaced points."""
    at = np.round(np.linspace(0, len(curve) - 1, points)).astype(int)
    return area_from(curve, np.unique(at))


def curves(photos: Path | None, count: int) -> dict[str, np.ndarray]:
    """deletion and insertion: [maps, 225] probabilities of real maps of photographs."""
    module, spec = material.lite0()
    clf = material.classifier()
    images = photographs(photos, count, spec.preprocessing)
    targets = torch.as_tensor(clf(images)).argmax(1)
    maps = torch.stack(list(explain_many(module, images, targets, METHODS, n=10).values()), 1)
    found = evaluate(clf, images, maps, targets, metrics=("dauc", "iauc"), preset="rise")
    return {
        name: found.curves[name].flatten(0, 1).double().numpy()
        for name in ("deletion", "insertion")
    }


def rank_correlation(a: list[float], b: list[float]) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def compare(points: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Adaptive and even spacing against the full curves [maps, 225]."""
    full = [area_from(c, np.arange(len(c))).value for c in points]
    ours = [adaptive(c, tolerance) for c in points]
    mean_points = round(np.mean([a.points for a in ours]))
    row: dict[str, Any] = {"tolerance": tolerance}
    for name, areas in (("adaptive", ours), ("even", [even(c, mean_points) for c in points])):
        off = np.abs(np.array([a.value for a in areas]) - full)
        row[name] = {
            "points": float(np.mean([a.points for a in areas])),
            "mean_error": float(off.mean()),
            "largest_error": float(off.max()),
            "rank_correlation": rank_correlation([a.value for a in areas], full),
            "within": float((off <= tolerance).mean()),
        }
    return row


def table(result: dict[str, Any]) -> str:
    """Markdown: one row a curve, tolerance and rule."""
    lines = [
        "| curve | tolerance | rule | points of 225 | mean ΔAUC | largest | rank correlation "
        "| within tolerance |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for curve, rows in result["curves"].items():
        for row in rows:
            for rule in ("adaptive", "even"):
                r = row[rule]
                lines.append(
                    f"| {curve} | {row['tolerance']} | {rule} | {r['points']:.0f} | "
                    f"{r['mean_error']:.4f} | {r['largest_error']:.4f} | "
                    f"{r['rank_correlation']:.4f} | {100 * r['within']:.0f} % |"
                )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder (default: scikit-image's pictures)")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args(argv)
    found = curves(args.photos, args.images)
    result = {
        "stamp": machine.stamp(),
        "images": args.images,
        "methods": METHODS,
        "curves": {name: [compare(c, t) for t in TOLERANCES] for name, c in found.items()},
    }
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
