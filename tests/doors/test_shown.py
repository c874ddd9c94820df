"""What a notebook and a prompt show of results: short, with shapes and means, never the values."""

import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

import gag_fast
from gag_fast.attribution.explanation import Explanation
from gag_fast.runs.request import Summary
from tests.tiny_classifier import build


@pytest.fixture
def clf():
    return gag_fast.Classifier.from_torch(build())


def test_scores_of_one_map_an_image(clf, images):
    maps = torch.rand(3, 16, 16)
    scores = gag_fast.evaluate(clf, images, maps, [0, 1, 2], ("gini", "rcap"), "official")
    mean = {name: f"{float(v.double().mean()):.4g}" for name, v in scores.values.items()}
    assert repr(scores) == f"Scores([3], official, rcap={mean['rcap']}, gini={mean['gini']})"
    assert f"<td>{mean['rcap']}</td>" in scores._repr_html_()
    assert "RCAP ↑" in scores._repr_html_()


def test_scores_of_several_maps_and_of_undefined_ones(clf, images):
    maps = torch.rand(3, 2, 16, 16)
    maps[1, 0] = torch.nan
    scores = gag_fast.evaluate(clf, images.numpy(), maps, [0, 1, 2], "gini")
    left, right = np.nanmean(scores.gini, axis=0, dtype=np.float64)
    assert repr(scores) == f"Scores([3, 2], paper, gini=[{left:.4g} (2 of 3), {right:.4g}])"
    assert scores._repr_html_().count("<td>") == 2


def test_to_frame_has_a_row_for_each_image_and_map(clf, images):
    maps = torch.rand(3, 2, 16, 16)
    scores = gag_fast.evaluate(clf, images, maps, [0, 1, 2], ("gini", "entropy"))
    frame = scores.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["image", "map", "gini", "entropy"]
    assert frame.gini[frame.image == 2].tolist() == scores.gini[2].tolist()
    one = gag_fast.evaluate(clf, images, maps[:, 0], [0, 1, 2], "gini").to_frame()
    assert list(one.columns) == ["image", "gini"]
    assert one.gini.tolist() == scores.gini[:, 0].tolist()


def test_to_frame_without_pandas_says_what_to_install(clf, images, monkeypatch):
    scores = gag_fast.evaluate(clf, images, torch.rand(3, 16, 16), [0, 1, 2], "gini")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame needs pandas: pip install pandas$"):
        scores.to_frame()


def test_others():
    how = Explanation(n=3, p=65, options={"baseline": torch.zeros(3, 99, 99)})
    tensor = "baseline=a torch.float32 tensor of shape [3, 99, 99]"
    assert repr(how) == f"Explanation(n=3, p=65.0, {tensor})"
    assert repr(Explanation()) == "Explanation()"
    summary = Summary(Path("runs/a"), 8, 6, failures={"a.png": "no image"}, interrupted=2)
    assert repr(summary) == "Summary(runs/a: 6 of 8 images, 1 failed, interrupted by signal 2)"
    classifier = gag_fast.Classifier.from_torch(build())
    assert repr(classifier).startswith("Classifier(torch:cpu, torch:cpu, ")
    assert len(repr(classifier)) < 120
