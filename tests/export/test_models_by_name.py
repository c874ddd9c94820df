"""Models by name: what is loaded, from which weights, and how the rest is refused."""

import re
import sys
import textwrap

import pytest
import torch
from torch import nn

from gag_fast.models import (
    ModelError,
    Preprocessing,
    load_model,
    model_names,
    state_hash,
)

CUSTOM = """
    import torch
    from torch import nn

    def plain():
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

    def described():
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
        model.preprocessing = {"size": 32, "mean": (0.5,), "std": (0.25,)}
        model.labels = ["cat", "dog"]
        return model

    def wrong_key():
        model = nn.Flatten()
        model.preprocessing = {"sise": 32}
        return model

    def feature_map():
        return nn.Conv2d(3, 4, 3)

    def crashes():
        return nn.Linear(5, 5)

    def number():
        return 3

    constant = 4
"""


@pytest.fixture
def custom(tmp_path, monkeypatch):
    """A module in the working directory, as a user's is."""
    (tmp_path / "my_models.py").write_text(textwrap.dedent(CUSTOM))
    monkeypatch.chdir(tmp_path)
    yield "my_models"
    sys.modules.pop("my_models", None)


def test_names():
    names = model_names()
    assert names[0] == "efficientnet_lite0"
    assert {"resnet50", "densenet161", "efficientnet_b0", "efficientnet_b7"} <= set(names)


@pytest.mark.parametrize(
    ("name", "size", "resize", "interpolation"),
    [("resnet50", 224, 232, "bilinear"), ("efficientnet_b0", 224, 256, "bicubic")],
)
def test_torchvision(name, size, resize, interpolation):
    module, spec = load_model(name, "none")
    p = spec.preprocessing
    assert (p.size, p.resize, p.interpolation, p.crop) == (size, resize, interpolation, True)
    assert spec.num_classes == 1000
    assert spec.labels[:2] == ("tench", "goldfish")
    assert spec.weights == "random, seed 0"
    assert not module.training
    again, other = load_model(name, "none")
    assert other.weights_sha256 == spec.weights_sha256 == state_hash(again)


def test_random_weights_leave_the_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_model("efficientnet_b0", "none")
    assert torch.equal(torch.rand(1), expected)


def test_lite0_is_the_pretrained_one():
    pytest.importorskip("efficientnet_lite_pytorch")
    _, spec = load_model("efficientnet_lite0")
    assert spec.weights == "pretrained"
    assert spec.weights_sha256.startswith("5ad152ff")
    assert spec.preprocessing == Preprocessing()
    assert spec.labels[504] == "coffee mug"


def test_lite0_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ModelError, match=r"pip install 'gag-fast\[demo\]'"):
        load_model("efficientnet_lite0")


def test_weights_file(tmp_path):
    module, spec = load_model("efficientnet_b0", "none")
    state = module.state_dict()
    state["classifier.1.weight"] = torch.ones(3, 1280)
    state["classifier.1.bias"] = torch.zeros(3)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}
    for name, content in (("plain.pt", state), ("wrapped.pth", wrapped)):
        path = tmp_path / name
        torch.save(content, path)
        loaded, found = load_model("efficientnet_b0", path)
        assert found.num_classes == 3
        assert found.labels is None  # three classes are not ImageNet's
        assert found.weights == name
        assert torch.equal(loaded.classifier[1].weight, torch.ones(3, 1280))
        assert found.weights_sha256 != spec.weights_sha256


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"nothing": torch.zeros(1)}, path)
    with pytest.raises(ModelError, match=r"w\.pt does not fit the model: .* is missing; .* more$"):
        load_model("efficientnet_b0", path)
    torch.save([1, 2], path)
    with pytest.raises(ModelError, match="holds a list, not a state dict"):
        load_model("efficientnet_b0", path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_model("efficientnet_b0", path)
    with pytest.raises(ModelError, match=r"there is no file nowhere\.pt"):
        load_model("efficientnet_b0", "nowhere.pt")


def test_weights_file_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    path = tmp_path / "evil.pt"
    torch.save({"x": Evil()}, path)
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_model("efficientnet_b0", path)


def test_function(custom):
    module, spec = load_model(f"{custom}:plain")
    assert isinstance(module, nn.Module)
    assert spec.num_classes == 7
    assert spec.preprocessing.size == 224
    assert spec.labels is None
    assert str(custom) not in sys.path


def test_function_that_says_how_images_are_made(custom):
    _, spec = load_model(f"{custom}:described")
    p = spec.preprocessing
    assert (p.size, p.resize, p.mean, p.std) == (32, 32, (0.5,), (0.25,))
    assert p.black == (-2.0,)
    assert spec.labels == ("cat", "dog")


def test_function_with_weights(custom, tmp_path):
    module, _ = load_model(f"{custom}:described")
    state = {k: torch.full_like(v, 0.5) for k, v in module.state_dict().items()}
    torch.save(state, tmp_path / "half.pt")
    loaded, spec = load_model(f"{custom}:described", tmp_path / "half.pt")
    assert all((p == 0.5).all() for p in loaded.parameters())
    assert spec.weights == "half.pt"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5", "unknown model 'resnet5'; known are efficientnet_lite0, "),
        ("resnet5", "package.module:function; did you mean resnet50?"),
        ("no_such_package:f", "cannot import 'no_such_package'"),
        ("my_models:nothing", "my_models has no function 'nothing'"),
        ("my_models:constant", "is a int, not a function"),
        ("my_models:number", "must return a torch.nn.Module, got int"),
        ("my_models:feature_map", "must give logits [B, K], got (1, 4, 222, 222)"),
        ("my_models:crashes", "fails on an input of shape (1, 3, 224, 224)"),
        ("my_models:wrong_key", "got {'sise': 32}"),
        (":f", "must be package.module:function"),
    ],
)
def test_wrong_names(custom, name, message):
    with pytest.raises(ModelError, match=re.escape(message)) as error:
        load_model(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": 300, "resize": 256},
        {"std": (0.2, 0.0, 0.2)},
        {"mean": (0.5,)},
        {"interpolation": "nearest"},
    ],
)
def test_wrong_preprocessing(values):
    with pytest.raises(ModelError):
        Preprocessing(**values)
