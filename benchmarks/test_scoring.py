"""pytest-benchmark over benchmarks/suites/scoring.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import scoring


@pytest.mark.parametrize(("device", "group", "case"), cases_of(scoring.groups))
def test_scoring(measure, device, group, case):
    measure("scoring", group, case, device)
