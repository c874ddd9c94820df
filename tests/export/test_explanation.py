"""The explanation as one file: Algorithm 1, equal to explain() when fed the same noise."""

import numpy as np
import onnx
import pytest
import torch

import gag_fast
from gag_fast._errors import ClassifierError, GagFastError
from gag_fast.export import ExportError, explanation, export_explanation, export_gradients
from tests.export.test_gradients import PROVIDERS, SPEC, Small, images

PERCENTS = [0, 15, 50, 85, 100]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explanation")
    gradients, path = folder / "g.onnx", folder / "x.onnx"
    export_gradients(Small(), gradients, SPEC)
    report = export_explanation(Small(), path, SPEC, gradients=gradients)
    return path, gradients, report


def test_report_and_file(written):
    path, gradients, report = written
    assert report.bytes == path.stat().st_size < 1.1 * gradients.stat().st_size + 20_000
    assert max(report.differences.values()) < 1e-5
    model = onnx.load(str(path))
    assert [v.name for v in model.graph.input] == ["images", "targets", "noise", "p"]
    assert [v.name for v in model.graph.output] == ["maps"]
    assert {o.domain for o in model.opset_import} <= {"", "ai.onnx"}
    loop = next(node for node in model.graph.node if node.op_type == "Loop")
    assert len(loop.output) == 3  # statistics; nothing is stacked over the samples


@pytest.mark.parametrize("provider", PROVIDERS)
def test_equal_to_explain(written, provider):
    x, targets = images(3), torch.tensor([4, 0, 2])
    run = gag_fast.OnnxExplanation(written[0], provider, threads=2)
    found = run(x, targets, p=PERCENTS, seed=5, n=6)
    assert found.shape == (3, len(PERCENTS), 16, 16)
    for k, p in enumerate(PERCENTS):
        right = gag_fast.explain(Small(), x, targets, n=6, p=p, seed=5)
        torch.testing.assert_close(found[:, k], right, atol=1e-4, rtol=0)
        one = run(x.numpy(), targets, p=p, seed=5, n=6)
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one, found[:, k].numpy(), atol=1e-6)


def test_noise_of_ones_own(written):
    """The same normal numbers for every image, scaled by each image's range."""
    x = images(2) * torch.tensor([1.0, 3.0])[:, None, None, None]
    noise = images(4, seed=9)
    found = gag_fast.OnnxExplanation(written[0], "cpu", threads=2)(x, [1, 1], noise, p=50)
    for i in range(2):
        std = 0.15 * (x[i].max() - x[i].min())
        noisy = (x[i] + std * noise).requires_grad_()
        grads = torch.autograd.grad(Small()(noisy)[:, 1].sum(), noisy)[0]
        right = gag_fast.guided_absgrad(grads, p=50)
        torch.testing.assert_close(found[i], right, atol=1e-4, rtol=0)


def test_a_map_of_one_value_is_zeros_and_p_0_needs_no_variance(written):
    run = gag_fast.OnnxExplanation(written[0], "cpu")
    assert torch.isfinite(run(torch.ones(1, 3, 16, 16), [0], n=3)).all()
    assert run(images(1), [0], n=1, p=0).max() == 1
    with pytest.raises(ClassifierError, match="at least 2 samples, got 1"):
        run(images(1), [0], n=1)
    with pytest.raises(
        ClassifierError, match=r"noise must be \[n, 3, 16, 16\], got \[2, 3, 8, 8\]"
    ):
        run(images(1), [0], torch.zeros(2, 3, 8, 8))
    with pytest.raises(GagFastError, match="target 5 is not one of the model's 5 classes"):
        run(images(1), [5])
    with pytest.raises(ClassifierError, match="is no file of an explanation"):
        gag_fast.OnnxExplanation(written[1])


def test_the_file_says_whose_it_is(written):
    run = gag_fast.OnnxExplanation(written[0], "cpu")
    assert run.spec == SPEC
    assert run.num_classes == 5
    assert repr(run) == "OnnxExplanation(x.onnx, CPUExecutionProvider, [3, 16, 16])"


def test_a_provider_that_is_wrong_leaves_no_file(written, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "_difference", lambda *rest: 0.5)
    with pytest.raises(ExportError, match="CPUExecutionProvider computes the maps of tiny wrong"):
        export_explanation(Small(), tmp_path / "x.onnx", SPEC, gradients=written[1])
    assert not list(tmp_path.iterdir())
