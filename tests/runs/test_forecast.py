"""The dry run counts what the run itself makes, and leaves nothing behind."""

import pytest

from gag_fast.cli import main
from gag_fast.metrics import evaluation
from gag_fast.presets import preset
from gag_fast.runs.forecast import forecast
from gag_fast.runs.request import Request


@pytest.fixture
def request_of(photos, tmp_path, onnx):
    def make(**changes):
        given = {
            "data": photos(3),
            "out": tmp_path / "run",
            "model": "tests.tiny_classifier:build",
            "onnx": onnx,
            "methods": ("vanilla", "absgrad"),
            "providers": "cpu",
        }
        return Request(**{**given, **changes})

    return make


def test_the_pictures_are_those_of_a_run(request_of, tmp_path, monkeypatch):
    few = preset("paper", mufidelity_samples=5)
    asked = request_of(metrics=("gini", "rcap", "dauc", "srg", "mufidelity", "idsds"), preset=few)
    made = []
    original = evaluation._run

    def watched(clf, case, prepared, *more):
        made.append(len(prepared.plan))
        return original(clf, case, prepared, *more)

    monkeypatch.setattr(evaluation, "_run", watched)
    found = forecast(asked)
    assert set(made) == {found.together}
    assert found.images == 3
    assert found.methods == ("vanilla", "absgrad")
    assert found.alone["gini"] == 0
    assert found.alone["mufidelity"] == 1 + 5
    assert found.alone["srg"] == 2 * 18 + 2  # both orders, the image and black
    assert found.shared > 2 * 9  # all of dauc's
    assert found.rate > 0
    assert found.score_seconds > 0
    assert not (tmp_path / "run").exists()


def test_the_command(request_of, tmp_path, onnx, capsys):
    data = request_of().data
    call = ["evaluate", str(data), "--model", "tests.tiny_classifier:build", "--onnx", str(onnx)]
    call += ["--out", str(tmp_path / "run"), "--n", "2", "--providers", "cpu", "--plan"]
    assert main([*call, "--metrics", "rcap,dauc,srg,gini"]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    numbers = {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
    assert numbers["RCAP"] == 5
    assert numbers["SRG"] == 20
    assert numbers["Gini"] == 0
    assert "in all" in text
    assert "pictures/s measured here" in text
    assert not (tmp_path / "run").exists()


def test_no_image_that_can_be_read(request_of, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no image can be read and explained: "):
        forecast(request_of(data=broken))
