"""Small changes of the kernels' sources that break them: the emulation must fail on every one.

Each mutant is a textual change of one header. The calls below run without a finding on the sources
as they are; on a mutant one of them must report a race or an access out of bounds, or give other
bits than the CPU operator.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch

import gag_fast._library  # noqa: F401  registers the CPU operators
from tests.cuda.cuda_emulation import COMPILER, CSRC, Emulation, Run, compile_harness

PERCENTS = [5.0, 85.0, 100.0]


@dataclass(frozen=True)
class Mutant:
    file: str
    text: str  # occurs once in the file
    instead: str


MUTANTS = {
    "the fence before an arrival is gone": Mutant(
        "block.h", "    block.fence();\n    is_last[0]", "    is_last[0]"
    ),
    "the fence after an arrival is gone": Mutant(
        "block.h", "blocks - 1;\n    block.fence();\n", "blocks - 1;\n"
    ),
    "an arrival counts without an atomic": Mutant(
        "block.h",
        "is_last[0] = block.atomic_add(counter, 1u) == blocks - 1;",
        "is_last[0] = counter[0] == blocks - 1; counter[0] = counter[0] + 1;",
    ),
    "no barrier after the counts are cleared": Mutant(
        "statistics.h",
        "phase([&](int t) {\n      inverses.fill(t, kThreads, samples);\n      summary",
        "last_phase([&](int t) {\n      inverses.fill(t, kThreads, samples);\n      summary",
    ),
    "no barrier before the kept candidates are copied": Mutant(
        "selection.h",
        "phase([&](int t) {\n      if (t > 0) return;\n      const uint32_t count = fill[0]",
        "last_phase([&](int t) {\n      if (t > 0) return;\n      const uint32_t count = fill[0]",
    ),
    "the number of candidates is loaded plainly": Mutant(
        "selection.h", "block.fresh(found + row), rest,", "found[row], rest,"
    ),
    "candidates are loaded plainly": Mutant(
        "selection.h", "return block.fresh(list + i);", "return static_cast<K>(list[i]);"
    ),
    "shared counts are added to without atomics": Mutant(
        "statistics.h",
        "block_.atomic_add(bins_ + (row * kFirstBins + first_digit<A>(order_key(m2))), 1u);",
        "const int at = row * kFirstBins + first_digit<A>(order_key(m2));\n"
        "      bins_[at] = bins_[at] + 1u;",
    ),
    "a row's counts are added to without atomics": Mutant(
        "statistics.h",
        "if (count) block_.atomic_add(histogram + i, count);",
        "if (count) histogram[i] = histogram[i] + count;",
    ),
    "a map's range is set without atomics": Mutant(
        "saliency.h",
        "block.atomic_max(range + kHigh, high);",
        "if (high > range[kHigh]) range[kHigh] = high;",
    ),
    "a part of a row is one pixel too long": Mutant(
        "digits.h",
        "begin + length < pixels ? begin + length : pixels}",
        "begin + length + 1 < pixels ? begin + length + 1 : pixels}",
    ),
    "a part of a row is one pixel too short": Mutant(
        "digits.h", "(pixels - 1) / parts + 1;", "(pixels - 1) / parts;"
    ),
    "candidates of a row begin one too early": Mutant(
        "selection.h",
        "const auto list = candidates + base;\n    const Piece",
        "const auto list = candidates + (base - 1);\n    const Piece",
    ),
    "rows of candidates overlap": Mutant(
        "selection.h",
        "const auto list = candidates + base;\n    finish",
        "const auto list = candidates + static_cast<int64_t>(row) * (pixels - 1);\n    finish",
    ),
    "thresholds have another stride": Mutant(
        "selection.h", "thresholds[row * threshold_stride + t]", "thresholds[row + t]"
    ),
    "one candidate more is kept than there is room": Mutant(
        "selection.h", "if (to < kKept) {", "if (to <= kKept) {"
    ),
    "the list of candidates is one short": Mutant(
        "guided_absgrad.h",
        "take(select_long, held * request.pixels * sizeof(A));",
        "take(select_long, held * request.pixels * sizeof(A) - 4 * sizeof(A));",
    ),
    "counters of arrivals are not cleared": Mutant(
        "guided_absgrad.h",
        "  w.arrived = take(select_long, launches * rows * 4);\n",
        "",
    ),
    "a lane is left out of the channel sum": Mutant(
        "saliency.h",
        "total[g].lane[l] = c == 0 ? term",
        "total[g].lane[l] = c == 0 || l == 3 ? term",
    ),
    "second digits are added without atomics": Mutant(
        "selection.h",
        "if (count) block.atomic_add(to + i, count);",
        "if (count) to[i] = to[i] + count;",
    ),
    "second digits of a row lie where another's do": Mutant(
        "selection.h",
        "const auto to = second + (static_cast<int64_t>(row) * percents.ranks + first) * D::kBins;",
        "const auto to = second + (static_cast<int64_t>(row) + first) * D::kBins;",
    ),
    "the fence before an item is done is gone": Mutant(
        "pipeline.h",
        "        block.fence();\n        block.atomic_add(done",
        "        block.atomic_add(done",
    ),
    "the barrier before an item is done is gone": Mutant(
        "pipeline.h", "      block.phase([&](int) {});\n", ""
    ),
    "the fence after waiting is gone": Mutant(
        "pipeline.h", "      block.fence();\n      return number;", "      return number;"
    ),
    "items are taken without an atomic": Mutant(
        "pipeline.h",
        "const uint32_t number = block.atomic_add(next, 1u);",
        "const uint32_t number = next[0];\n      next[0] = number + 1;",
    ),
    "the channel sum reads statistics through the L1 cache": Mutant(
        "pipeline.h", "ChannelSum<A, kWide<A>, 1, true>", "ChannelSum<A, kWide<A>, 1, false>"
    ),
    "selection reads statistics through the L1 cache": Mutant(
        "pipeline.h", "Selection<A, kThreads, true>", "Selection<A, kThreads, false>"
    ),
    "min-max reads maps through the L1 cache": Mutant(
        "pipeline.h", "Normalise<A, kWide<A>, true>", "Normalise<A, kWide<A>, false>"
    ),
    "a ring of half its slots": Mutant(
        "pipeline.h", "work.image % schedule.slots;", "work.image % (schedule.slots / 2);"
    ),
    "a ring so small that blocks wait for each other": Mutant(
        "guided_absgrad.h", "const Ring ring{2 * lag + 2, lag};", "const Ring ring{lag, lag};"
    ),
}
# One of each kind in every run of the tests, the others with -m slow: each is a compilation.
QUICK = (
    "the fence before an arrival is gone",
    "the fence after an arrival is gone",
    "no barrier before the kept candidates are copied",
    "the number of candidates is loaded plainly",
    "candidates are loaded plainly",
    "a row's counts are added to without atomics",
    "a part of a row is one pixel too short",
    "rows of candidates overlap",
    "one candidate more is kept than there is room",
    "counters of arrivals are not cleared",
    "second digits are added without atomics",
    "the fence before an item is done is gone",
    "a ring of half its slots",
    "the channel sum reads statistics through the L1 cache",
    "a ring so small that blocks wait for each other",
)
REPLACED = {
    "counters of arrivals are not cleared": (
        "  w.thresholds = take(request.guides()",
        "  w.arrived = take(select_long, launches * rows * 4);\n"
        "  w.thresholds = take(request.guides()",
    )
}


def mutated(name, folder):
    """The emulation of a mutant; of the sources as they are for None."""
    shutil.copytree(CSRC, folder / "csrc")
    if name is not None:
        mutant = MUTANTS[name]
        path = folder / "csrc" / "cuda" / mutant.file
        source = path.read_text()
        assert source.count(mutant.text) == 1, f"{name}: the source has changed, change the mutant"
        source = source.replace(mutant.text, mutant.instead)
        if name in REPLACED:
            source = source.replace(*REPLACED[name], 1)
        path.write_text(source)
    return compile_harness(folder, ("-DGAG_FAST_ONLY_FLOAT32", "-w", "-O0"), folder / "csrc")


def compiled(names, tmp_path_factory):
    if COMPILER is None:
        pytest.skip("no g++ to build the emulation with")
    folders = [tmp_path_factory.mktemp("mutant") for _ in names]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(mutated, names, folders), strict=True))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return compiled([None, *QUICK], tmp_path_factory)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return compiled([name for name in MUTANTS if name not in QUICK], tmp_path_factory)


MANY = [5.0 + 10 * i for i in range(10)]


def calls():
    """Stacks, percents and runs that reach every part of the kernels: spread values, many ties,
    many percents, and many images in one kernel.
    """
    generator = torch.Generator().manual_seed(1)
    spread = torch.randn(2, 3, 2, 130, 128, generator=generator)
    spread[:, 0, :, -1, -1] = 9  # the largest variance of each row is its last
    ties = torch.randn(2, 3, 2, 130, 128, generator=generator).sign()
    yield spread, PERCENTS, Run(3, 64)
    yield ties, PERCENTS, Run(4, 64)
    yield spread, PERCENTS, Run(0, 64)
    yield ties, PERCENTS, Run(0, 1)  # one block to a row: more candidates than it has room for
    yield spread, MANY, Run(3, 64)
    images = torch.randn(9, 3, 2, 96, 88, generator=generator)
    for order in (0, 5, 6):
        yield images, [85.0], Run(order, 1, pipeline=2)


def findings(library):
    """What the calls report, until the first finding."""
    emulation = Emulation(library)
    for grads, percents, run in calls():
        expected = torch.ops.gag_fast.guided_absgrad(grads, percents, True, False)
        try:
            got = emulation.guided_absgrad(grads, percents, run=run)
        except (AssertionError, RuntimeError) as error:
            return str(error)
        if not torch.equal(got, expected):
            return "other bits than on the CPU"
    return None


def test_the_sources_as_they_are(quick):
    assert findings(quick[None]) is None


@pytest.mark.parametrize("name", QUICK)
def test_a_mutant_is_caught(quick, name):
    assert findings(quick[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MUTANTS if name not in QUICK])
def test_the_other_mutants_are_caught(others, name):
    assert findings(others[name]), name
