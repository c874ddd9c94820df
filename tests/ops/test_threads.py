"""What the CPU kernels share between threads, under ThreadSanitizer (threads.cpp)."""

import os
import shutil
import subprocess

import pytest

from tests import ROOT

CSRC = ROOT / "csrc"
FLAGS = ("-std=c++20", "-O1", "-g", "-ffp-contract=off", "-Wall", "-Wextra", "-pthread")


def output(command, **options):
    # Another sanitizer's runtime (tests/sanitize.sh) must not come before this one's.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, **options)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_threads_of_the_kernels(tmp_path):
    sources = (ROOT / "tests" / "ops" / "threads.cpp", CSRC / "cpu" / "aggregate_baseline.cpp")
    program = tmp_path / "threads"
    command = ["g++", *FLAGS, "-fsanitize=thread", f"-I{CSRC}", *sources, "-o", program]
    built = output(command)
    if built.returncode != 0 and "libtsan" in built.stderr:
        pytest.skip("g++ has no ThreadSanitizer here")
    assert built.returncode == 0, built.stderr
    done = output([program])
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space randomisation is beyond ThreadSanitizer")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "WARNING: ThreadSanitizer" not in done.stderr
    assert done.stdout.startswith("0 wrong, digest ")
