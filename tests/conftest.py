"""What several rooms of tests share: exported classifiers, the sample photographs."""

import pytest

from tests.photographs import SAMPLES
from tests.tiny_classifier import MODEL


@pytest.fixture(scope="session")
def onnx(tmp_path_factory):
    """The tiny classifier, exported once."""
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model

    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(*load_model(MODEL), path)
    return path


@pytest.fixture(scope="session")
def lite0():
    """(module, spec) of EfficientNet-Lite0 with its ImageNet weights."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs gag-fast[demo]")
    from gag_fast.models import load_model

    return load_model("efficientnet_lite0")


@pytest.fixture(scope="session")
def lite0_onnx(tmp_path_factory, lite0):
    """EfficientNet-Lite0, exported once."""
    from gag_fast.export import export_onnx

    path = tmp_path_factory.mktemp("lite0") / "lite0.onnx"
    export_onnx(*lite0, path)
    return path


@pytest.fixture(scope="session")
def labelled_samples():
    """The table of the ImageNet sample photographs, where there are any."""
    if not (SAMPLES / "labels.csv").is_file():
        pytest.skip(f"no labels.csv in {SAMPLES}; set GAG_FAST_PHOTOS")
    return SAMPLES / "labels.csv"
