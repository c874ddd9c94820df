"""The explanation file without Python: docs/onnx/explain.mjs under Node gives our map."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gag_fast
from gag_fast.export import export_explanation
from gag_fast.images import normalise, pixels_of
from gag_fast.models import ModelSpec, Preprocessing
from tests import ROOT
from tests.export.test_gradients import Small
from tests.photographs import save_photo

NODE = shutil.which("node")
MODULES = Path(os.environ.get("GAG_FAST_NODE_MODULES") or ROOT / "node_modules")
IMAGENET = Preprocessing(size=16, resize=16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SPEC = ModelSpec("tiny", IMAGENET, 5)
EXAMPLE = ROOT / "docs" / "onnx" / "explain.mjs"

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no Node.js on PATH"),
    pytest.mark.skipif(
        not (MODULES / "onnxruntime-node").is_dir(),
        reason="npm install onnxruntime-node, or GAG_FAST_NODE_MODULES for a folder that has it",
    ),
]


@pytest.fixture
def node(tmp_path):
    """node(*arguments) runs the example; a module is found beside the file that asks for it."""
    (tmp_path / "node_modules").symlink_to(MODULES.resolve())
    shutil.copy(EXAMPLE, tmp_path)

    def run(*arguments):
        command = [NODE, tmp_path / EXAMPLE.name, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def picture(tmp_path):
    photo = save_photo(tmp_path / "photo.png", 0, 16, 16)
    found = Image.open(photo).convert("RGB")
    found.save(tmp_path / "photo.ppm")
    return found


def test_node_computes_our_map(node, picture, tmp_path):
    file, out = tmp_path / "gag.onnx", tmp_path / "map.pgm"
    export_explanation(Small(), file, SPEC, providers=["cpu"])
    noise = np.random.default_rng(0).standard_normal((6, 3, 16, 16), np.float32)
    noise.tofile(tmp_path / "noise.f32")
    done = node(file, tmp_path / "photo.ppm", 3, out, 85, tmp_path / "noise.f32")
    assert done.returncode == 0, done.stderr
    image = normalise(pixels_of(picture)[None], IMAGENET)
    right = gag_fast.OnnxExplanation(file, "cpu")(image, [3], noise, p=85)[0]
    found = np.asarray(Image.open(out)) / 255
    np.testing.assert_allclose(found, right.numpy(), atol=0.6 / 255)

    done = node(file, tmp_path / "photo.ppm", 3, out)  # noise of its own
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(out)).max() == 255


def test_a_file_that_is_no_picture_is_named(node, tmp_path):
    (tmp_path / "photo.ppm").write_bytes(b"P3 1 1 255 0 0 0")
    done = node("gag.onnx", tmp_path / "photo.ppm", 3, tmp_path / "map.pgm")
    assert done.returncode != 0
    assert "is no PPM of three bytes a pixel" in done.stderr


def test_the_example_is_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 40
