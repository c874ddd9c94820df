"""The plan lists distinct masked images, each once, and what it lists is what is scored."""

import threading

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.metrics import plan
from gag_fast.perturb.plan import _pixel_numbers, _set_hashes
from gag_fast.presets import preset
from tests.scoring.scoring_models import batch


class Counting:
    """A scorer that keeps every image it was shown."""

    def __init__(self):
        self.seen, self.lock = [], threading.Lock()

    def __call__(self, images):
        with self.lock:
            self.seen += [image.numpy().tobytes() for image in images]
        return torch.stack([images.mean(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))], dim=1)

    def classifier(self):
        return Classifier.from_callable(
            self,
            num_classes=2,
            input_size=24,
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            score="logits",
            batch_size=1,
        )


@pytest.mark.parametrize("name", ["paper", "official", "rise", "torchcam"])
def test_no_picture_is_scored_twice(name):
    scorer = Counting()
    images, maps, targets = batch(3, maps=2)
    res = gag_fast.evaluate(scorer.classifier(), images, maps, targets % 2, preset=name)
    assert len(scorer.seen) == res.forwards
    assert len(set(scorer.seen)) == res.forwards
    assert res.forwards < res.asked


def test_equal_maps_and_reversed_maps_cost_nothing():
    images, maps, targets = batch(2)
    maps = maps[:, None]
    clf = Counting().classifier()

    def forwards(m, preset="paper"):
        return gag_fast.evaluate(clf, images, m, targets % 2, ("dauc",), preset).forwards

    once = forwards(maps)
    assert forwards(torch.cat([maps, maps], dim=1)) == once
    # The same order of pixels, other values.
    assert forwards(torch.cat([maps, maps**3], dim=1)) == once
    # Inserting onto black in the opposite order shows the pictures that deleting to black shows.
    both = preset("paper", insertion_base="black")
    res = gag_fast.evaluate(
        clf, images, torch.cat([maps, 1 - maps], dim=1), targets % 2, ("dauc", "iauc"), both
    )
    assert res.forwards == 2 * (9 * 2 + 1) + 1
    assert res.asked == 2 * 2 * 22


def test_forwards_of_the_paper_preset():
    images, maps, targets = batch(4, maps=3)
    res = gag_fast.evaluate(Counting().classifier(), images, maps, targets % 2)
    # 5 + 9 + 9 inner points a map; the image and its blur once an image; black once in all.
    assert res.forwards == 4 * 3 * 23 + 4 * 2 + 1
    assert res.asked == 4 * 3 * 27


def test_the_plan_is_data_one_can_print(small_clf):
    images, maps, targets = batch(1)
    found = plan(small_clf, images, maps, targets)
    text = str(found)
    assert text.splitlines()[0] == f"{len(found)} masked images for 27 points"
    assert len(text.splitlines()) == len(found) + 1
    rows = list(found.rows())
    assert rows[0] == (-1, 0, 0, -1, -1)  # black, of no image
    assert len(set(rows)) == len(rows)
    assert found.slots.dtype == np.int32


def test_different_sets_of_equal_size_are_kept_apart():
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]], dtype=torch.int32)
    counts = {"deletion": torch.tensor([[0, 1, 2, 3]] * 3)}
    hashes = _set_hashes(order, counts)["deletion"]
    assert hashes[:, 0].tolist() == [0, 0, 0]
    assert len(set(hashes[:, 1].tolist())) == 3
    assert hashes[0, 2] == hashes[1, 2] != hashes[2, 2]
    assert len(set(hashes[:, 3].tolist())) == 3


def test_pixel_numbers_are_distinct_and_mixed():
    numbers = _pixel_numbers(2**16)
    assert len(numbers.unique()) == 2**16
    bits = (numbers[:, None] >> torch.arange(64)) & 1
    assert (bits.float().mean(dim=0) - 0.5).abs().max() < 0.02
