"""The emulation sees what it is there to see: a barrier, an atomic or an arrival left out.

Each fault is put into one launch of a call that otherwise runs without a finding; a kernel whose
barrier could go without being noticed would have one too many, or the watch a blind spot.
"""

import pytest
import torch

from tests.cuda.cuda_emulation import Run

STATISTICS, SELECTION, MAPS = 0, 1, 2
# 10 percents: two groups of histograms. Spread values: several blocks to a long row. Ties: more
# candidates than a block keeps in shared memory.
PERCENTS = [5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0]
SIZES = {"short rows": (20, 24), "long rows": (130, 128)}


@pytest.fixture(params=["spread", "ties"])
def grads(request, size):
    g = torch.randn(2, 3, 1, *size, generator=torch.Generator().manual_seed(1))
    if request.param == "ties":
        g = g.sign()
    g[0, 0, 0, 5, [0, 10]] = float("inf")  # two threads to report it
    return g


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def size(request):
    return request.param


def races(emulation, grads, **fault):
    multiprocessors = 64 if grads.unique().numel() > 3 else 1
    emulation.guided_absgrad(grads, PERCENTS, run=Run(3, multiprocessors, **fault))
    return emulation.report.races


def test_no_fault_no_race(emulation, grads):
    assert sum(races(emulation, grads)) == 0


def test_every_barrier_is_missed(emulation, grads):
    races(emulation, grads)
    barriers = emulation.report.barriers
    assert barriers[STATISTICS] == 2
    assert barriers[SELECTION] >= 15
    assert barriers[MAPS] == 3 * 2  # two groups of percents
    unseen = [
        (launch, k)
        for launch, many in enumerate(barriers)
        for k in range(many)
        if not races(emulation, grads, fault_launch=launch, fault_barrier=k)[launch]
    ]
    assert unseen == [(MAPS, 5)]  # the kernel's last act; it separates groups of percents


def test_every_atomic_is_missed(emulation, grads):
    for launch in (STATISTICS, SELECTION, MAPS):
        assert races(emulation, grads, fault_launch=launch, fault_atomics=True)[launch] > 0


def test_the_arrival_is_missed(emulation):
    grads = torch.randn(1, 3, 1, *SIZES["long rows"])
    assert races(emulation, grads, fault_launch=SELECTION, fault_arrivals=True)[SELECTION] > 0
