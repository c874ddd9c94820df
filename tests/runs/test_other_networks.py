"""--onnx beside --model: the same network, or a refusal with both numbers."""

import re

import onnx
import pytest
import torch
from torch import nn

from gag_fast import Classifier, GagFastError, ModelSpec, Preprocessing, load_images, run
from gag_fast.cli import main
from gag_fast.data import open_dataset
from gag_fast.export import export_onnx
from gag_fast.models import state_hash
from gag_fast.runs.folder import RunFolder
from gag_fast.runs.same_network import (
    DIFFERENCE,
    check_same_network,
    difference,
    first_images,
)
from tests.photographs import save_photo

P = Preprocessing(size=16)


def net(seed, scale=1.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)
        )
    made[-1].weight.data.mul_(scale)
    return made.eval()


def spec_of(module):
    return ModelSpec("net", P, 4, weights_sha256=state_hash(module))


@pytest.fixture
def files(tmp_path):
    def write(module, metadata=True):
        path = tmp_path / "x.onnx"
        export_onnx(module, spec_of(module), path, batches=(1, 2))
        if not metadata:
            model = onnx.load(str(path))
            del model.metadata_props[:]
            onnx.save(model, str(path))
        return path

    return write


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_same_and_another(files, metadata, scale):
    mine = net(0, scale)
    path = files(net(0, scale), metadata)
    check_same_network(Classifier(path, "cpu", batch_size=2), mine, spec_of(mine))
    path = files(net(1, scale), metadata)
    with pytest.raises(GagFastError, match=r"x\.onnx is not the network net: .* gives 0\.\d+, net"):
        check_same_network(Classifier(path, "cpu", batch_size=2), mine, spec_of(mine))


def test_in_half_precision_it_is_the_same(files):
    mine = net(0)
    clf = Classifier(files(net(0), False), "cpu", batch_size=2, fp16=True)
    check_same_network(clf, mine, spec_of(mine))


def test_on_the_first_images_that_can_be_decoded(files, tmp_path):
    for i in range(6):
        save_photo(tmp_path / "data" / f"{i}.png", i)
    (tmp_path / "data" / "0.png").write_bytes(b"no picture")
    mine = net(0, 30.0)
    spec = spec_of(mine)
    pictures = first_images(open_dataset(tmp_path / "data"), spec)
    assert pictures.names == ["1.png", "2.png", "3.png", "4.png"]
    expected = load_images([tmp_path / "data" / name for name in pictures.names], spec)
    torch.testing.assert_close(pictures.images, expected)
    path = files(net(1, 30.0), False)
    clf = Classifier(path, "cpu", batch_size=2)
    with pytest.raises(GagFastError, match=r"for class \d of \d\.png it gives") as caught:
        check_same_network(clf, mine, spec, lambda: pictures)
    numbers = re.search(
        r"class (\d) of (\d)\.png it gives ([\d.e-]+), net ([\d.e-]+);", str(caught.value)
    )
    best, row = int(numbers[1]), pictures.names.index(f"{numbers[2]}.png")
    assert float(numbers[3]) == pytest.approx(float(clf(expected)[row, best]), rel=1e-3)
    ours = mine(expected).softmax(1)[row, best].item()
    assert float(numbers[4]) == pytest.approx(ours, rel=1e-3)
    same = files(net(0, 30.0), False)
    said = check_same_network(Classifier(same, "cpu", batch_size=2), mine, spec, lambda: pictures)
    assert re.search(r"gives what net gives for 4 images \(apart by 0?\.?\d", said)


def test_without_any_image_that_can_be_decoded_it_is_noise(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "0.png").write_bytes(b"no picture")
    pictures = first_images(open_dataset(tmp_path / "data"), spec_of(net(0)))
    assert pictures.names == [f"noise in blocks of {n}" for n in (1, 4, 16, 64)]
    assert pictures.images.shape == (4, 3, 16, 16)


def test_two_networks_that_agree_on_what_is_right_are_two():
    """Both are sure of the class, by 99 and 98 %; the others tell them apart."""
    a = torch.tensor([[0.99, 0.006, 0.003, 0.001]])
    b = torch.tensor([[0.98, 0.001, 0.002, 0.017]])
    assert difference(a, b) > DIFFERENCE
    assert difference(a, a.half().float()) < 0.01


def test_the_difference():
    a = torch.tensor([[0.5, 0.25, 0.25]])
    assert difference(a, a) == 0
    assert difference(a, a.flip(1)) == pytest.approx(1.5)


def of_mine():
    """`package.module:function` for the command line."""
    module = net(0, 30.0)
    module.preprocessing = P
    return module


@pytest.mark.parametrize("metadata", [True, False])
def test_the_command_line_refuses_another_network(files, tmp_path, capsys, metadata):
    for i in range(3):
        save_photo(tmp_path / "data" / f"{i}.png", i)
    words = [
        *("evaluate", str(tmp_path / "data"), "--model", f"{__name__}:of_mine", "--n", "2"),
        *("--methods", "vanilla", "--providers", "cpu", "--workers", "1"),
        *("--onnx", str(tmp_path / "x.onnx"), "--out"),
    ]
    files(net(1, 30.0), metadata)
    assert main([*words, str(tmp_path / "refused")]) == 2
    err = capsys.readouterr().err
    line = next(x for x in err.splitlines() if x.startswith("gag-fast: error:"))
    assert re.search(
        r"x\.onnx is not the network .*of_mine: for class \d of \d\.png it gives [\d.e-]+, "
        r".*of_mine [\d.e-]+; .* or insist with --trust-onnx",
        line,
    )
    assert main([*words, str(tmp_path / "trusted"), "--trust-onnx"]) == 0
    assert len(RunFolder(tmp_path / "trusted").read()) == 3
    files(net(0, 30.0), metadata)
    capsys.readouterr()
    assert main([*words, str(tmp_path / "same")]) == 0
    said = "has the weights of" if metadata else "gives what"
    assert said in capsys.readouterr().err


def of_tags():
    """Logits of independent classes."""
    module = of_mine()
    module.score = "sigmoid"
    return module


def test_a_file_of_independent_classes_is_read_as_the_model(files, tmp_path):
    save_photo(tmp_path / "data" / "0.png", 0)
    summary = run(
        tmp_path / "data",
        f"{__name__}:of_tags",
        "vanilla",
        tmp_path / "run",
        onnx=files(net(0, 30.0), False),
        providers="cpu",
        workers=1,
        quiet=True,
    )
    (row,) = RunFolder(summary.out).read().to_pylist()
    image = load_images(tmp_path / "data" / "0.png", P)
    z = net(0, 30.0)(image)[0].detach()
    assert row["target"] == int(z.argmax())
    assert row["confidence"] == pytest.approx(float(z.max().sigmoid()), abs=1e-6)
