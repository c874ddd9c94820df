"""pytest-benchmark over benchmarks/suites/session.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import session


@pytest.mark.parametrize(("device", "group", "case"), cases_of(session.groups))
def test_session(measure, device, group, case):
    measure("session", group, case, device)
