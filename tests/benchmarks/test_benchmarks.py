"""The benchmarks: equal twins, a gate that can fail, a README that quotes its files."""

import importlib
import json
import re

import pytest
import torch

import gag_fast
from benchmarks import competitors, gate, machine, readme, scaling
from benchmarks.suites import SUITES, aggregation
from benchmarks.timing import Timing, interleave, paired_ratio
from tests import ROOT


@pytest.fixture(scope="module")
def tieless_grads():
    # 33 x 31 pixels: 85/100 * 1022 is no whole rank, where the authors' strict > equals >=.
    return torch.randn(2, 6, 3, 33, 31, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "competitor",
    [
        competitors.plain_torch,
        lambda g: competitors.authors_recipe(list(g.unbind(1))),
        lambda g: torch.from_numpy(competitors.numpy_percentile(g.numpy())),
    ],
    ids=["plain torch", "authors' recipe", "NumPy"],
)
def test_competitors_compute_the_same_map(tieless_grads, competitor):
    ours = gag_fast.guided_absgrad(tieless_grads, p=85)
    torch.testing.assert_close(competitor(tieless_grads), ours, rtol=1e-4, atol=1e-5)


def test_a_group_yields_its_names_ours_first():
    for group in [aggregation.one_percent(aggregation.Stack(1, 2, 16), slow=False)]:
        assert tuple(group.setup()) == group.names
        assert group.names[0] == "gag_fast"


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_lists_its_groups(suite):
    groups = importlib.import_module(f"benchmarks.suites.{suite}").groups()
    names = [group.name for group in groups]
    assert names
    assert len(set(names)) == len(names)


def test_interleaving_draws_the_order_of_each_round_and_stops_at_its_budget():
    order = []
    cases = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = interleave(cases, rounds=20, warmup=1)
    rounds = {tuple(order[i : i + 3]) for i in range(0, len(order), 3)}
    assert {tuple(sorted(taken)) for taken in rounds} == {("a", "b", "c")}
    assert len(rounds) == 6
    assert {name: len(t.seconds) for name, t in times.items()} == {"a": 20, "b": 20, "c": 20}
    assert len(interleave(cases, rounds=1000, budget=0.0)["a"].seconds) == 3


def test_paired_ratio_by_hand():
    ratio, low, high = paired_ratio(Timing((2.0, 4.0, 6.0, 8.0)), Timing((1.0, 2.0, 2.0, 2.0)))
    assert ratio == 5.0 / 2.0
    assert (low, high) == (2.0, 3.0)


def test_slope_of_a_known_power():
    assert scaling.slope({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2.0)


@pytest.mark.parametrize("level", ["avx512", "avx2", "baseline"])
def test_every_gate_case_has_a_bound_and_every_bound_a_case(level):
    assert set(json.loads(gate.BOUNDS.read_text())["typical"][level]) == set(gate.CASES)


def test_the_gate_fails_when_a_kernel_is_twice_as_slow(monkeypatch, capsys):
    monkeypatch.setattr(gate, "CASES", {"compose": gate.compose, "streaming": gate.streaming})
    assert gate.check(handicap=2, rounds=15) == ["compose", "streaming"]
    assert "OVER" in capsys.readouterr().out


def test_gate_command_exits_with_one_on_a_planted_slow_down(monkeypatch, capsys):
    monkeypatch.setattr(gate, "CASES", {"compose": gate.compose})
    monkeypatch.setenv("GAG_FAST_GATE_HANDICAP", "2")
    assert gate.main([]) == 1


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_a_page_s_tables_equal_the_results_files(page):
    text = page.read_text()
    folder = re.search(r"<!-- benchmarks:begin (\S+) -->", text).group(1)
    assert readme.replaced(text, ROOT / folder, readme.PAGES[page]) == text


def test_every_table_stands_under_the_stamp_of_its_own_run(tmp_path):
    row = {"case": "ours", "ms": 1.0, "times_ours": 1.0}
    group = {"group": "job", "fastest": "ours", "rows": [row], "notes": ["a note"]}
    for suite, commit in (("aggregation", "aaa"), ("onnx_gradients", "bbb"), ("export", "aaa")):
        stamp = {"device": "D", "threads": 1, "versions": {}, "commit": commit, "date": "today"}
        (tmp_path / f"{suite}.json").write_text(json.dumps({"stamp": stamp, "groups": [group]}))
    text = readme.section(tmp_path)
    assert re.findall(r"commit (\w+)", text) == ["aaa", "bbb", "aaa"]
    assert text.count("| | *a note* | | |") == 3


def test_the_readme_has_six_rows_which_a_results_file_has():
    rows = readme.brief(ROOT / "benchmarks" / "results" / "amd-epyc-2-cores").splitlines()[4:]
    assert len([row for row in rows if row]) == 6 == len(readme.BRIEF)


def test_results_say_where_they_come_from():
    for path in (ROOT / "benchmarks" / "results").rglob("*.json"):
        stamp = json.loads(path.read_text())["stamp"]
        assert {"device", "versions", "commit", "date"} <= set(stamp), path


def test_device_name_is_a_folder_name():
    assert re.fullmatch(r"[a-z0-9-]+", machine.device_name())


def test_the_comparison_with_quantus_is_of_equal_work():
    """As many pictures, to one: ours scores the whole image too."""
    quantus = pytest.importorskip("quantus")
    from gag_fast.classifier import Classifier
    from gag_fast.metrics import evaluate
    from tests.scoring.scoring_models import SmallNet, batch

    images, maps, targets = batch(1)
    shown = []

    class Counted(SmallNet):
        def forward(self, x):
            shown.append(len(x))
            return super().forward(x)

    module = Counted().eval()
    values = 72  # of 3 x 576
    pictures = 3 * 576 // values
    clf = Classifier.from_callable(SmallNet().eval(), num_classes=5, mean=(0.5,), std=(0.25,))
    ours = evaluate(
        clf,
        images,
        maps,
        targets,
        "dauc",
        gag_fast.preset("rise", step_unit="count", step=pictures),
    )
    metric = quantus.PixelFlipping(
        features_in_step=values,
        disable_warnings=True,
        normalise=False,
        perturb_baseline="black",
    )
    theirs = metric(
        model=module,
        x_batch=images.numpy(),
        y_batch=targets.numpy(),
        a_batch=maps[:, None].numpy(),
        device="cpu",
    )
    assert sum(shown) == len(theirs[0]) == pictures == ours.forwards - 1
