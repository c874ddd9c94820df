"""`gag-fast explain`: no photograph is written over, and every one is read as runs read it."""

import os
import shutil

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.images import load_image, preprocess
from gag_fast.models import load_model
from gag_fast.report.pictures import is_ours
from tests.photographs import save_photo
from tests.tiny_classifier import MODEL


def test_an_input_picture_is_never_overwritten(cli, tmp_path):
    save_photo(tmp_path / "d" / "cat.png", 1)
    before = (tmp_path / "d" / "cat.png").read_bytes()
    found = cli("explain", "d/cat.png", "--model", MODEL, "--n", 2, "--out", "d")
    assert found.status == 0
    assert (tmp_path / "d" / "cat.png").read_bytes() == before
    assert found.out.rstrip().endswith("-> d/cat-2.png")


def test_nor_is_one_that_was_not_named(cli, tmp_path):
    save_photo(tmp_path / "cat.png", 1)
    save_photo(tmp_path / "d" / "cat.png", 2)
    (tmp_path / "d" / "cat-2.npy").write_bytes(b"measured for weeks")
    (tmp_path / "d" / "cat-3.png").symlink_to("nowhere.png")
    before = {p: p.read_bytes() for p in (tmp_path / "d").iterdir() if p.exists()}
    found = cli("explain", "cat.png", "--model", MODEL, "--n", 2, "--out", "d", "--save-maps")
    assert found.status == 0
    assert {p: p.read_bytes() for p in before} == before
    assert (tmp_path / "d" / "cat-4.png").is_file()


def test_nor_by_another_name_of_it(cli, tmp_path):
    save_photo(tmp_path / "cat.jpeg.png", 1)
    os.mkdir(tmp_path / "d")
    os.link(tmp_path / "cat.jpeg.png", tmp_path / "d" / "cat.jpeg.png")
    before = (tmp_path / "cat.jpeg.png").read_bytes()
    assert cli("explain", "cat.jpeg.png", "--model", MODEL, "--n", 2, "--out", "d").status == 0
    assert (tmp_path / "cat.jpeg.png").read_bytes() == before


def test_its_own_picture_is_written_again(cli, tmp_path):
    save_photo(tmp_path / "cat.png", 1)
    for _ in range(2):
        found = cli("explain", "cat.png", "--model", MODEL, "--n", 2, "--out", "d", "--save-maps")
        assert found.status == 0
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["cat.npy", "cat.png"]
    assert is_ours(tmp_path / "d" / "cat.png")
    assert not is_ours(tmp_path / "cat.png")
    # A figure that is now a photograph to explain is one like any other.
    before = (tmp_path / "d" / "cat.png").read_bytes()
    assert cli("explain", "d/cat.png", "--model", MODEL, "--n", 2, "--out", "d").status == 0
    assert (tmp_path / "d" / "cat.png").read_bytes() == before


def test_the_map_is_that_of_the_library(cli, tmp_path):
    """The picture is fitted to the model once: not cropped a second time."""
    save_photo(tmp_path / "cat.png", 1)
    cli("explain", "cat.png", "--model", MODEL, "--n", 2, "--out", "d", "--save-maps")
    module, spec = load_model(MODEL)
    images = preprocess(load_image(tmp_path / "cat.png"), spec.preprocessing)[None]
    expected = gag_fast.explain(module, images, n=2)
    found = np.load(tmp_path / "d" / "cat.npy")
    assert torch.allclose(torch.from_numpy(found), expected[0], atol=1e-5)


def test_a_file_that_hangs_a_decoder_is_a_failed_image(cli, tmp_path, monkeypatch):
    from gag_fast.runs import decoding

    save_photo(tmp_path / "good.png", 1)
    shutil.copy(tmp_path / "good.png", tmp_path / "bad.png")
    ask = decoding._Process.decode

    def hang(self, path, *more):
        if path.endswith("bad.png"):
            os.kill(self.process.pid, 19)
            monkeypatch.setattr(decoding, "TIMEOUT", 0.2)
        else:
            monkeypatch.setattr(decoding, "TIMEOUT", 60)
        return ask(self, path, *more)

    monkeypatch.setattr(decoding._Process, "decode", hang)
    found = cli("explain", "bad.png", "good.png", "--model", MODEL, "--n", 2, "--out", "d")
    assert found.status == 1
    assert "bad.png: took longer than" in found.err
    assert (tmp_path / "d" / "good.png").is_file()


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.join(os.path.dirname(__file__), "..", "runs"))
