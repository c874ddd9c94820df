"""Builds csrc/cuda/emulation with g++ and calls it: the CUDA kernels' own source, on the CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

from tests import ROOT

CSRC = ROOT / "csrc"
COMPILER = shutil.which("g++")
FLAGS = [
    "-std=c++20",
    "-O1",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fPIC",
    "-shared",
]
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
MOST_LAUNCHES = 32


class Options(ctypes.Structure):
    _fields_ = (
        ("order", ctypes.c_int64),
        ("multiprocessors", ctypes.c_int64),
        ("fault_launch", ctypes.c_int64),
        ("fault_barrier", ctypes.c_int64),
        ("fault_atomics", ctypes.c_int64),
        ("fault_arrivals", ctypes.c_int64),
        ("pipeline", ctypes.c_int64),
    )


class RawReport(ctypes.Structure):
    _fields_ = (
        ("launches", ctypes.c_int64),
        ("barriers", ctypes.c_int64 * MOST_LAUNCHES),
        ("races", ctypes.c_int64 * MOST_LAUNCHES),
        ("workspace_bytes", ctypes.c_int64),
        ("text", ctypes.c_char * 1024),
    )


@dataclass(frozen=True)
class Report:
    """What the launches of one call did: barriers per block and races, launch by launch."""

    launches: int
    barriers: list[int]
    races: list[int]
    workspace_bytes: int
    text: str


@dataclass(frozen=True)
class Run:
    """How to run: order of blocks and threads (0 up, 1 down, else shuffled), device, faults.

    pipeline: the one kernel for many images where it pays (0), never (1), where it can be (2).
    """

    order: int = 0
    multiprocessors: int = 4
    fault_launch: int = -1
    fault_barrier: int = -1
    fault_atomics: bool = False
    fault_arrivals: bool = False
    pipeline: int = 0


def compile_harness(folder: Path, extra: tuple[str, ...] = (), csrc: Path = CSRC) -> Path:
    """The harness of the sources in `csrc` as a shared library in `folder`; `extra` flags."""
    library = folder / "emulation.so"
    harness = csrc / "cuda" / "emulation" / "harness.cpp"
    command = [COMPILER, *FLAGS, *extra, f"-I{csrc}", str(harness), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return library


ORDINARY = Run()


class Emulation:
    """The three aggregation operators of CUDA, with torch.ops.gag_fast's arguments, on the CPU."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self.report: Report | None = None  # of the last call

    def guided_absgrad(self, grads, p, normalize=True, keep_channels=False, run=ORDINARY):
        """`torch.ops.gag_fast.guided_absgrad` of a [B,n,C,H,W] tensor with any strides."""
        B, _, C, H, W = grads.shape
        dtype = torch.float64 if grads.dtype == torch.float64 else torch.float32
        shape = (len(p), B, C, H, W) if keep_channels else (len(p), B, H, W)
        out = torch.full(shape, -7.0, dtype=dtype)
        self._call(
            self._library.emulate_guided_absgrad,
            run,
            ctypes.c_int(DTYPES[grads.dtype]),
            _pointer(grads),
            _integers(grads.shape),
            _integers(grads.stride()),
            (ctypes.c_double * len(p))(*p),
            ctypes.c_int64(len(p)),
            ctypes.c_int(normalize),
            ctypes.c_int(keep_channels),
            _pointer(out),
        )
        return out

    def guided_absgrad_from_stats(
        self, m2, abssum, count, p, normalize=True, keep_channels=False, run=ORDINARY
    ):
        """`torch.ops.gag_fast.guided_absgrad_from_stats`."""
        B, C, H, W = m2.shape
        shape = (len(p), B, C, H, W) if keep_channels else (len(p), B, H, W)
        out = torch.full(shape, -7.0, dtype=m2.dtype)
        self._call(
            self._library.emulate_guided_absgrad_from_stats,
            run,
            ctypes.c_int(DTYPES[m2.dtype]),
            _pointer(m2),
            _pointer(abssum),
            ctypes.c_int64(count),
            _integers(m2.shape),
            (ctypes.c_double * len(p))(*p),
            ctypes.c_int64(len(p)),
            ctypes.c_int(normalize),
            ctypes.c_int(keep_channels),
            _pointer(out),
        )
        return out

    def gradient_stats_(self, shift, mean, m2, abssum, grads, count, settled=None, run=ORDINARY):
        """`torch.ops.gag_fast.gradient_stats_`."""
        self._call(
            self._library.emulate_gradient_stats,
            run,
            ctypes.c_int(DTYPES[grads.dtype]),
            *(_pointer(t) for t in (shift, mean, m2, abssum)),
            None if settled is None else _pointer(settled),
            _pointer(grads),
            _integers(grads.shape),
            _integers(grads.stride()),
            ctypes.c_int64(count),
        )

    def workspace_bytes(self, images, channels, pixels, count, p, own_statistics):
        """What a call on float32 would take, computed without allocating it."""
        raw = RawReport()
        sizes = (ctypes.c_int64(v) for v in (images, channels, pixels, count))
        failed = self._library.emulate_workspace(
            *sizes,
            (ctypes.c_double * len(p))(*p),
            ctypes.c_int64(len(p)),
            ctypes.c_int(own_statistics),
            ctypes.byref(raw),
        )
        if failed:
            raise RuntimeError(raw.text.decode())
        return raw.workspace_bytes

    def _call(self, function, run, *arguments):
        options = Options(
            run.order,
            run.multiprocessors,
            run.fault_launch,
            run.fault_barrier,
            run.fault_atomics,
            run.fault_arrivals,
            run.pipeline,
        )
        raw = RawReport()
        failed = function(*arguments, ctypes.byref(options), ctypes.byref(raw))
        text = raw.text.decode()
        if failed:
            raise RuntimeError(text)
        launches = raw.launches
        self.report = Report(
            launches,
            list(raw.barriers[:launches]),
            list(raw.races[:launches]),
            raw.workspace_bytes,
            text,
        )
        if run.fault_launch < 0:
            assert sum(raw.races) == 0, text


def _pointer(tensor):
    return ctypes.c_void_p(tensor.data_ptr())


def _integers(values):
    return (ctypes.c_int64 * len(values))(*values)
