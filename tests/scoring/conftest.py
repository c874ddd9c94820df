"""Small classifiers as ONNX files, and photographs, shared by the scoring tests."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from gag_fast.classifier import Classifier
from gag_fast.export import export_onnx
from gag_fast.images import load_image, preprocess
from gag_fast.models import ModelSpec, Preprocessing
from tests.photographs import SAMPLES
from tests.scoring.scoring_models import SmallNet, linear, scikit_photographs, small_spec


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """Measured batch sizes of other runs must not decide what a test sees."""
    old = os.environ.get("XDG_CACHE_HOME")
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if old is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = old


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx")


@pytest.fixture(scope="session")
def linear_onnx(onnx_folder) -> Path:
    """Two classes on one channel of 4 x 4: logits (0, sum of the pixels - 8)."""
    spec = ModelSpec(
        "linear", Preprocessing(size=4, resize=4, mean=(0.0,), std=(1.0,)), 2, ("no", "yes")
    )
    path = onnx_folder / "linear.onnx"
    export_onnx(linear(), spec, path)
    return path


@pytest.fixture(scope="session")
def small() -> nn.Module:
    return SmallNet().eval()


@pytest.fixture(scope="session")
def small_onnx(onnx_folder, small) -> Path:
    """Three channels of 24 x 24, five classes, ImageNet's mean and std."""
    path = onnx_folder / "small.onnx"
    export_onnx(small, small_spec(), path)
    return path


@pytest.fixture
def small_clf(small_onnx) -> Classifier:
    return Classifier(small_onnx, "cpu", batch_size=4)


@pytest.fixture
def linear_clf(linear_onnx) -> Classifier:
    return Classifier(linear_onnx, "cpu", batch_size=4)


@pytest.fixture(scope="session")
def photographs(lite0) -> torch.Tensor:
    """Three photographs that come with scikit-image, as Lite0 takes them."""
    pytest.importorskip("skimage.data")
    return scikit_photographs(lite0[1])


@pytest.fixture(scope="session")
def samples(lite0) -> torch.Tensor:
    """Three of the ImageNet sample photographs, where they are."""
    files = sorted(SAMPLES.glob("*.jpg"))[10:240:80]
    if not files:
        pytest.skip("no sample photographs; set GAG_FAST_PHOTOS")
    return torch.stack([preprocess(load_image(f), lite0[1].preprocessing) for f in files])
