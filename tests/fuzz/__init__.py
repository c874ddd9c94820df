"""Fuzzers: seeded, so that what fails once fails again. `make fuzz` runs them at length."""

import os


def rounds(short: int, long: int) -> int:
    """Cases of a fuzzer: some in every test run, many when GAG_FAST_FUZZ is set."""
    return long if os.environ.get("GAG_FAST_FUZZ") else short
