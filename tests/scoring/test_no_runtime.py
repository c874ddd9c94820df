"""Without ONNX Runtime, which an extra brings: one line that says what to install."""

import sys

import pytest

import gag_fast
from gag_fast.export import export_onnx
from tests.scoring.scoring_models import batch, small_spec


@pytest.fixture
def no_runtime(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


def test_a_classifier_says_what_to_install(no_runtime, small_onnx):
    with pytest.raises(gag_fast.GagFastError, match=r"pip install 'gag-fast\[gpu\]'") as error:
        gag_fast.Classifier(small_onnx)
    assert "\n" not in str(error.value)


def test_so_does_an_export_before_it_starts(no_runtime, small, tmp_path):
    with pytest.raises(gag_fast.GagFastError, match=r"gag-fast\[cpu\]"):
        export_onnx(small, small_spec(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_classifier_in_torch_needs_none(no_runtime, small):
    images, _, _ = batch()
    assert gag_fast.Classifier.from_torch(small, small_spec())(images).shape == (3, 5)
