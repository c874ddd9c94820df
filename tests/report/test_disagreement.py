"""The same maps under several presets: Kendall's τ and the images that turn."""

import numpy as np
import pytest

from gag_fast.report import html
from gag_fast.report.disagreement import disagreements, kendall
from gag_fast.report.reading import read_run
from tests.report.made_up_runs import make_run

scipy_stats = pytest.importorskip("scipy.stats")
METHODS = ("guided_absgrad", "smoothgrad", "<b>vanilla</b>")


def test_kendall_agrees_with_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (2, 40, 6)).astype(float)
    expected = [scipy_stats.kendalltau(a, b).statistic for a, b in zip(first, second)]
    np.testing.assert_allclose(kendall(first, second), expected, atol=1e-12)
    assert np.isnan(kendall(np.ones((1, 3)), first[:1, :3])).all()


@pytest.fixture
def run(tmp_path):
    return read_run(make_run(tmp_path / "a", images=30, methods=METHODS, pictures=False))


def test_rankings_and_turning_images_by_hand(run):
    own = run.matrix("dauc")
    reverse = 1 - own  # every image's ranking the other way round
    near = own.copy()
    near[4] = near[4, ::-1]  # one image turned
    run.columns["dauc@official"] = reverse[run.image, run.method]
    run.columns["dauc@rise"] = near[run.image, run.method]
    (found,) = disagreements(run)
    assert found.measure.column == "dauc"
    assert found.presets == ["paper", "official", "rise"]
    assert found.orders[0] == found.orders[1][::-1] == found.orders[2] == [0, 1, 2]
    np.testing.assert_array_equal(found.tau, [[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    assert found.per_image[0] == -1
    assert found.shares == [1.0, 1 / 30]
    assert [t.image for t in found.turned[1]] == [run.images[4]]
    page = html.render([run])
    assert "Where presets disagree" in page
    assert "<b>vanilla" not in page


def test_one_preset_has_nothing_to_disagree_with(run):
    assert disagreements(run) == []
    assert "Where presets disagree" not in html.render([run])
