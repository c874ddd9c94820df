"""A Classifier across a fork, and Ctrl-C while a file's forward pass has no end."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import TensorProto, helper, save

import gag_fast
from tests import ROOT


def test_a_forked_child_is_refused_in_one_line(onnx, tmp_path):
    clf = gag_fast.Classifier(onnx, "cpu", batch_size=2)
    images = np.zeros((2, 3, 32, 32), np.float32)
    expected = clf(images)
    child = os.fork()
    if child == 0:  # nothing of pytest may run here
        try:
            clf(images)
            text = "it ran"
        except ValueError as error:
            text = str(error)
        (tmp_path / "child").write_text(text)
        os._exit(0)
    for _ in range(200):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    text = (tmp_path / "child").read_text()
    assert text == (
        f"this Classifier is that of process {os.getpid()}, and a forked child has not its "
        "threads: make a new one in the child, or start it by 'spawn'"
    )
    np.testing.assert_array_equal(clf(images), expected)


def endless(path, open_classes):
    """A classifier whose forward pass never ends: a Loop that counts to 2⁶²."""
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["total", "total"], ["twice"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", i64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", f32, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("twice", f32, None),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["images", "axes"], ["means"], keepdims=0),
            helper.make_node("Loop", ["count", "yes", "means"], ["scores"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("images", f32, ["B", 3, 32, 32])],
        [helper.make_tensor_value_info("scores", f32, ["B", "K" if open_classes else 3])],
        [
            helper.make_tensor("axes", i64, [2], [2, 3]),
            helper.make_tensor("count", i64, [], [1 << 62]),
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


@pytest.mark.parametrize("open_classes", [False, True])
def test_ctrl_c_ends_a_pass_that_has_no_end(tmp_path, open_classes):
    endless(tmp_path / "endless.onnx", open_classes)
    code = (
        "import numpy as np, gag_fast, onnxruntime, signal; gag_fast.Classifier\n"
        # A shell that puts the tests into the background lets their children ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('begin', flush=True)\n"
        f"clf = gag_fast.Classifier({str(tmp_path / 'endless.onnx')!r}, 'cpu', batch_size=1)\n"
        "clf(np.zeros((1, 3, 32, 32), np.float32))\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.readline()
    time.sleep(3)
    assert running.poll() is None, running.stderr.read()
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        try:
            _, err = running.communicate(timeout=15)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        running.kill()
        pytest.fail("Ctrl-C does not end it")
    assert "KeyboardInterrupt" in err
