"""ONNX Runtime on CUDA without a device: which graph, which stream, in which order."""

import contextlib
from collections import Counter

import pytest
import torch

import gag_fast
from gag_fast._errors import ClassifierError
from gag_fast.classifier import batch_size, sessions
from gag_fast.classifier.ahead import prepared_ahead, uploaded
from gag_fast.classifier.graphs import GraphLane
from gag_fast.classifier.lanes import Backend, Lane
from gag_fast.metrics import evaluation
from tests.scoring.scoring_models import batch

CPU = torch.device("cpu")


class Machine:
    """Streams that note what is queued on them, one after another, in the order of the host."""

    def __init__(self, monkeypatch):
        self.log = []
        self.current = Stream(self, "caller")
        monkeypatch.setattr(torch.cuda, "stream", self.entered)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: Stream(self, "beside"))

    @contextlib.contextmanager
    def entered(self, stream):
        outer, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = outer

    def note(self, what):
        self.log.append((self.current.name, what))


class Stream:
    """The part of torch.cuda.Stream that a session uses."""

    device = CPU

    def __init__(self, machine, name):
        self.machine, self.name = machine, name

    def wait_stream(self, other):
        self.machine.log.append((self.name, f"waits for {other.name}"))

    def wait_event(self, event):
        self.machine.log.append((self.name, f"waits for {event}"))

    def record_event(self):
        return f"event of {self.name} at {len(self.machine.log)}"


class Binding:
    def bind_input(self, name, device, index, dtype, shape, pointer):
        self.input = (pointer, shape)

    def bind_output(self, name, device, index, dtype, shape, pointer):
        self.output = (pointer, shape)


class Session:
    """An InferenceSession that keeps ONNX Runtime's rule of captured graphs.

    A graph is captured once for an id and replays the addresses of that moment, whatever is bound.
    """

    class Name:
        name = "x"

    def __init__(self, machine, graphs):
        self.machine, self.graphs = machine, graphs
        self.captured = {}
        self.runs = Counter()

    def get_provider_options(self):
        return {"CUDAExecutionProvider": {"enable_cuda_graph": str(int(self.graphs))}}

    def get_inputs(self):
        return [self.Name]

    get_outputs = get_inputs

    def io_binding(self):
        return Binding()

    def run_with_iobinding(self, binding, options):
        if self.graphs:
            number = options.get_run_config_entry("gpu_graph_id")
            bound = (binding.input, binding.output)
            assert self.captured.setdefault(number, bound) == bound, "replays freed buffers"
        self.machine.note("forward")


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def cuda_session(machine, graphs=True):
    return sessions.CudaSession(Session(machine, graphs), 5, Stream(machine, "lanes"))


def run(backend, lanes, jobs=2):
    backend.drive(lanes, jobs, lambda buffer, job: len(buffer), lambda scores, job: None)


def test_the_mock_knows_what_a_graph_id_is_for(machine):
    backend = cuda_session(machine)
    session, shape = backend.session, (3, 8, 8)
    first, second = (sessions._BoundLane(session, b, shape, 5, CPU, True) for b in (2, 4))
    second.options = first.options
    first.run(2)
    with pytest.raises(ClassifierError, match="freed buffers"):
        second.run(4)


def test_every_lane_has_a_graph_of_its_own(machine, monkeypatch):
    backend = cuda_session(machine)
    monkeypatch.setattr(batch_size, "_SECONDS", 0.0)
    batch_size.measure(backend, (3, 8, 8))
    run(backend, backend.open(8, (3, 8, 8)))
    run(backend, backend.open(8, (3, 16, 16)))
    assert len(backend.session.captured) >= len(batch_size.CPU_CANDIDATES[:3]) + 2
    assert "-1" not in backend.session.captured


def test_a_graph_with_several_inputs_has_one_too_and_a_new_one_for_other_rows(machine):
    backend = cuda_session(machine)
    lanes = [
        GraphLane(backend.session, {"images": torch.zeros(4, 2)}, {"scores": torch.zeros(4, 3)})
        for _ in range(2)
    ]
    for lane in lanes:
        lane.run(4)
        lane.run(2)
        lane.run(2)
    assert len(backend.session.captured) == 2 * len(lanes)


@pytest.mark.parametrize("name", ["enable_cuda_graph", "trt_cuda_graph_enable"])
@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("True", True), ("0", False), ("False", False)]
)
def test_whether_a_session_captures(name, value, expected):
    class Some:
        def get_provider_options(self):
            return {"CUDAExecutionProvider": {name: value}, "CPUExecutionProvider": {}}

    assert sessions.captures(Some()) is expected


def test_a_real_session_captures_nothing(small_clf):
    assert not sessions.captures(small_clf.backend.session)
    assert sessions.uncaptured().get_run_config_entry("gpu_graph_id") == "-1"


def test_without_graphs_no_id_is_given(machine):
    backend = cuda_session(machine, graphs=False)
    (lane,) = backend.open(2, (3, 8, 8))
    with pytest.raises(RuntimeError, match="gpu_graph_id"):
        lane.options.get_run_config_entry("gpu_graph_id")


def test_the_callers_stream_waits_after_an_error_too(machine):
    backend = cuda_session(machine)
    lanes = backend.open(2, (3, 8, 8))

    def collect(scores, job):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        backend.drive(lanes, 1, lambda buffer, job: 2, collect)
    assert machine.log[-1] == ("caller", "waits for lanes")
    assert machine.current.name == "caller"


def test_the_measured_noise_is_queued_where_the_passes_are(machine, monkeypatch):
    normal = torch.Tensor.normal_

    def noted(self, *arguments, **options):
        machine.note("noise")
        return normal(self, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "normal_", noted)
    batch_size._rate(cuda_session(machine), 2, (3, 8, 8))
    assert [stream for stream, what in machine.log if what == "noise"] == ["lanes"]


class Queueing(Backend):
    """Queues like a GPU: what is driven is computed when the queue is drained."""

    queues, device = True, CPU

    def __init__(self):
        self.log = []
        self.marks = 0

    def open(self, batch: int, shape) -> list[Lane]:
        raise NotImplementedError

    def mark(self):
        self.marks += 1
        return self.marks

    def aside(self, after):
        self.log.append(f"aside after {after}")
        return contextlib.nullcontext()


def test_the_next_group_is_prepared_before_one_is_driven():
    backend = Queueing()
    for group in prepared_ahead(backend, range(4), lambda g: backend.log.append(f"make {g}") or g):
        backend.log.append(f"drive {group}")
    made = [line for line in backend.log if not line.startswith("aside")]
    assert made == [
        *("make 0", "make 1", "drive 0", "make 2", "drive 1", "make 3", "drive 2", "drive 3")
    ]


def test_memory_is_used_again_only_once_its_jobs_are_computed():
    """Mark g + 2 stands after what was queued for group g; 1 is where the inputs are there."""
    backend = Queueing()
    alive, freed_at = set(), {}

    class Group:
        def __init__(self, number):
            self.number = number
            alive.add(number)

        def __del__(self):
            alive.discard(self.number)
            freed_at[self.number] = backend.marks

    waits = []

    def make(number):
        after = int(backend.log[-1].rsplit(" ", 1)[1])
        # Groups whose memory this one may get: the stream waits until those are computed.
        assert all(after >= gone + 2 for gone in freed_at)
        waits.append(after)
        return Group(number)

    most = 0
    for group in prepared_ahead(backend, range(6), make):
        most = max(most, len(alive))
        number = group.number
        del group
        # The next group was made while the one before this was computed: it waited for neither.
        assert all(after <= max(1, number) for after in waits)
    assert most <= 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_groups(count):
    assert list(prepared_ahead(Queueing(), range(count), str)) == [str(i) for i in range(count)]


def test_on_the_cpu_nothing_is_prepared_ahead(small_clf):
    log = []
    for group in prepared_ahead(small_clf.backend, range(2), lambda g: log.append(g) or g):
        log.append(f"drive {group}")
    assert log == [0, "drive 0", 1, "drive 1"]


def test_groups_prepared_ahead_give_the_same_bits(small_clf, monkeypatch):
    images, maps, targets = batch(7)
    expected = gag_fast.evaluate(small_clf, images, maps, targets)
    monkeypatch.setattr(type(small_clf.backend), "queues", True)
    monkeypatch.setattr(evaluation, "_group_size", lambda *arguments: 2)
    found = gag_fast.evaluate(small_clf, images, maps, targets)
    for name in ("rcap", "dauc", "iauc"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_uploads_within_the_cpu_are_no_copies():
    values = torch.ones(3)
    assert uploaded(values, CPU) is values


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_graphs_give_the_scores_of_a_plain_session(small_onnx):
    images, maps, targets = batch(7)
    plain, graphs = (
        gag_fast.Classifier(small_onnx, "cuda", batch_size=4, cuda_graph=graph)
        for graph in (False, True)
    )
    for size in (3, 7, 5):
        torch.testing.assert_close(graphs(images[:size]), plain(images[:size]))
    found, expected = (gag_fast.evaluate(c, images, maps, targets) for c in (graphs, plain))
    torch.testing.assert_close(found.rcap, expected.rcap)
