"""Fuzzers: seeded, so that what fails once fails again. `make fuzz` runs them at length."""

import os
from collections import Counter

TRIED: Counter[str] = Counter()
"""Cases by kind, for the line that ends a run."""


def rounds(kind: str, short: int, long: int) -> range:
    """Cases of a fuzzer: some in every test run, many when GAG_FAST_FUZZ is set."""
    count = long if os.environ.get("GAG_FAST_FUZZ") else short
    TRIED[kind] += count
    return range(count)
