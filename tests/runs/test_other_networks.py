"""--onnx beside --model: the same network, or a refusal with both numbers."""

import onnx
import pytest
import torch
from torch import nn

from gag_fast import Classifier, GagFastError, ModelSpec, Preprocessing
from gag_fast.export import export_onnx
from gag_fast.models import state_hash
from gag_fast.runs.same_network import check_same_network, difference

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


def test_the_difference():
    a = torch.tensor([[0.5, 0.25, 0.25]])
    assert difference(a, a) == 0
    assert difference(a, a.flip(1)) == pytest.approx(1.5)
