"""The command as a user types it, in this process, over the small world of tests/runs."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

from gag_fast.cli import main

MODEL = "tiny_classifier:build"


@dataclass
class Result:
    """What came of a command line."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error line."""
        lines = [line for line in self.err.splitlines() if line.startswith("gag-fast: error:")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch):
    """Runs `gag-fast ...` with tmp_path as the working directory."""
    monkeypatch.chdir(tmp_path)

    def run(*words) -> Result:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture(scope="session")
def onnx(tmp_path_factory):
    """The tiny classifier, exported once."""
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model

    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(*load_model(MODEL), path)
    return path
