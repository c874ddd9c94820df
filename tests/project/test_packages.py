"""The packages: complete sources, wheels for any Python, no path of this machine, workflows."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import jinja2
import numpy
import onnx
import PIL
import pytest
import torch

import gag_fast
from gag_fast import _library
from tests import ROOT

MAP = """
import sys, torch, gag_fast
found = gag_fast.guided_absgrad(torch.arange(96.0).reshape(2, 3, 4, 4).sin(), p=50)
info = gag_fast.build_info()
import gag_fast.export, gag_fast.report
print(gag_fast.__file__, tuple(found.shape), float(found.max()), info["version"], info["cxx_flags"])
"""


def run_map(folder, cwd):
    """MAP's output, with gag_fast from a folder; neither the checkout nor an editable install."""
    others = sorted({str(Path(m.__file__).parents[1]) for m in (torch, numpy, onnx, PIL, jinja2)})
    # -S: what an editable install hooks into the import system is left out.
    code = f"import sys; sys.path[:0] = [{str(folder)!r}]; sys.path += {others}\n{MAP}"
    words = [sys.executable, "-S", "-c", code]
    run = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(folder))
    return run.stdout


def setup_py(*words, scratch, **env):
    """Commands of setup.py that write nowhere but below `scratch`."""
    config = scratch / "setup.cfg"
    folders = f"[build]\nbuild_base={scratch}/build\nbuild_lib={scratch}/lib\n"
    config.write_text(f"{folders}[egg_info]\negg_base={scratch}\n")
    run = subprocess.run(
        [sys.executable, "setup.py", "-q", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "DIST_EXTRA_CONFIG": str(config), **env},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="session")
def sdist(tmp_path_factory):
    """The source distribution of what is checked out."""
    scratch = tmp_path_factory.mktemp("sdist")
    setup_py("sdist", f"--dist-dir={scratch}", scratch=scratch)
    (found,) = scratch.glob("gag_fast-*.tar.gz")
    return found


def workflows(names):
    """What only the repository's host reads."""
    return {name for name in names if name.startswith(".github/")}


def test_the_sources_are_complete(sdist):
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    with tarfile.open(sdist) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    tracked = {name for name in run.stdout.splitlines() if (ROOT / name).exists()}
    assert sorted(tracked - inside - {".gitignore"} - workflows(tracked)) == []
    made = {name for name in inside if name.endswith((".so", ".pyc", ".onnx", "build_facts.json"))}
    assert sorted(made - tracked) == []


@pytest.mark.slow
def test_the_sources_build_and_compute_a_map_elsewhere(sdist, tmp_path):
    """Compiles the CPU's library: a minute or two."""
    folder = tmp_path / "site"
    words = ["--no-deps", "--no-build-isolation", "--quiet", "--target", str(folder), str(sdist)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words],
        env={**os.environ, "GAG_FAST_CUDA": "0", "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"(4, 4) 1.0 {gag_fast.__version__}" in run_map(folder, tmp_path)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """A wheel of what is checked out, with the libraries that were built in place."""
    scratch = tmp_path_factory.mktemp("wheel")
    setup_py("build_py", scratch=scratch)
    for path in (*ROOT.glob("gag_fast/*.so"), ROOT / "gag_fast" / "build_facts.json"):
        shutil.copy2(path, scratch / "lib" / "gag_fast" / path.name)
    local = {"GAG_FAST_LOCAL_VERSION": "auto", "GAG_FAST_CUDA": "0"}
    setup_py("bdist_wheel", "--skip-build", f"--dist-dir={scratch}", scratch=scratch, **local)
    (found,) = scratch.glob("*.whl")
    return found


def test_a_wheel_is_for_every_python_and_says_what_it_was_built_for(wheel):
    assert re.fullmatch(
        rf"gag_fast-{re.escape(gag_fast.__version__)}\+cpu-py3-none-\w+\.whl", wheel.name
    )


@pytest.mark.parametrize("compiled_facts", [True, False], ids=["this Python", "another Python"])
def test_a_wheel_computes_a_map_elsewhere(wheel, tmp_path, compiled_facts):
    folder = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    if not compiled_facts:  # another Python does not see the module that was built for this one
        for module in (folder / "gag_fast").glob("_build_info.*.so"):
            module.unlink()
    out = run_map(folder, tmp_path)
    assert f"(4, 4) 1.0 {gag_fast.__version__}" in out
    assert "-ffp-contract=off" in out


def test_workflows_only_call_what_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    commands = [c for f in files for c in re.findall(r"- run: (.*)", f.read_text())]
    assert {"docs.yml", "lint.yml", "tests.yml", "wheels.yml"} <= {f.name for f in files}
    assert commands
    for command in commands:
        assert re.fullmatch(r"make [a-z-]+", command), command
        assert command.removeprefix("make ") in targets


def test_tests_run_on_every_python_that_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if ":: 3." in c}
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert set(re.findall(r'"(3\.\d+)"', workflow)) == named
    assert min(named, key=lambda v: int(v[2:])) == project["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("library", [_library.cpu_library, _library.cuda_library])
def test_libraries_hold_no_path_of_this_machine(library):
    if library is None or shutil.which("readelf") is None:
        pytest.skip("no such library, or no readelf")
    text = subprocess.run(["readelf", "-d", library], capture_output=True, text=True).stdout
    paths = re.findall(r"R(?:UN)?PATH\)\s+.*\[(.*)\]", text)
    assert paths == ["$ORIGIN/../torch/lib"]


def test_onnx_runtime_comes_by_an_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(one.startswith("onnxruntime") for one in project["dependencies"])
    extras = project["optional-dependencies"]
    assert any(one.startswith("onnxruntime-gpu[cuda,cudnn]") for one in extras["gpu"])
    assert extras["cpu"] == ["onnxruntime>=1.23"]
    assert "gag-fast[gpu]" in extras["demo"]
    assert "gag-fast[demo]" in extras["test"]
