"""The emulation sees what it is there to see: a barrier, an atomic or an arrival left out.

Each fault is put into one launch of a call that otherwise runs without a finding; a kernel whose
barrier could go without being noticed would have one too many, or the watch a blind spot.
"""

import pytest
import torch

from tests.cuda.cuda_emulation import Run

# 10 percents: two groups of histograms. Spread values: several blocks to a long row. Ties: more
# candidates than a block keeps in shared memory.
MANY = [5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0]
CALLS = {  # name: size, percents, launches in order
    "short rows": ((20, 24), MANY, ("statistics", "selection", "maps", "min-max")),
    "long rows": ((130, 128), [0.0, 85.0, 95.0], ("statistics", "selection", "maps", "min-max")),
    "second digits": ((130, 128), MANY, ("statistics", "second", "selection", "maps", "min-max")),
}
LEAST_BARRIERS = {"short rows": 15, "long rows": 12, "second digits": 20}


@pytest.fixture(params=list(CALLS))
def case(request):
    return request.param


@pytest.fixture(params=["spread", "ties"])
def grads(request, case):
    images = 1 if case == "second digits" else 2  # many barriers, each a run
    g = torch.randn(images, 3, 1, *CALLS[case][0], generator=torch.Generator().manual_seed(1))
    if request.param == "ties":
        g = g.sign()
    g[0, 0, 0, 5, [0, 10]] = float("inf")  # two threads to report it
    return g


def races(emulation, case, grads, **fault):
    """The races of the launches with a name, of a call with a fault."""
    _, percents, launches = CALLS[case]
    multiprocessors = 64 if grads.unique().numel() > 3 else 1
    emulation.guided_absgrad(grads, percents, run=Run(3, multiprocessors, **fault))
    return dict(zip(launches, emulation.report.races, strict=True))


def test_no_fault_no_race(emulation, case, grads):
    assert not any(races(emulation, case, grads).values())


def test_every_barrier_is_missed(emulation, case, grads):
    found = races(emulation, case, grads)
    barriers = dict(zip(found, emulation.report.barriers, strict=True))
    groups = -(-len(CALLS[case][1]) // 8)
    assert barriers["statistics"] == 2
    assert barriers["selection"] >= LEAST_BARRIERS[case]
    assert barriers["maps"] == 3 * groups
    unseen = [
        (launch, k)
        for number, (launch, many) in enumerate(barriers.items())
        for k in range(many)
        if not races(emulation, case, grads, fault_launch=number, fault_barrier=k)[launch]
    ]
    # The kernel's last act; it separates groups of percents.
    assert unseen == [("maps", 3 * groups - 1)]


def test_every_atomic_is_missed(emulation, case, grads):
    for number, launch in enumerate(CALLS[case][2][:-1]):
        found = races(emulation, case, grads, fault_launch=number, fault_atomics=True)
        assert found[launch] > 0, launch


@pytest.mark.parametrize("case", ["long rows", "second digits"], indirect=True)
def test_the_arrival_is_missed(emulation, case):
    size, _, launches = CALLS[case]
    grads = torch.randn(1, 3, 1, *size)
    number = launches.index("selection")
    found = races(emulation, case, grads, fault_launch=number, fault_arrivals=True)
    assert found["selection"] > 0
