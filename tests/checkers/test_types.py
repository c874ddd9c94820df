"""Type checkers at their strictest accept a user's right script and find each mistake."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import ROOT

BAD = Path(__file__).with_name("bad.py")
SCRIPTS = (BAD.with_name("good.py"), BAD)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the package lies as it is installed, export/ inside it."""
    package = tmp_path_factory.mktemp("site") / "gag_fast"
    package.mkdir()
    for path in (ROOT / "gag_fast").iterdir():
        if path.name != "__pycache__":
            (package / path.name).symlink_to(path)
    (package / "export").symlink_to(ROOT / "export")
    return package.parent


def by_mypy(site):
    """(script, line, message) of all that mypy finds fault with."""
    if find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    words = ["-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
    run = subprocess.run(
        [sys.executable, *words, f"--cache-dir={site}/cache", *map(str, SCRIPTS)],
        env={**os.environ, "MYPYPATH": str(site)},
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.findall(r"^(.*?):(\d+): error: (.*)$", run.stdout, re.M)
    return [(Path(path).name, int(line), text) for path, line, text in found]


def by_pyright(site):
    """The same by pyright, of which basedpyright is a build that brings its own Node."""
    if find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed")
    settings = {
        "include": list(map(str, SCRIPTS)),
        "extraPaths": [str(site)],
        "typeCheckingMode": "strict",
        "reportMissingTypeStubs": False,
        "reportUnusedExpression": False,
    }
    (site / "pyrightconfig.json").write_text(json.dumps(settings))
    run = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", f"--pythonpath={sys.executable}"],
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    said = json.loads(run.stdout)
    assert said["summary"]["filesAnalyzed"] == len(SCRIPTS)
    return [
        (Path(d["file"]).name, d["range"]["start"]["line"] + 1, d["message"])
        for d in said["generalDiagnostics"]
    ]


@pytest.mark.parametrize("check", [by_mypy, by_pyright], ids=["mypy", "pyright"])
def test_a_right_script_is_right_and_each_mistake_is_found(check, site):
    marked = {n for n, line in enumerate(BAD.read_text().splitlines(), 1) if "# BAD" in line}
    assert len(marked) == 15
    found = check(site)
    assert [fault for fault in found if fault[0] != BAD.name] == []
    assert {line for _, line, _ in found} == marked, found
