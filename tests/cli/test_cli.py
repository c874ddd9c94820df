"""The command line by its contract: what it prints, writes and returns."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gag_fast import cli as cli_module
from tests import ROOT
from tests.photographs import save_photo
from tests.tiny_classifier import MODEL

COMMANDS = ("demo", "export", "explain", "evaluate", "report")


@pytest.fixture
def photo(tmp_path):
    def make(name, seed=0):
        return save_photo(tmp_path / name, seed)

    return make


@pytest.fixture
def data(photo, tmp_path):
    for i in range(6):
        photo(f"data/{('blue', 'green', 'red')[i % 3]}/{i}.png", i)
    return tmp_path / "data"


@pytest.fixture
def evaluate(cli, onnx):
    def run(*words):
        fixed = ("--model", MODEL, "--onnx", onnx, "--n", 3, "--providers", "cpu", "--workers", 1)
        return cli("evaluate", *words, *fixed)

    return run


# ---- help ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(cli, command):
    found = cli(command, "--help")
    assert found.status == 0
    assert re.search(rf"example:\n  gag-fast {command}", found.out)


def test_help_lists_the_commands(cli):
    found = cli("--help")
    assert found.status == 0
    assert all(command in found.out for command in COMMANDS)


def test_help_needs_no_torch():
    code = "import sys, gag_fast.cli as c; c.build_parser(); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_version(cli):
    assert cli("--version").out.startswith("gag-fast 0.")


def test_python_m_is_the_same():
    command = [sys.executable, "-m", "gag_fast", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.startswith("gag-fast ")


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dance",), "invalid choice: 'dance'"),
        (("explain", "a.png"), "the following arguments are required: --model"),
        (("evaluate", "d", "--model", "m", "--out", "r", "--p", "101"), "from 0 to 100, got 101"),
        (("evaluate", "d", "--model", "m", "--out", "r", "--n", "0"), "must be 1 or more, got 0"),
        (("evaluate", "d", "--model", "m", "--out", "r", "--n", "x"), "integer, got 'x'"),
        (("evaluate", "d", "--model", "m", "--out", "r", "--methods", "a,a"), "has a name twice"),
        (("evaluate", "d", "--model", "m", "--out", "r", "--engine", "x"), "invalid choice: 'x'"),
        (("explain", "a.png", "--model", "nonsense"), "unknown model 'nonsense'"),
        (("explain", "a.png", "--model", "no_such_module:build"), "no_such_module"),
        (("export", "nonsense", "a.onnx"), "unknown model 'nonsense'"),
        (("export", MODEL, "a.txt"), "must end in .onnx"),
        (("export", MODEL, "no/such/folder/a.onnx"), "no folder"),
        (("export", MODEL, "a.onnx", "--weights", "gone.pt"), "no file gone.pt"),
        (("report", "gone"), "gone"),
    ],
)
def test_mistakes_give_one_line_and_status_2(cli, words, message):
    found = cli(*words)
    assert found.status == 2
    assert message in found.error


def test_a_label_out_of_range(evaluate, photo, tmp_path):
    photo("a.png")
    (tmp_path / "data.csv").write_text("path,label\na.png,5\n")
    found = evaluate(tmp_path / "data.csv", "--out", "run")
    assert found.status == 2
    assert "label 5 of a.png is out of range for a model of 5 classes (0 to 4)" in found.error
    assert not (tmp_path / "run").exists()


def test_data_with_more_classes_than_the_model(evaluate, photo, tmp_path):
    for i in range(6):
        photo(f"data/{i}x/a.png")
    found = evaluate(tmp_path / "data", "--out", "run")
    assert found.status == 2
    assert "6 class folders" in found.error
    assert "do not fit a model of 5 classes" in found.error


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "tests.tiny_classifier:other",
            "has 5 classes, the model tests.tiny_classifier:other has 3",
        ),
        (
            "tests.tiny_classifier:larger",
            "takes images of 32 pixels, the model tests.tiny_classifier:larger of 64",
        ),
    ],
)
def test_an_onnx_that_does_not_fit_the_model(cli, onnx, photo, tmp_path, model, message):
    photo("data/a.png")
    found = cli("evaluate", tmp_path / "data", "--model", model, "--onnx", onnx, "--out", "run")
    assert found.status == 2
    assert message in found.error


def test_an_onnx_that_is_none(cli, data, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"this is no model")
    words = ("--model", MODEL, "--onnx", "bad.onnx", "--out", "run")
    found = cli("evaluate", data, *words)
    assert found.status == 2
    assert "bad.onnx" in found.error
    assert (
        "gone.onnx"
        in cli("evaluate", data, "--model", MODEL, "--onnx", "gone.onnx", "--out", "r").error
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu(cli, data, onnx, tmp_path):
    words = ("--model", MODEL, "--out", "run", "--providers", "cuda")
    for more in (("--onnx", onnx), ()):
        found = cli("evaluate", data, *words, *more)
        assert found.status == 2
        assert "CUDAExecutionProvider was asked for but cannot run" in found.error
    assert not (tmp_path / "run" / "model.onnx").exists(), "it was exported before it was refused"
    found = cli("explain", data / "red" / "2.png", "--model", MODEL, "--device", "cuda")
    assert found.status == 2
    assert "no CUDA device" in found.error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--methods", "guided_absgrad,nonsense"), "unknown method 'nonsense'"),
        (("--metrics", "rcap,nonsense"), "got 'nonsense'"),
        (("--metrics", "mae"), "mae needs masks"),
        (("--preset", "nonsense"), "preset must be one of"),
        (("--settings", "nonsense"), "settings must be one of"),
        (("--methods", "guided_absgrad", "--n", "1"), "n"),
    ],
)
def test_unknown_names(cli, data, onnx, option, message):
    words = ("--model", MODEL, "--onnx", onnx, "--out", "run", "--workers", 1)
    found = cli("evaluate", data, *words, *option)
    assert found.status == 2
    assert message in found.error


def test_a_mistake_does_not_spoil_the_folder(evaluate, cli, data, onnx):
    words = ("--model", MODEL, "--onnx", onnx, "--out", "run", "--workers", 1, "--n", 1)
    assert cli("evaluate", data, *words).status == 2
    assert evaluate(data, "--out", "run").status == 0


def test_an_error_of_ours_shows_where_on_request(cli, monkeypatch):
    monkeypatch.setenv("GAG_FAST_TRACEBACK", "1")
    with pytest.raises(ValueError, match="unknown model"):
        cli("export", "nonsense", "a.onnx")


def test_an_error_that_nobody_foresaw_says_its_kind(cli, monkeypatch):
    def broken(args):
        raise KeyError("x")

    monkeypatch.setattr("gag_fast.cli.report.run", broken)
    found = cli("report", "run")
    assert found.status == 1
    assert found.error == "gag-fast: error: KeyError: 'x' (set GAG_FAST_TRACEBACK=1 to see where)"


def test_interrupted(cli, monkeypatch):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("gag_fast.cli.report.run", stopped)
    assert cli("report", "run").status == 130


# ---- export ------------------------------------------------------------------------------------


def test_export(cli, tmp_path):
    found = cli("export", MODEL, "a.onnx")
    assert found.status == 0
    assert "max |ONNX Runtime - torch|" in found.out
    assert (tmp_path / "a.onnx").is_file()


# ---- explain -----------------------------------------------------------------------------------


def test_explain(cli, photo, tmp_path):
    paths = [photo("a.png", 1), photo("b.png", 2), photo("other/a.png", 3)]
    found = cli("explain", *paths, "--model", MODEL, "--n", 3, "--out", "pictures", "--save-maps")
    assert found.status == 0
    assert {p.name for p in (tmp_path / "pictures").glob("*.png")} == {"a.png", "b.png", "a-2.png"}
    for name in ("a.png", "b.png", "a-2.png"):
        picture = Image.open(tmp_path / "pictures" / name)
        assert picture.width > 2 * picture.height
    saliency = np.load(tmp_path / "pictures" / "b.npy")
    assert saliency.shape == (32, 32)
    assert (saliency.min(), saliency.max()) == (0, 1)
    lines = found.out.splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r".*/a\.png: \w+ \(\d\)  0\.\d{3} -> pictures/a\.png", lines[0])


def test_explain_names_bad_images_and_does_the_others(cli, photo, tmp_path):
    good = photo("good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    found = cli("explain", "bad.png", good, "gone.png", "--model", MODEL, "--n", 2)
    assert found.status == 1
    assert "error: bad.png: is not an image" in found.err
    assert "error: gone.png: no such file" in found.err
    assert "2 of 3 images failed" in found.err
    assert "Traceback" not in found.err
    assert (tmp_path / "explanations" / "good.png").is_file()


def test_explain_a_class_of_ones_own(cli, photo):
    path = photo("a.png")
    words = ("explain", path, "--model", MODEL, "--n", 2, "--target")
    assert "green (1)" in cli(*words, "green").out
    assert "green (1)" in cli(*words, "1").out
    for target, message in (("5", "out of range"), ("-1", "out of range"), ("cat", "label 'cat'")):
        found = cli(*words[:-1], f"--target={target}")
        assert found.status == 2
        assert message in found.error


@pytest.mark.parametrize("method", ["vanilla", "guided_absgrad@65", "grad_cam", "smoothgrad/A"])
def test_explain_by_other_methods(cli, photo, method):
    words = ("--model", MODEL, "--n", 2, "--method", method)
    assert cli("explain", photo("a.png"), *words).status == 0


def test_explain_with_a_broken_model(cli, photo, tmp_path):
    found = cli(
        "explain", photo("a.png"), "--model", "tests.tiny_classifier:not_a_number", "--n", 2
    )
    assert found.status == 1
    assert "a.png: the saliency map is not finite" in found.error
    assert not list((tmp_path / "explanations").iterdir())


def test_explain_a_folder(cli, data, tmp_path):
    found = cli("explain", data, "--model", MODEL, "--n", 2)
    assert found.status == 0
    assert len(list((tmp_path / "explanations").glob("*.png"))) == 6


# ---- evaluate ------------------------------------------------------------------------------------


def test_evaluate_and_report(cli, evaluate, data, tmp_path):
    words = (data, "--out", "run", "--methods", "guided_absgrad,vanilla", "--chunk", 4)
    found = evaluate(*words)
    assert found.status == 0
    assert re.search(r"guided_absgrad +0\.\d{4}", found.out)
    assert re.search(r"6 images in .* images/s", found.out)
    table = pq.read_table(tmp_path / "run" / "results")
    assert table.num_rows == 12
    columns = "image method target confidence rcap dauc iauc log_cosh_dice mae status error"
    assert set(columns.split()) <= set(table.column_names)
    assert set(table["image"].to_pylist()) == {
        p.relative_to(data).as_posix() for p in data.rglob("*.png")
    }
    again = evaluate(*words)
    assert again.status == 0
    assert "6 of 6 images are done already" in again.err
    assert re.search(r"guided_absgrad +0\.\d{4}", again.out)
    report = cli("report", "run")
    assert report.status == 0
    assert (tmp_path / "run" / "report" / "index.html").is_file()


def test_other_settings_on_the_same_folder(evaluate, data):
    assert evaluate(data, "--out", "run").status == 0
    found = evaluate(data, "--out", "run", "--p", 65)
    assert found.status == 2
    assert "p: 85.0 in the folder, 65.0 now" in found.error


def test_a_bad_image_gives_status_1_each_time(evaluate, data):
    (data / "red" / "bad.png").write_bytes(b"")
    for words in ((), (), ("--retry-failed",)):
        found = evaluate(data, "--out", "run", *words)
        assert found.status == 1
        assert "red/bad.png: " in found.err
        assert "1 of 7 images failed" in found.err
        assert "Traceback" not in found.err
    (data / "red" / "bad.png").write_bytes((data / "red" / "2.png").read_bytes())
    assert evaluate(data, "--out", "run").status == 0


def test_all_images_bad(evaluate, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.png").write_bytes(b"")
    found = evaluate(tmp_path / "data", "--out", "run")
    assert found.status == 1
    assert "1 of 1 images failed" in found.err


def test_the_ray_engine_without_ray(evaluate, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    found = evaluate(data, "--out", "run", "--engine", "ray")
    assert found.status == 2
    assert "pip install 'gag-fast[ray]'" in found.error


def test_a_bar_on_a_terminal(data, onnx, tmp_path):
    """Through a pseudo-terminal: tqdm's bar with a rate and the time left."""
    ours, theirs = pty.openpty()
    words = ("--model", MODEL, "--onnx", str(onnx), "--n", "2", "--workers", "1")
    running = subprocess.Popen(
        [sys.executable, "-m", "gag_fast", "evaluate", str(data), "--out", "run", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        shown += block
    assert running.wait() == 0
    text = shown.decode()
    assert "100%" in text
    assert re.search(r"6/6 \[\d\d:\d\d<\d\d:\d\d.* images/s\]", text)


def test_every_command_is_in_the_table():
    modules = {p.stem for p in Path(cli_module.__file__).parent.glob("*.py")}
    assert modules - {"__init__", "options", "ending", "streams"} == set(cli_module.COMMANDS)


# ---- layers ----------------------------------------------------------------------------------


def test_grad_cam_tells_its_layer_and_takes_another(cli, photo, tmp_path):
    words = ("explain", photo("a.png"), "--model", MODEL, "--out", tmp_path, "--save-maps")
    found = cli(*words, "--method", "grad_cam")
    assert found.status == 0
    assert found.out.rstrip().endswith("(at 3)")
    first = np.load(tmp_path / "a-2.npy")
    other = cli(*words, "--method", "grad_cam", "--layer", "0")
    assert other.out.rstrip().endswith("(at 0)")
    assert not np.array_equal(np.load(tmp_path / "a-2.npy"), first)
    assert "(at" not in cli(*words, "--method", "vanilla").out
    refused = cli(*words, "--method", "grad_cam", "--layer", "gone")
    assert refused.status == 2
    assert "layer 'gone' is not a module of the model; it has 0, 1" in refused.error
    refused = cli(*words, "--method", "vanilla", "--layer", "0")
    assert refused.status == 2
    assert "vanilla: unknown option 'layer'; it is an option of grad_cam" in refused.error
