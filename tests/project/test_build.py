"""The build: its requirements, options that fail with one line, facts it tells."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gag_fast
from tests import ROOT


def setup_py(tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    """`python setup.py build_ext` writing only below tmp_path, without nvcc on the way."""
    path = os.pathsep.join(
        p for p in os.environ["PATH"].split(os.pathsep) if not (Path(p) / "nvcc").exists()
    )
    clean = {k: v for k, v in os.environ.items() if k not in {"CUDACXX", "CUDA_HOME", "CUDA_PATH"}}
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext"]
        + [f"--build-lib={tmp_path / 'lib'}", f"--build-temp={tmp_path / 'temp'}"],
        cwd=ROOT,
        env={**clean, "PATH": path, **env},
        capture_output=True,
        text=True,
    )


def test_a_forced_cuda_build_without_nvcc_fails_with_one_clear_line(tmp_path):
    run = setup_py(tmp_path, GAG_FAST_CUDA="1")
    assert run.returncode != 0
    errors = [line for line in run.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "GAG_FAST_CUDA=1" in errors[0]
    assert "Traceback" not in run.stderr


def test_an_unknown_value_of_gag_fast_cuda_is_named(tmp_path):
    run = setup_py(tmp_path, GAG_FAST_CUDA="maybe")
    assert run.returncode != 0
    assert "GAG_FAST_CUDA must be 0, 1 or auto, got 'maybe'" in run.stderr


def test_makefile_installs_what_pyproject_asks_a_build_to_have():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    line = re.search(r"^BUILD_REQUIRES := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert sorted(line.replace('"', "").split()) == sorted(wanted)


def test_makefile_and_pre_commit_lint_with_the_versions_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = project["optional-dependencies"]["dev"]
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", one) for one in pinned)
    line = re.search(r"^LINTERS := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert line.replace('"', "").split() == [one for one in pinned if "pre-commit" not in one]
    hooks = re.findall(r'"([a-z-]+==[\d.]+)"', (ROOT / ".pre-commit-config.yaml").read_text())
    assert set(hooks) == {one for one in pinned if one.startswith(("ruff", "clang-format"))}


def test_makefile_makes_the_site_with_the_versions_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    line = re.search(r"^DOCS := (.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    assert line.replace('"', "").split() == project["optional-dependencies"]["docs"]


def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert "version" not in project
    assert gag_fast.__version__ == gag_fast.build_info()["version"]
    assert f"## [{gag_fast.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {gag_fast.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    asked = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert asked.stdout.splitlines()[-1] == gag_fast.__version__


def test_the_facts_are_there_for_a_python_without_the_compiled_module(monkeypatch):
    compiled = gag_fast.build_info()
    monkeypatch.setitem(sys.modules, "gag_fast._build_info", None)
    assert gag_fast.build_info() == compiled


def test_build_info_tells_what_was_built():
    info = gag_fast.build_info()
    assert "-ffp-contract=off" in info["cxx_flags"]
    assert Path(info["cpu_library"]).is_file()
    assert info["cuda_version"] or info["cuda_library"].strip()


@pytest.mark.parametrize("missing", ["_gag_fast_cpu"])
def test_a_missing_library_is_one_clear_line(tmp_path, missing):
    run = subprocess.run(
        [sys.executable, "-c", "import gag_fast; gag_fast.build_info()"],
        env={**os.environ, "GAG_FAST_LIBRARY_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode != 0
    last = run.stderr.strip().splitlines()[-1]
    assert f"{missing}.so is not built" in last
    assert "pip install" in last
