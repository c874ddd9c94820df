"""What the command line says of itself: help, lists of names, completion, doctor."""

import importlib.metadata
import io
import re
import subprocess
import sys

import pytest
import torch

import gag_fast
from gag_fast.attribution.registry import METHODS
from gag_fast.cli import COMMANDS, build_parser, doctor
from gag_fast.cli.options import complete
from gag_fast.measures import MEASURES
from gag_fast.presets import PRESETS
from tests import ROOT
from tests.photographs import save_photo


def test_the_bare_command_helps(cli):
    found = cli()
    assert found.status == 0
    assert found.err == ""
    assert found.out == cli("--help").out
    assert all(command in found.out for command in COMMANDS)


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (("evaluate", "--methods", "help"), METHODS),
        (("explain", "--method", "help"), METHODS),
        (("evaluate", "--metrics", "help"), MEASURES),
        (("evaluate", "--preset", "help"), PRESETS),
    ],
)
def test_help_in_place_of_names_lists_them(cli, words, known):
    """Whatever else the command asks for is not needed."""
    found = cli(*words)
    assert found.status == 0
    lines = dict(line.split(None, 1) for line in found.out.splitlines())
    assert list(lines)[: len(known)] == list(known)
    assert all(len(about) > 10 for about in lines.values())


def test_a_share_as_percent_is_asked_about():
    grads = torch.randn(3, 3, 8, 8)
    with pytest.warns(UserWarning, match=r"p is a percent, and 0\.85 of it.*was p = 85 meant\?"):
        gag_fast.guided_absgrad(grads, p=0.85)
    with pytest.warns(UserWarning, match=r"was p = 50 meant"):
        gag_fast.guided_absgrad(grads, p=[0.5, 85])


@pytest.mark.parametrize("p", [0, 0.0, 1, 85, 100.0, [0, 15]])
def test_no_percent_that_is_one_is_asked_about(p, recwarn):
    gag_fast.guided_absgrad(torch.randn(3, 3, 8, 8), p=p)
    assert [str(w.message) for w in recwarn] == []


def test_the_command_asks_in_one_line(cli, tmp_path):
    save_photo(tmp_path / "one.png", 0)
    words = ("explain", "one.png", "--model", "tests.tiny_classifier:build", "--n", 2)
    found = cli(*words, "--p", "0.85")
    assert found.status == 0
    asked = [line for line in found.err.splitlines() if "was p = 85 meant?" in line]
    assert len(asked) == 1
    assert asked[0].startswith("gag-fast: warning: ")
    assert "meant" not in cli(*words, "--p", "85").err


# ---- completion ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("gag-fast ev", {"evaluate"}),
        ("gag-fast evaluate x --methods gui", {"guided_absgrad", "guided_ig", "guided_backprop"}),
        ("gag-fast evaluate x --methods vargrad,smooth", {"vargrad,smoothgrad"}),
        ("gag-fast evaluate x --metrics rcap,da", {"rcap,dauc"}),
        ("gag-fast evaluate x --providers cu", {"cuda"}),
        ("gag-fast evaluate x --preset of", {"official"}),
    ],
)
def test_the_shell_is_answered(typed, wanted, monkeypatch):
    argcomplete = pytest.importorskip("argcomplete")
    asking = {"_ARGCOMPLETE": "1", "COMP_LINE": typed, "COMP_POINT": str(len(typed))}
    for name, value in {**asking, "_ARGCOMPLETE_IFS": "\n"}.items():
        monkeypatch.setenv(name, value)
    answer = io.StringIO()

    class Ended(Exception):
        pass

    def end(status):
        raise Ended

    class Finder(argcomplete.CompletionFinder):
        def _init_debug_stream(self):
            """Nothing: it would open, and so close, whatever file of ours has the number 9."""

    with pytest.raises(Ended):
        Finder()(build_parser(), exit_method=end, output_stream=answer)
    assert {word.strip() for word in answer.getvalue().split("\n") if word} == wanted


def test_the_parser_is_handed_over_only_when_the_shell_asks(monkeypatch):
    argcomplete = pytest.importorskip("argcomplete")
    handed = []
    monkeypatch.setattr(argcomplete, "autocomplete", handed.append)
    monkeypatch.delenv("_ARGCOMPLETE", raising=False)
    complete(build_parser())
    assert handed == []
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    parser = build_parser()
    complete(parser)
    assert handed == [parser]


# ---- doctor ----------------------------------------------------------------------------------


def lines_of(out):
    """name -> (mark, the rest), of a doctor's lines."""
    pattern = r"^(ok|WRONG|-) +(\S+(?: \S+)?)  +(.*)$"
    return {name: (mark, text) for mark, name, text in re.findall(pattern, out, re.M)}


def test_doctor_tells_what_works(cli):
    found = cli("doctor")
    lines = lines_of(found.out)
    assert lines["gag_fast"][1].startswith(gag_fast.__version__)
    assert lines["operators"] == ("ok", "a map is computed, and right")
    assert lines["provider cpu"][0] == "ok"
    assert {"provider cuda", "provider tensorrt", "provider openvino"} <= set(lines)
    assert all("fix: " in text for mark, text in lines.values() if mark == "WRONG")
    wrong = [name for name, (mark, _) in lines.items() if mark == "WRONG"]
    assert found.status == (1 if wrong else 0)


@pytest.mark.parametrize(
    ("versions", "name", "said"),
    [
        ({"torch": "2.9.1"}, "torch", "2.9.1, needed is 2.10 or newer; fix: pip install 'torch>="),
        ({"torch": None}, "torch", "not installed; fix: pip install 'torch>=2.10'"),
        (
            {"onnxruntime": "1.23.0", "onnxruntime-gpu": "1.23.0"},
            "onnxruntime",
            "flavours that overwrite one another: onnxruntime 1.23.0, onnxruntime-gpu 1.23.0; fix",
        ),
    ],
)
def test_doctor_finds_what_is_wrong(cli, monkeypatch, versions, name, said):
    asked = ["torch>=2.10", "numpy>=1.26", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: versions[n] if n in versions else real(n))
    found = cli("doctor")
    mark, text = lines_of(found.out)[name]
    assert mark == "WRONG"
    assert text.startswith(said)
    assert found.status == 1
    assert f"to be put right: {name}" in found.out


@pytest.mark.parametrize(
    ("newer", "older"), [("2.10.0", "2.9"), ("1.26", "1.9.3"), ("3", "2.1rc1")]
)
def test_versions_are_compared_as_numbers(newer, older):
    assert doctor._numbers(newer) > doctor._numbers(older)
    assert doctor._numbers(f"{newer}+cu130") >= doctor._numbers(newer)


def test_doctor_without_onnx_runtime_and_without_the_native_library(tmp_path):
    """In a process of its own, as both are looked for when they are imported."""
    code = (
        "import sys; sys.modules['gag_fast._library'] = None\n"
        "from gag_fast.cli import doctor\n"
        "doctor.find_spec = lambda name: None\n"
        "sys.exit(doctor.run(None))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = lines_of(run.stdout)
    assert run.returncode == 1, run.stderr
    assert lines["native"][0] == "WRONG"
    assert lines["onnxruntime"][0] == "WRONG"
    assert "gag-fast[cpu]" in lines["onnxruntime"][1]
