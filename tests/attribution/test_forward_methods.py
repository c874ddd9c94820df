"""RISE, occlusion and Kernel SHAP: by hand, by others' code, and whatever surrounds them."""

import itertools
from math import comb

import numpy as np
import pytest
import torch
from torch import nn

import gag_fast
from gag_fast.attribution import kernel_shap as shap
from gag_fast.attribution.rise import masks_of
from tests.attribution.attribution_models import ModuleReluNet, difference, images, shaken
from tests.photographs import SAMPLES

FORWARD = ("rise", "occlusion", "kernel_shap")
FEW = {"rise": {"masks": 37}, "occlusion": {"window": 6, "stride": 4}, "kernel_shap": {
    "segments": 3, "coalitions": 40}}  # fmt: skip
RAW = {"normalize": False, "channels": "keep"}


class Sum(nn.Module):
    """Class 1's score is the weighted sum of the pixels, class 0's is 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x):
        total = (x * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(total), total], 1)


@pytest.fixture(scope="module")
def network():
    return shaken(ModuleReluNet)


@pytest.fixture(scope="module")
def classifier(network):
    return gag_fast.Classifier.from_torch(network, batch_size=5)


@pytest.fixture(scope="module")
def photograph():
    """A real photograph for EfficientNet-Lite0, `[1,3,112,112]`, and the module."""
    if not SAMPLES.is_dir():
        pytest.skip("the photographs are not there")
    model, spec = gag_fast.load_model("efficientnet_lite0")
    whole = gag_fast.load_images([sorted(SAMPLES.glob("*.jpg"))[3]], spec)
    return nn.functional.avg_pool2d(whole, 2), model


# ---- occlusion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "stride", "baseline"), [((5, 7), (3, 4), 0.3), (8, 8, 0), (24, 24, -1), (7, 2, 0)]
)
def test_occlusion_is_captums(network, window, stride, baseline):
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    x, targets = images(2, 24), torch.tensor([1, 4])
    pair = (window, window) if isinstance(window, int) else window
    steps = (stride, stride) if isinstance(stride, int) else stride
    theirs = captum.Occlusion(network).attribute(
        x, (3, *pair), strides=(3, *steps), target=targets, baselines=baseline
    )
    ours = gag_fast.explain(
        network, x, targets, "occlusion", window=window, stride=stride, baseline=baseline, **RAW
    )
    assert difference(ours.expand_as(theirs), theirs) < 1e-4


def test_occlusion_of_a_photograph_is_captums(photograph):
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    x, model = photograph
    target = int(model(x).argmax())
    theirs = captum.Occlusion(model).attribute(
        x, (3, 32, 32), strides=(3, 20, 20), target=target, perturbations_per_eval=16
    )
    ours = gag_fast.explain(model, x, target, "occlusion", window=32, stride=20, **RAW)
    assert difference(ours.expand_as(theirs), theirs) < 1e-4


def test_occlusion_by_hand():
    # Hiding a pixel of a sum takes its value away; a window of 2 hides the mean of two windows.
    x = torch.tensor([[[[1.0, 2.0, 4.0]]]])
    model = Sum(torch.ones(1, 1, 1, 3))
    raw = gag_fast.explain(model, x, 1, "occlusion", window=(1, 1), **RAW)
    torch.testing.assert_close(raw, x)
    raw = gag_fast.explain(model, x, 1, "occlusion", window=(1, 2), stride=1, **RAW)
    torch.testing.assert_close(raw, torch.tensor([[[[3.0, 4.5, 6.0]]]]))
    # The last window is cut at the edge: 2 pixels, then 1.
    raw = gag_fast.explain(model, x, 1, "occlusion", window=(1, 2), stride=(1, 2), **RAW)
    torch.testing.assert_close(raw, torch.tensor([[[[3.0, 3.0, 4.0]]]]))
    maps = gag_fast.explain(model, x, 1, "occlusion", window=1)
    torch.testing.assert_close(maps, torch.tensor([[[0, 1 / 3, 1]]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 25}, "window must fit into images of 24x24, got 25x25"),
        ({"window": 4, "stride": 5}, "stride must not exceed the window's 4 pixels"),
        ({"window": 0}, "window must be an integer of 1 or more, got 0"),
        ({"window": (1, 2, 3)}, "window must be pixels or"),
        ({"stride": 2.5}, "stride must be an integer of 1 or more, got 2.5"),
        ({"baseline": "black"}, "baseline must be a number or a tensor"),
        ({"baseline": torch.zeros(2, 24, 24)}, "baseline must be a number or a tensor"),
    ],
)
def test_what_occlusion_refuses(network, options, message):
    with pytest.raises(gag_fast.GagFastError, match=message):
        gag_fast.explain(network, images(1, 24), 1, "occlusion", **options)


# ---- RISE ---------------------------------------------------------------------------------------


def published_masks(masks, cells, size):
    """The published code's: the grid resized by scikit-image, and cut."""
    transform = pytest.importorskip("skimage.transform", reason="scikit-image is not installed")
    cell = [-(-side // cells) for side in size]
    scaled = tuple((cells + 1) * c for c in cell)
    for grid, y, x in zip(masks.grid.numpy(), masks.down.tolist(), masks.right.tolist()):
        big = transform.resize(grid, scaled, order=1, mode="reflect", anti_aliasing=False)
        yield big[y : y + size[0], x : x + size[1]]


def test_masks_are_the_published_ones():
    masks = masks_of(6, 7, 0.5, (45, 64), key=3, seed=1)
    expected = np.stack(list(published_masks(masks, 7, (45, 64))))
    np.testing.assert_allclose(masks.part(slice(0, 6)).numpy(), expected, atol=1e-5)
    assert masks.grid.mean() == pytest.approx(0.5, abs=0.1)
    # The product of thin matrices is the sum over masks.
    values = torch.rand(6)
    np.testing.assert_allclose(
        masks.weighted(values).numpy(), np.tensordot(values.numpy(), expected, 1), atol=1e-5
    )


def test_rise_is_the_published_algorithm(network):
    x, n = images(2, 24), 37
    masks = masks_of(n, 5, 0.3, (24, 24), key=0, seed=4)
    expected = np.stack(list(published_masks(masks, 5, (24, 24)))).astype(np.float32)
    with torch.no_grad():
        for i in range(2):
            p = network(x[i] * torch.from_numpy(expected)[:, None]).softmax(1)[:, 2]
            wanted = np.tensordot(p.numpy(), expected, 1) / n / 0.3
            ours = gag_fast.explain(network, x, 2, "rise", masks=n, grid=5, keep=0.3, seed=4, **RAW)
            assert difference(ours[i, 0], torch.from_numpy(wanted)) < 1e-4


def test_rise_by_hand():
    # All cells kept: every mask is 1, so the map is the score of the image itself, everywhere.
    x = torch.rand(1, 1, 4, 4)
    model = Sum(torch.ones(1, 1, 4, 4))
    raw = gag_fast.explain(model, x, 1, "rise", masks=3, grid=2, keep=1, **RAW)
    torch.testing.assert_close(raw, x.sum().sigmoid().expand(1, 1, 4, 4))
    assert not gag_fast.explain(model, x, 1, "rise", masks=3, grid=2, keep=1).any()
    # n is another name of the masks where there is one method.
    few = gag_fast.explain(model, x, 1, "rise", n=5)
    assert torch.equal(few, gag_fast.explain(model, x, 1, "rise", masks=5))
    # One cell a side: each mask is 0 or 1 throughout.
    raw = gag_fast.explain(model, x, 1, "rise", masks=50, grid=1, **RAW)
    kept = masks_of(50, 1, 0.5, (4, 4), 0, 0).grid.mean()
    torch.testing.assert_close(raw, (x.sum().sigmoid() * kept / 0.5).expand(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masks": 0}, "masks must be an integer of 1 or more, got 0"),
        ({"n": 0}, "n must be a positive integer, got 0"),
        ({"grid": 0}, "grid must be an integer of 1 or more"),
        ({"keep": 0}, "keep must be a probability above 0, got 0"),
        ({"keep": 1.5}, "keep must be a probability above 0, got 1.5"),
        ({"window": 3}, "unknown option 'window'; it is an option of occlusion"),
    ],
)
def test_what_rise_refuses(network, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        gag_fast.explain(network, images(1, 24), 1, "rise", **options)


# ---- Kernel SHAP --------------------------------------------------------------------------------


def shapley_values(value, players):
    """By the definition: the mean over all orders of what a player adds."""
    found = np.zeros(players)
    for player in range(players):
        others = [j for j in range(players) if j != player]
        for size in range(players):
            for some in itertools.combinations(others, size):
                share = 1 / (players * comb(players - 1, size))
                found[player] += share * (value({*some, player}) - value(set(some)))
    return found


def test_all_coalitions_give_the_exact_shapley_values(network):
    x = images(1, 24)
    cut = shap.superpixels(x, 2)[0]

    def value(shown):
        mask = sum(((cut == j).float() for j in shown), torch.zeros(24, 24))
        with torch.no_grad():
            return float(network(x * mask)[0, 3])

    raw = gag_fast.explain(network, x, 3, "kernel_shap", segments=2, coalitions=14, **RAW)
    expected = torch.tensor(shapley_values(value, 4), dtype=torch.float32)
    assert difference(raw[0, 0], expected[cut]) < 1e-4


def test_kernel_shap_is_captums_of_the_same_coalitions(network, monkeypatch):
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed")
    x, count = images(1, 24), 60
    cut = shap.superpixels(x, 3)

    drawn = []

    class Recorded(captum.KernelShap):
        def kernel_shap_perturb_generator(self, original_inp, **kwargs):
            for z in super().kernel_shap_perturb_generator(original_inp, **kwargs):
                drawn.append(z[0].bool())
                yield z

    torch.manual_seed(0)
    method = Recorded(network)
    method.perturb_func = method.kernel_shap_perturb_generator
    theirs = method.attribute(
        x, target=2, baselines=0.2, feature_mask=cut[:, None], n_samples=count + 2
    )
    same = torch.stack(drawn[2 : count + 2]), torch.ones(count).double()
    monkeypatch.setattr(shap, "coalitions_of", lambda *_: same)
    ours = gag_fast.explain(
        network, x, 2, "kernel_shap", segments=cut, coalitions=count, baseline=0.2, **RAW
    )
    assert difference(ours.expand_as(theirs), theirs) < 1e-4


def test_kernel_shap_by_hand():
    # Shapley values of a sum are its terms, however few coalitions.
    x = torch.tensor([[[[1.0, 2.0, 4.0, -3.0]]]])
    model = Sum(torch.ones(1, 1, 1, 4))
    for count in (3, 4, 9, 14, 500):
        raw = gag_fast.explain(model, x, 1, "kernel_shap", segments=4, coalitions=count, **RAW)
        if count >= 9:  # fewer leave something open
            torch.testing.assert_close(raw, x, atol=1e-5, rtol=0)
        assert float(raw.sum()) == pytest.approx(4, abs=1e-4)
    labels = torch.tensor([[7, 7, 9, 9]])
    raw = gag_fast.explain(model, x, 1, "kernel_shap", segments=labels, **RAW)
    torch.testing.assert_close(raw, torch.tensor([[[[3.0, 3.0, 1.0, 1.0]]]]))
    raw = gag_fast.explain(model, x, 1, "kernel_shap", segments=1, **RAW)
    torch.testing.assert_close(raw, torch.full((1, 1, 1, 4), 4.0))


def test_coalitions_come_with_their_complements():
    kept, weights = shap.coalitions_of(30, 101, key=1, seed=2)
    assert kept.shape == (101, 30)
    assert torch.equal(kept[0:100:2], ~kept[1:100:2])
    sizes = kept.sum(1)
    assert sizes.min() >= 1
    assert sizes.max() <= 29
    assert torch.equal(weights, torch.ones(101).double())


def test_slic(network):
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    x = images(2, 24)
    cut = shap.superpixels(x, "slic:20")
    assert not torch.equal(cut[0], cut[1])
    assert all(c.unique().tolist() == list(range(int(c.max()) + 1)) for c in cut)
    raw = gag_fast.explain(network, x, 1, "kernel_shap", segments="slic:20", **RAW)
    for c, values in zip(cut, raw[:, 0]):
        assert all(len(values[c == j].unique()) == 1 for j in range(int(c.max()) + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coalitions": 0}, "coalitions must be an integer of 1 or more, got 0"),
        ({"coalitions": 20}, "coalitions must be 48 or more for 49 superpixels, got 20"),
        ({"segments": "watershed"}, 'segments must be a number, "slic"'),
        ({"segments": "slic:0"}, 'segments must be a number, "slic"'),
        ({"segments": torch.zeros(3, 3, dtype=torch.int64)}, r"segments must be integers \[24, 24"),
        ({"segments": torch.zeros(24, 24)}, r"segments must be integers \[24, 24\]"),
    ],
)
def test_what_kernel_shap_refuses(network, options, message):
    with pytest.raises(gag_fast.GagFastError, match=message):
        gag_fast.explain(network, images(1, 24), 1, "kernel_shap", **options)


# ---- all three ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FORWARD)
def test_a_map_depends_on_its_image_and_id_alone(network, classifier, method):
    x, ids = images(5, 24), [11, 12, 13, 11, -5]
    how = {"method": method, **FEW[method], **RAW}
    targets = torch.tensor([0, 1, 2, 3, 4])
    together = gag_fast.explain(network, x, targets, image_ids=ids, batch_size=7, **how)
    for i in (0, 3, 4):
        alone = gag_fast.explain(
            network, x[i : i + 1], targets[i : i + 1], image_ids=ids[i : i + 1], batch_size=4, **how
        )
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)
    scored = {
        size: gag_fast.explain(
            gag_fast.Classifier.from_torch(network, batch_size=size), x, targets, image_ids=ids,
            score="logit", **how,
        )
        for size in (3, 64)
    }  # fmt: skip
    logits = gag_fast.explain(network, x, targets, image_ids=ids, score="logit", **how)
    for found in scored.values():
        torch.testing.assert_close(found, logits, atol=2e-5, rtol=1e-4)
    if method != "occlusion":
        other = gag_fast.explain(network, x[:1], 0, image_ids=[99], **how)
        assert difference(other[0], together[0]) > 1e-3
        reseeded = gag_fast.explain(network, x[:1], 0, image_ids=[11], seed=1, **how)
        assert difference(reseeded[0], together[0]) > 1e-3


@pytest.mark.parametrize("method", FORWARD)
def test_a_classifier_explains_its_probability(network, classifier, method):
    x = images(2, 24)
    how = {"method": method, **FEW[method], **RAW}
    found = gag_fast.explain(classifier, x, **how)
    predicted = network(x).argmax(1)
    softmax = nn.Sequential(network, nn.Softmax(1))
    expected = gag_fast.explain(softmax, x, predicted, **how)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    by_score = gag_fast.explain(network, x, predicted, score="probability", **how)
    torch.testing.assert_close(found, by_score, atol=1e-5, rtol=1e-4)
    arrays = gag_fast.explain(classifier, x.numpy(), method=method, **FEW[method])
    assert isinstance(arrays, np.ndarray)
    assert arrays.shape == (2, 24, 24)
    assert arrays.min() == 0
    assert arrays.max() == 1


@pytest.mark.parametrize("method", FORWARD)
def test_no_gradient_is_needed(method):
    class Steps(nn.Module):
        """Its scores have no gradient at all."""

        def forward(self, x):
            total = (x.detach() > 0).float().mean((1, 2, 3))
            return torch.stack([total, 1 - total], 1)

    maps = gag_fast.explain(Steps(), images(2, 24), method=method, **FEW[method])
    assert maps.shape == (2, 24, 24)


@pytest.mark.parametrize("method", FORWARD)
def test_what_all_three_refuse(network, classifier, method):
    x = images(1, 24)
    with pytest.raises(ValueError, match="target 9 is not one of the model's 5 classes"):
        gag_fast.explain(classifier, x, 9, method)
    with pytest.raises(ValueError, match=f"{method} explains the nll, but a Classifier only prob"):
        gag_fast.explain(classifier, x, 1, method, score="nll")
    with pytest.raises(TypeError, match="batch_size: said to the engine where it is made"):
        gag_fast.explain(classifier, x, 1, method, batch_size=3)
    with pytest.raises(ValueError, match="vanilla needs gradients, which a Classifier does not gi"):
        gag_fast.explain_many(classifier, x, 1, (method, "vanilla"))
    with pytest.raises(ValueError, match="vanilla differentiates the probability, but a "):
        gag_fast.explain(network, x, 1, "vanilla", score="probability")


def test_memory_does_not_grow_with_the_masks(network):
    """Never more pictures than a batch, whatever is asked for."""
    seen = []

    def forward(pictures):
        seen.append(len(pictures))
        return network(pictures)

    classifier = gag_fast.Classifier.from_callable(forward, num_classes=5, batch_size=6)
    gag_fast.explain(classifier, images(2, 24), 1, "rise", masks=100)
    assert set(seen) == {6}
    assert 34 <= len(seen) <= 37  # 200 masked pictures; some more to read the scores


def test_several_methods_in_one_call(network):
    x = images(2, 24)
    found = gag_fast.explain_many(
        network, x, 1, ("vanilla", "rise", "occlusion"), masks=20, window=8, image_ids=[4, 5]
    )
    for method, options in (("rise", {"masks": 20}), ("occlusion", {"window": 8}), ("vanilla", {})):
        alone = gag_fast.explain(network, x, 1, method, image_ids=[4, 5], **options)
        torch.testing.assert_close(found[method], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_two_draws_of_4000_masks_agree(photograph):
    """As far as chance lets them: 0.78 for this photograph, whose class is all but certain."""
    x, model = photograph
    classifier = gag_fast.Classifier.from_torch(model)
    target = int(model(x).argmax())
    draws = [
        gag_fast.explain(classifier, x, target, "rise", masks=4000, seed=seed)[0].flatten()
        for seed in (0, 1)
    ]
    assert torch.corrcoef(torch.stack(draws))[0, 1] > 0.6
