"""Runs the suites under pytest-benchmark: one test a case, one pytest-benchmark group a job.

pytest benchmarks --benchmark-enable [--benchmark-autosave] [--benchmark-compare]
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.suites import Group


def pytest_make_parametrize_id(config, val, argname):
    """Groups by their name, so that -k and saved results can name them."""
    return val.name if isinstance(val, Group) else None


@pytest.fixture(scope="module")
def prepared():
    """The inputs of the group in hand; those of the last one are dropped first."""
    held: dict[str, dict] = {}

    def prepare(key: str, group: Group) -> dict:
        if key not in held:
            held.clear()
            held[key] = group.setup()
        return held[key]

    yield prepare
    held.clear()


@pytest.fixture
def measure(benchmark, prepared):
    """measure(suite, group, case): time one case, in the pytest-benchmark group of its job."""

    def run(suite: str, group: Group, case: str, device: str = "cpu") -> None:
        cases = prepared(f"{suite} {device} {group.name}", group)
        if case not in cases:
            pytest.skip(f"{case}: its library is not installed")
        call = cases[case]
        benchmark.group = f"{suite} ({device}): {group.name}"
        benchmark.extra_info |= {"bytes": group.bytes, "units": group.units, "unit": group.unit}
        if device == "cuda":

            def synchronised():
                call()
                torch.cuda.synchronize()

            benchmark(synchronised)
        else:
            benchmark(call)

    return run
