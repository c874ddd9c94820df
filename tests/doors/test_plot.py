"""gag_fast.plot: what is drawn where, and which of its arguments do not belong together."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import gag_fast
from tests.tiny_classifier import build

pytest.importorskip("matplotlib")


@pytest.fixture
def images():
    return torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    return torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(1))


def grid(figure):
    """The axes, row by row."""
    top = sorted({round(a.get_subplotspec().rowspan.start) for a in figure.axes})
    return [[a for a in figure.axes if a.get_subplotspec().rowspan.start == row] for row in top]


def shown(axes):
    (picture,) = axes.get_images()
    return np.asarray(picture.get_array())


def test_a_row_is_photograph_map_and_overlay(images, maps):
    spec = gag_fast.Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3, size=32)
    rows = grid(gag_fast.plot(maps, images, spec, titles=["cat", "dog"]))
    assert [len(row) for row in rows] == [3, 3]
    assert [row[0].get_title() for row in rows] == ["cat", "dog"]
    photograph = (images[1] * 0.2 + 0.5).clamp(0, 1).mul(255).round().byte().movedim(0, -1)
    assert np.array_equal(shown(rows[1][0]), photograph.numpy())
    brightness = shown(rows[0][1]).astype(int).sum(2).reshape(-1)
    order = maps[0].reshape(-1).argsort().numpy()
    assert brightness[order[0]] < brightness[order[-1]]
    assert shown(rows[0][2]).shape == (24, 32, 3)


def test_scores_bring_their_curves_and_values(images):
    maps = torch.rand(2, 3, 24, 32)
    clf = gag_fast.Classifier.from_torch(build())
    scores = gag_fast.evaluate(clf, images, maps, [1, 2], ("rcap", "dauc"))
    figure = gag_fast.plot(maps, images, scores=scores, overlays=False)
    (first, _) = grid(figure)
    assert len(first) == 1 + 3 + 2
    titles = [a.get_title() for a in first]
    assert titles[1] == f"map 0\nRCAP {scores.rcap[0, 0]:.3f}  DAUC {scores.dauc[0, 0]:.3f}"
    deletion = next(a for a in first if a.get_title() == "Deletion")
    lines = deletion.get_lines()
    assert len(lines) == 3
    for i, line in enumerate(lines):
        assert np.allclose(line.get_xdata(), np.linspace(0, 1, 11), atol=1e-3)
        assert np.allclose(line.get_ydata(), scores.curves["deletion"][0, i])


def test_maps_by_name_numpy_and_photographs_as_they_are(images, maps, tmp_path):
    photographs = [Image.new("RGB", (32, 24), (200, 10, 10)) for _ in range(2)]
    named = {"ours": maps.numpy(), "theirs": maps.numpy()}
    figure = gag_fast.plot(named, photographs)
    (first, _) = grid(figure)
    assert [a.get_title() for a in first] == ["image", "ours", "", "theirs", ""]
    assert shown(first[0])[0, 0].tolist() == [200, 10, 10]
    figure.savefig(tmp_path / "figure.png")
    assert Image.open(tmp_path / "figure.png").size[0] > 400


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"maps": torch.rand(3, 24, 32)}, r"maps and images must be as many, got 3 and 2"),
        ({"maps": torch.rand(24, 32)}, r"maps must be \[B, H, W\] or"),
        ({"maps": {}}, r"maps must hold at least one"),
        ({"maps": {"a": torch.rand(2, 4)}}, r"all alike, got \{'a': \[2, 4\]\}"),
        ({"images": torch.rand(2, 5, 24, 32)}, r"with 1 or 3 channels, got \[2, 5, 24, 32\]"),
        ({"images": "cat.jpg"}, r"or Pillow images, got str 'cat.jpg'"),
        ({"titles": ["one"]}, r"titles must be 2, one an image, got 1"),
        ({"colormap": "jet"}, r"colormap must be one of"),
    ],
)
def test_what_does_not_belong_together(images, maps, change, said):
    given = {"maps": maps, "images": images, **change}
    with pytest.raises(ValueError, match=said):
        gag_fast.plot(**given)


def test_without_matplotlib_one_line_says_what_to_install(images, maps, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as told:
        gag_fast.plot(maps, images)
    assert str(told.value) == "plot needs matplotlib: pip install 'gag-fast[plot]'"


def test_a_notebook_shows_it_without_pyplot(images, maps):
    figure = gag_fast.plot(maps, images)
    data = figure._repr_jpeg_()
    assert Image.open(io.BytesIO(data)).format == "JPEG"
    assert len(data) < 300_000
