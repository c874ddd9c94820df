"""Memory that is not to be had: one line at every door, whoever noticed it."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, save
from torch import nn

import gag_fast
from gag_fast import cli
from gag_fast._errors import GagFastError, OutOfMemoryError, memory_fault, within_memory

HUGE = 1 << 20  # squared, and four bytes each: 4 TiB, which no machine here gives


class Greedy(nn.Module):
    """A classifier that asks for more than there is, or fails as a GPU that has no memory does."""

    def __init__(self, error=None):
        super().__init__()
        self.head, self.error = nn.Linear(3, 2), error

    def forward(self, x):
        if self.error is not None:
            raise self.error
        return self.head(x.mean((2, 3))) + torch.empty(HUGE, HUGE).sum()


ON_A_GPU = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8 GiB\nand more"
)


def one_line(call):
    with pytest.raises(OutOfMemoryError) as caught:
        call()
    text = str(caught.value)
    assert text.startswith("out of memory: ")
    assert "need less" in text
    assert "\n" not in text
    assert isinstance(caught.value, GagFastError)
    assert isinstance(caught.value, RuntimeError)  # who caught torch's own still catches it


def test_guided_absgrad_of_a_stack_that_repeats_one_number():
    grads = torch.zeros(1).expand(2, 1, HUGE, HUGE)
    one_line(lambda: gag_fast.guided_absgrad(grads))
    one_line(lambda: gag_fast.GradientStats().update(grads[0]))


@pytest.mark.parametrize("error", [None, ON_A_GPU, MemoryError("no more")])
def test_explain_and_evaluate(error):
    model, images = Greedy(error), torch.rand(1, 3, 8, 8)
    one_line(lambda: gag_fast.explain(model, images, [0], n=2))
    one_line(lambda: gag_fast.explain_many(model, images, [0], ("vanilla",), n=2))
    one_line(lambda: gag_fast.evaluate(model, images, images[:, 0], [0]))
    one_line(lambda: gag_fast.rcap(gag_fast.Classifier.from_torch(model), images, images[:, 0], 0))


def test_a_file_that_asks_for_more_than_there_is(tmp_path):
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
        helper.make_node("ReduceSum", ["means"], ["total"], keepdims=0),
        helper.make_node("Expand", ["total", "shape"], ["wide"]),
        helper.make_node("ReduceMax", ["wide"], ["most"], keepdims=0),
        helper.make_node("Add", ["means", "most"], ["scores"]),
    ]
    made = helper.make_graph(
        nodes,
        "greedy",
        [helper.make_tensor_value_info("images", f32, ["B", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", f32, ["B", 3])],
        [
            helper.make_tensor("axes", i64, [2], [2, 3]),
            helper.make_tensor("shape", i64, [2], [HUGE, HUGE]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(made, opset_imports=opset, ir_version=9), tmp_path / "greedy.onnx")
    clf = gag_fast.Classifier(tmp_path / "greedy.onnx", "cpu", batch_size=1)
    one_line(lambda: clf(np.zeros((1, 3, 8, 8), np.float32)))


def test_the_command_line(monkeypatch, capsys, tmp_path):
    def short(*args, **options):
        raise ON_A_GPU

    monkeypatch.setattr("gag_fast.models.load_model", short)
    assert cli.main(["explain", str(tmp_path / "a.png"), "--model", "lite0"]) == cli.FAILED
    line = capsys.readouterr().err
    assert line.startswith("gag-fast: error: out of memory: CUDA out of memory. Tried to allocate")
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        GagFastError("bad alloc"),
        KeyboardInterrupt("out of memory"),
    ],
)
def test_other_errors_are_left_as_they_are(error):
    @within_memory
    def door():
        raise error

    assert memory_fault(error) is None
    with pytest.raises(type(error)) as caught:
        door()
    assert caught.value is error


def test_an_error_without_words():
    assert str(memory_fault(MemoryError())).startswith("out of memory; smaller batches")
