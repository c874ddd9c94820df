"""Measures of the map alone and of map and mask: by hand, by Quantus, and where they end."""

import math

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.metrics.correlation import pearson, spearman
from gag_fast.presets import preset

ALONE = ("gini", "entropy")
MASKED = ("pointing_game", "relevance_mass", "relevance_rank")


@pytest.fixture
def judge(linear_clf):
    """Values of a map [4, 4] (or several) with a mask [4, 4]."""

    def values(saliency, mask=None, metrics=ALONE, **fields):
        saliency = torch.as_tensor(saliency, dtype=torch.float32)
        maps = saliency[None] if saliency.dim() == 2 else saliency
        images = torch.zeros(len(maps), 1, 4, 4)
        masks = None if mask is None else torch.as_tensor(mask).float().expand(len(maps), 4, 4)
        found = gag_fast.evaluate(
            linear_clf,
            images,
            maps,
            torch.zeros(len(maps), dtype=torch.long),
            metrics,
            preset("paper", **fields),
            masks,
        )
        return {name: value.tolist() for name, value in found.values.items() if name in metrics}

    return values


def square(*places):
    grid = torch.zeros(4, 4)
    for row, column in places:
        grid[row, column] = 1
    return grid


def test_gini_and_entropy_by_hand(judge):
    one = judge(square((1, 2)))
    assert one["gini"] == pytest.approx([15 / 16])
    assert one["entropy"] == [0]
    even = judge(torch.full((4, 4), 0.3))
    assert even["gini"] == pytest.approx([0], abs=1e-7)
    assert even["entropy"] == pytest.approx([math.log(16)])
    two = judge(square((0, 0), (3, 3)))
    assert two["gini"] == pytest.approx([14 / 16])
    assert two["entropy"] == pytest.approx([math.log(2)])
    quarter = square((0, 0)) * 3 + square((0, 1))  # shares 3/4 and 1/4
    assert judge(quarter)["gini"] == pytest.approx([(13 * 1 + 15 * 3) / (16 * 4)])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert judge(quarter)["entropy"] == pytest.approx([expected])


def test_scale_and_sign_do_not_count(judge):
    saliency = torch.rand(4, 4, generator=torch.Generator().manual_seed(3))
    once = judge(saliency)
    for other in (saliency * 1e-20, saliency * 1e20, -saliency):
        for name in ALONE:
            assert judge(other)[name] == pytest.approx(once[name], rel=1e-5)


def test_a_map_of_zeros_is_an_even_one(judge):
    assert judge(torch.zeros(4, 4)) == {"gini": [0], "entropy": pytest.approx([math.log(16)])}


def test_masks_by_hand(judge):
    mask = square((0, 0), (0, 1))
    perfect = judge(square((0, 0), (0, 1)), mask, MASKED)
    assert perfect == {name: [1] for name in MASKED}
    worst = judge(square((3, 0), (3, 1)), mask, MASKED)
    assert worst == {name: [0] for name in MASKED}
    half = judge(square((0, 0)) * 2 + square((3, 3)) * 6, mask, MASKED)
    assert half == {"pointing_game": [0], "relevance_mass": [0.25], "relevance_rank": [0.5]}


def test_any_tied_maximum_hits(judge):
    mask = square((2, 2))
    assert judge(square((0, 0), (2, 2)), mask, MASKED)["pointing_game"] == [1]
    constant = judge(torch.ones(4, 4), mask, MASKED)
    assert constant["pointing_game"] == [1]
    assert constant["relevance_mass"] == [1 / 16]
    assert constant["relevance_rank"] == [0]  # ties by pixel index: pixel 0 is not the object


def test_the_authors_centroid(judge):
    ring = square((0, 1), (1, 0), (1, 2), (2, 1))  # its centre is not one of its pixels
    found = judge(
        ring, square((1, 1)), ("pointing_game",), pointing="centroid", pointing_share=0.25
    )
    assert found["pointing_game"] == [1]
    assert judge(ring, square((1, 1)), ("pointing_game",))["pointing_game"] == [0]


def test_soft_masks(judge):
    mask = square((0, 0)) * 0.5 + square((0, 1)) * 0.25
    found = judge(square((0, 0), (0, 1)), mask, MASKED)
    assert found == {"pointing_game": [1], "relevance_mass": [0.375], "relevance_rank": [1]}


def test_masks_without_and_with_everything(judge):
    saliency = torch.rand(4, 4)
    empty = judge(saliency, torch.zeros(4, 4), MASKED)
    assert all(math.isnan(v) for values in empty.values() for v in values)
    full = judge(saliency, torch.ones(4, 4), MASKED)
    assert full == {name: [1] for name in MASKED}


def test_degenerate_maps(judge):
    broken = torch.rand(2, 4, 4)
    broken[0, 1, 1] = math.nan
    found = judge(broken, torch.ones(4, 4), (*ALONE, *MASKED))
    for values in found.values():
        assert math.isnan(values[0])
        assert math.isfinite(values[1])
    zero = judge(torch.zeros(4, 4), square((0, 0)), ("relevance_mass",))
    assert zero["relevance_mass"] == [0]
    with pytest.raises(ValueError, match=r"relevance_mass needs maps >= 0.*value of -1"):
        judge(-torch.ones(4, 4), torch.ones(4, 4), ("relevance_mass",))
    allowed = judge(-torch.ones(4, 4), torch.ones(4, 4), ("all", *ALONE, "srg"))
    assert set(allowed) == {*ALONE, "srg"}  # and all else that negative maps allow


def test_without_a_mask(judge):
    for name in MASKED:
        with pytest.raises(ValueError, match=f"{name} needs masks=, got none"):
            judge(torch.rand(4, 4), None, (name,))


def test_as_quantus_has_them(photographs, linear_clf):
    quantus = pytest.importorskip("quantus")
    gray = photographs.mean(dim=1)
    maps = torch.stack([gray - gray.amin(), (gray - gray.mean()).abs()], dim=1)[:, :, ::2, ::2]
    masks = (gray > gray.median()).float()[:, ::2, ::2]
    masks[1] = 0
    masks[1, 30:50, 20:90] = 1
    clf = gag_fast.Classifier.from_callable(
        lambda x: x.flatten(1)[:, :2], num_classes=2, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    images = photographs[:, :, ::2, ::2]
    found = gag_fast.evaluate(
        clf, images, maps, torch.zeros(3, dtype=torch.long), (*ALONE, *MASKED), masks=masks
    )
    plain = {"abs": False, "normalise": False, "disable_warnings": True}
    theirs = {
        "gini": quantus.Sparseness(**plain),
        "entropy": quantus.Complexity(**plain),
        "pointing_game": quantus.PointingGame(**plain),
        "relevance_mass": quantus.RelevanceMassAccuracy(**plain),
        "relevance_rank": quantus.RelevanceRankAccuracy(**plain),
    }
    x, y = images.numpy(), np.zeros(3, int)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 112 * 112, 2))
    for m in range(2):
        for name, metric in theirs.items():
            expected = metric(
                model=module,
                x_batch=x.copy(),
                y_batch=y,
                a_batch=maps[:, m : m + 1].numpy().copy(),
                s_batch=masks[:, None].numpy().copy(),
                device="cpu",
            )
            mine = getattr(found, name)[:, m].numpy()
            np.testing.assert_allclose(mine, np.float64(expected), rtol=1e-4, atol=1e-5)


def test_correlations():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, (4, 30)).astype(float)  # many ties
    b = rng.standard_normal((4, 30))
    for mine, theirs in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        expected = [theirs(x, y)[0] for x, y in zip(a, b)]
        np.testing.assert_allclose(mine(torch.tensor(a), torch.tensor(b)).numpy(), expected)
    constant = torch.full((1, 30), 0.1, dtype=torch.float64)
    assert pearson(constant, torch.tensor(b[:1])).tolist() == [0]
    assert spearman(torch.tensor(b[:1]), constant).tolist() == [0]
    same = pearson(torch.tensor(a[:1]) * 1e-200, torch.tensor(a[:1]) * 1e200)
    assert same.item() == pytest.approx(1)
    assert spearman(torch.tensor([[1.0, math.nan]]), torch.tensor([[1.0, 2.0]])).isnan().all()
