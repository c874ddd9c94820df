"""Measures by the pictures they show: by hand, by independent slow twins, by other libraries."""

import contextlib
import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.metrics import agreement, evaluate, information
from gag_fast.metrics.case import Case
from gag_fast.perturb.impute import impute
from gag_fast.perturb.interpolate import interpolate
from gag_fast.presets import preset
from tests.scoring.library_references import saliency_information
from tests.scoring.scoring_models import batch, two_maps

PICTURES = ("srg", "road", "average_drop", "increase", "infidelity", "mufidelity", "idsds")


class Sum(nn.Module):
    """Class 1 is as probable as the image is bright: p = share of the whole brightness."""

    def forward(self, x):
        p = x.flatten(1).mean(dim=1).clamp(0, 1)
        return torch.stack([1 - p, p], dim=1)


def bright():
    """The classifier of brightness; black is 0, which is also the mean."""
    return Classifier.from_callable(
        Sum(), num_classes=2, mean=(0.0,), std=(1.0,), score="probabilities", batch_size=8
    )


@pytest.fixture
def corner():
    """One bright quarter of a 4 x 4 image, which alone makes the probability."""
    image = torch.zeros(4, 4)
    image[:2, :2] = 1
    return image


# ---- by hand, the perfect and the worst map --------------------------------------------------


def run(image, saliency, *names, **fields):
    chosen = preset("paper", **fields)
    images, maps = image[None, None], saliency[None]
    found = evaluate(bright(), images, maps, torch.tensor([1]), names, chosen)
    return [float(getattr(found, name)[0]) for name in names]


def test_srg_by_hand(corner):
    # MoRF: p falls from 1/4 to 0 over the first quarter; LeRF: stays until three quarters.
    best = run(corner, corner, "srg", step=0.25)[0]
    morf = 0.25 * (0.25 / 2)
    lerf = 0.25 * (0.25 / 2) + 3 * 0.25 * 0.25
    assert best == pytest.approx(lerf - morf)
    worst = run(corner, 1 - corner, "srg", step=0.25)[0]
    assert worst == pytest.approx(-best)


def test_drop_and_increase_by_hand(corner):
    names = ("average_drop", "increase")
    assert run(corner, corner, *names) == [0, 0]  # perfect: nothing is lost, nothing gained
    assert run(corner, 1 - corner, *names) == [1, 0]  # worst: all is lost
    assert run(corner, corner * 0.5, *names) == [0.5, 0]
    dark = corner.clone()
    dark[3, 3] = -2  # what speaks against the class is dimmed away
    assert run(dark, corner, *names) == [0, 1]
    assert run(torch.zeros(4, 4), corner, *names) == [0, 0]  # no probability to lose


def test_idsds_and_mufidelity_by_hand():
    image = torch.arange(16.0).reshape(4, 4) / 16  # a cell of one pixel makes p fall by its value
    fields = {"idsds_grid": 4, "mufidelity_grid": 4, "cell_base": "black"}
    for saliency, expected in ((image, 1), (1 - image, -1), (torch.ones(4, 4), 0)):
        found = run(image, saliency, "idsds", "mufidelity", **fields)
        assert found == pytest.approx([expected] * 2, abs=1e-6)


def test_infidelity_of_the_true_weights(corner):
    image = torch.full((4, 4), 0.5)
    weights = torch.full((4, 4), 1 / 16)  # p = sum of the pixels / 16
    fields = {"infidelity_noise": 0.1}
    assert run(image, weights, "infidelity", infidelity_scaled=False, **fields)[0] < 1e-12
    assert run(image, weights * 7, "infidelity", **fields)[0] < 1e-12
    assert run(image, weights * 7, "infidelity", infidelity_scaled=False, **fields)[0] > 1e-3
    # Blind and one-pixel maps foretell nothing, or little.
    blind = run(image, torch.zeros(4, 4), "infidelity", **fields)[0]
    pixel = torch.zeros(4, 4)
    pixel[1, 1] = 1
    assert 0 < run(image, pixel, "infidelity", **fields)[0] <= blind


def test_road_of_the_true_map_and_its_reverse(corner):
    step = torch.linspace(0, 0.01, 16).reshape(4, 4)
    best = run(corner, corner + step, "road", road_noise=0)[0]
    worst = run(corner, -(corner + step), "road", road_noise=0)[0]
    assert best == pytest.approx(-worst, abs=1e-6)
    assert best > 0


# ---- independent slow twins and other libraries ------------------------------------------------


@pytest.fixture(scope="module")
def photos(lite0, photographs):
    """Two photographs, their targets, and a smooth and a rough map of each."""
    images = photographs[:2]
    targets, maps = two_maps(lite0[0], images)
    return images, targets, maps


@pytest.fixture(scope="module")
def clf(lite0):
    return Classifier.from_torch(*lite0, batch_size=8)


@pytest.fixture(scope="module")
def probability(lite0):
    """The probability of a class, for images [B, C, H, W]."""
    module = lite0[0]

    def of(images, target):
        with torch.no_grad():
            return module(images).softmax(dim=1)[:, target]

    return of


def test_srg_as_the_paper_says(clf, photos, probability):
    images, targets, maps = photos
    found = evaluate(clf, images, maps, targets, "srg", preset("rise", step=12544))
    for i in range(1):
        for m in range(2):
            order = np.argsort(-maps[i, m].flatten().numpy(), kind="stable")
            areas = []
            for removed in (order, order[::-1]):
                curve = []
                for count in range(0, 50177, 12544):
                    flat = images[i].flatten(1).clone()
                    flat[:, removed[:count].copy()] = 0
                    curve.append(probability(flat.reshape(1, 3, 224, 224), targets[i]).item())
                areas.append(trapezoid(curve, dx=0.25))
            assert float(found.srg[i, m]) == pytest.approx(areas[1] - areas[0], abs=1e-5)


def test_drop_as_torchcam_and_grad_cam_have_it(lite0, clf, photos):
    metrics = pytest.importorskip("torchcam.metrics")
    images, targets, maps = photos
    found = evaluate(clf, images, maps, targets, ("average_drop", "increase"))

    class Fixed:
        """Stands where torch-cam wants an extractor, and gives the maps at hand."""

        model = lite0[0]

        def __call__(self, class_idx=None, scores=None, normalized=True, **_):
            return [maps[:, m]]

        def fuse_cams(self, cams):
            return cams[0]

        def _hooks_off(self):
            return contextlib.nullcontext()

    for m in range(2):
        metric = metrics.ClassificationMetric(Fixed(), lambda x: x.softmax(dim=-1))
        metric.update(images, targets.tolist())
        theirs = metric.summary()
        assert float(found.average_drop[:, m].mean()) == pytest.approx(theirs["avg_drop"], abs=1e-5)
        assert float(found.increase[:, m].mean()) == pytest.approx(theirs["conf_increase"])
    gradcam = pytest.importorskip("pytorch_grad_cam.metrics.cam_mult_image")
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    drop = gradcam.DropInConfidence()(
        images,
        maps[:, 0].numpy(),
        [targets_of.ClassifierOutputSoftmaxTarget(int(t)) for t in targets],
        lite0[0],
    )
    before = clf(images).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(
        found.average_drop[:, 0] * before, torch.tensor(drop), atol=1e-5, rtol=0
    )


def test_imputation_as_grad_cam_has_it(photographs):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    image = photographs[0, :, 40:140, 60:170].contiguous()
    rng = np.random.default_rng(0)
    hole = np.zeros((100, 110), bool)
    hole[:, 70:] = True
    hole[20:60, 10:40] = True
    for missing in (hole, rng.random((100, 110)) < 0.6, hole | (rng.random((100, 110)) < 0.2)):
        expected = road.NoisyLinearImputer(noise=0)(image, torch.from_numpy(1 - missing * 1.0))
        found = impute(image, torch.from_numpy(missing))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert torch.equal(impute(image, torch.zeros(100, 110, dtype=torch.bool)), image)
    nothing = impute(image, torch.ones(100, 110, dtype=torch.bool))
    assert torch.equal(nothing, image.mean(dim=(1, 2), keepdim=True).expand_as(image))


def test_road_as_grad_cam_has_it(lite0, clf, photos, monkeypatch):
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    targets_of = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0, None))
    images, targets, maps = photos[0][:1], photos[1][:1], photos[2][:1, :1]
    quiet = preset("paper", road_noise=0, road_shares=(0.2, 0.4))
    found = evaluate(clf, images, maps, targets, "road", quiet)
    combined = road.ROADCombined(percentiles=[60, 80])(
        images,
        maps[:, 0].numpy(),
        [targets_of.ClassifierOutputSoftmaxTarget(int(targets[0]))],
        lite0[0],
    )
    assert float(found.road[0, 0]) == pytest.approx(float(combined[0]), abs=1e-4)


def test_interpolation_is_scipys(photographs):
    scipy = pytest.importorskip("scipy.interpolate")
    rng = np.random.default_rng(1)
    pixels = ((photographs[0, :, 60:100, 60:108] + 2.5) * 50).clamp(0, 255).to(torch.uint8)
    pixels = pixels.permute(1, 2, 0).numpy()
    known = rng.random((40, 48)) < 0.05
    known[10:20, 10:25] = True
    found = interpolate(pixels, known)
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    for channel in range(3):
        values = pixels[..., channel]
        inside = scipy.griddata(np.argwhere(known), values[known], np.argwhere(~known))
        expected = values.astype(float)
        expected[~known] = inside
        # Halves may be rounded either way: SciPy's weights are not exact.
        assert np.abs(found[..., channel] - expected).max() <= 0.5 + 1e-9
    assert (found[known] == pixels[known]).all()


def test_information_curves_as_saliency_has_them(lite0, photographs):
    module, spec = lite0
    clf = Classifier.from_torch(module, spec, batch_size=8)
    clf._size = None  # the network takes any size; small pictures keep the reference bearable
    small = nn.functional.interpolate(photographs[:1], size=(40, 40), mode="area")
    targets = module(small).argmax(dim=1)
    saliency = gag_fast.explain(module, small, targets, method="vanilla")
    chosen = preset("paper", information_shares=(0.05, 0.2, 0.5), information_seeds=0.02)
    found = evaluate(clf, small, saliency, targets, ("aic", "sic"), chosen)
    theirs = saliency_information((module, clf, small, targets, saliency), chosen)
    for name, area in theirs.items():
        assert float(getattr(found, name)[0]) == pytest.approx(area, abs=5e-3)


def test_information_curves_by_hand():
    chosen = preset("paper", information_points=4)
    sizes = np.array([10.0, 20, 30])

    def area(values, sizes=sizes):
        return information.curve_area(sizes, np.array(values), chosen)

    assert area([0.0, 1.0, 1.0]) == pytest.approx(0.75)  # half the size shows all
    assert area([0.0, 0.0, 1.0]) == pytest.approx(0.25)
    assert area([0.2, 0.5, 0.8]) == pytest.approx(0.5)
    # No larger than the random pixels alone: it counts as one of them.
    assert area([0.0, 1.0, 1.0], np.array([10.0, 10, 30])) == pytest.approx(0.5)
    assert math.isnan(area([0.5, 0.9, 0.5]))  # the whole image is no better than some pixels
    assert math.isnan(area([0.0, 1.0, 1.0], sizes[::-1]))  # nor larger
    assert math.isnan(area([math.nan, 1.0, 1.0]))


def test_infidelity_as_captum_has_it(clf, photos, probability):
    captum = pytest.importorskip("captum.metrics")
    images, targets, maps = (part[:1] for part in photos)
    for scaled in (True, False):
        chosen = preset("paper", infidelity_samples=4, infidelity_scaled=scaled)
        found = evaluate(clf, images, maps, targets, "infidelity", chosen)
        case = Case(images, maps, targets, None, *clf.colours(3), chosen)
        key = gag_fast.ops.image_keys(images).tolist()[0]
        noises = torch.stack([agreement.noise(case, key, n) for n in range(4)])
        for m in range(2):
            expected = captum.infidelity(
                lambda x: probability(x, targets[0]),
                lambda x, noises=noises: (noises, x - noises),
                images,
                maps[:, m, None].expand_as(images),
                n_perturb_samples=4,
                normalize=scaled,
            )
            mine = float(found.infidelity[0, m])
            assert mine == pytest.approx(expected.item(), rel=2e-3, abs=1e-7)


@pytest.mark.parametrize(("name", "grid"), [("idsds", 4), ("mufidelity", 7)])
def test_cells_from_the_equation(clf, photos, probability, name, grid):
    stats = pytest.importorskip("scipy.stats")
    images, targets, maps = (part[:1] for part in photos)
    chosen = preset("paper", mufidelity_grid=grid, mufidelity_samples=12, idsds_grid=grid)
    found = evaluate(clf, images, maps, targets, name, chosen)
    side = 224 // grid
    case = Case(images, maps, targets, None, *clf.colours(3), chosen)
    sets = np.eye(grid**2, dtype=bool)
    if name == "mufidelity":
        sets = agreement.subset_cells(case)[0].numpy()
        assert (sets.sum(axis=1) == int(0.2 * grid**2)).all()
        assert len({s.tobytes() for s in sets}) == len(sets)
    falls, sums = [], ([], [])
    for chosen_cells in sets:
        gone = np.kron(chosen_cells.reshape(grid, grid), np.ones((side, side))).astype(bool)
        left = images.clone()
        left[:, :, gone] = 0
        falls.append(float(probability(images, targets[0]) - probability(left, targets[0])))
        for m in range(2):
            sums[m].append(float(maps[0, m].double()[torch.from_numpy(gone)].sum()))
    for m in range(2):
        expected = stats.spearmanr(sums[m], falls)[0]
        assert float(getattr(found, name)[0, m]) == pytest.approx(expected, abs=1e-6)


# ---- sharing, and where it ends ----------------------------------------------------------------


def test_pictures_are_shared(small_clf):
    images, maps, targets = batch(2, maps=3)
    few = preset("paper", mufidelity_samples=10, infidelity_samples=5)

    def forwards(*names):
        return evaluate(small_clf, images, maps, targets, names, few).forwards

    alone = {name: forwards(name) for name in (*PICTURES, "rcap", "dauc", "iauc")}
    together = forwards(*alone)
    assert together < sum(alone.values())
    # Deleting the least salient half leaves what RCAP recovers from the most salient half.
    assert forwards("rcap", "srg") <= alone["rcap"] + alone["srg"] - 2 * 3
    assert forwards("dauc", "srg") == alone["srg"]
    assert forwards("average_drop", "increase") == alone["increase"] == 2 * 3 + 2
    # The changes of these are the same for every map.
    assert alone["mufidelity"] == 2 * (1 + 10)
    assert alone["infidelity"] == 2 * (1 + 5)
    assert alone["idsds"] == 2 * (1 + 16)
    twice = evaluate(
        small_clf, images, torch.cat([maps, maps**3], dim=1), targets, ("road", "srg"), few
    )
    assert twice.forwards == forwards("road", "srg")  # the same order of pixels


def test_the_same_bits_alone_and_together(small_clf):
    images, maps, targets = batch(3, maps=2)
    few = preset("paper", mufidelity_samples=10, infidelity_samples=5)
    together = evaluate(small_clf, images, maps, targets, ("rcap", *PICTURES), few)
    flipped = evaluate(
        small_clf, images.flip(0), maps.flip(0, 1), targets.flip(0), PICTURES, few, max_bytes=1
    )
    for name in PICTURES:
        alone = evaluate(small_clf, images, maps, targets, name, few)
        assert torch.equal(getattr(alone, name), getattr(together, name)), name
        assert torch.equal(getattr(flipped, name).flip(0, 1), getattr(together, name)), name


def test_degenerate_maps(small_clf):
    images, maps, targets = batch(5)
    maps[0] = 0
    maps[1] = 0.5
    maps[2] = math.nan
    maps[3] = 0
    maps[3, 4, 4] = 1
    # Cells of one size: else a constant map has more saliency in the larger ones.
    found = evaluate(small_clf, images, maps, targets, PICTURES, preset("paper", mufidelity_grid=8))
    for name in PICTURES:
        values = getattr(found, name)
        assert values.isnan().tolist() == [False, False, True, False, False], name
    assert found.idsds[:2].tolist() == found.mufidelity[:2].tolist() == [0, 0]
    negative = evaluate(small_clf, images[:1], -maps[4:], targets[:1], ("srg", "road", "idsds"))
    assert all(value.isfinite().all() for value in negative.values.values())
    for name in ("average_drop", "increase"):
        with pytest.raises(ValueError, match=f"{name} needs maps >= 0"):
            evaluate(small_clf, images[:1], -maps[4:], targets[:1], name)


def test_seeds(small_clf):
    images, maps, targets = batch(1)
    names = ("road", "mufidelity", "infidelity")

    def values(seed):
        loud = preset("paper", perturb_seed=seed, road_noise=0.5)
        found = evaluate(small_clf, images, maps, targets, names, loud)
        return [float(getattr(found, name)[0]) for name in names]

    assert values(0) == values(0)
    assert all(a != b for a, b in zip(values(0), values(1)))
