"""SECURITY.md: every promise names the tests that keep it, and they are there."""

import re

from tests import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_promise_names_a_test():
    promised = TEXT.partition("\n## ")[2].partition("## Not promised")[0]
    promises = re.split(r"^- ", promised, flags=re.M)[1:]
    assert len(promises) >= 12
    assert not [p for p in promises if "`tests/" not in p]


def test_the_tests_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)
    assert len(named) > 25
    for path, name in named:
        source = (ROOT / path).read_text()
        assert not name or re.search(rf"^def {name}\(", source, re.M), f"{path}::{name}"
