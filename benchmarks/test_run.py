"""pytest-benchmark over benchmarks/suites/run.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import run


@pytest.mark.parametrize(("device", "group", "case"), cases_of(run.groups))
def test_run(measure, device, group, case):
    measure("run", group, case, device)
