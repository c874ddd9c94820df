"""Classifier: what it accepts, what it refuses, and that it never changes device in silence."""

import json
import logging

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import gag_fast
from gag_fast.classifier import Classifier, ClassifierError, batch_size, opening, providers
from tests.scoring.scoring_models import SmallNet, batch, small_spec

NO_CUDA = not torch.cuda.is_available()


def write(path, shape, out, nodes, dtype=TensorProto.FLOAT, out_type=None, inputs=1, extra=()):
    """A small ONNX graph from `x` to `y`."""
    given = [helper.make_tensor_value_info(f"x{i or ''}", dtype, shape) for i in range(inputs)]
    result = helper.make_tensor_value_info("y", out_type or dtype, out)
    graph = helper.make_graph(nodes, "g", given, [result], list(extra))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


def pooled(**options):
    """Mean of each channel: [B, C]."""
    return [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"], **options),
    ]


@pytest.fixture
def bare_onnx(tmp_path):
    """Three classes, any size, no metadata: the scores are the means of the channels."""
    return write(tmp_path / "bare.onnx", ["n", 3, "h", "w"], ["n", 3], pooled())


def test_probabilities(small_onnx, small):
    clf = Classifier(small_onnx, "cpu", batch_size=4)
    images, _, _ = batch(11)
    with torch.no_grad():
        expected = small(images).softmax(1)
    got = clf(images)
    assert got.shape == (11, 5)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(got.sum(1), torch.ones(11))
    array = clf(images.numpy())
    assert isinstance(array, np.ndarray)
    assert (array == got.numpy()).all()
    assert torch.equal(clf(images.double()), got)
    assert clf(images.half()).dtype == torch.float32


def test_what_it_knows(small_onnx):
    clf = Classifier(str(small_onnx), providers="cpu", batch_size=4)
    assert clf.providers == ("CPUExecutionProvider",)
    assert (clf.num_classes, clf.channels, clf.input_size, clf.batch_size) == (5, 3, 24, 4)
    assert clf.labels == ("a", "b", "c", "d", "e")
    assert clf.mean == (0.485, 0.456, 0.406)
    assert clf.std == (0.229, 0.224, 0.225)
    assert clf.preprocessing == small_spec().preprocessing
    assert clf.score == "logits"
    assert clf.path == small_onnx
    assert "5 classes, input 24" in repr(clf)


def test_probabilities_are_not_softmaxed_again(tmp_path):
    nodes = [*pooled()[:1], helper.make_node("Flatten", ["p"], ["f"])]
    nodes.append(helper.make_node("Softmax", ["f"], ["y"]))
    path = write(tmp_path / "p.onnx", ["n", 3, 8, 8], ["n", 3], nodes)
    x = torch.randn(2, 3, 8, 8)
    expected = x.mean(dim=(2, 3)).softmax(1)
    got = Classifier(path, "cpu", score="probabilities")(x)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_no_metadata(bare_onnx, caplog):
    clf = Classifier(bare_onnx, "cpu")
    assert (clf.mean, clf.labels, clf.preprocessing, clf.input_size) == (None, None, None, None)
    x = torch.rand(2, 3, 10, 12)
    torch.testing.assert_close(clf(x), x.mean(dim=(2, 3)).softmax(1))
    with caplog.at_level(logging.WARNING, "gag_fast"):
        black = clf.black(3)
    assert black.tolist() == pytest.approx([-2.117904, -2.035714, -1.804444], abs=1e-6)
    assert "names no mean and std" in caplog.text
    given = Classifier(bare_onnx, "cpu", mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    assert given.black(3).tolist() == [-2.0, -1.0, -0.5]


def test_labels_count_and_newer_format(small_onnx, tmp_path):
    model = onnx.load(str(small_onnx))
    props = {p.key: p.value for p in model.metadata_props}
    for change, message in (
        ({"labels": json.dumps(["a"])}, "1 labels for 5 classes"),
        ({"gag_fast.format": "2"}, "metadata format 2 is not 1"),
    ):
        helper.set_model_props(model, {**props, **change})
        onnx.save(model, str(tmp_path / "m.onnx"))
        with pytest.raises(ClassifierError, match=message):
            Classifier(tmp_path / "m.onnx", "cpu")


# ---- files that are no classifier


def refused(path, message, **options):
    with pytest.raises(ClassifierError, match=message) as error:
        Classifier(path, "cpu", **options)
    assert "\n" not in str(error.value)


def test_not_onnx(tmp_path):
    refused(tmp_path / "missing.onnx", r"there is no file .*missing\.onnx")
    refused(tmp_path, "there is no file")
    for name, content in (("text", b"hello"), ("empty", b""), ("zeros", bytes(1000))):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        refused(path, rf"{name}\.onnx cannot be loaded by ONNX Runtime")


def test_truncated(small_onnx, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(small_onnx.read_bytes()[:-1000])
    refused(path, r"cut\.onnx cannot be loaded by ONNX Runtime")


def test_wrong_input(tmp_path):
    flat = [helper.make_node("Identity", ["x"], ["y"])]
    path = write(tmp_path / "flat.onnx", ["n", 12], ["n", 12], flat)
    refused(path, r"must take images float32 \[B, C, H, W\], it takes tensor\(float\) \['n', 12\]")
    mean = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    shape = ["n", 3, 8, 8]
    double = write(tmp_path / "d.onnx", shape, ["n", 3], mean, dtype=TensorProto.DOUBLE)
    refused(double, r"it takes tensor\(double\)")
    two = write(
        tmp_path / "two.onnx",
        ["n", 3, 8, 8],
        ["n", 3],
        [helper.make_node("Add", ["x", "x1"], ["s"]), *pooled()],
        inputs=2,
    )
    refused(two, "must have one input and one output, it has x, x1 and y")


def test_wrong_output(tmp_path):
    path = write(
        tmp_path / "map.onnx",
        ["n", 3, 8, 8],
        ["n", 3, 1, 1],
        [helper.make_node("GlobalAveragePool", ["x"], ["y"])],
    )
    refused(path, r"must give scores \[B, K\], it gives \[1, 3, 1, 1\] for a batch of 1")
    whole = write(
        tmp_path / "int.onnx",
        ["n", 3, 8, 8],
        ["n", 3],
        [*pooled()[:1], helper.make_node("Flatten", ["p"], ["f"]),
         helper.make_node("Cast", ["f"], ["y"], to=TensorProto.INT64)],
        out_type=TensorProto.INT64,
    )  # fmt: skip
    refused(whole, r"must give float32 scores \[B, K\], it gives tensor\(int64\)")


def test_classes_that_the_file_does_not_say(tmp_path):
    path = write(tmp_path / "open.onnx", ["n", 3, 8, 8], ["n", "k"], pooled())
    assert Classifier(path, "cpu").num_classes == 3


def test_wrong_options(small_onnx):
    refused(small_onnx, "score must be one of .*, sigmoid, got 'odds'", score="odds")
    refused(small_onnx, "batch_size must be a positive number or None, got 0", batch_size=0)
    refused(small_onnx, "threads must be a positive number or None, got -1", threads=-1)
    refused(small_onnx, "give mean and std together", mean=(0.5, 0.5, 0.5))
    refused(small_onnx, "must have 3 values", mean=(0.5,), std=(0.5,))
    refused(small_onnx, "std must be positive", mean=(0.5,) * 3, std=(0.0,) * 3)


def test_outputs_of_functions(small_clf):
    images, maps, targets = batch(2)
    for scores, message in (
        (torch.zeros(15), r"must give \[B, K\], got \[15\] for a batch of 16"),
        (torch.zeros(4, 5), r"got \[4, 5\]"),
        (torch.zeros(16, 5, 1), r"got \[16, 5, 1\]"),
    ):
        clf = Classifier.from_callable(lambda x, s=scores: s)
        with pytest.raises(ClassifierError, match=message):
            gag_fast.evaluate(clf, images, maps, targets)


def test_an_error_in_a_function_comes_out():
    def broken(images):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Classifier.from_callable(broken)(torch.zeros(2, 3, 8, 8))


# ---- batches


@pytest.fixture
def fixed_onnx(small_onnx, tmp_path):
    """The small network with its batch fixed to 1."""
    model = onnx.load(str(small_onnx))
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].Clear()
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    return tmp_path / "fixed.onnx"


def test_a_fixed_batch_of_one(fixed_onnx, small_clf, caplog):
    with caplog.at_level(logging.WARNING, "gag_fast"):
        clf = Classifier(fixed_onnx, "cpu")
    assert "fixed batch of 1: it works, slower" in caplog.text
    assert (clf.fixed_batch, clf.batch_size) == (1, 1)
    images, maps, targets = batch(3)
    assert torch.equal(clf(images), small_clf(images))
    a = gag_fast.evaluate(clf, images, maps, targets)
    b = gag_fast.evaluate(small_clf, images, maps, targets)
    assert torch.equal(a.rcap, b.rcap)
    with pytest.raises(ClassifierError, match="has a fixed batch of 1, batch_size=8 does not fit"):
        Classifier(fixed_onnx, "cpu", batch_size=8)


def test_batch_size_is_measured_once_and_remembered(small_onnx, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Classifier(small_onnx, "cpu")
    assert first.batch_size in batch_size.CPU_CANDIDATES
    assert len(first.rates) >= 3
    kept = json.loads(batch_size.cache_file().read_text())
    assert list(kept.values()) == [first.batch_size]
    monkeypatch.setattr(batch_size, "measure", lambda *a: pytest.fail("measured again"))
    assert Classifier(small_onnx, "cpu").batch_size == first.batch_size
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    Classifier(small_onnx, "cpu", threads=torch.get_num_threads() + 1).batch_size  # noqa: B018  (another key)
    assert len(json.loads(batch_size.cache_file().read_text())) == 2


@pytest.mark.parametrize("content", [b"", b"nonsense", b"[1]", b'{"x": "y"}'])
def test_a_spoiled_cache_is_passed_over(small_onnx, monkeypatch, tmp_path, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    batch_size.cache_file().parent.mkdir(parents=True)
    batch_size.cache_file().write_bytes(content)
    assert Classifier(small_onnx, "cpu").batch_size > 0


def test_a_cache_that_cannot_be_written(small_onnx, monkeypatch, tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    assert Classifier(small_onnx, "cpu").batch_size > 0


# ---- providers


def test_none_takes_what_works_and_says_so(small_onnx, caplog):
    with caplog.at_level(logging.INFO, "gag_fast"):
        clf = Classifier(small_onnx, batch_size=4)
    assert f"runs on {clf.providers[0]}" in caplog.text
    if NO_CUDA:
        assert clf.providers == ("CPUExecutionProvider",)
        assert "CUDA is not used: " in caplog.text


@pytest.mark.skipif(not NO_CUDA, reason="there is a GPU")
@pytest.mark.parametrize(
    "asked", ["cuda", "CUDAExecutionProvider", ["cuda", "cpu"], [("cuda", {"device_id": 0})]]
)
def test_cuda_without_a_gpu_is_refused(small_onnx, asked, capfd):
    with pytest.raises(ClassifierError, match="CUDAExecutionProvider was asked for but cannot run"):
        Classifier(small_onnx, asked)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not NO_CUDA, reason="there is a GPU")
def test_tensorrt_without_a_gpu_is_refused(small_onnx):
    with pytest.raises(ClassifierError, match="TensorrtExecutionProvider was asked for"):
        Classifier(small_onnx, "tensorrt")


def test_a_silent_fallback_is_caught(small_onnx, monkeypatch):
    """ONNX Runtime drops a provider that fails to load; whatever the reason, that is an error."""
    monkeypatch.setattr(opening, "why_not", lambda provider: None)
    monkeypatch.setattr(opening, "preload", lambda: None)
    options = opening.session_options(1)
    if not NO_CUDA:
        pytest.skip("there is a GPU")
    with pytest.raises(ClassifierError, match=r"asked for, ONNX Runtime gave CPUExec|known"):
        opening.open_session(str(small_onnx), "small.onnx", [(providers.CUDA, {})], options)


def test_unknown_providers(small_onnx):
    with pytest.raises(ClassifierError, match="FooExecutionProvider was asked for"):
        Classifier(small_onnx, "FooExecutionProvider")
    with pytest.raises(ClassifierError, match="got an empty list"):
        Classifier(small_onnx, [])


def test_reasons_name_the_fix(monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [providers.CPU])
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in providers.why_not(providers.CUDA)
    assert providers.why_not(providers.CPU) is None


def test_options_of_providers(tmp_path):
    common = {
        "stream": 7, "device": 1, "tf32": False, "cuda_graph": True, "prefer_nhwc": True,
        "conv_search": "HEURISTIC", "fp16": True, "cache": tmp_path,
    }  # fmt: skip
    cuda = providers.with_defaults(providers.CUDA, {"use_tf32": "1"}, **common)
    assert cuda["use_tf32"] == "1"  # the caller's word is the last
    assert cuda["user_compute_stream"] == "7"
    assert cuda["enable_cuda_graph"] == "1"
    assert cuda["device_id"] == 1
    plain = providers.with_defaults(providers.CUDA, {}, **common)
    assert plain["use_tf32"] == "0"
    trt = providers.with_defaults(providers.TENSORRT, {}, **common)
    assert trt["trt_fp16_enable"] is True
    assert trt["trt_timing_cache_path"] == str(tmp_path)
    assert providers.with_defaults(providers.CPU, {"a": 1}, **common) == {"a": 1}


# ---- other scorers, other precision


def test_float16_inside_float32_outside(small_onnx, small):
    clf = Classifier(small_onnx, "cpu", batch_size=4, fp16=True)
    images, _, _ = batch(6)
    with torch.no_grad():
        expected = small(images).softmax(1)
    got = clf(images)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=0)
    assert not torch.equal(got, Classifier(small_onnx, "cpu", batch_size=4)(images))


def test_from_torch_leaves_the_module_as_it_was():
    module = SmallNet()
    module.train()
    module.layers[1].eval()
    clf = Classifier.from_torch(module, small_spec(), batch_size=3)
    images, _, _ = batch(7)
    got = clf(images)
    assert module.training
    assert not module.layers[1].training
    assert all(p.grad is None for p in module.parameters())
    torch.testing.assert_close(got, module(images).softmax(1).detach(), atol=1e-6, rtol=0)
    assert not got.requires_grad
    assert (clf.labels, clf.mean) == (small_spec().labels, small_spec().preprocessing.mean)
    assert clf.providers == ("torch:cpu",)


def test_from_callable_counts_its_classes():
    clf = Classifier.from_callable(lambda x: np.ones((len(x), 4), np.float64), batch_size=5)
    assert clf.num_classes is None
    assert clf(torch.zeros(12, 1, 6, 6)).tolist() == [[0.25] * 4] * 12
    assert clf.num_classes == 4


def test_torch_threads_stay_as_they_were(small_onnx):
    before = torch.get_num_threads()
    clf = Classifier(small_onnx, "cpu", batch_size=1, threads=3)
    clf(batch(9)[0])
    assert torch.get_num_threads() == before
    import threading

    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_interrupt_stops_all_lanes(small_onnx):
    clf = Classifier(small_onnx, "cpu", batch_size=1, threads=2)
    done = []

    def fill(buffer, job):
        if job == 5:
            raise KeyboardInterrupt
        done.append(job)
        return 1

    with pytest.raises(KeyboardInterrupt):
        clf.drive(1000, (3, 24, 24), fill, lambda scores, job: None)
    assert len(done) < 900
    assert clf(batch(4)[0]).shape == (4, 5)  # and it works again


def test_two_threads_may_share_a_classifier(small_onnx):
    from concurrent.futures import ThreadPoolExecutor

    clf = Classifier(small_onnx, "cpu", batch_size=2)
    parts = [batch(9, seed=seed)[0] for seed in range(8)]
    alone = [clf(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(clf, parts))
    for a, b in zip(alone, together):
        assert torch.equal(a, b)
