"""What is measured, by concern. pytest-benchmark and the tables share these groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

# The modules of this package, in the order of the tables; each has groups(device) -> [Group].
SUITES = (
    "aggregation",
    "gradients",
    "onnx_gradients",
    "export",
    "session",
    "scoring",
    "measures",
    "methods",
    "protocol",
    "run",
)

Cases = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Group:
    """One job, done by us and by others.

    Attributes:
        name: what the job is, unique in its suite.
        names: the cases, ours first.
        setup: makes the inputs and returns name -> call, in the order of `names`. Cases whose
            library is not installed are left out.
        floor: name of the case that is the least the job can cost (one read of the same bytes, the
            bare session), or None.
        part: name of a case that is a part of the job, not another way to it, or None.
        bytes: bytes that one call must move at least; 0 where that is not the limit.
        operations: floating-point operations of one call of ours; 0 where unknown.
        units: what one call does, in `unit`s, e.g. 8 images; for a rate.
        unit: name of that unit.
        rounds: how often each case is timed, whatever the budget; None: as often as that allows.
        pictures: case -> pictures that one call shows the classifier; `setup` or the calls fill it.
        notes: lines under the table, which `setup` may add.
    """

    name: str
    names: tuple[str, ...]
    setup: Callable[[], Cases]
    floor: str | None = None
    part: str | None = None
    bytes: int = 0
    operations: int = 0
    units: float = 1.0
    unit: str = "call"
    rounds: int | None = None
    pictures: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
