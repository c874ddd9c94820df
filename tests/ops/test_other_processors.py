"""The CPU kernels compile for other processors, and NEON gives the bits that SSE2 gives."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import ROOT

HERE = Path(__file__).parent
CSRC = ROOT / "csrc"
CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ("-std=c++20", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-static")


def build(compiler, program):
    sources = (HERE / "kernels_digest.cpp", CSRC / "cpu" / "aggregate_baseline.cpp")
    subprocess.run([compiler, *FLAGS, f"-I{CSRC}", *sources, "-o", program], check=True)


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"needs {CROSS}")
@pytest.mark.skipif(shutil.which(EMULATOR) is None, reason=f"needs {EMULATOR} (qemu-user)")
def test_neon(tmp_path):
    build("g++", tmp_path / "here")
    build(CROSS, tmp_path / "there")
    here = output(tmp_path / "here")
    assert len(here.strip()) == 16
    assert output(EMULATOR, tmp_path / "there") == here
