"""pytest-benchmark over benchmarks/suites/gradients.py."""

import pytest

from benchmarks.conftest import cases_of
from benchmarks.suites import gradients


@pytest.mark.parametrize(("device", "group", "case"), cases_of(gradients.groups))
def test_gradients(measure, device, group, case):
    measure("gradients", group, case, device)
