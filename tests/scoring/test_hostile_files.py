"""Files and values that lie: each is refused in one line before memory is asked for by it."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, load, save
from torch import nn

import gag_fast
from gag_fast._errors import GagFastError
from gag_fast.classifier import batch_size
from gag_fast.models import ModelError, read_state


def graph(path, taken=("B", 3, 8, 8), given=("B", 3), nodes=None, metadata=()):
    """A classifier of a ReduceMean, with whatever shapes it claims."""
    f32 = TensorProto.FLOAT
    nodes = nodes or [helper.make_node("ReduceMean", ["images", "axes"], ["scores"], keepdims=0)]
    made = helper.make_graph(
        nodes,
        "hostile",
        [helper.make_tensor_value_info("images", f32, taken)],
        [helper.make_tensor_value_info("scores", f32, given)],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in dict(metadata).items():
        model.metadata_props.add(key=key, value=value)
    save(model, path)
    return path


def refused(path, match=None):
    with pytest.raises(ValueError, match=match) as caught:
        gag_fast.Classifier(path, "cpu", batch_size=None)(np.zeros((2, 3, 8, 8), np.float32))
    assert isinstance(caught.value, GagFastError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ((0, 3, 8, 8), (0, 3)),
        ((1 << 40, 3, 8, 8), (1 << 40, 3)),
        (("B", 3, 1 << 20, 1 << 20), ("B", 3)),
        (("B", 0, 8, 8), ("B", 0)),
    ],
)
def test_shapes_that_no_classifier_has(tmp_path, taken, given):
    refused(graph(tmp_path / "a.onnx", taken, given))


def test_no_classes_at_all(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("Constant", [], ["none"], value_ints=[0]),
        helper.make_node("Constant", [], ["second"], value_ints=[1]),
        helper.make_node("Slice", ["means", "none", "none", "second"], ["scores"]),
    ]
    refused(graph(tmp_path / "a.onnx", nodes=nodes, given=("B", "K")), "no classifier has")


def test_outputs_of_another_shape_than_the_file_says(tmp_path):
    nodes = [helper.make_node("Identity", ["images"], ["scores"])]
    refused(graph(tmp_path / "a.onnx", nodes=nodes, given=("B", "K")))
    refused(graph(tmp_path / "b.onnx", nodes=nodes, given=("B", "C", "H", "W")))


@pytest.fixture
def props(onnx):
    return {p.key: p.value for p in load(str(onnx)).metadata_props}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", "[Infinity, 0, 0]"),
        ("mean", "[NaN, 0, 0]"),
        ("mean", "[0.5, 0.5]"),
        ("mean", '"abc"'),
        ("mean", "7"),
        ("std", "[1, 1, 1e999]"),
        ("std", "[0, 1, 1]"),
        ("input_size", "1e400"),
        ("input_size", "99999999999"),
        ("input_size", "[8]"),
        ("labels", '{"a": 1}'),
        ("labels", "[1, 2, 3]"),
        ("labels", "7"),
        ("labels", '"abc"'),
        ("labels", "[" * 200_000),
        ("gag_fast.format", "[" * 200_000),
        ("gag_fast.format", "2"),
        ("crop", ""),
        ("score", "a\nb"),
    ],
)
def test_metadata_that_cannot_be(tmp_path, props, key, value):
    props |= {"input_size": "8", "resize": "8", "labels": json.dumps(list("abc")), key: value}
    refused(graph(tmp_path / "a.onnx", metadata=props))


def test_two_means_for_three_channels(tmp_path, props):
    props |= {"input_size": "8", "resize": "8", "labels": "null", "mean": "[0, 0]", "std": "[1, 1]"}
    refused(graph(tmp_path / "a.onnx", metadata=props), "2 values of mean and std for 3 channels")


def gradient_file(path, images=("B", 3, 8, 8), logits=("B", 3), metadata=()):
    """What OnnxGradients opens: the images as their own gradients, their means as logits."""
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("Identity", ["images"], ["gradients"]),
        helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "hostile",
        [
            helper.make_tensor_value_info("images", f32, images),
            helper.make_tensor_value_info("targets", i64, images[:1]),
        ],
        [
            helper.make_tensor_value_info("gradients", f32, images),
            helper.make_tensor_value_info("logits", f32, logits),
        ],
        [helper.make_tensor("axes", i64, [2], [2, 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, dict(metadata))
    save(model, path)
    return path


def test_gradients_of_two_means_for_three_channels(tmp_path, props):
    props |= {"input_size": "8", "resize": "8", "labels": "null"}
    x = torch.rand(2, 3, 8, 8)
    right = gag_fast.OnnxGradients(gradient_file(tmp_path / "a.onnx", metadata=props), "cpu")
    assert torch.equal(right(x, [0, 1]), x)
    props |= {"mean": "[0, 0]", "std": "[1, 1]"}
    with pytest.raises(GagFastError, match="2 values of mean and std for 3 channels") as caught:
        gag_fast.OnnxGradients(gradient_file(tmp_path / "b.onnx", metadata=props), "cpu")
    assert str(caught.value).startswith(str(tmp_path / "b.onnx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "logits", "reason"),
    [
        (("B", 3, "H", "W"), ("B", 3), "leaves sizes open"),
        (("B", "C", 8, 8), ("B", "C"), "leaves sizes open"),
        (("B", 3, 1 << 20, 1 << 20), ("B", 3), "no batch of that shape can be"),
        ((0, 3, 8, 8), (0, 3), "no batch of that shape can be"),
    ],
)
def test_gradients_of_shapes_that_cannot_be(tmp_path, images, logits, reason):
    with pytest.raises(GagFastError, match=reason) as caught:
        gag_fast.OnnxGradients(gradient_file(tmp_path / "a.onnx", images, logits), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["1000000000", "-1", "true", "0", '"8"', "[8]", "3", "1e9"])
def test_a_poisoned_memory_of_batch_sizes_is_passed_over(tmp_path, monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    batch_size.remember("a", 8)
    assert batch_size.remembered("a") == 8
    (path,) = (tmp_path / "gag_fast").glob("*.json")
    path.write_text(f'{{"a": {value}}}')
    assert batch_size.remembered("a") is None
    for text in ("[" * 100_000, "\x00", ""):
        path.write_text(text)
        assert batch_size.remembered("a") is None


# ---- checkpoints -----------------------------------------------------------------------------


class Runs:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.eye(3).to_sparse(), "of layout sparse_coo"),
        (torch.eye(3).to_sparse_csr(), "of layout sparse_csr"),
        (torch.empty(3, 3, device="meta"), r"without values \(meta\)"),
        (torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), "quantized"),
        (torch.zeros(1).expand(1_000_000, 2048), "repeats fewer values"),
        (Runs(), "more than tensors"),
        ([1, 2], "not a state dict"),
    ],
    ids=["sparse", "csr", "meta", "quantized", "stride 0", "code", "list"],
)
@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_odd_tensors(tmp_path, value, reason, capsys):
    torch.save({"fc.weight": value}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=None if isinstance(value, list) else reason) as caught:
        read_state(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert "it ran" not in capsys.readouterr().out


class LeavesAFile:
    """What is unpickled into a file's coming to be."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def with_members(source, path, change):
    """A copy of an archive, each member's bytes as change(name, bytes) gives them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))


def pickled(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A file of torch.export, 3 classes."""
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    images, batch = torch.zeros(2, 3, 8, 8), {0: torch.export.Dim("batch")}
    made = torch.export.export(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval(), (images,), dynamic_shapes=(batch,)
    )
    torch.export.save(made, path, extra_files={"preprocessing.json": '{"size": 8}'})
    return path


def test_no_pickle_in_a_file_of_torch_export_runs(program, tmp_path):
    """Its reader falls back to a plain unpickling, where a careful one was refused."""
    evil = pickled((LeavesAFile(tmp_path / "ran"),))

    def as_inputs(name, content):
        return evil if "sample_inputs" in name else content

    def as_weights(name, content):
        if name.endswith("weights_config.json"):
            settings = json.loads(content)
            for weight in settings["config"].values():
                weight["use_pickle"] = True
            return json.dumps(settings).encode()
        return evil if "/weights/weight_" in name else content

    for change in (as_inputs, as_weights):
        with_members(program, tmp_path / "evil.pt2", change)
        with pytest.raises(ModelError, match="it holds more than tensors, or is damaged"):
            gag_fast.load_model(tmp_path / "evil.pt2")
    assert not (tmp_path / "ran").exists()
    assert gag_fast.load_model(program)[1].num_classes == 3


@pytest.mark.parametrize("text", ["[", "5", '{"labels": 5}', '{"size": "x"}', "[" * 9999])
def test_what_a_program_says_of_itself_may_be_wrong(program, tmp_path, text):
    def change(name, content):
        return text.encode() if "preprocessing.json" in name else content

    with_members(program, tmp_path / "a.pt2", change)
    with pytest.raises(ModelError) as caught:
        gag_fast.load_model(tmp_path / "a.pt2")
    assert "\n" not in str(caught.value)


def test_other_files_are_no_models(tmp_path):
    torch.save({"fc.weight": torch.eye(3)}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match=r"weights go beside a model's name: --weights .*a\.pt"):
        gag_fast.load_model(tmp_path / "a.pt")
    with pytest.raises(ModelError, match="is an ONNX file, which scores"):
        gag_fast.load_model("no/such.onnx")


def test_a_head_without_dimensions(tmp_path):
    torch.save({"fc.weight": torch.tensor(1.0)}, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="does not fit the model"):
        gag_fast.load_model("resnet50", str(tmp_path / "a.pt"))


# ---- values ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "value",
    [
        np.ma.masked_array(np.zeros((2, 3, 4, 4), np.float32), mask=True),
        torch.nested.nested_tensor([torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)]),
        torch.masked.masked_tensor(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4) > 0),
        torch.zeros(2, 3, 4, 4).to_sparse(),
    ],
    ids=["masked array", "nested", "masked tensor", "sparse"],
)
def test_values_that_are_not_what_they_seem_are_refused(value):
    with pytest.raises((TypeError, ValueError)) as caught:
        gag_fast.guided_absgrad(value)
    assert "\n" not in str(caught.value)


def test_a_seed_of_64_bits_at_most():
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    images = torch.rand(1, 3, 4, 4)
    gag_fast.explain(model, images, n=2, seed=2**63 - 1)
    with pytest.raises(ValueError, match="seed must have 64 bits"):
        gag_fast.explain(model, images, n=2, seed=2**63)
