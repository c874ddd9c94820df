"""Names that are written twice, once for type checkers, are the same in both places."""

import re
import sys
import typing
from pathlib import Path

import pytest

import gag_fast
from gag_fast import presets
from gag_fast.attribution import registry
from gag_fast.measures import MEASURES, MeasureName
from gag_fast.metrics.scores import Measured


@pytest.mark.parametrize(
    ("literal", "table"),
    [
        (registry.MethodName, registry.METHODS),
        (MeasureName, MEASURES),
        (presets.PresetName, presets.PRESETS),
    ],
    ids=["methods", "measures", "presets"],
)
def test_what_is_typed_is_what_there_is(literal, table):
    assert list(typing.get_args(literal)) == list(table)


def test_every_measure_is_a_typed_attribute_of_scores():
    source = Path(sys.modules[Measured.__module__].__file__).read_text()
    block = source.partition("class Measured")[2].partition("@dataclass")[0]
    assert re.findall(r"^        (\w+): Kind$", block, re.M) == list(MEASURES)


def test_every_public_name_is_seen_by_type_checkers():
    source = Path(gag_fast.__file__).read_text()
    block = source.partition("if TYPE_CHECKING:")[2].partition("\nelse:")[0]
    assert sorted(re.findall(r"import (\w+) as \1$", block, re.M)) == gag_fast.__all__


def test_what_is_listed_by_help_is_what_there_is():
    assert list(registry.ABOUT) == list(registry.METHODS)
    assert list(presets.ABOUT) == list(presets.PRESETS)
