"""What a model's output is: its probabilities, and the score that is differentiated."""

import pytest
import torch
from torch import nn

import gag_fast
from gag_fast import Classifier, GagFastError, ModelSpec, OnnxGradients, Preprocessing
from gag_fast.attribution.gradients import GradientEngine
from gag_fast.cli import main
from gag_fast.export import export_gradients
from gag_fast.scores import Reading, read
from tests.photographs import save_photo

IMAGES = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
SPEC = ModelSpec("net", Preprocessing(size=12), 5)


class Net(nn.Module):
    """Logits of a small network, `scale` times as far apart, and what `give` makes of them."""

    def __init__(self, give=lambda z: z, classes=5, scale=1.0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten())
            self.head = nn.Linear(800, classes)
        self.give, self.scale = give, scale

    def forward(self, x):
        return self.give(self.head(self.features(x)) * self.scale)


def against_the_rest(z):
    """Each class's logit less the logarithm of all others' exponentials."""
    rest = [z[:, [j for j in range(z.shape[1]) if j != k]].logsumexp(1) for k in range(z.shape[1])]
    return z - torch.stack(rest, 1)


KINDS = {
    "softmax": (lambda z: z.softmax(1), against_the_rest, 5),
    "softmax of two": (lambda z: z.softmax(1), lambda z: z - z.flip(1), 2),
    "sigmoids": (torch.sigmoid, lambda z: z, 5),
    "one sigmoid": (torch.sigmoid, lambda z: torch.cat([-z, z], 1), 1),
    "one sigmoid, [B]": (lambda z: z.sigmoid()[:, 0], lambda z: torch.cat([-z, z], 1), 1),
}
RAW = {"n": 4, "normalize": False, "fuse": False}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_of_probabilities_the_log_odds_are_differentiated(kind, scale):
    give, logits, classes = KINDS[kind]
    targets = [0, 1, 1]
    methods = ["smoothgrad", "guided_absgrad", "guided_backprop", "grad_cam", "guided_ig"]
    found = gag_fast.explain_many(Net(give, classes, scale), IMAGES, targets, methods, **RAW)
    exact = gag_fast.explain_many(Net(logits, classes, scale), IMAGES, targets, methods, **RAW)
    for method in methods:
        torch.testing.assert_close(found[method], exact[method], rtol=2e-3, atol=1e-3 * scale)


def test_where_the_probability_itself_has_no_gradient_left():
    sure = Net(lambda z: z.softmax(1), scale=80.0)
    x = IMAGES[:1].clone().requires_grad_()
    p = sure(x)
    assert p.max() == 1
    (lost,) = torch.autograd.grad(p.max(), x)
    assert lost.abs().max() < 1e-7
    found = gag_fast.explain(sure, IMAGES[:1], method="vanilla", **RAW)
    exact = gag_fast.explain(Net(against_the_rest, scale=80.0), IMAGES[:1], method="vanilla", **RAW)
    assert found.max() > 10
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_left_it_says_so():
    with pytest.warns(UserWarning, match="zero everywhere.*the score not saturated"):
        found = gag_fast.explain(Net(lambda z: z.softmax(1), scale=1e4), IMAGES, method="vanilla")
    assert not found.any()


def test_a_single_gradients_map_is_that_of_the_probability():
    net = Net(lambda z: z.softmax(1))
    x = IMAGES.clone().requires_grad_()
    (grad,) = torch.autograd.grad(net(x)[:, 2].sum(), x)
    expected = grad.abs().sum(1).flatten(1)
    found = gag_fast.explain(net, IMAGES, 2, "vanilla").flatten(1)
    expected = expected - expected.amin(1, keepdim=True)
    torch.testing.assert_close(found, expected / expected.amax(1, keepdim=True), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        ([0.8, 0.1, 0.1], "probabilities", [4.0, 1 / 9, 1 / 9]),
        ([1 - 2e-9, 1e-9, 1e-9], "probabilities", [0.5e9, 1e-9, 1e-9]),
        ([0.75, 0.5], "sigmoid", [3.0, 1.0]),
    ],
)
def test_log_odds_by_hand(row, kind, expected):
    found = Reading(kind, True).logits(torch.tensor([row]))
    torch.testing.assert_close(found, torch.tensor([expected]).log(), rtol=1e-6, atol=1e-6)


def test_log_odds_are_finite_at_the_ends():
    for kind in ("probabilities", "sigmoid"):
        p = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
        odds = Reading(kind, True).logits(p)
        odds.sum().backward()
        assert odds.isfinite().all()
        assert p.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_gradient_is_of_the_same_score(kind, tmp_path):
    give, _, classes = KINDS[kind]
    net = Net(give, classes).eval()
    spec = ModelSpec("net", SPEC.preprocessing, max(2, classes))
    export_gradients(net, tmp_path / "g.onnx", spec, batches=(1, 2), providers=["cpu"])
    source = OnnxGradients(tmp_path / "g.onnx", "cpu")
    assert source.num_classes == spec.num_classes
    targets = torch.tensor([0, 1, 1])
    with GradientEngine(net, fuse=False) as engine:
        expected = engine.gradients(IMAGES, targets)
    torch.testing.assert_close(source(IMAGES, targets), expected, rtol=1e-4, atol=1e-5)
    found = gag_fast.explain(source, IMAGES, targets, "absgrad", n=3)
    expected = gag_fast.explain(net, IMAGES, targets, "absgrad", n=3, fuse=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


# ---- what is declared


def test_classes_that_are_independent_must_be_declared_where_the_model_gives_logits():
    net, z = Net(), Net()(IMAGES)
    undeclared = Classifier.from_torch(net, SPEC)
    torch.testing.assert_close(undeclared(IMAGES), z.softmax(1), rtol=0, atol=1e-6)
    assert "logits)" in repr(undeclared)  # it says what it took them for
    declared = Classifier.from_torch(net, SPEC, score="sigmoid")
    torch.testing.assert_close(declared(IMAGES), z.sigmoid(), rtol=0, atol=1e-6)
    assert "logits of sigmoids" in repr(declared)


def test_a_declaration_reaches_explain():
    with pytest.raises(GagFastError, match=r"declared as probabilities, .* write score='logits'"):
        gag_fast.explain(Net(), IMAGES, score="probabilities")
    with pytest.raises(GagFastError, match=r"declared as logits, .* write score='probabilities'"):
        gag_fast.explain(Net(lambda z: z.softmax(1)), IMAGES, score="logits")
    # Logits that lie in [0, 1] even for images far away are taken for sigmoids, unless declared.
    narrow = Net(lambda z: 0.5 + z / 100)
    assert read(narrow(IMAGES), None, lambda: narrow(IMAGES * 30)).kind == "sigmoid"
    declared = gag_fast.explain(narrow, IMAGES, 1, "smoothgrad", score="logits", **RAW)
    plain = gag_fast.explain(Net(), IMAGES, 1, "smoothgrad", **RAW)
    torch.testing.assert_close(declared, plain / 100)
    undeclared = gag_fast.explain(narrow, IMAGES, 1, "smoothgrad", **RAW)
    torch.testing.assert_close(undeclared, 4 * declared, rtol=0.1, atol=0)  # 1 / (p (1 - p))
    with pytest.raises(ValueError, match=r"one of logit, nll, probability \(what is diff.*'odds'"):
        gag_fast.explain(Net(), IMAGES, score="odds")
    with GradientEngine(Net()) as engine, pytest.raises(TypeError, match="score: said to the engi"):
        gag_fast.explain(engine, IMAGES, score="sigmoid")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("softmax", "read as probabilities;"),
        ("sigmoids", "read as sigmoid;"),
        ("one sigmoid", "read as sigmoid, one output for two classes;"),
    ],
)
def test_what_is_found_is_said(kind, said, caplog):
    give, _, classes = KINDS[kind]
    with caplog.at_level("INFO", "gag_fast"):
        gag_fast.explain(Net(give, classes), IMAGES, 1, "vanilla")
    assert f"the model's scores are {said}" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "gag_fast"):
        gag_fast.explain(Net(), IMAGES, 1, "vanilla")
    assert "scores are read" not in caplog.text


def test_what_is_differentiated_beside_what_the_model_gives():
    """The negative logarithm of a sigmoid's probability, of a model that gives its logits."""
    net = Net()
    with GradientEngine(net, score="sigmoid", fuse=False) as engine:
        found = engine.gradients(IMAGES, torch.tensor([1, 2, 3]), score="nll")
    x = IMAGES.clone().requires_grad_()
    p = net(x).sigmoid().gather(1, torch.tensor([[1], [2], [3]]))
    (expected,) = torch.autograd.grad(-p.log().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def many_labels():
    """Logits of classes that are independent of one another."""
    net = Net()
    net.head.weight.data.zero_()
    net.head.bias.data.copy_(torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0]))
    net.preprocessing = {"size": 12}
    return net


@pytest.mark.parametrize(("score", "printed"), [(None, "0.636"), ("sigmoid", "0.881")])
def test_the_command_line_declares_it(score, printed, tmp_path, capsys):
    words = [
        *("explain", str(save_photo(tmp_path / "a.png", 1)), "--n", "2", "--out", str(tmp_path)),
        *("--model", "tests.models.test_scores:many_labels", "--device", "cpu"),
    ]
    assert main([*words, *(() if score is None else ("--score", score))]) == 0
    assert f"class 0  {printed}" in capsys.readouterr().out
