"""What nvcc made of the kernels: registers, memory, instructions; read out of the built library."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

# An address, perhaps a predicate, the opcode, its operands.
INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(\S+?)(?:\s+(.*?))?\s*;")


def cuobjdump() -> str | None:
    """The disassembler: of a CUDA toolkit, or the one in Triton's wheel."""
    found = shutil.which("cuobjdump")
    if found is None and (triton := find_spec("triton")) is not None and triton.origin:
        bundled = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        found = str(bundled) if bundled.is_file() else None
    return found


@dataclass
class Code:
    """One kernel of one architecture.

    `instructions` are the opcodes in order, `loops` the (first, last) index of every backward jump.
    """

    name: str
    registers: int = 0
    stack: int = 0
    shared: int = 0
    local: int = 0
    instructions: list[str] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)

    def count(self, pattern: str, within: tuple[int, int] | None = None) -> int:
        """How many opcodes match, in all or within a loop."""
        first, last = within or (0, len(self.instructions) - 1)
        return sum(1 for op in self.instructions[first : last + 1] if re.match(pattern, op))

    def inner_loops(self) -> list[tuple[int, int]]:
        """Loops without another loop inside."""

        def holds(a: tuple[int, int], b: tuple[int, int]) -> bool:
            return a != b and a[0] <= b[0] <= b[1] <= a[1]

        return [a for a in self.loops if not any(holds(a, b) for b in self.loops)]

    def runs(self, pattern: str, until: str) -> list[int]:
        """Lengths of the stretches of matching opcodes with none that matches `until` between."""
        found, run = [], 0
        for op in self.instructions:
            if re.match(pattern, op):
                run += 1
            elif re.match(until, op) and run:
                found.append(run)
                run = 0
        return found + [run] if run else found


def _plain(symbol: str) -> str:
    name = re.sub(r"\(anonymous namespace\)::|gag_fast::|cuda::", "", symbol)
    kernel = re.search(r"(?:run_kernel|for_each_item)<(.*)>\(", name)
    layouts = {"(Layout)0": "planes", "(Layout)1": "interleaved", "(Layout)2": "scattered"}
    name = kernel.group(1).strip() if kernel else re.sub(r"^void ", "", name).split("(")[0]
    for number, layout in layouts.items():
        name = name.replace(number, layout)
    return name.replace("unsigned short", "half").replace(" ", "")


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True)
    return subprocess.run(
        ["c++filt"], input=done.stdout, capture_output=True, text=True, check=True
    ).stdout


def read(library: Path, architecture: str = "sm_90") -> dict[str, Code]:
    """The kernels of `library`, by their plain names: "Statistics<float,planes>"."""
    tool = cuobjdump()
    assert tool is not None
    kernels: dict[str, Code] = {}
    usage = _run(tool, "-res-usage", "-arch", architecture, str(library))
    for match in re.finditer(
        r"Function (.*?):\s*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage
    ):
        name = _plain(match.group(1))
        kernels[name] = Code(name, *(int(match.group(i)) for i in (2, 3, 4, 5)))
    code: Code | None = None
    addresses: dict[int, int] = {}
    for line in _run(tool, "-sass", "-arch", architecture, str(library)).splitlines():
        if (header := re.match(r"\s*Function : (.*)", line)) is not None:
            code = kernels.get(_plain(header.group(1)))
            addresses = {}
            continue
        found = INSTRUCTION.match(line)
        if code is None or found is None:
            continue
        address, op, operands = int(found.group(1), 16), found.group(2), found.group(3) or ""
        addresses[address] = len(code.instructions)
        if op.startswith("BRA") and (target := re.search(r"0x([0-9a-f]+)", operands)) is not None:
            back = int(target.group(1), 16)
            if back < address and back in addresses:  # not the endless loop behind the last EXIT
                code.loops.append((addresses[back], len(code.instructions)))
        code.instructions.append(op)
    return kernels


def opcodes(code: Code) -> Counter[str]:
    """Opcodes by their first word, for looking at."""
    return Counter(op.split(".")[0] for op in code.instructions)
