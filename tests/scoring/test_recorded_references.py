"""Measures against what xplique, openvino-xai and pnpxai said of the same photographs and maps.

None of the three can be installed beside this project's torch and NumPy, so each ran in an
environment of its own and was recorded: references/record.py says how, and makes the records again.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.classifier import Classifier
from gag_fast.metrics import agreement, evaluate
from gag_fast.presets import preset
from tests.scoring.scoring_models import two_maps

RECORDS = Path(__file__).parent / "references"


@pytest.fixture(scope="module")
def given(lite0, lite0_onnx, photographs):
    """Module, classifier, two photographs, their classes and a smooth and a rough map of each."""
    images = photographs[:2]
    clf = Classifier(lite0_onnx, "cpu", batch_size=8)
    return lite0[0], clf, images, *two_maps(lite0[0], images)


def record(library):
    return np.load(RECORDS / f"{library}.npz")


def cells_of_resized_masks(case, grid):
    """The cell of every pixel where a grid of cells is enlarged by the nearest one, as xplique."""
    place = [((torch.arange(side) + 0.5) * grid / side).long() for side in case.given.shape[2:]]
    return place[0][:, None] * grid + place[1]


@pytest.mark.parametrize("grid", [7, 9])
def test_mufidelity_as_xplique_has_it(given, monkeypatch, grid):
    """On the sets of cells that xplique drew; with 9 its cells end a pixel before some of ours."""
    if grid == 9:
        monkeypatch.setattr(agreement, "_cell_of", cells_of_resized_masks)
    _, clf, images, targets, maps = given
    theirs = record("xplique")
    sets = np.unpackbits(theirs[f"sets {grid}"], axis=-1, count=grid**2).astype(bool)
    chosen = preset("paper", mufidelity_grid=grid, mufidelity_samples=sets.shape[2])
    assert chosen.cell_base == "mean"
    for m in range(maps.shape[1]):
        drawn = torch.from_numpy(sets[:, m])
        monkeypatch.setattr(agreement, "subset_cells", lambda case, drawn=drawn: drawn)
        found = evaluate(clf, images, maps[:, m], targets, "mufidelity", chosen)
        expected = theirs[f"mufidelity {grid}"][:, m]
        np.testing.assert_allclose(found.mufidelity.numpy(), expected, atol=2e-3)


def test_adcc_as_openvino_xai_has_it(given):
    module, clf, images, targets, maps = given
    theirs = record("openvino_xai")

    def explain(model, images, targets):
        return gag_fast.explain(model, images, targets, method="vanilla")

    found = evaluate(
        clf, images, maps, targets, ("adcc", "average_drop"), model=module, explain=explain
    )
    for name in ("adcc", "average_drop"):
        np.testing.assert_allclose(getattr(found, name).numpy(), theirs[name], atol=2e-3)
    assert np.ptp(theirs["adcc"]) > 0.01  # or any number would do


def test_srg_as_pnpxai_has_abpc(given):
    """On one base AbPC is srg, but that its curve goes from six eighths straight to the whole."""
    _, clf, images, targets, maps = given
    theirs = record("pnpxai")
    eighths = preset("paper", step=1 / 8, deletion_base="mean")
    found = evaluate(clf, images, maps, targets, "srg", eighths)
    morf, lerf = (found.curves[name].numpy() for name in ("deletion", "lerf"))
    same = [*range(7), 8]
    np.testing.assert_allclose(morf[..., same], theirs["morf"], atol=1e-3)
    np.testing.assert_allclose(lerf[..., same], theirs["lerf"], atol=1e-3)
    missing = (lerf - morf)[..., 7] / 8
    np.testing.assert_allclose(found.srg.numpy(), theirs["abpc"] + missing, atol=1e-3)
    assert np.ptp(theirs["abpc"]) > 0.01
