"""pytest-benchmark over benchmarks/suites/aggregation.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import aggregation


@pytest.mark.parametrize(("device", "group", "case"), cases_of(aggregation.groups))
def test_aggregation(measure, device, group, case):
    measure("aggregation", group, case, device)
