"""How long a call of guided_absgrad should take on a GPU: a model on paper, no measurement.

    python csrc/cuda/model.py                       the cases below on an H100 and an H200
    python csrc/cuda/model.py --device a100 --batch 8 --percents 9
    python csrc/cuda/model.py --measured FILE       beside measurements: {"CASE": microseconds, ...}

A kernel takes the longest of what its bytes, its instructions and its loads in flight allow, over
whole waves of blocks; a call takes its kernels and the gaps between them. Grids are computed as in
guided_absgrad.h, registers and instructions are those of sm_90 that
tests/cuda/test_cuda_machine_code.py holds the compiled kernels to. Expect it to be right within
20 %: it knows nothing of clocks under load, of DRAM pages, or of what else runs.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Device:
    """A GPU's numbers: bytes a second are those of a copy, about 90 % of the data sheet's."""

    name: str
    multiprocessors: int
    gigahertz: float
    bytes_per_s: float
    l2_bytes: float
    memory_delay_s: float = 0.7e-6  # under load
    l2_delay_s: float = 0.35e-6
    l2_bytes_per_s: float = 5.5e12
    gap_s: float = 1.5e-6  # from the end of a kernel to the start of the next one's work
    issue: float = 0.8  # of the instruction slots, where nothing else binds

    def issued(self, multiprocessors: float) -> float:
        """Instructions of warps a second."""
        return 4 * self.gigahertz * 1e9 * multiprocessors * self.issue


DEVICES = {
    "a100": Device("A100 80 GB", 108, 1.41, 1.83e12, 40e6, l2_bytes_per_s=4e12),
    "h100": Device("H100 SXM", 132, 1.755, 3.0e12, 50e6),
    "h200": Device("H200", 132, 1.755, 4.3e12, 50e6),
}


@dataclass(frozen=True)
class Case:
    """A float32 or half-precision stack in planes."""

    batch: int = 64
    samples: int = 20
    channels: int = 3
    height: int = 224
    width: int = 224
    percents: int = 1
    element: int = 4  # bytes of a gradient
    candidates: float | None = None  # share of a row in the wanted bins
    second: bool | None = None  # whether second digits are counted by a launch of their own

    @property
    def name(self) -> str:
        """As in --measured."""
        kind = {4: "f32", 2: "half"}[self.element]
        return f"{kind} {self.batch}x{self.samples}x{self.channels}x{self.height} p{self.percents}"

    @property
    def pixels(self) -> int:
        """Of a row."""
        return self.height * self.width

    @property
    def rows(self) -> int:
        """Channels of images."""
        return self.batch * self.channels

    @property
    def kept(self) -> float:
        """Share of a row that is candidates: 8 % for one percent, 76 % for nine spread out."""
        if self.candidates is not None:
            return self.candidates
        return min(0.08 + 0.085 * (self.percents - 1), 1)

    @property
    def counts_second(self) -> bool:
        """The rule of counts_second_digits (guided_absgrad.h)."""
        if self.second is not None:
            return self.second
        keys = self.pixels * min(self.percents, 12) // 12
        return self.pixels > 8192 and self.rows <= 64 and keys * self.percents >= 1 << 17


@dataclass(frozen=True)
class Kernel:
    """One launch: its grid, what a multiprocessor holds of it, and what it does in all."""

    name: str
    blocks: int
    threads: int
    resident: int  # blocks of a multiprocessor
    memory_bytes: float  # from and to memory
    l2_bytes: float  # from and to L2
    instructions: float  # of warps
    in_flight: float  # bytes that a thread has asked for at once
    serial_s: float = 0.0  # of a last block, after the others

    def seconds(self, device: Device) -> float:
        """From the start of its first block to the end of its last."""
        slots = device.multiprocessors * self.resident
        busy = min(1.0, self.blocks / device.multiprocessors)
        waves = self.blocks / slots
        whole = max(1.0, math.ceil(waves) / waves) if waves > 1 else 1.0
        whole = 1.0 + (whole - 1.0) / max(1.0, math.ceil(waves) / 2)  # blocks of a wave differ
        held = min(self.blocks, slots) * self.threads * self.in_flight
        memory = self.memory_bytes / min(device.bytes_per_s, held / device.memory_delay_s)
        l2 = self.l2_bytes / min(device.l2_bytes_per_s, held / device.l2_delay_s)
        rate = device.issued(device.multiprocessors * busy)
        start = device.memory_delay_s * 2
        return max(memory + l2, self.instructions / rate) * whole + start + self.serial_s


def _counting_instructions(case: Case, keys: float) -> float:
    """Of warps, to count one digit of `keys`: each is compared with up to eight prefixes."""
    return math.ceil(case.percents / 8) * keys / 32 * (12 + 5 * min(case.percents, 8))


def _selection_end(case: Case, device: Device) -> float:
    """The last block of a row: the digits left of every candidate, eight ranks at a time."""
    threads, in_flight, groups = 512, 8, math.ceil(case.percents / 8)
    digits = 1 if case.counts_second else 2
    keys = case.kept * case.pixels / (1024 if case.counts_second else 1)
    bytes_s = digits * groups * keys * 4 / (threads * in_flight * 4 / device.l2_delay_s)
    issue_s = digits * _counting_instructions(case, keys) / device.issued(1)
    return max(bytes_s, issue_s) + 8 * digits * groups * 0.1e-6


def _second_digits(case: Case, device: Device, parts: int) -> Kernel:
    """All blocks of a row count; what is not zero is added to the row's counts in L2."""
    values = case.rows * case.pixels
    groups, blocks = math.ceil(case.percents / 8), case.rows * parts
    # Some 400 instructions in each of 16 warps find the first digits, and again for each group.
    fixed = blocks * 16 * 400 * (1 + groups)
    hit = min(1.0, 0.5 * device.l2_bytes / (values * 4))
    added = blocks * case.percents * min(1024, case.kept * case.pixels / parts / case.percents)
    return Kernel(
        "SecondDigits",
        blocks,
        512,
        2,
        values * 4 * (1 - hit),
        values * 4 * (hit + groups - 1) + blocks * 8192 + added * 32,
        _counting_instructions(case, values * case.kept) + values / 32 * 12 + fixed,
        32,
    )


def kernels(case: Case, device: Device) -> list[Kernel]:
    """The launches of guided_absgrad, with min-max: four or, with second digits, five."""
    values = case.rows * case.pixels
    stack = values * case.samples * case.element
    lanes = 16 // case.element
    tiles = math.ceil(case.pixels / (256 * lanes))
    rounds = min(max(case.rows * tiles // (16 * device.multiprocessors), 1), min(8, tiles))
    blocks = case.rows * math.ceil(tiles / rounds)
    # Of what one kernel writes for the next, the L2 keeps what fits beside the passing stream.
    hit = min(1.0, 0.5 * device.l2_bytes / (values * 4))
    per_four_loads = 158 if case.element == 4 else 315
    instructions = stack / 2048 * per_four_loads + values / 32 * 25
    statistics = Kernel(
        "Statistics",
        blocks,
        256,
        3 if case.element == 4 else 2,
        stack + values * 8,
        0,
        instructions,
        64,
    )
    parts = min(max(4 * device.multiprocessors // case.rows, 1), math.ceil(case.pixels / 8192))
    kept = case.kept / (1024 if case.counts_second else 1)
    narrowing = case.percents if case.counts_second else 0  # ranks whose second digit is looked up
    selection = Kernel(
        "Selection",
        case.rows * parts,
        512,
        2,
        values * 4 * (1 - hit),
        values * 4 * (hit + 2 * kept) + case.rows * parts * (8192 + narrowing * 4096),
        values / 32 * (12 + 12 * kept + 3 * narrowing * case.kept)
        + case.rows * parts * 16 * 400 * (1 + math.ceil(narrowing / 8)),
        32,
        _selection_end(case, device) * max(1.0, case.rows / (2 * device.multiprocessors)),
    )
    maps = case.batch * case.percents * case.pixels * 4
    map_blocks = case.batch * math.ceil(case.pixels / 1024)
    passes = math.ceil(case.percents / 8)
    channel_sum = Kernel(
        "ChannelSum",
        map_blocks,
        256,
        2,
        passes * values * 4 * (2 - hit) + maps,
        passes * values * 4 * hit,
        values / 128 * (60 + 45 * case.percents),
        32,
    )
    map_hit = min(1.0, 0.5 * device.l2_bytes / maps)
    normalise = Kernel(
        "Normalise",
        map_blocks * case.percents,
        256,
        4,
        maps * (2 - map_hit),
        maps * map_hit,
        maps / 512 * 60,
        16,
    )
    second = [_second_digits(case, device, parts)] if case.counts_second else []
    return [statistics, *second, selection, channel_sum, normalise]


def call_seconds(case: Case, device: Device) -> float:
    """One call on the device: a memset and its kernels."""
    return sum(k.seconds(device) + device.gap_s for k in kernels(case, device)) + device.gap_s


@dataclass(frozen=True)
class Pipeline:
    """The one kernel of pipeline.h: its ring, and what bounds it; seconds of a batch.

    memory: the stack and the maps; statistics stay in L2. issue: instructions. slots: the time that
    its items take of the blocks on the device, each at the pace of its own loads in flight. tail:
    from the last reading to the end.
    """

    lag: int
    ring_slots: int
    ring_bytes: float
    memory: float
    issue: float
    slots: float
    tail: float

    @property
    def seconds(self) -> float:
        """Of a call: a memset and the kernel."""
        return max(self.memory, self.issue, self.slots) + self.tail


def pipeline(case: Case, device: Device) -> Pipeline:
    """Grids and ring as in ring_of and launch_pipeline (guided_absgrad.h)."""
    blocks, rounds, map_tiles, part = 2 * device.multiprocessors, 4, 4, 16384
    tiles = math.ceil(case.pixels / (256 * 16 // case.element))
    reads = case.channels * math.ceil(tiles / min(rounds, tiles))
    lag = math.ceil(blocks / reads) + 1
    slots = 2 * lag + 2
    # To be taken, to look whether it may start, to be told of: three round trips and two fences.
    item = 3 * device.l2_delay_s + 2 * device.memory_delay_s
    # Six of a thread's eight loads go out before it uses the first; counts are cleared and flushed
    # once an item.
    read_s = case.channels * tiles * math.ceil(case.samples / 6) * device.memory_delay_s
    read_s += reads * (item + 1e-6)
    map_blocks = math.ceil(case.pixels / 1024)
    map_items = math.ceil(map_blocks / map_tiles)
    sum_s = map_blocks * (case.channels * device.l2_delay_s + 1e-6) + map_items * item
    min_max_s = map_blocks * (device.l2_delay_s + 0.2e-6) + map_items * item
    parts = math.ceil(case.pixels / part)
    walk = case.pixels / parts / (256 * 8) * device.l2_delay_s
    select_s = case.channels * (parts * (walk + 1.5e-6 + item) + 3e-6)
    stack = case.rows * case.pixels * case.samples * case.element
    maps = case.batch * case.pixels * 4
    launches = {k.name: k for k in kernels(case, device)}
    instructions = sum(k.instructions for k in launches.values())
    instructions += case.rows * (parts - 1) * 8 * 800
    # The last items of reading end one by one; then the stages of the last image follow.
    last = 0.5 * read_s / reads + walk + 6 * item + 6e-6 + map_tiles * 2e-6
    return Pipeline(
        lag,
        slots,
        slots * case.channels * case.pixels * 8,
        (stack + maps) / device.bytes_per_s,
        instructions / device.issued(device.multiprocessors),
        case.batch * (read_s + sum_s + min_max_s + select_s) / blocks,
        last + 2 * device.gap_s + 2 * device.memory_delay_s,
    )


def takes_pipeline(case: Case, device: Device) -> bool:
    """The rule of ring_of (guided_absgrad.h)."""
    able = case.percents == 1 and case.pixels > 8192 and case.element == 4
    ring = pipeline(case, device)
    return able and case.batch >= 2 * ring.ring_slots and ring.ring_bytes <= 24 << 20


CASES = (
    Case(),
    Case(element=2),
    Case(percents=9),
    Case(batch=8),
    Case(batch=1),
    Case(batch=1, percents=9),
    Case(batch=1, height=1024, width=1024),
    Case(batch=1, height=1024, width=1024, percents=9),
)


NAMES = ("Statistics", "SecondDigits", "Selection", "ChannelSum", "Normalise")


def report(device: Device, cases: tuple[Case, ...], measured: dict[str, float]) -> str:
    """Microseconds: kernel by kernel, all launches, the one kernel (* where it is taken).

    The share is that of the copy's speed, of what is taken.
    """
    lines = [
        f"{device.name}: modelled, not measured; microseconds",
        f"{'case':<26}{'Stat':>8}{'Second':>8}{'Select':>8}{'Sum':>8}{'Norm':>8}{'launches':>9}"
        f"{'one kernel':>12}{'of copy':>9}{'measured':>10}",
    ]
    for case in cases:
        took = {k.name: k.seconds(device) * 1e6 for k in kernels(case, device)}
        each = [took.get(name, 0.0) for name in NAMES]
        call = call_seconds(case, device) * 1e6
        stack = case.rows * case.pixels * case.samples * case.element
        ring = pipeline(case, device)
        takes = takes_pipeline(case, device)
        able = case.percents == 1 and case.element == 4
        one = f"{ring.seconds * 1e6:.1f}" if able else "-"
        best = ring.seconds * 1e6 if takes else call
        share = stack / device.bytes_per_s * 1e6 / best
        known = measured.get(case.name)
        lines.append(
            f"{case.name:<26}"
            + "".join(f"{us:8.1f}" for us in each)
            + f"{call:9.1f}{one:>12}"
            + f"{' *' if takes else '':<2}{share:7.0%}"
            + (f"{'-':>10}" if known is None else f"{known:10.1f} ({known / best:.2f} x)")
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=sorted(DEVICES), action="append")
    parser.add_argument("--measured", type=Path, help="JSON: case -> microseconds")
    for option in ("batch", "samples", "channels", "height", "width", "percents", "element"):
        parser.add_argument(f"--{option}", type=int)
    options = vars(parser.parse_args())
    devices = options.pop("device") or ["h100", "h200"]
    path = options.pop("measured")
    measured = json.loads(path.read_text()) if path else {}
    asked = {key: value for key, value in options.items() if value is not None}
    cases = (replace(Case(), **asked),) if asked else CASES
    print("\n\n".join(report(DEVICES[name], cases, measured) for name in devices))


if __name__ == "__main__":
    main()
