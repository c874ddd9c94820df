"""Paired comparisons: the methods of one run with each other, and two runs with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gag_fast._run_files import flat_settings
from gag_fast.measures import Measure
from gag_fast.report.reading import ReportError, Run
from gag_fast.report.statistics import MIN_IMAGES, Paired, holm, paired_columns

MUST_AGREE = (
    *("data", "images", "model", "model_sha256", "onnx_sha256", "preprocessing", "preset"),
)
"""Settings of two runs that must be the same for their scores to be comparable."""

_Pair = tuple[str, Measure, np.ndarray, np.ndarray]  # method, metric, first and second values


@dataclass(frozen=True)
class Comparison:
    """One line of a comparison.

    Attributes:
        method: whose values these are.
        metric: which metric.
        first, second: means over the pairs.
        result: second minus first, image by image.
        adjusted: Wilcoxon's p-value after Holm's adjustment over all lines of the comparison.
        sign_adjusted: likewise the sign test's.
    """

    method: str
    metric: Measure
    first: float
    second: float
    result: Paired
    adjusted: float
    sign_adjusted: float

    @property
    def verdict(self) -> str:
        """Of the second, at an adjusted p below 0.05: "better", "worse" or "no difference".

        "too few images" where there are fewer than MIN_IMAGES.
        """
        if self.result.difference.n < MIN_IMAGES:
            return "too few images"
        if not self.adjusted < 0.05:
            return "no difference"
        higher = self.result.difference.mean > 0
        return "better" if higher == self.metric.higher_is_better else "worse"


def against_method(run: Run, baseline: str) -> list[Comparison]:
    """Every other method of a run against `baseline`, on the images that both have."""
    pairs: list[_Pair] = []
    column = run.methods.index(baseline)
    for metric in run.metrics:
        values = run.matrix(metric.column)
        for row, method in enumerate(run.methods):
            if method != baseline:
                pairs.append((method, metric, values[:, column], values[:, row]))
    return _compare(pairs)


def two_runs(first: Run, second: Run) -> list[Comparison]:
    """The methods and metrics that two runs share, on the images that they share."""
    common, in_first, in_second = np.intersect1d(
        np.array(first.images, dtype=object).astype(str),
        np.array(second.images, dtype=object).astype(str),
        return_indices=True,
    )
    metrics = [m for m in first.metrics if m.column in second.scores]
    methods = [m for m in first.methods if m in second.methods]
    pairs: list[_Pair] = []
    if not common.size:
        return []
    for metric in metrics:
        a, b = first.matrix(metric.column)[in_first], second.matrix(metric.column)[in_second]
        for method in methods:
            one, two = a[:, first.methods.index(method)], b[:, second.methods.index(method)]
            pairs.append((method, metric, one, two))
    return _compare(pairs)


def disagreements(first: Run, second: Run) -> list[str]:
    """What makes two runs incomparable, in words: "preset.interval: 10 and 20".

    Settings that one of the two does not tell are no disagreement.
    """
    one, two = (flat_settings(run.section("settings") or {}) for run in (first, second))
    found = []
    for key in sorted(one.keys() & two.keys()):
        if key.split(".")[0] in MUST_AGREE and one[key] != two[key]:
            found.append(f"{key}: {_short(one[key])} and {_short(two[key])}")
    return found


def check_alike(runs: Sequence[Run]) -> None:
    """Refuses runs of different data, model or preset.

    Raises:
        ReportError: names the two runs and what differs.
    """
    for other in runs[1:]:
        differ = disagreements(runs[0], other)
        if differ:
            raise ReportError(
                f"{runs[0].path} and {other.path} cannot be compared ({'; '.join(differ)}); "
                "--anyway does it all the same"
            )


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text[:12] + "…" if len(text) == 64 else text  # a hash


def _compare(pairs: list[_Pair]) -> list[Comparison]:
    lines = [pair for pair in pairs if np.isfinite(pair[3] - pair[2]).any()]
    if not lines:
        return []
    differences = np.stack([two - one for _, _, one, two in lines], axis=1)
    results = paired_columns(differences)
    adjusted = holm([result.p_value for result in results])
    by_sign = holm([result.sign_p for result in results])
    found = []
    for position, (method, metric, one, two) in enumerate(lines):
        both = np.isfinite(differences[:, position])
        means = float(one[both].mean()), float(two[both].mean())
        result, p, sign_p = results[position], adjusted[position], by_sign[position]
        found.append(Comparison(method, metric, *means, result, p, sign_p))
    return found
