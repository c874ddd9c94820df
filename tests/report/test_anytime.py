"""Error rates of what may be read at any time, by simulation; the rates are printed (`-s`)."""

import math

import numpy as np
import pytest

from gag_fast.report.anytime import Betting, Race, confidence_sequence


def coverage(draw, mean, *, repetitions, images, population=None, seed=0):
    """Share of sequences that hold `mean` at every one of their times, and the last widths."""
    rng = np.random.default_rng(seed)
    held, widths = 0, []
    for _ in range(repetitions):
        low, high = confidence_sequence(draw(rng, images), population=population, steps=200)
        held += bool(((low <= mean) & (mean <= high)).all())
        widths.append(high[-1] - low[-1])
    return held / repetitions, float(np.mean(widths))


DISTRIBUTIONS = {
    "Beta(2, 5)": (lambda rng, n: rng.beta(2, 5, n), 2 / 7),
    "Bernoulli(0.1)": (lambda rng, n: (rng.random(n) < 0.1).astype(float), 0.1),
    "near 1": (lambda rng, n: 1 - rng.beta(1, 30, n), 1 - 1 / 31),
}


def check_coverage(name, repetitions, images):
    draw, mean = DISTRIBUTIONS[name]
    share, width = coverage(draw, mean, repetitions=repetitions, images=images)
    print(f"{name}: coverage {share:.3f} of {repetitions}, width {width:.3f} after {images}")
    # 95 % at least, less three standard errors of the simulation
    assert share >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / repetitions)
    assert width < 0.25


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sequences_cover_the_mean_at_all_times(name):
    check_coverage(name, repetitions=60, images=300)


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_sequences_cover_in_a_thousand_repetitions(name):
    check_coverage(name, repetitions=1000, images=1000)


def test_of_a_finite_set_the_mean_is_known_in_the_end():
    values = np.random.default_rng(0).beta(2, 5, 200)
    rng = np.random.default_rng(1)
    mean = values.mean()
    share, width = coverage(
        lambda rng, n: rng.permutation(values), mean, repetitions=60, images=200, population=200
    )
    assert share >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 60)
    assert width < 0.02  # a few steps of the grid
    without = confidence_sequence(rng.permutation(values), steps=200)
    assert without[1][-1] - without[0][-1] > 0.05  # as draws of an endless one: much wider


def test_intervals_never_widen_and_hold_constants():
    low, high = confidence_sequence(np.full(500, 0.3))
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) <= 0).all()
    assert low[-1] <= 0.3 <= high[-1]
    assert high[-1] - low[-1] < 0.05


def test_wealth_by_hand():
    """Two values against 1/2: bets sqrt(2 log(2/α) / (σ² t log(t + 1))), at most a share of 1/2."""
    ups, downs = Betting(np.array([0.5]), error=0.05).update(np.array([[1.0], [0.5]]))
    # at t = 1 the plug-in bet, 3.26, is cut to 0.5 / 0.5 = 1
    assert ups[0, 0] == pytest.approx(math.log(1.5))
    assert downs[0, 0] == pytest.approx(math.log(0.5))
    assert ups[1, 0] == pytest.approx(math.log(1.5))  # the second value moves nothing


def test_a_batch_is_its_values_one_by_one():
    values = np.random.default_rng(0).random((40, 2))
    together = Betting(np.array([0.4, 0.6]), 50).update(values)
    alone = Betting(np.array([0.4, 0.6]), 50)
    pieces = [alone.update(values[i : i + 1]) for i in range(40)]
    for k in range(2):
        np.testing.assert_allclose(np.concatenate([p[k] for p in pieces]), together[k], rtol=1e-12)


# ---- a ranking ----------------------------------------------------------------------------------


def table(rng, images, means, spread=0.12):
    """Scores of methods with known means over the images, that share each image's difficulty."""
    hard = rng.normal(0, 0.1, (images, 1))
    scores = np.clip(0.5 + hard + rng.normal(0, spread, (images, len(means))), 0, 1)
    return np.clip(scores - scores.mean(axis=0) + np.array(means), 0, 1)


def race_over(scores, order, chunk=50, higher_is_better=True):
    race = Race(
        scores.shape[1], len(scores), low=0, high=1, higher_is_better=higher_is_better, error=0.05
    )
    for start in range(0, len(order), chunk):
        race.update(scores[order[start : start + chunk]])
        if race.settled:
            break
    return race


def wrong(race, means):
    """Whether any decision contradicts the means over all images; a tie may not be decided."""
    return any(means[d.better] <= means[d.worse] for d in race.decisions.values())


def test_a_ranking_keeps_its_error_rate():
    """A thousand repetitions over known differences, two of the five methods alike to the digit."""
    rng = np.random.default_rng(0)
    scores = table(rng, 600, [0.40, 0.44, 0.46, 0.60, 0.0])
    scores[:, 4] = rng.permutation(scores[:, 2])  # other images, the very same mean
    means = np.round(scores.mean(axis=0), 12)
    errors = decided = 0
    repetitions = 1000
    for _ in range(repetitions):
        race = race_over(scores, rng.permutation(len(scores)), chunk=600)
        errors += wrong(race, means)
        decided += len(race.decisions)
    print(
        f"wrong in {errors} of {repetitions} repetitions (5 % allowed), "
        f"{decided / repetitions:.1f} of 10 pairs decided"
    )
    assert errors <= 0.05 * repetitions
    assert decided / repetitions > 8.5


def test_a_clear_ranking_is_settled_early_and_right():
    rng = np.random.default_rng(0)
    scores = table(rng, 20_000, [0.30, 0.40, 0.50, 0.60])
    race = race_over(scores, rng.permutation(len(scores)))
    assert race.settled
    assert race.settled_at < 600
    assert not wrong(race, scores.mean(axis=0))
    ranks = sorted(range(4), key=lambda k: sum(d.better == k for d in race.decisions.values()))
    assert ranks == [0, 1, 2, 3]


def test_lower_may_be_better():
    rng = np.random.default_rng(0)
    scores = table(rng, 2000, [0.30, 0.50])
    race = race_over(scores, rng.permutation(len(scores)), higher_is_better=False)
    assert race.decisions[0, 1].better == 0


def test_chunks_do_not_matter():
    rng = np.random.default_rng(3)
    scores = table(rng, 400, [0.4, 0.47, 0.5])
    order = rng.permutation(400)
    decisions = []
    for chunk in (1, 7, 400):
        race = Race(3, 400, low=0, high=1, higher_is_better=True)
        for start in range(0, 400, chunk):
            race.update(scores[order[start : start + chunk]])
        decisions.append((race.decisions, race.settled_at))
    assert decisions[0] == decisions[1] == decisions[2]


def test_equal_methods_are_never_settled():
    scores = np.repeat(np.random.default_rng(0).random((300, 1)), 2, axis=1)
    race = race_over(scores, np.arange(300))
    assert not race.settled
    assert race.decisions == {}
    assert race.seen == 300


def test_failed_images_count_for_neither():
    scores = table(np.random.default_rng(0), 500, [0.3, 0.6])
    scores[::7, 1] = np.nan
    race = race_over(scores, np.arange(500))
    assert race.decisions[0, 1].better == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": 1}, "two methods or more, got 1"),
        ({"high": math.inf}, "finite, got 0 to inf"),
        ({"error": 0}, "between 0 and 1, got 0"),
    ],
)
def test_what_cannot_be_raced(changes, words):
    given = {"methods": 2, "images": 9, "low": 0, "high": 1, "higher_is_better": True, **changes}
    with pytest.raises(ValueError, match=words):
        Race(given.pop("methods"), given.pop("images"), **given)


def test_scores_out_of_range_are_named():
    race = Race(2, 9, low=0, high=1, higher_is_better=True)
    with pytest.raises(ValueError, match=r"a score of 1\.5 is outside the measure's range 0 to 1"):
        race.update(np.array([[0.2, 1.5]]))
    with pytest.raises(ValueError, match="more scores than the 9 images"):
        race.update(np.zeros((10, 2)))
