import numpy as np
import pytest
import torch

from gag_fast.experiments import draw, propositions
from gag_fast.experiments.propositions import MAPS, figure4, gaussian_map


@pytest.fixture(scope="module")
def figure():
    return propositions.run_figure4()


def test_the_maps_are_those_of_figure_4():
    maps, mask = figure4()
    assert maps.shape == (6, 100, 100)
    assert mask.mean().item() == pytest.approx(0.20, abs=0.01)
    assert mask[50, 50] == 1
    peaks = [divmod(int(m.argmax()), 100) for m in maps]
    assert all(abs(a - 49.5) < 1 and abs(b - 49.5) < 1 for a, b in peaks[:2])
    assert all(abs(a - 79.5) < 1 and abs(b - 79.5) < 1 for a, b in peaks[2:])
    # one sigma from the centre a Gaussian has fallen to exp(-1/2)
    line = gaussian_map(0.5, 0.12, side=1000)[500]
    assert line[620].item() == pytest.approx(np.exp(-0.5), rel=0.02)
    # M3' is M1 elsewhere, value for value
    assert torch.equal(maps[4].flatten().sort().values, maps[0].flatten().sort().values)


def test_both_propositions_hold(figure):
    found = propositions.verdicts(figure)
    assert len(found) == 10
    assert all(v.holds for v in found), [v for v in found if not v.holds]


def test_a_wrong_order_is_told():
    """The verdicts can fail: exchange the maps, and they do."""
    figure = propositions.run_figure4()
    swapped = {name: values.flip(0) for name, values in figure.metrics.items()}
    worse = propositions.Figure4(
        figure.maps, figure.mask, figure.shares, figure.confidences, swapped
    )
    lines = propositions.verdict_lines(propositions.verdicts(worse))
    assert lines[0].startswith("FAILS")


def test_rcap_is_the_product_that_the_table_shows(figure):
    expected = (figure.shares * figure.confidences).mean(dim=1)
    torch.testing.assert_close(figure.metrics["rcap"].double(), expected, rtol=1e-5, atol=1e-6)


def test_confidences_are_the_share_of_the_object_that_is_seen(figure):
    # M1 and M2 rank the pixels by their distance to the centre: the nearest 40 % hold the object
    assert figure.confidences[0, 1] == 1
    order = figure.maps[0].flatten().argsort(descending=True, stable=True)
    nearest = figure.mask.flatten()[order[:2000]].sum() / figure.mask.sum()
    assert figure.confidences[0, 0].item() == pytest.approx(nearest.item(), abs=2e-3)
    torch.testing.assert_close(figure.confidences[0], figure.confidences[1])


def test_the_text_has_a_row_for_each_map(figure):
    lines = propositions.to_text(figure).splitlines()
    assert [line.split()[0] for line in lines[2:8]] == list(MAPS)
    assert sum(line.startswith("holds") for line in lines) == 10


def test_four_of_keeps_ranks_and_lifts_low_values():
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    four = propositions.four_of(maps, maps.flip(-1))
    assert four.shape == (2, 4, 16, 16)
    for i in range(2):
        assert torch.equal(four[i, 0].flatten().argsort(), four[i, 1].flatten().argsort())
    assert (four[:, 1] >= four[:, 0]).all()
    settings = propositions.FIGURE4
    plain = propositions.saliency_shares(four[0, :1], settings)
    lifted = propositions.saliency_shares(four[0, 1:2], settings)
    assert (lifted < plain).all()


def test_saliency_shares_by_hand():
    # ten values 0 … 9; the top 20 % and 40 %: 9 + 8 and 9 + 8 + 7 + 6 of 45
    map_ = torch.arange(10.0).reshape(1, 2, 5)
    got = propositions.saliency_shares(map_, propositions.FIGURE4)
    torch.testing.assert_close(got[0], torch.tensor([17 / 45, 30 / 45], dtype=torch.float64))


def test_real_verdicts_count_images():
    scores = {
        "rcap": np.array([[0.4, 0.3, 0.2, 0.1], [0.4, 0.5, 0.2, 0.1]]),
        "dauc": np.array([[0.1, 0.1, 0.2, 0.2], [0.1, 0.3, 0.2, 0.2]]),
        "iauc": np.full((2, 4), 0.5),
    }
    found = {v.text: v for v in propositions.real_verdicts(scores)}
    noisier = found["Proposition 2: mean RCAP(M1) > RCAP(M2), noisier"]
    assert not noisier.holds  # 0.4 and 0.4
    assert "higher in 50 % of images" in noisier.here
    assert not found["DAUC does not tell M1 from M2 (noisier)"].holds
    assert found["IAUC does not tell M3 from M4 (noisier)"].holds


def test_the_figure_is_drawn(figure, tmp_path):
    pytest.importorskip("matplotlib")
    path = draw.figure4(figure, tmp_path / "fig4.svg")
    text = path.read_text()
    assert "</svg>" in text
    assert draw.figure4(figure, tmp_path / "again.svg").read_text() == text
