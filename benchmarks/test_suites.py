"""pytest-benchmark over every suite: one test a case."""

import importlib

import pytest
import torch

from benchmarks.suites import SUITES


def cases():
    """(suite, device, group, case) for every case on every device that is there."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for suite in SUITES:
        groups = importlib.import_module(f"benchmarks.suites.{suite}").groups
        for device in devices:
            for group in groups(device):
                for case in group.names:
                    yield suite, device, group, case


@pytest.mark.parametrize(("suite", "device", "group", "case"), cases())
def test_case(measure, suite, device, group, case):
    measure(suite, group, case, device)
