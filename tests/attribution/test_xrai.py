"""XRAI beside PAIR's, given the same attributions and segments."""

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.attribution.xrai import regions, segments_of
from tests.attribution.attribution_models import TinyNet, difference, images, shaken
from tests.photographs import SAMPLES

pytest.importorskip("skimage", reason="scikit-image is not installed")
RAW = {"normalize": False, "channels": "keep"}


@pytest.fixture(scope="module")
def photograph():
    """A real photograph `[1,3,224,224]`, normalised."""
    if not SAMPLES.is_dir():
        pytest.skip("the photographs are not there")
    _, spec = gag_fast.load_model("efficientnet_lite0")
    return gag_fast.load_images([sorted(SAMPLES.glob("*.jpg"))[5]], spec)


def theirs(image, attribution, segments=None):
    saliency = pytest.importorskip("saliency.core", reason="saliency is not installed")
    return saliency.XRAI().GetMask(image, None, base_attribution=attribution, segments=segments)


def as_array(image):
    return image.permute(1, 2, 0).numpy().astype(np.float64)


def test_a_photograph_given_the_same_attributions_and_segments(photograph):
    image = as_array(photograph[0])
    rng = np.random.default_rng(0)
    attribution = rng.normal(size=image.shape) + np.linspace(0, 1, 224)[:, None, None]
    segments = segments_of(image)
    ours = regions(attribution.max(-1), segments)
    np.testing.assert_allclose(ours, theirs(image, attribution, segments), rtol=1e-4, atol=1e-9)
    assert len(np.unique(ours)) > 10


@pytest.mark.slow
def test_a_photograph_from_end_to_end(photograph):
    model, _ = gag_fast.load_model("efficientnet_lite0")
    ours = gag_fast.explain(model, photograph, 1, "xrai", base="smoothgrad", n=4, **RAW)
    base = gag_fast.explain(model, photograph, 1, "smoothgrad", n=4, **RAW)
    expected = theirs(as_array(photograph[0]), as_array(base[0]))
    assert difference(ours[0, 0], torch.from_numpy(expected)) < 1e-4


def test_a_small_image_is_segmented_as_theirs():
    saliency = pytest.importorskip("saliency.core.xrai", reason="saliency is not installed")
    image = as_array(images(1, 40)[0])
    ours, others = segments_of(image), saliency._get_segments_felzenszwalb(image)
    assert len(ours) == len(others)
    assert all((a == b).all() for a, b in zip(ours, others))


def test_by_hand():
    # 10 x 20 pixels: a left and a right half, and a strip of both that is given too.
    left = np.zeros((10, 20), bool)
    left[:, :10] = True
    strip = np.zeros((10, 20), bool)
    strip[:6] = True
    attribution = np.where(left, 1.0, 4.0)
    attribution[:6] += 10  # the strip's right part is the best, its mean 12.5
    found = regions(attribution, [left, ~left, strip])
    # The right half's mean is 4 + 6 = 10, the left's 7, the strip's 12.5: the strip comes first.
    assert (found[:6] == 12.5).all()
    # Each half would add 40 pixels, fewer than 50: they get the mean of what is left.
    assert (found[6:] == 2.5).all()


def test_segments_that_add_enough_come_one_after_another():
    attribution = np.repeat(np.arange(4.0), 60).reshape(4, 60)
    rows = [np.arange(4)[:, None].repeat(60, 1) == k for k in range(4)]
    assert (regions(attribution, [*rows, np.ones((4, 60), bool)]) == attribution).all()


def test_what_is_unusual():
    broken = np.ones((8, 8))
    broken[0, 0] = np.nan
    assert np.isnan(regions(broken, [np.ones((8, 8), bool)])).all()
    flat = segments_of(np.full((8, 8, 3), 0.5))
    assert len(flat) == 1
    assert flat[0].all()
    assert (regions(np.arange(16.0).reshape(4, 4), [np.ones((4, 4), bool)]) == 7.5).all()


@pytest.mark.slow
def test_over_any_method_of_gradients():
    model, x = shaken(TinyNet), images(1, 40)
    for base in ("vanilla", "guided_absgrad@65", "guided_backprop", "smoothgrad/GA", "blur_ig"):
        raw = gag_fast.explain(model, x, 1, "xrai", base=base, n=3, **RAW)
        attribution = gag_fast.explain(model, x, 1, base, n=3, **RAW).amax(1)
        expected = regions(attribution[0].numpy(), segments_of(as_array(x[0])))
        assert difference(raw[0, 0], torch.from_numpy(expected)) < 1e-6


@pytest.mark.parametrize("base", ["grad_cam", "rise", "xrai", "vanilla/R"])
def test_a_base_that_is_none(base):
    with pytest.raises(ValueError, match="base must be a method of gradients and not reversed"):
        gag_fast.explain(shaken(TinyNet), images(1, 24), 1, "xrai", base=base)


def test_options_of_the_base():
    model, x = shaken(TinyNet), images(1, 24)
    with pytest.raises(TypeError, match="unknown option 'steps'"):
        gag_fast.explain(model, x, 1, "xrai", base="vanilla", steps=3)
    with pytest.raises(ValueError, match="needs the variance of at least 2 gradients"):
        gag_fast.explain(model, x, 1, "xrai", base="guided_absgrad", n=1)
    found = gag_fast.explain(model, x, 1, "xrai", steps=3, baseline=1.0)
    assert found.shape == (1, 24, 24)
