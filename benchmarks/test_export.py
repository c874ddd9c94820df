"""pytest-benchmark over benchmarks/suites/export.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import export


@pytest.mark.parametrize(("device", "group", "case"), cases_of(export.groups))
def test_export(measure, device, group, case):
    measure("export", group, case, device)
