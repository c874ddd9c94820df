"""progress=: a function is told of everything, in order, to the end; True draws, False does not."""

import sys
from types import SimpleNamespace

import pytest
import torch

import gag_fast
from gag_fast._progress import Progress
from tests.tiny_classifier import build


class Told(list):
    """What a function was told."""

    def __call__(self, done, total):
        self.append((done, total))

    def check(self, total):
        assert self[0] == (0, total)
        assert self[-1] == (total, total)
        counts = [done for done, _ in self]
        assert counts == sorted(counts)
        assert {t for _, t in self} == {total}


@pytest.mark.parametrize(
    ("method", "options", "total"),
    [
        ("guided_absgrad", {}, 15),
        ("vanilla", {}, 3),
        ("guided_ig", {}, 15),
        ("integrated_gradients", {"steps": 4, "baseline": "uniform", "baselines": 2}, 24),
        ("smoothgrad/blur_ig", {}, 15),
        ("guided_backprop", {}, 3),
        ("grad_cam", {}, 3),
    ],
)
def test_explain_counts_gradients(images, method, options, total):
    told = Told()
    maps = gag_fast.explain(
        build(), images, [0, 1, 2], method, n=5, batch_size=2, progress=told, **options
    )
    told.check(total)
    assert torch.equal(
        maps, gag_fast.explain(build(), images, [0, 1, 2], method, 5, batch_size=2, **options)
    )


def test_methods_that_share_gradients_count_them_once(images):
    told = Told()
    names = ("guided_absgrad", "vargrad", "vanilla")
    gag_fast.explain_many(build(), images, 0, names, n=5, progress=told)
    told.check(3 * 5 + 3)


@pytest.mark.parametrize("metrics", ["gini", ("rcap", "dauc"), "all"])
@pytest.mark.parametrize("max_bytes", [1, 2**30])
def test_evaluate_counts_maps(images, metrics, max_bytes):
    told, model = Told(), build()
    clf = gag_fast.Classifier.from_torch(model, batch_size=4)
    maps = torch.rand(3, 2, 16, 16)
    fewer = gag_fast.preset("paper", mufidelity_samples=4, randomise_groups=1, blur_kernel=5)
    gag_fast.evaluate(
        *(clf, images, maps, [0, 1, 2], metrics, fewer),
        model=model,
        explain="vanilla",
        max_bytes=max_bytes,
        progress=told,
    )
    told.check(6)
    assert len(told) > 2 or (metrics == "gini" and max_bytes > 1)


def test_true_prints_lines_where_there_is_no_terminal(images, capsys):
    gag_fast.explain(build(), images, 0, n=5, progress=True)
    assert "15/15 gradients" in capsys.readouterr().err
    gag_fast.explain(build(), images, 0, n=5)
    assert capsys.readouterr().err == ""


def test_a_notebook_gets_tqdms_bar(monkeypatch, capsys):
    """Without ipywidgets that is one of text, and nothing is said of what is missing."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with Progress(4, "maps") as progress:
        assert progress._bar is not None
        progress.add(4)
        assert progress._bar.n == 4
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize("given", [1, "yes", None])
def test_what_is_no_progress(images, given):
    with pytest.raises(TypeError, match=r"progress must be True, False or a function \(done,"):
        gag_fast.explain(build(), images, 0, progress=given)
