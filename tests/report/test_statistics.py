import math

import numpy as np
import pytest

from gag_fast.report.statistics import (
    bootstrap_means,
    holm,
    paired,
    paired_columns,
    paired_table,
    row_ranks,
    sign_test,
    wilcoxon,
)

scipy_stats = pytest.importorskip("scipy.stats")
scipy_version = tuple(map(int, pytest.importorskip("scipy").__version__.split(".")[:2]))
ASYMPTOTIC = "asymptotic" if scipy_version >= (1, 15) else "approx"  # the same under two names


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2, size=200)
    mine = bootstrap_means(values[:, None], resamples=4000)[0]
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert mine.mean == pytest.approx(values.mean(), rel=1e-12)
    assert mine.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_bootstrap_of_equal_values_has_no_width():
    cell = bootstrap_means(np.full((9, 1), 0.1))[0]
    assert (cell.mean, cell.low, cell.high, cell.n) == (0.1, 0.1, 0.1, 9)


def test_bootstrap_leaves_missing_values_out():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 7.0], [2.0, 9.0]])
    first, second = bootstrap_means(values)
    assert (first.mean, first.n) == (2.0, 3)
    assert (second.mean, second.n) == (7.0, 3)
    assert 1 <= first.low <= first.high <= 3
    assert 5 <= second.low <= second.high <= 9


@pytest.mark.parametrize("rows", [0, 1])
def test_bootstrap_of_too_few(rows):
    cell = bootstrap_means(np.full((rows, 1), 4.0))[0]
    assert cell.n == rows
    assert math.isnan(cell.low)
    assert math.isnan(cell.high)
    assert math.isnan(cell.mean) == (rows == 0)


def test_bootstrap_of_a_column_without_values():
    empty, full = bootstrap_means(np.array([[np.nan, 1.0], [np.nan, 2.0]]))
    assert empty.n == 0
    assert math.isnan(empty.mean)
    assert full.mean == 1.5


def test_bootstrap_depends_on_the_seed_only():
    values = np.random.default_rng(0).random((50, 3))
    assert bootstrap_means(values, seed=3) == bootstrap_means(values, seed=3)
    assert bootstrap_means(values, seed=3) != bootstrap_means(values, seed=4)


def test_bootstrap_needs_columns():
    with pytest.raises(ValueError, match=r"\(3,\)"):
        bootstrap_means(np.zeros(3))


def test_wilcoxon_by_hand():
    # 1, 2, 3 all positive: W = 0 can happen in 1 of 8 ways, two-sided 2/8
    assert wilcoxon(np.array([1.0, 2.0, 3.0])) == 0.25
    # one negative, the smallest: W <= 1 in 2 of 8 ways
    assert wilcoxon(np.array([-1.0, 2.0, 3.0])) == 0.5
    assert math.isnan(wilcoxon(np.array([0.0, 0.0, np.nan])))


@pytest.mark.parametrize("n", [5, 12, 30, 50])
def test_wilcoxon_is_exact_for_few(n):
    values = np.random.default_rng(n).normal(0.3, size=n)
    expected = scipy_stats.wilcoxon(values, method="exact").pvalue
    assert wilcoxon(values) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [60, 1000])
def test_wilcoxon_with_ties_and_zeros(n):
    values = np.round(np.random.default_rng(n).normal(0.1, size=n), 1)
    expected = scipy_stats.wilcoxon(
        values, zero_method="wilcox", correction=False, method=ASYMPTOTIC
    ).pvalue
    assert wilcoxon(values) == pytest.approx(expected, rel=1e-9)


def test_paired():
    first = np.array([1.0, 2.0, 3.0, np.nan, 5.0])
    second = np.array([2.0, 2.0, 2.5, 1.0, 7.0])
    result = paired(first, second)
    assert result.difference.mean == pytest.approx((1 + 0 - 0.5 + 2) / 4)
    assert (result.higher, result.lower, result.equal, result.difference.n) == (2, 1, 1, 4)
    with pytest.raises(ValueError, match=r"\(5,\) and \(2,\)"):
        paired(first, second[:2])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    adjusted = holm([0.02, math.nan])
    assert adjusted[0] == 0.02
    assert math.isnan(adjusted[1])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("higher", "lower"), [(5, 0), (8, 3), (300, 240), (600, 300), (5100, 4900)]
)
def test_sign_test_agrees_with_scipy(higher, lower):
    expected = scipy_stats.binomtest(higher, higher + lower, 0.5).pvalue
    assert sign_test(higher, lower) == pytest.approx(expected, rel=2e-3)
    assert sign_test(lower, higher) == sign_test(higher, lower)


def test_sign_test_of_nothing():
    assert math.isnan(sign_test(0, 0))
    assert sign_test(3, 3) == 1.0
    assert sign_test(2000, 2000) == 1.0


def test_columns_are_paired_as_each_alone():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.1, 1, (40, 3))
    differences[3, 1] = np.nan
    together = paired_columns(differences)
    for column, result in zip(differences.T, together):
        alone = paired(np.zeros(40), column)
        assert (alone.higher, alone.lower, alone.p_value) == (
            *(result.higher, result.lower, result.p_value),
        )
        assert alone.difference.mean == pytest.approx(result.difference.mean)


def test_row_ranks_by_hand():
    values = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [np.nan, 1.0, 2.0]])
    ranks = row_ranks(values, higher_is_better=True)
    np.testing.assert_array_equal(ranks, [[1, 3, 2], [1.5, 1.5, 3], [np.nan] * 3])
    ranks = row_ranks(values, higher_is_better=False)
    np.testing.assert_array_equal(ranks[:2], [[3, 1, 2], [2.5, 2.5, 1]])


def test_row_ranks_agree_with_scipy():
    values = np.random.default_rng(0).integers(0, 4, (50, 6)).astype(float)
    expected = scipy_stats.rankdata(-values, axis=1)
    np.testing.assert_array_equal(row_ranks(values, higher_is_better=True), expected)


def test_a_table_of_pairs_is_its_columns_of_differences():
    table = np.random.default_rng(0).random((60, 3))
    pairs = [(0, 1), (0, 2), (1, 2)]
    columns = paired_columns(np.stack([table[:, b] - table[:, a] for a, b in pairs], axis=1))
    for mine, theirs in zip(paired_table(table, pairs), columns, strict=True):
        assert (mine.p_value, mine.higher, mine.lower, mine.equal) == (
            *(theirs.p_value, theirs.higher, theirs.lower, theirs.equal),
        )
        for end in ("mean", "low", "high"):
            expected = pytest.approx(getattr(theirs.difference, end), abs=1e-12)
            assert getattr(mine.difference, end) == expected
    table[5, 1] = np.nan
    assert [p.difference.n for p in paired_table(table, pairs)] == [59, 60, 59]
