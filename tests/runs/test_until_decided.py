"""Runs that stop when the ranking of their methods is decided, on a tiny classifier."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gag_fast.cli import main
from gag_fast.measures import MEASURES
from gag_fast.report import html
from gag_fast.report.deciding import Rule, decided, standing
from gag_fast.report.reading import read_run
from gag_fast.runs import worker as worker_module
from tests.runs.run_rows import rows, same_bits

RULE = Rule("rcap", 0.05, seed=3)


@pytest.fixture
def clear(monkeypatch):
    """Makes the first method's scores clearly the best, whatever the maps: known differences."""
    real = worker_module.evaluate

    def evaluate(classifier, images, maps, targets, **options):
        found = real(classifier, images, maps, targets, **options)
        rcap = found.values["rcap"]
        rcap[:, 0] = 0.7 + 0.2 * rcap[:, 0]
        rcap[:, 1:] = 0.1 + 0.2 * rcap[:, 1:]
        return found

    monkeypatch.setattr(worker_module, "evaluate", evaluate)


def test_stops_early_and_says_what_was_decided(photos, start, tmp_path, clear):
    summary = start(photos(400), until_decided=RULE)
    assert summary.settled
    assert summary.complete
    assert summary.done < 100
    run = read_run(tmp_path / "run")
    assert len(run.images) == summary.done
    found = decided(run)
    assert found.ranking == ["guided_absgrad", "vanilla"]
    assert found.images == 400
    assert summary.done - 4 < found.settled_at <= summary.done
    assert "was settled after" in found.sentence()
    page = html.render([run])
    assert "Decided at which image" in page
    assert "in a random order of seed 3 until decided" in page
    assert run.images != sorted(run.images)  # the order is random


def test_the_same_command_knows_that_it_is_decided(photos, start, clear):
    data = photos(100)
    first = start(data, until_decided=RULE)
    again = start(data, until_decided=RULE)
    assert again.computed == 0
    assert again.settled
    assert again.complete
    assert again.done == first.done


def test_a_stopped_run_decides_at_the_same_image(photos, start, tmp_path, clear):
    data = photos(100)
    whole = start(data, out="whole", until_decided=RULE)
    start(data, out="stopped", until_decided=RULE)
    for number in (0, 3):
        (tmp_path / "stopped" / "results" / f"part-{number:06d}.parquet").unlink()
    again = start(data, out="stopped", until_decided=RULE)
    assert (again.done, again.settled) == (whole.done, True)
    assert same_bits(rows(tmp_path / "stopped"), rows(tmp_path / "whole"))
    names = sorted(p.name for p in (tmp_path / "whole" / "results").iterdir())
    assert sorted(p.name for p in (tmp_path / "stopped" / "results").iterdir()) == names


def test_chunks_that_come_out_of_order_are_the_same_run(
    photos, start, tmp_path, clear, monkeypatch
):
    """As a cluster gives them: the folder ends with the very same parts."""
    from gag_fast.runs import local

    data = photos(100)
    start(data, out="ordered", until_decided=RULE)
    real = local.LocalExecutor.run

    def swapped(self, chunks, stop):
        found = list(real(self, chunks, stop))
        yield from found[1::2] + found[::2]

    monkeypatch.setattr(local.LocalExecutor, "run", swapped)
    start(data, out="swapped", until_decided=RULE)
    assert same_bits(rows(tmp_path / "swapped"), rows(tmp_path / "ordered"))


def test_what_is_not_decided_is_computed_to_the_end(photos, start, tmp_path):
    summary = start(photos(12), until_decided=RULE, methods=("guided_absgrad", "guided_absgrad@85"))
    assert summary.done == 12
    assert not summary.settled
    assert summary.complete
    found = decided(read_run(tmp_path / "run"))
    assert found.settled_at is None
    assert found.open == [("guided_absgrad", "guided_absgrad@85")]
    assert "not settled" in found.sentence()


def test_the_rule_is_part_of_the_run(photos, start, tmp_path):
    data = photos(8)
    start(data)
    with pytest.raises(ValueError, match="until_decided"):
        start(data, until_decided=RULE)
    start(data, out="other", until_decided=RULE)
    with pytest.raises(ValueError, match=r"until_decided\.error: 0\.05 in the folder, 0\.1 now"):
        start(data, out="other", until_decided=replace(RULE, error=0.1))
    settings = json.loads((tmp_path / "other" / "manifest.json").read_text())["settings"]
    assert settings["until_decided"] == {"measure": "rcap", "error": 0.05, "seed": 3}


def test_images_have_the_rows_of_a_whole_run(photos, start, tmp_path):
    """The order changes no score beyond the last bits that a batch's neighbours decide."""
    data = photos(12)
    start(data, out="whole")
    start(data, out="decided", until_decided=RULE)
    whole, some = read_run(tmp_path / "whole"), read_run(tmp_path / "decided")
    place = [whole.images.index(name) for name in some.images]
    np.testing.assert_allclose(some.matrix("rcap"), whole.matrix("rcap")[place], atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ("vanilla",)}, "needs two methods or more"),
        ({"metrics": ("dauc",)}, "rcap is to decide, but not among the metrics"),
    ],
)
def test_what_cannot_be_decided(photos, start, changes, words):
    with pytest.raises(ValueError, match=words):
        start(photos(2), until_decided=RULE, **changes)


def test_rules_that_make_no_sense(monkeypatch):
    with pytest.raises(ValueError, match="no measure 'x'"):
        Rule("x")
    with pytest.raises(ValueError, match=r"between 0 and 1, got 5"):
        Rule("rcap", 5)
    endless = replace(MEASURES["mae"], span=(0.0, float("inf")))
    monkeypatch.setitem(MEASURES, "mae", endless)
    with pytest.raises(ValueError, match="mae cannot decide a ranking: its values have no bounds"):
        Rule("mae")


@pytest.mark.slow
@pytest.mark.photos
def test_on_photographs_it_stops_early_with_the_full_runs_ranking(labelled_samples, tmp_path):
    """A real classifier: the whole run, the one that stops, and a hundred other orders of it."""
    words = ("evaluate", str(labelled_samples), "--model", "efficientnet_lite0", "--n", "8")
    words += ("--methods", "guided_absgrad,smoothgrad,vanilla", "--metrics", "rcap")
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert main([*words, "--until-decided", "--out", str(tmp_path / "stopped")]) == 0
    check_early_and_right(tmp_path / "whole", tmp_path / "stopped")


def check_early_and_right(whole, stopped):
    full = read_run(whole)
    scores = full.matrix("rcap")
    ranking = [full.methods[k] for k in np.argsort(-scores.mean(axis=0))]
    found = decided(read_run(stopped))
    assert found.settled_at < len(scores)
    assert found.ranking == ranking
    settled_at = [found.settled_at]
    for seed in range(100):
        rule = Rule("rcap", 0.05, seed)
        race = rule.race(len(full.methods), len(scores))
        race.update(np.random.default_rng(seed).permutation(scores))
        assert race.settled
        assert standing(rule, race, full.methods).ranking == ranking
        settled_at.append(race.settled_at)
    order, first, last = " > ".join(ranking), min(settled_at), max(settled_at)
    print(f"settled after {found.settled_at} of {len(scores)} images: {order}")
    print(f"in 100 other orders after {first} to {last}, the same ranking")
