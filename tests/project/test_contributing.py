"""CONTRIBUTING.md names only files that are there, and every folder that holds code."""

import re

import pytest

from tests import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
NAMED = sorted(set(re.findall(r"`((?:csrc|gag_fast|export|benchmarks|tests)/[\w./]*)`", TEXT)))


@pytest.mark.parametrize("name", [name for name in NAMED if "NAME" not in name])
def test_a_named_file_is_there(name):
    assert (ROOT / name).exists()


@pytest.mark.parametrize("recipe", ["operator", "method", "measure", "command-line option"])
def test_a_recipe_says_which_test(recipe):
    section = re.search(rf"^## An? {recipe}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S).group(1)
    assert re.search(r"`tests/\w+/test_\w+\.py`", section)


def test_every_package_has_its_place():
    packages = {p.parent.name for p in (ROOT / "gag_fast").glob("*/__init__.py")}
    missing = {name for name in packages if f"`gag_fast/{name}/`" not in TEXT}
    assert not missing
