"""What export_onnx writes, what it verifies, and that a failure leaves nothing behind."""

import json

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gag_fast import onnx_metadata
from gag_fast.export import ExportError, export_onnx
from gag_fast.export import onnx_file as export_module
from gag_fast.models import ModelSpec, Preprocessing

SPEC = ModelSpec(
    "tiny",
    Preprocessing(size=8, resize=10, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    2,
    ("é", "b"),
    "random, seed 0",
    "00ff",
)


class Tiny(nn.Module):
    def __init__(self, last=None):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        self.head = nn.Linear(4 * 36, 2)
        self.dropout = nn.Dropout(0.5)
        self.last = last or nn.Identity()

    def forward(self, x):
        return self.last(self.dropout(self.head(self.layers(x))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    module = Tiny().train()
    lines = []
    report = export_onnx(module, SPEC, path, log=lines.append)
    return module, path, report, lines


def test_report(exported):
    module, path, report, lines = exported
    assert report.path == path
    assert report.bytes == path.stat().st_size
    assert report.score == "logits"
    assert set(report.max_abs_diff) == {1, 3, 16}
    assert max(report.max_abs_diff.values()) < 1e-5
    assert "batch 16" in str(report)
    assert any("batch 3: max |difference|" in line for line in lines)
    assert module.training  # it comes back as it was


def test_one_file_with_a_dynamic_batch(exported):
    module, path, _, _ = exported
    assert [p.name for p in path.parent.iterdir()] == ["tiny.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [3, 8, 8]
    assert isinstance(session.get_inputs()[0].shape[0], str)
    module.eval()
    for batch in (1, 2, 5, 64):
        x = torch.randn(batch, 3, 8, 8)
        (got,) = session.run(None, {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), module(x).detach(), atol=1e-5, rtol=0)


def test_metadata(exported):
    props = {p.key: p.value for p in onnx.load(str(exported[1])).metadata_props}
    assert props["name"] == "tiny"
    assert props["score"] == "logits"
    assert json.loads(props["mean"]) == [0.1, 0.2, 0.3]
    assert json.loads(props["std"]) == [0.4, 0.5, 0.6]
    assert json.loads(props["input_size"]) == 8
    assert json.loads(props["labels"]) == ["é", "b"]
    assert props["weights_sha256"] == "00ff"
    assert onnx_metadata.decode(props, 2) == (SPEC, "logits")


def test_nothing_is_printed(tmp_path, capfd):
    export_onnx(Tiny(), SPEC, tmp_path / "quiet.onnx")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_a_module_that_ends_in_softmax_says_so(tmp_path):
    path = tmp_path / "p.onnx"
    assert export_onnx(Tiny(nn.Softmax(1)), SPEC, path).score == "probabilities"
    props = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert props["score"] == "probabilities"


def test_over_tolerance_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    with pytest.raises(ExportError, match=r"differs from torch by .* no file was written"):
        export_onnx(Tiny(), SPEC, path, tolerance=0.0)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_wrong_graph_is_caught(tmp_path, monkeypatch):
    """The comparison is real: weights changed in the file are noticed."""
    write = export_module._write

    def spoiled(*args):
        opset = write(*args)
        model = onnx.load(str(args[3]))
        weight = next(i for i in model.graph.initializer if i.name == "head.bias")
        weight.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + 1, "head.bias")
        )
        onnx.save(model, str(args[3]))
        return opset

    monkeypatch.setattr(export_module, "_write", spoiled)
    with pytest.raises(ExportError, match=r"differs from torch by 1\.00e"):
        export_onnx(Tiny(), SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


class Fixed(nn.Module):
    """Its batch cannot vary."""

    def forward(self, x):
        return x.reshape(2, -1)[:, :2]


class Branching(nn.Module):
    """What it computes depends on the values."""

    def forward(self, x):
        if x.sum() > 0:
            x = x * 2
        return torch.stack([x.mean(dim=(1, 2, 3))] * 2, dim=1)


class NaN(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([torch.nan, 1.0]))

    def forward(self, x):
        return x.mean(dim=(1, 2, 3))[:, None] * self.w


def test_a_model_of_nan_is_refused(tmp_path):
    with pytest.raises(ExportError, match="differs from torch by nan"):
        export_onnx(NaN(), SPEC, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fixed(), r"must give scores \[B, 2\], got \[2, 2\] for a batch of 1$"),
        (Branching(), "torch cannot export tiny: "),
        (nn.Linear(3, 2), "tiny fails on a batch of 1: "),
    ],
)
def test_a_model_that_cannot_be_exported(tmp_path, capfd, module, message):
    with pytest.raises(ExportError, match=message) as error:
        export_onnx(module, SPEC, tmp_path / "m.onnx")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(tmp_path):
    with pytest.raises(ExportError, match=r"must end in \.onnx"):
        export_onnx(Tiny(), SPEC, tmp_path / "m.bin")
    with pytest.raises(ExportError, match="there is no folder"):
        export_onnx(Tiny(), SPEC, tmp_path / "no" / "m.onnx")
    with pytest.raises(ExportError, match=r"got parameters of torch\.float64"):
        export_onnx(Tiny().double(), SPEC, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gag_fast.format": "99"}, "metadata format 99 is not 1"),
        ({"mean": "nonsense"}, "cannot be read"),
        ({"score": "odds"}, "score must be one of logits, probabilities, sigmoid, got 'odds'"),
        ({"labels": '["a"]'}, "1 labels for 2 classes"),
        ({"std": None}, "lacks 'std'"),
    ],
)
def test_metadata_that_cannot_be_used(change, message):
    props = {**onnx_metadata.encode(SPEC, "logits"), **change}
    props = {k: v for k, v in props.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        onnx_metadata.decode(props, 2)


def test_a_file_without_metadata_is_no_error():
    assert onnx_metadata.decode({"author": "somebody"}, 2) is None
