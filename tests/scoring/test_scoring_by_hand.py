"""Cases small enough to work out on paper: 4 x 4 pixels, p(yes) = sigmoid(sum of pixels - 8)."""

import math

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.presets import preset

IMAGE = torch.ones(1, 1, 4, 4)
STAIRS = torch.arange(16.0).flip(0).reshape(1, 4, 4)  # 15 at the top left, 0 at the bottom right
YES = torch.tensor([1])


def p_yes(pixels):
    """The classifier's answer when `pixels` of the sixteen are 1 and the others 0."""
    return 1 / (1 + math.exp(8 - pixels))


def test_rcap_of_a_staircase(linear_clf):
    # Ranks .9*15 = 13.5, 12, 10.5, 9, 7.5: the values >= 14, 12, 11, 9, 8.
    counts = [2, 4, 5, 7, 8]
    shares = [sum(range(16 - c, 16)) / 120 for c in counts]
    expected = sum(s * p_yes(c) for s, c in zip(shares, counts)) / 5
    res = gag_fast.evaluate(linear_clf, IMAGE, STAIRS, YES)
    assert res.pixels["recover"].tolist() == [counts]
    assert res.partitions[0].tolist() == pytest.approx(shares, abs=1e-7)
    assert res.rcap.tolist() == pytest.approx([expected], abs=1e-6)
    assert gag_fast.rcap(linear_clf, IMAGE, STAIRS, YES).tolist() == res.rcap.tolist()


def test_rcap_with_its_own_bound_and_interval(linear_clf):
    # Percentiles 75 and 50: ranks 11.25 and 7.5, so values >= 12 and >= 8.
    expected = (54 / 120 * p_yes(4) + 92 / 120 * p_yes(8)) / 2
    got = gag_fast.rcap(linear_clf, IMAGE, STAIRS, YES, lower_bound=50, interval=25)
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_deletion_of_a_staircase(linear_clf):
    counts = [0, 2, 3, 5, 6, 8, 10, 11, 13, 14, 16]  # halves round up
    curve = [p_yes(16 - c) for c in counts]
    res = gag_fast.evaluate(linear_clf, IMAGE, STAIRS, YES, metrics=("dauc",))
    assert res.pixels["deletion"].tolist() == [counts]
    assert res.curves["deletion"][0].tolist() == pytest.approx(curve, abs=1e-6)
    area = 0.1 * (sum(curve) - (curve[0] + curve[-1]) / 2)
    assert res.dauc.item() == pytest.approx(area, abs=1e-6)
    assert res.rcap is None
    assert res.iauc is None
    assert set(res.curves) == {"deletion"}


def test_insertion_onto_a_blur_that_changes_nothing(linear_clf):
    # A constant image is its own blur: the curve is flat and its area the probability.
    res = gag_fast.evaluate(linear_clf, IMAGE, STAIRS, YES, metrics=("iauc",))
    assert res.curves["insertion"][0].tolist() == pytest.approx([p_yes(16)] * 11, abs=1e-6)
    assert res.iauc.item() == pytest.approx(p_yes(16), abs=1e-6)


def test_most_salient_pixels_go_first(linear_clf):
    # Only the two pixels of the largest saliency are 1: after the first step none is left.
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, :2] = 1
    res = gag_fast.evaluate(linear_clf, image, STAIRS, YES, metrics=("dauc",))
    curve = res.curves["deletion"][0].tolist()
    assert curve[0] == pytest.approx(p_yes(2), abs=1e-6)
    assert curve[1:] == pytest.approx([p_yes(0)] * 10, abs=1e-6)


def test_ties_go_by_pixel_index(linear_clf):
    # All saliencies equal: pixels leave row by row, so the ones in the first row go first.
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0] = 1
    res = gag_fast.evaluate(linear_clf, image, torch.ones(1, 4, 4), YES, metrics=("dauc",))
    expected = [p_yes(n) for n in (4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0)]
    assert res.curves["deletion"][0].tolist() == pytest.approx(expected, abs=1e-6)


def test_official_moves_ties_together_and_stops_at_nine_tenths(linear_clf):
    # Eight pixels of saliency 1, eight of 0. sorted[int(16 r) - 1] is 1 for r > .5, else 0; none
    # is above 1, and eight are above 0.
    saliency = torch.zeros(1, 4, 4)
    saliency[0, :2] = 1
    res = gag_fast.evaluate(linear_clf, IMAGE, saliency, YES, preset="official")
    assert res.pixels["deletion"].tolist() == [[0, 0, 0, 0, 0, 8, 8, 8, 8, 8]]
    assert res.pixels["recover"].tolist() == [[0, 0, 0, 0, 8]]
    curve = [p_yes(16)] * 5 + [p_yes(8)] * 5
    assert res.dauc.item() == pytest.approx(
        0.1 * (sum(curve) - (curve[0] + curve[-1]) / 2), abs=1e-6
    )
    assert res.rcap.item() == pytest.approx(p_yes(8) / 5, abs=1e-6)


def test_rise_takes_224_pixels_a_step(linear_clf):
    # More than the image has: both ends only, and the area is their mean.
    res = gag_fast.evaluate(linear_clf, IMAGE, STAIRS, YES, metrics=("dauc",), preset="rise")
    assert res.pixels["deletion"].tolist() == [[0, 16]]
    assert res.dauc.item() == pytest.approx((p_yes(16) + p_yes(0)) / 2, abs=1e-6)


def test_a_constant_map_recovers_the_whole_image(linear_clf):
    res = gag_fast.evaluate(linear_clf, IMAGE, torch.full((1, 4, 4), 0.3), YES)
    assert res.pixels["recover"].tolist() == [[16] * 5]
    assert res.rcap.item() == pytest.approx(p_yes(16), abs=1e-6)


def test_a_map_of_zeros_has_rcap_zero(linear_clf):
    res = gag_fast.evaluate(linear_clf, IMAGE, torch.zeros(1, 4, 4), YES)
    assert res.rcap.item() == 0
    assert res.partitions.tolist() == [[0] * 5]
    assert math.isfinite(res.dauc.item())
    assert math.isfinite(res.iauc.item())


def test_black_is_a_black_pixel_not_zero(small_clf, small):
    # With every pixel deleted the classifier sees (0 - mean) / std, whatever the map.
    images, maps = torch.zeros(1, 3, 24, 24), torch.rand(1, 24, 24)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    black = (-mean / std)[None, :, None, None].expand(1, 3, 24, 24)
    with torch.no_grad():
        expected = small(black).softmax(1)[0]
        grey = small(images).softmax(1)[0]
    for target in range(5):
        t = torch.tensor([target])
        paper = gag_fast.evaluate(small_clf, images, maps, t, metrics=("dauc",))
        assert paper.curves["deletion"][0, -1].item() == pytest.approx(
            expected[target].item(), abs=1e-5
        )
        override = preset("paper", deletion_base="mean")
        other = gag_fast.evaluate(small_clf, images, maps, t, metrics=("dauc",), preset=override)
        assert other.curves["deletion"][0, -1].item() == pytest.approx(
            grey[target].item(), abs=1e-5
        )


def test_log_cosh_dice_and_mae():
    maps = torch.tensor([[[1.0, 0.5], [0.0, 0.5]]])
    masks = torch.tensor([[[1, 1], [0, 0]]])
    dice = (2 * 1.5 + 1) / (2 + 2 + 1)
    assert gag_fast.log_cosh_dice(maps, masks).item() == pytest.approx(
        math.log(math.cosh(1 - dice)), abs=1e-6
    )
    assert gag_fast.mae(maps, masks).item() == pytest.approx(0.25, abs=1e-7)
    perfect = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert gag_fast.mae(perfect, masks).item() == 0
    assert gag_fast.log_cosh_dice(perfect, masks).item() == 0
    assert isinstance(gag_fast.mae(maps.numpy(), masks.numpy()), np.ndarray)


def test_masks_come_with_evaluate(linear_clf):
    masks = torch.zeros(1, 4, 4)
    masks[0, :2] = 1
    stairs = STAIRS / 15
    res = gag_fast.evaluate(linear_clf, IMAGE, stairs, YES, masks=masks)
    assert res.mae.tolist() == gag_fast.mae(stairs, masks).tolist()
    assert res.log_cosh_dice.tolist() == gag_fast.log_cosh_dice(stairs, masks).tolist()
    official = gag_fast.evaluate(linear_clf, IMAGE, stairs, YES, masks=masks, preset="official")
    assert official.mae.item() == pytest.approx(math.sqrt(res.mae.item()), rel=1e-6)
    only = gag_fast.evaluate(linear_clf, IMAGE, stairs, YES, metrics=("mae",), masks=masks)
    assert only.forwards == 0
    assert only.mae.tolist() == res.mae.tolist()
