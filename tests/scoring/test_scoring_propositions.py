"""The two propositions of Section 4.3, with a classifier that looks for one thing in one place."""

import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier

SIZE = 40
OBJECT = (14, 14)  # its centre


@pytest.fixture(scope="module")
def scene():
    """A bright square on noise, and a classifier whose class 1 is "there is a bright square"."""
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * torch.rand(1, 1, SIZE, SIZE, generator=generator)
    image[..., 8:20, 8:20] += 0.8

    def classify(images):
        seen = (images[:, 0, 8:20, 8:20] > 0.5).float().mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(seen), 8 * (seen - 0.5)], dim=1)

    return image, Classifier.from_callable(classify, mean=(0,), std=(1,), num_classes=2)


def bell(centre, sigma):
    """A Gaussian saliency map in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    d = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    return torch.exp(-d / (2.0 * sigma**2))[None]


def score(scene, saliency):
    image, clf = scene
    return gag_fast.evaluate(clf, image, saliency, torch.tensor([1]))


def test_shifting_the_focus_off_the_object_lowers_rcap(scene):
    on = score(scene, bell(OBJECT, 6))
    off = score(scene, bell((OBJECT[0] + 12, OBJECT[1] + 12), 6))
    torch.testing.assert_close(on.partitions, off.partitions, atol=0.1, rtol=0)
    assert off.rcap.item() < 0.8 * on.rcap.item()


def test_swapping_high_and_low_saliency_lowers_rcap(scene):
    """The reversal of Section 4.3: keep the top l, exchange the lowest m with those below it."""
    saliency = bell(OBJECT, 6).flatten()
    order = saliency.argsort(descending=True)
    top, swap = int(0.02 * len(order)), int(0.1 * len(order))
    reversed_map = saliency.clone()
    high, low = order[top : top + swap], order[-swap:]
    reversed_map[high], reversed_map[low] = saliency[low], saliency[high]
    plain = score(scene, saliency.view(1, SIZE, SIZE))
    swapped = score(scene, reversed_map.view(1, SIZE, SIZE))
    assert swapped.rcap.item() < plain.rcap.item()


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_saliency_outside_the_focus_lowers_rcap_and_leaves_the_curves(scene, noise):
    clean = bell(OBJECT, 6)
    # Spread saliency below the median: more noise there, the same order everywhere.
    middle = clean.median()
    noisy = torch.where(clean < middle, clean + noise * (middle - clean), clean)
    assert torch.equal(clean.flatten().argsort(stable=True), noisy.flatten().argsort(stable=True))
    a, b = score(scene, clean), score(scene, noisy)
    assert b.rcap.item() < a.rcap.item()
    assert b.dauc.item() == a.dauc.item()
    assert b.iauc.item() == a.iauc.item()
    assert torch.equal(a.curves["recover"], b.curves["recover"])


def test_a_wider_bell_has_a_lower_rcap_at_the_same_curves(scene):
    """Figure 4: M1 and M2 share the centre and so the ranks; the wider one is noisier."""
    narrow, wide = bell(OBJECT, 5).double(), bell(OBJECT, 9).double()
    a, b = score(scene, narrow), score(scene, wide)
    assert b.rcap.item() < a.rcap.item()
    assert b.dauc.item() == a.dauc.item()
    assert b.iauc.item() == a.iauc.item()
