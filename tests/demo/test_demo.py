import csv
import re

import numpy as np
import pytest

from gag_fast import demo, export
from gag_fast.images import load_image
from gag_fast.report.reading import read_run

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def test_photographs_are_real_and_credited(tmp_path):
    photographs = demo.write_photographs(tmp_path)
    assert len(photographs) >= 6
    assert len({p.package for p in photographs}) >= 2
    colour = 0
    for photograph in photographs:
        pixels = np.asarray(load_image(tmp_path / photograph.name)).astype(int)
        assert pixels.shape[0] >= 256
        assert pixels.shape[1] >= 256
        assert pixels.std() > 20  # a picture, not a blank
        colour += np.abs(pixels[..., 0] - pixels[..., 2]).mean() > 3
    assert colour >= 6
    with (tmp_path / "credits.csv").open(newline="", encoding="utf-8") as file:
        credits = list(csv.DictReader(file))
    assert [c["path"] for c in credits] == [p.name for p in photographs]
    assert all(c["credit"] for c in credits)


def test_missing_package_is_named(tmp_path, monkeypatch):
    def load():
        raise ModuleNotFoundError("No module named 'nowhere'")

    missing = demo.Photograph("x.png", load, "nowhere", "nobody")
    monkeypatch.setattr(demo, "PHOTOGRAPHS", (missing,))
    with pytest.raises(demo.DemoError, match=r"x\.png comes with nowhere.*pip install"):
        demo.write_photographs(tmp_path)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(demo.DemoError, match="not a run folder"):
        demo.run(tmp_path)
    assert (tmp_path / "run" / "thesis.txt").exists()


def test_demo_end_to_end_twice(tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setattr(demo, "PHOTOGRAPHS", demo.PHOTOGRAPHS[:2])
    monkeypatch.setattr(demo, "METHODS", ("guided_absgrad", "vanilla"))
    monkeypatch.setattr(demo, "SAMPLES", 2)
    assert demo.run(tmp_path) == 0
    printed = capsys.readouterr().out
    assert "Rachel Michetti" in printed
    assert re.search(r"coffee\.png +espresso \(\d\d\.\d %\)", printed)
    assert re.search(r"2 images x 2 methods, n = 2, [\d.]+ s: [\d.]+ images/s", printed)
    assert re.search(r"page +file://", printed)
    first = read_run(tmp_path / "run")
    assert first.ok.all()
    assert first.rows == 4
    assert np.isfinite(np.stack([first.scores[m] for m in ("rcap", "dauc", "iauc")])).all()
    pictures = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert pictures == ["chelsea.png", "coffee.png"]
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 2 * 3
    assert "Rachel Michetti" in page
    # Over its own leavings, with the same numbers; the file of the first time serves again.
    monkeypatch.setattr(export, "export_onnx", lambda module, spec, path: f"{path}: as it is")
    assert demo.run(tmp_path) == 0
    second = read_run(tmp_path / "run")
    for metric in first.metrics:
        np.testing.assert_array_equal(first.scores[metric.column], second.scores[metric.column])
