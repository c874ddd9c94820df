"""The command as a user types it, in this process, over a tiny classifier."""

from dataclasses import dataclass

import pytest

from gag_fast.cli import main


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
