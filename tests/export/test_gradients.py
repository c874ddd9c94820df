"""What export_gradients writes, what it verifies, and that OnnxGradients computes the same."""

import importlib.util
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import gag_fast
from gag_fast._errors import ClassifierError, GagFastError
from gag_fast.classifier import openvino, providers
from gag_fast.classifier.onnx_gradients import OnnxGradients
from gag_fast.export import ExportError, export_gradients, export_onnx, gradients
from gag_fast.models import ModelSpec, Preprocessing

SPEC = ModelSpec(
    "tiny", Preprocessing(size=16, resize=16, mean=(0.1,) * 3, std=(0.4,) * 3), 5, None, "r", "00ff"
)
HAS_OPENVINO = providers.why_not(openvino.OPENVINO) is None
PROVIDERS = ["cpu", pytest.param("openvino", marks=pytest.mark.skipif(
    not HAS_OPENVINO, reason="needs the extra [openvino]"))]  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.inside = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = self.norm(x.flatten(2).transpose(1, 2))
        return self.inside(tokens, tokens, tokens, need_weights=False)[0].mean(1)


class Tiny(nn.Module):
    """Every kind of layer that the models here have, concatenations and a pool with ties too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(True))
        self.first[1].running_var.uniform_(0.5, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.ReLU6())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.dense = nn.ModuleList(nn.Conv2d(8 * (i + 1), 8, 1) for i in range(3))
        self.shrink = nn.Sequential(nn.SiLU(), nn.Conv2d(32, 8, 1), nn.AvgPool2d(2), nn.GELU())
        self.attention, self.head = Attention(), nn.Linear(8, 5)

    def forward(self, x):
        x = self.depthwise(self.pool(self.first(x)))
        features = [x * self.squeeze(x)]
        for layer in self.dense:
            features.append(layer(torch.cat(features, 1)))
        return self.head(self.attention(self.shrink(torch.cat(features, 1))))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 5, 4, 4), nn.Tanh(), nn.Flatten())
        self.head = nn.Linear(80, 5)

    def forward(self, x):
        return self.head(self.layers(x))


def images(count, seed=0):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def expected(module, x, targets):
    x = x.clone().requires_grad_()
    scores = module.eval()(x).gather(1, torch.as_tensor(targets)[:, None]).sum()
    return torch.autograd.grad(scores, x)[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("gradients") / "tiny.grad.onnx"
    module, lines = Tiny().train(), []
    report = export_gradients(module, path, SPEC, log=lines.append)
    assert module.training  # it comes back as it was
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    return module, path, report, lines


def test_report(exported):
    _, path, report, lines = exported
    assert [p.name for p in path.parent.iterdir()] == ["tiny.grad.onnx"]
    assert report.bytes == path.stat().st_size
    assert report.fixed_batch is None
    assert list(report.differences) == providers.installed()
    assert all(set(d) == {1, 2, 5} for d in report.differences.values())
    assert max(max(d.values()) for d in report.differences.values()) < 1e-4
    assert "CPUExecutionProvider" in str(report)
    assert any("CPUExecutionProvider: relative difference" in line for line in lines)


def test_the_file(exported):
    model = onnx.load(str(exported[1]))
    assert {v.name for v in model.graph.input} == {"images", "targets"}
    assert [v.name for v in model.graph.output] == ["gradients", "logits"]
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"ScatterElements", "ScatterND", "GatherND", "GatherElements"}
    assert all(node.domain in ("", "ai.onnx") for node in model.graph.node)
    pools = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert [len(node.output) for node in pools] == [1]  # once, without indices
    props = {p.key: p.value for p in model.metadata_props}
    assert props["weights_sha256"] == "00ff"


def test_weights_are_shared_between_the_passes(exported):
    graph = onnx.load(str(exported[1])).graph
    forward = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    backward = {node.input[1] for node in graph.node if node.op_type == "ConvTranspose"}
    assert backward
    assert backward <= forward


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("count", [1, 3, 20])
def test_gradients_are_those_of_torch(exported, provider, count):
    module, path, _, _ = exported
    source = OnnxGradients(path, provider, threads=2)
    assert source.providers[0] == providers.provider_list(provider)[0][0]
    x, targets = images(count, seed=count), torch.arange(count) % 5
    right = expected(module, x, targets)
    found = source(x, targets)
    torch.testing.assert_close(found, right, atol=1e-4 * float(right.abs().max()), rtol=0)
    same = source(x.numpy(), targets.numpy())
    assert isinstance(same, np.ndarray)
    np.testing.assert_array_equal(same, found.numpy())
    torch.testing.assert_close(source.logits(x), module.eval()(x).detach(), atol=1e-5, rtol=0)


def test_the_source_says_what_it_is(exported):
    source = OnnxGradients(exported[1], "cpu", threads=2)
    assert source.num_classes == source.classes(images(1)[0]) == 5
    assert source.spec.name == "tiny"
    assert source.fixed_batch is None
    assert source.batch_size(images(1)[0]) == 16
    assert repr(source) == "OnnxGradients(tiny.grad.onnx, CPUExecutionProvider, 5 classes)"


@pytest.mark.parametrize(
    ("targets", "line"),
    [
        ([0, 5], "target 5 is not one of the model's 5 classes"),
        ([0, 1, 2], r"one class, or \[2\] for 2 images, got \[3\]"),
        ([0.5, 1], "targets must be integers"),
    ],
)
def test_wrong_targets(exported, targets, line):
    with pytest.raises(GagFastError, match=line):
        OnnxGradients(exported[1], "cpu")(images(2), targets)


def test_wrong_images_and_files(exported, tmp_path):
    source = OnnxGradients(exported[1], "cpu")
    with pytest.raises(ClassifierError, match=r"takes images \[B, 3, 16, 16\], got \[1, 3, 8, 8\]"):
        source(torch.zeros(1, 3, 8, 8), [0])
    with pytest.raises(ClassifierError, match="has no gradient of the nll"):
        source.gradients(images(1), torch.tensor([0]), score="nll")
    with pytest.raises(ClassifierError, match="there is no file"):
        OnnxGradients(tmp_path / "none.onnx")
    export_onnx(exported[0], SPEC, tmp_path / "forward.onnx")
    with pytest.raises(ClassifierError, match=r"is no file of gradients.*takes images and gives"):
        OnnxGradients(tmp_path / "forward.onnx", "cpu")
    with pytest.raises(ClassifierError, match="CPUExecutionProvider does not compute in bf16"):
        OnnxGradients(exported[1], "cpu", precision="bf16")


def test_what_one_provider_gets_wrong_is_refused_by_its_name(tmp_path, monkeypatch):
    """A provider whose kernels are wrong, put in the place of a right one."""
    right = gradients.open_on
    monkeypatch.setattr(gradients, "installed", lambda: [providers.CPU, "WrongExecutionProvider"])

    class Wrong:
        def __init__(self, session):
            self.session = session

        def run(self, names, feed):
            found = self.session.run(names, feed)
            return [1.5 * found[0], *found[1:]]

    def opened(path, name, *rest):
        session = right(path, "cpu", *rest).session
        wrong = Wrong(session) if name == "WrongExecutionProvider" else session
        return type("Opened", (), {"session": wrong})

    monkeypatch.setattr(gradients, "open_on", opened)
    path = tmp_path / "x.onnx"
    with pytest.raises(ExportError, match=r"WrongExecutionProvider computes .* wrong.*5\.0e-01"):
        export_gradients(Small(), path, SPEC)
    assert not list(tmp_path.iterdir())
    export_gradients(Small(), path, SPEC, providers=["cpu"])
    assert path.exists()


def test_a_wrong_provider_is_refused_on_opening_too(exported, monkeypatch):
    run = OnnxGradients._run

    def wrong(self, *rest):
        return run(self, *rest) * (1 if self.providers[0] == providers.CPU else 2)

    if not HAS_OPENVINO:
        pytest.skip("needs the extra [openvino]")
    monkeypatch.setattr(OnnxGradients, "_run", wrong)
    with pytest.raises(ClassifierError, match=r"OpenVINOExecutionProvider computes .* wrong"):
        OnnxGradients(exported[1], "openvino")


@pytest.mark.parametrize("case", [0, 1, 2])
def test_every_case_of_a_fixed_batch_counts(tmp_path, monkeypatch, case):
    """Of three batches of one size, a wrong gradient of any is noticed."""

    class Fixed(Small):
        def forward(self, x):
            return super().forward(x) * (2 if int(x.shape[0]) == 1 else 3)

    run, calls = gradients._run, []

    def wrong(session, feed):
        calls.append(feed)
        return run(session, feed) * (2 if len(calls) == case + 1 else 1)

    monkeypatch.setattr(gradients, "_run", wrong)
    with pytest.raises(ExportError, match=r"CPUExecutionProvider computes .* wrong"):
        export_gradients(Fixed(), tmp_path / "fixed.onnx", SPEC, providers=["cpu"])
    assert len(calls) == 3


def test_an_operator_without_an_onnx_form_is_named(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return nn.functional.local_response_norm(x, 3).mean((2, 3))

    spec = ModelSpec("odd", SPEC.preprocessing, 3)
    with pytest.raises(
        ExportError, match=r"the gradient of odd needs aten.avg_pool3d_backward, which has no"
    ):
        export_gradients(Odd(), tmp_path / "odd.onnx", spec)
    assert not list(tmp_path.iterdir())


def test_a_batch_that_cannot_be_open_is_fixed(tmp_path):
    class Fixed(Small):
        def forward(self, x):
            return super().forward(x) * (2 if int(x.shape[0]) == 1 else 3)

    path = tmp_path / "fixed.onnx"
    report = export_gradients(Fixed(), path, SPEC)
    assert report.fixed_batch == 1
    x, targets = images(5), torch.arange(5)
    right = torch.cat([expected(Fixed(), x[i : i + 1], targets[i : i + 1]) for i in range(5)])
    found = OnnxGradients(path, "cpu", threads=2)(x, targets)
    torch.testing.assert_close(found, right, atol=1e-4 * float(right.abs().max()), rtol=0)


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra [openvino]")
def test_openvino_gets_square_weights_of_both_passes_right(tmp_path):
    """Shared between a convolution and its transposed one they are wrong: see `prepared`."""
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 5))
    )
    report = export_gradients(module, tmp_path / "x.onnx", SPEC)
    assert max(report.differences[openvino.OPENVINO].values()) < 1e-5
    copied = onnx.load_from_string(openvino.prepared(str(tmp_path / "x.onnx")))
    before = onnx.load(str(tmp_path / "x.onnx"))
    assert len(copied.graph.initializer) > len(before.graph.initializer)
    onnx.checker.check_model(copied)


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra [openvino]")
def test_openvino_gets_a_weight_right_that_a_transposition_shares():
    """As in a transformer: tanh(x W) W', where W' is a node of the graph."""
    rng = np.random.default_rng(0)
    weight, x = (rng.standard_normal(shape, np.float32) for shape in ((64, 64), (4, 64)))
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("Tanh", ["h"], ["t"]),
        onnx.helper.make_node("Transpose", ["w"], ["back"], perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["t", "back"], ["y"]),
    ]
    ends = [onnx.helper.make_tensor_value_info(name, 1, [4, 64]) for name in "xy"]
    weights = [onnx.numpy_helper.from_array(weight, "w")]
    graph = onnx.helper.make_graph(nodes, "both passes", ends[:1], ends[1:], weights)
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = openvino.open_openvino(model.SerializeToString(), "x", 1, "f32", {})
    right = np.tanh(x @ weight) @ weight.T
    np.testing.assert_allclose(session.run(None, {"x": x})[0], right, atol=1e-4)


@pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra [openvino]")
@pytest.mark.parametrize("precision", ["f32", "bf16", "fp16"])
def test_openvino_computes_in_what_was_asked_for_or_says_so(exported, precision):
    """fp16 becomes bf16 on some processors, bf16 float32 on others: never without a word."""
    import openvino as library

    hint = openvino._HINTS[precision]
    core = library.Core()
    compiled = core.compile_model(str(exported[1]), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if taken == hint:
        assert OnnxGradients(exported[1], "openvino", precision=precision).num_classes == 5
        return
    line = f"does not compute in {precision} on this processor, it would take {taken}: ask for that"
    with pytest.raises(ClassifierError, match=line):
        OnnxGradients(exported[1], "openvino", precision=precision)


@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_ep_openvino") is None or openvino._intel(),
    reason="needs ONNX Runtime's OpenVINO plugin on another processor than Intel's",
)
def test_the_plugin_offers_no_device_on_processors_of_others():
    """Why OpenVINO itself is used there: the plugin loads, and offers nothing."""
    text = """
import onnxruntime, onnxruntime_ep_openvino as plugin
onnxruntime.register_execution_provider_library("OpenVINO", plugin.get_library_path())
print([d.ep_name for d in onnxruntime.get_ep_devices()])
"""
    command = [sys.executable, "-c", text]  # a process of its own: a plugin stays loaded
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['CPUExecutionProvider']"


def test_openvino_missing_says_what_to_install(exported, monkeypatch):
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    openvino._plugin_device.cache_clear()
    try:
        with pytest.raises(ClassifierError, match=r"pip install 'gag-fast\[openvino\]'"):
            gag_fast.Classifier(exported[1], "openvino")
        lines = []  # of the export: it has not begun
        with pytest.raises(ExportError, match=r"^OpenVINO.* pip install 'gag-fast\[openvino\]'$"):
            export_gradients(Small(), exported[1], SPEC, providers=["openvino"], log=lines.append)
        assert not lines
    finally:
        openvino._plugin_device.cache_clear()


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("method", ["guided_absgrad", "integrated_gradients", "vanilla"])
def test_explain_takes_it_like_a_module(exported, provider, method):
    module, path, _, _ = exported
    x = images(3)
    right = gag_fast.explain(module, x, method=method, n=6, seed=3)
    found = gag_fast.explain(
        OnnxGradients(path, provider, threads=2), x, method=method, n=6, seed=3
    )
    torch.testing.assert_close(found, right, atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", ["grad_cam", "guided_backprop"])
def test_what_needs_the_module_says_so(exported, method):
    with pytest.raises((TypeError, ValueError), match="module"):
        gag_fast.explain(OnnxGradients(exported[1], "cpu"), images(1), method=method)
