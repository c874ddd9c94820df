"""make audit: a package that was not looked up is no package without holes."""

import json
import runpy
import subprocess
from types import SimpleNamespace

import pytest

from tests import ROOT

FINE = {"name": "numpy", "version": "2.4.6", "vulns": []}
HOLE = {"id": "PYSEC-1", "fix_versions": ["10.2"], "aliases": []}
BAD = {"name": "pillow", "version": "10.1", "vulns": [HOLE]}
UNKNOWN = {"name": "pillow", "skip_reason": "Dependency not found on PyPI"}
OURS = {"name": "gag-fast", "skip_reason": "distribution marked as editable"}


@pytest.mark.parametrize(
    ("packages", "status", "line"),
    [
        ([FINE, OURS], 0, "1 packages looked up, 0 known holes"),
        ([FINE, BAD], 1, "pillow 10.1: PYSEC-1 (mended in: 10.2)"),
        ([FINE, UNKNOWN], 2, "error: 1 packages could not be looked up, Dependency not found"),
        ([OURS], 2, "error: 0 packages could not be looked up"),
        (None, 2, "error: pip-audit did not finish: cannot connect"),
    ],
)
def test_what_pip_audit_says(monkeypatch, capsys, packages, status, line):
    text = "" if packages is None else json.dumps({"dependencies": packages})
    answer = SimpleNamespace(stdout=text, stderr="a traceback\ncannot connect\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: answer)
    assert runpy.run_path(str(ROOT / ".ci" / "audit.py"))["main"]([]) == status
    said = capsys.readouterr()
    assert line in said.out + said.err
    assert len(said.err.splitlines()) <= 1
