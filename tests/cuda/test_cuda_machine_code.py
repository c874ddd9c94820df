"""What nvcc made of the kernels: no local memory, wide loads, enough in flight, room on the GPU.

Reads the CUDA library of this build with cuobjdump, so it needs no GPU. What it demands is what
csrc/README.md says of the machine code and csrc/cuda/model.py counts on.
"""

import dataclasses
import importlib.util
import re
import sys

import pytest
import torch

from gag_fast import _library
from tests import ROOT
from tests.cuda import machine_code
from tests.cuda.cuda_emulation import Run

REGISTERS = 65536  # of a multiprocessor
TYPES = ("float", "double", "Float16", "BFloat16")
LAYOUTS = ("planes", "interleaved", "scattered")
# Threads of a block and blocks on a multiprocessor that the launch bounds promise.
OCCUPANCY = {
    "Statistics": {
        "float": (256, 3),
        "double": (256, 2),
        "Float16": (256, 2),
        "BFloat16": (256, 2),
    },
    "SecondDigits": {"float": (512, 2), "double": (512, 2)},
    "Selection": {"float": (512, 2), "double": (512, 2)},
    "ChannelSum": {"float": (256, 2), "double": (256, 2)},
    "EachChannel": {"float": (256, 4), "double": (256, 4)},
    "Normalise": {"float": (256, 4), "double": (256, 4)},
    "Summarise": {"float": (256, 4), "double": (256, 4)},
}
OCCUPANCY["Fold"] = OCCUPANCY["Statistics"]


@pytest.fixture(scope="module", params=["sm_80", "sm_90"])
def kernels(request):
    library = _library._find(_library.CUDA_LIBRARY)
    if library is None:
        pytest.skip("this build has no CUDA library (no nvcc)")
    if machine_code.cuobjdump() is None:
        pytest.skip("no cuobjdump: neither a CUDA toolkit nor Triton's wheel")
    found = machine_code.read(library, request.param)
    if not found:
        pytest.skip(f"the CUDA library holds no code for {request.param}")
    return {name: code for name, code in found.items() if "cub::" not in name}


def named(kernels, start):
    found = [code for name, code in kernels.items() if name.startswith(start)]
    assert found, f"no kernel {start}: {sorted(kernels)}"
    return found


def fits(code, threads, blocks):
    """Whether a multiprocessor has registers for that many blocks."""
    given = -(-code.registers // 8) * 8  # in units of 8
    return given * threads * blocks <= REGISTERS


def hot_loop(code):
    """The innermost loop that does most of the loading."""
    loops = [loop for loop in code.inner_loops() if code.count("LDG", loop) >= 4]
    assert loops, f"{code.name} has no loop of four loads"
    return max(loops, key=lambda loop: loop[1] - loop[0])


def test_every_kernel_is_there(kernels):
    for kind in ("Statistics", "Fold"):
        for element in TYPES:
            for layout in LAYOUTS:
                assert f"{kind}<{element},{layout}>" in kernels
    for name in (
        "ComposeItem<float>",
        "ComposeItem<half>",
        "NoiseItem<float>",
        "NoiseItem<double>",
        "Pipeline",
    ):
        assert name in kernels


def test_no_local_memory(kernels):
    for code in kernels.values():
        assert (code.stack, code.local, code.count("LDL|STL")) == (0, 0, 0), code.name


def test_registers_leave_room_for_the_blocks_that_the_model_counts_on(kernels):
    for kernel, elements in OCCUPANCY.items():
        for element, (threads, blocks) in elements.items():
            for code in named(kernels, f"{kernel}<{element}"):
                assert fits(code, threads, blocks), (code.name, code.registers)
    assert fits(kernels["Pipeline"], 256, 2)


@pytest.mark.parametrize("kind", ["Statistics", "Fold"])
@pytest.mark.parametrize("layout", ["planes", "interleaved"])
def test_statistics_read_sixteen_bytes_four_at_a_time(kernels, kind, layout):
    for element in TYPES:
        code = kernels[f"{kind}<{element},{layout}>"]
        loop = hot_loop(code)
        assert code.count(r"LDG.*\.128", loop) == code.count("LDG", loop) == 4
        body = (loop[0], loop[1] - 2)  # sm_80 may leave a loop by a call
        assert code.count(r"STG|LDL|STL|ATOM|RED\b|MUFU|BAR\b|CALL", body) == 0


@pytest.mark.parametrize(
    ("element", "values", "most"), [("float", 16, 165), ("Float16", 32, 320), ("BFloat16", 32, 325)]
)
def test_statistics_spend_eight_operations_on_a_value(kernels, element, values, most):
    code = kernels[f"Statistics<{element},planes>"]
    loop = hot_loop(code)
    assert code.count("FADD|FMUL", loop) == 8 * values
    assert code.count("FFMA", loop) == 0  # contraction would change the bits
    assert loop[1] - loop[0] + 1 <= most


def test_statistics_of_a_pipeline_have_six_loads_in_flight(kernels):
    code = kernels["Pipeline"]
    (loop,) = [loop for loop in code.inner_loops() if code.count(r"LDG\.E\.EF\.128", loop) == 8]
    loads = [i for i in range(*loop) if code.instructions[i].startswith("LDG.E.EF.128")]
    assert len(loads) == code.count("LDG", loop) == 8
    assert loads[5] - loop[0] <= 32  # the other two where registers come free
    assert code.count("FADD|FMUL", loop) == 8 * 32
    assert loop[1] - loop[0] + 1 <= 310


def test_what_a_pipeline_reads_back_comes_past_the_l1_cache(kernels):
    """Its loads are of the stack, streaming, or of what other blocks stored: strong ones."""
    code = kernels["Pipeline"]
    weak = [op for op in code.instructions if re.match(r"LDG\.E(\.128)?$", op)]
    # The settled sums of more samples than a run, which the thread itself has stored.
    assert weak == 4 * ["LDG.E.128"]
    assert code.count(r"LDG\.E\.128\.STRONG") >= 3  # m2 and abssum, and the map for min-max


def test_statistics_store_sixteen_bytes(kernels):
    for element in TYPES:
        assert kernels[f"Statistics<{element},planes>"].count(r"STG.*\.128") >= 2


def test_selection_has_eight_loads_in_flight(kernels):
    for element in ("float", "double"):
        for code in (*named(kernels, f"Selection<{element}"), kernels[f"SecondDigits<{element}>"]):
            runs = code.runs("LDG", until=r"BAR|EXIT|ATOM|RED")
            least = 2 if code.name.startswith("Selection") else 1
            assert sum(run >= 8 for run in runs) >= least, (code.name, runs)


def test_maps_are_read_and_written_in_sixteen_bytes(kernels):
    for element, lanes in (("float", 4), ("double", 2)):
        for together in (1, 8):
            code = kernels[f"ChannelSum<{element},{lanes},{together},false>"]
            assert code.count(r"LDG.*\.128") >= 2
            assert code.count(r"STG.*\.128") >= 1
        code = kernels[f"Normalise<{element},{lanes},false>"]
        assert code.count(r"LDG.*\.128") == code.count(r"STG.*\.128") == 1


@pytest.mark.parametrize(("element", "store"), [("float", r"\.128"), ("half", r"\.64")])
def test_compose_moves_four_neighbours_at_once(kernels, element, store):
    code = kernels[f"ComposeItem<{element}>"]
    assert code.count(r"LDG.*\.128") >= 6  # ranks and two sources, planar and channels_last
    assert code.count(f"STG.*{store}") >= 2


def test_noise_stores_sixteen_bytes(kernels):
    for element in ("float", "double"):
        assert kernels[f"NoiseItem<{element}>"].count(r"STG.*\.128") >= 4


@pytest.mark.parametrize(("element", "most"), [("float", 225), ("double", 235)])
def test_four_normals_take_few_instructions(kernels, element, most):
    """The loop of a thread over samples, for planes: Philox, two pairs of Box-Muller, one store."""
    code = kernels[f"NoiseItem<{element}>"]
    stores = 1 if element == "float" else 2
    planar = [
        loop
        for loop in code.inner_loops()
        if code.count(r"STG.*\.128", loop) == stores and code.count("MUFU.RSQ", loop) == 2
    ]
    assert len(planar) == 1
    (loop,) = planar
    assert loop[1] - loop[0] + 1 <= most
    assert code.count("CALL", loop) == 0
    assert 18 <= code.count("IMAD.WIDE", loop) <= 22  # ten rounds of two products


@pytest.fixture(scope="module")
def model():
    path = ROOT / "csrc" / "cuda" / "model.py"
    spec = importlib.util.spec_from_file_location("gag_fast_cuda_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


class TestModel:
    def test_grids_are_those_of_the_kernels(self, model, emulation):
        """The launches of a call, as the emulation counts them."""
        device = dataclasses.replace(model.DEVICES["h100"], multiprocessors=4)
        for size, percents in ((96, 1), (150, 1), (150, 10), (150, 12)):
            case = model.Case(batch=2, samples=2, height=size, width=size, percents=percents)
            p = [i * 8.0 for i in range(1, percents + 1)]
            emulation.guided_absgrad(torch.randn(2, 2, 3, size, size), p)
            assert len(model.kernels(case, device)) == emulation.report.launches

    def test_the_pipeline_is_taken_where_the_kernels_take_it(self, model, emulation):
        device = dataclasses.replace(model.DEVICES["h100"], multiprocessors=1)
        for batch in (11, 12):
            case = model.Case(batch=batch, samples=2, channels=1, height=96, width=88)
            emulation.guided_absgrad(torch.randn(batch, 2, 1, 96, 88), [85.0], run=Run(0, 1))
            assert model.takes_pipeline(case, device) == (emulation.report.launches == 1)

    def test_a_call_takes_longer_than_its_bytes_and_scales_with_them(self, model):
        for device in model.DEVICES.values():
            before = 0.0
            for batch in (1, 8, 64, 256):
                case = model.Case(batch=batch)
                stack = case.rows * case.pixels * case.samples * case.element
                seconds = model.call_seconds(case, device)
                assert seconds > max(before, stack / device.bytes_per_s)
                assert model.pipeline(case, device).seconds > stack / device.bytes_per_s
                before = seconds

    def test_it_says_that_it_is_a_model_and_compares(self, model):
        case = model.Case()
        text = model.report(model.DEVICES["h100"], (case,), {case.name: 400.0})
        assert "modelled, not measured" in text
        assert "400.0" in text
