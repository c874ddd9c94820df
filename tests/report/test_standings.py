"""Pairs of methods told apart or not: made-up runs of which the truth is known."""

import numpy as np
import pytest

from gag_fast.report.compare import against_method
from gag_fast.report.reading import read_run
from gag_fast.report.standings import standings
from gag_fast.report.statistics import MIN_IMAGES
from tests.report.made_up_runs import make_run

METHODS = ("guided_absgrad", "smoothgrad", "vargrad", "vanilla")


@pytest.fixture
def run(tmp_path):
    return read_run(make_run(tmp_path / "a", images=60, methods=METHODS, pictures=False))


def test_methods_stand_in_the_order_they_were_made_in(run):
    """made_up_runs makes the first method the best by every metric."""
    for standing in standings(run):
        assert standing.order == [0, 1, 2, 3]
        assert standing.n == 60
        assert standing.verdict(0, 3) == "better"
        assert standing.verdict(3, 0) == "worse"
        win, tie, loss = standing.wins(0, 3)
        assert win > loss
        assert (loss, tie, win) == standing.wins(3, 0)
        assert win + tie + loss == 60
        means = [rank.mean for rank in standing.ranks]
        assert sum(means) == pytest.approx(1 + 2 + 3 + 4)
        assert means == sorted(means)


def test_equal_methods_are_not_told_apart(run):
    values = run.matrix("rcap")
    run.scores["rcap"] = np.where(run.method == 2, values[run.image, 1], run.scores["rcap"])
    standing = next(s for s in standings(run) if s.metric.column == "rcap")
    assert standing.verdict(1, 2) == "not told apart"
    assert standing.wins(1, 2) == (0, 60, 0)
    assert [1, 2] in standing.alike()


def test_noise_is_seldom_told_apart(run):
    """Under the null, Holm's adjustment keeps false verdicts to 5 % of the runs."""
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(100):
        run.scores = {"rcap": rng.random(run.rows)}
        standing = standings(run)[0]
        pairs = [standing.verdict(a, b) for a, b in standing.pairs]
        false += any(verdict in ("better", "worse") for verdict in pairs)
    assert false <= 10


def test_few_images_have_no_verdict(tmp_path):
    few = read_run(
        make_run(tmp_path / "few", images=MIN_IMAGES - 1, methods=METHODS, pictures=False)
    )
    for standing in standings(few):
        assert not standing.enough
        assert {standing.verdict(a, b) for a, b in standing.pairs} == {"too few images"}
        assert standing.alike() == [standing.order]
    assert {line.verdict for line in against_method(few, "vanilla")} == {"too few images"}


def test_a_failed_row_costs_its_pairs_only(run):
    run.scores["rcap"][0] = np.nan  # the first image's guided_absgrad
    standing = next(s for s in standings(run) if s.metric.column == "rcap")
    assert standing.n == 59
    assert standing.pairs[0, 1].difference.n == 59
    assert standing.pairs[1, 2].difference.n == 60


def test_one_method_has_no_standing(tmp_path):
    run = read_run(make_run(tmp_path / "one", images=3, methods=("vanilla",), pictures=False))
    assert standings(run) == []
