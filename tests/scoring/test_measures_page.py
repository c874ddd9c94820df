"""docs/measures.md says the same as the table of measures, one section for each."""

import re

import pytest

from gag_fast.measures import MEASURES, function_of
from tests import ROOT

PAGE = (ROOT / "docs" / "measures.md").read_text()
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", PAGE, re.M | re.S))


def test_every_measure_has_its_section():
    assert set(SECTIONS) == set(MEASURES)


def test_direction_range_cost_and_traps_are_said():
    for name, measure in MEASURES.items():
        text = SECTIONS[name]
        assert f"**Direction** {measure.arrow}" in text, name
        assert "**range**" in text, name
        assert "*Traps:*" in text, name
        cost = re.search(r"\*\*cost\*\* (.*)", text)
        assert cost, name
        # The first number of the table's words is that of the page's.
        said, meant = (re.search(r"\d+|none", part) for part in (cost[1], measure.cost))
        if said and meant:
            assert said[0] == meant[0], name


@pytest.mark.parametrize("name", MEASURES)
def test_a_docstring_names_its_paper_or_equation(name):
    text = function_of(MEASURES[name]).__doc__
    assert re.search(r"(19|20)\d\d|Eq\. \d|Huang and Liu", text), text
