"""All methods, from explain through export and Classifier to evaluate, for models of every kind."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import gag_fast
from gag_fast import Classifier, GagFastError, ModelSpec, Preprocessing, load_images, load_model
from gag_fast.cli import main
from gag_fast.data import open_dataset
from gag_fast.export import ExportError, export_onnx
from gag_fast.runs.folder import RunFolder
from tests.photographs import save_photo

HOW = {"n": 2, "batch_size": 4}


def options_of(method, side):
    """What makes a method quick for images of so many pixels."""
    return {
        "blur_ig": {"max_sigma": 2.0},
        "rise": {"masks": 8},
        "occlusion": {"window": side // 3, "stride": side // 3},
        "kernel_shap": {"coalitions": 20, "segments": 3},
    }.get(method, {})


def refusal(method, module):
    """What a method says of a model that it cannot explain; None where it explains it."""
    kinds = {type(m).__name__ for m in module.modules()}
    if method == "legrad" and "VisionTransformer" not in kinds:
        return r"legrad knows the attention maps of .*, not those of a \w+$"
    return None


def rectifiers(module):
    """Whether it has modules that rectify, or calls the function, as Inception's layers do."""
    by_function = {"BasicConv2d"}
    return any(
        isinstance(m, (nn.ReLU, nn.ReLU6)) or type(m).__name__ in by_function
        for m in module.modules()
    )


def maps_by_every_method(module, images, targets):
    """method -> maps; every refusal and every warning is one that the rules have."""
    found = {}
    for method in gag_fast.methods():
        how = {**HOW, **options_of(method, images.shape[2])}
        if (words := refusal(method, module)) is not None:
            with pytest.raises(GagFastError, match=words) as caught:
                gag_fast.explain(module, images, targets, method, **how)
            assert "\n" not in str(caught.value)
            continue
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found[method] = gag_fast.explain(module, images, targets, method, **how)
        words = [str(one.message) for one in said if one.category is UserWarning]
        if method == "guided_backprop" and not rectifiers(module):
            assert [w for w in words if "guided_backprop met no rectifier" in w], words
        else:
            assert not [w for w in words if "rectifier" in w], words
    return found


class Net(nn.Module):
    """A convolutional network; `give` makes its output of its logits."""

    def __init__(self, channels=3, classes=5, give=lambda z: z):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU()
        )
        self.head = nn.Linear(8, classes)
        self.head.weight.data.mul_(8)
        self.give = give

    def forward(self, x):
        return self.give(self.head(self.layers(x).mean((2, 3))))


def small(give=lambda z: z, expected=lambda z: z.softmax(1), size=20, **sizes):
    """(module, spec, images, probabilities)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = Net(give=give, **sizes).eval()
        images = torch.randn(2, sizes.get("channels", 3), size, size)
    channels = sizes.get("channels", 3)
    spec = ModelSpec(
        "net",
        Preprocessing(size=size, mean=(0.5,) * channels, std=(0.25,) * channels),
        max(2, sizes.get("classes", 5)),
    )
    with torch.no_grad():
        logits = module.head(module.layers(images).mean((2, 3)))
    return module, spec, images, expected(logits)


def both(p):
    return torch.cat([1 - p, p], 1)


SMALL = {
    "one channel of 28": lambda: small(channels=1, size=28, classes=10),
    "two classes": lambda: small(classes=2),
    "one sigmoid": lambda: small(torch.sigmoid, lambda z: both(z.sigmoid()), classes=1),
    "one sigmoid, [B]": lambda: small(
        lambda z: z.sigmoid()[:, 0], lambda z: both(z.sigmoid()), classes=1
    ),
    "one logit": lambda: small(expected=lambda z: both(z.sigmoid()), classes=1),
    "sigmoids": lambda: small(torch.sigmoid, torch.sigmoid),
    "softmax inside": lambda: small(lambda z: z.softmax(1)),
    "a dict": lambda: small(lambda z: {"logits": z}),
    "a tuple": lambda: small(lambda z: (z, z.sum())),
}
NAMED = (
    *("resnet18", "vit_b_16", "swin_t", "convnext_tiny", "mobilenet_v3_small", "inception_v3"),
    "timm:resnet18",
)


def check(module, spec, images, expected, path, metrics=("rcap", "dauc", "iauc")):
    targets = torch.tensor([1, 0])
    maps = maps_by_every_method(module, images, targets)
    assert len(maps) >= 10
    for method, found in maps.items():
        assert found.shape == (2, *images.shape[2:]), method
        assert found.isfinite().all(), method
        assert found.min() >= 0, method
        assert found.max() <= 1, method
    report = export_onnx(module, spec, path, batches=(1, 2))
    clf = Classifier(path, "cpu", batch_size=4)
    torch.testing.assert_close(clf(images), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        Classifier.from_torch(module, spec)(images), expected, atol=1e-5, rtol=0
    )
    assert clf.score == report.score
    stack = torch.stack(list(maps.values()), 1)
    scores = gag_fast.evaluate(clf, images, stack, targets, metrics)
    for metric in metrics:
        assert getattr(scores, metric).shape == (2, len(maps))
        assert getattr(scores, metric).isfinite().all(), metric
    return clf, scores


@pytest.mark.parametrize("name", SMALL)
def test_small_models(name, tmp_path):
    clf, scores = check(*SMALL[name](), tmp_path / "x.onnx")
    assert str(clf._reading) in repr(clf)
    if "sigmoid" in name:  # every map's areas were 1 once
        assert scores.dauc.max() < 0.999


def test_float64_explains_and_scores_but_is_not_exported(tmp_path):
    module, spec, images, expected = small()
    module = module.double()
    for method, found in maps_by_every_method(module, images.double(), torch.tensor(1)).items():
        assert found.dtype == torch.float64, method
    torch.testing.assert_close(
        Classifier.from_torch(module, spec)(images), expected, atol=1e-5, rtol=0
    )
    with pytest.raises(ExportError, match=r"must be float32, got parameters of torch\.float64"):
        export_onnx(module, spec, tmp_path / "x.onnx")


@pytest.fixture(scope="module")
def hf_folder(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("hf")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=24, patch_size=8, id2label={0: "cat", 1: "dog", 2: "owl"},
    )  # fmt: skip
    transformers.set_seed(0)
    network = transformers.ViTForImageClassification(config)
    network.classifier.weight.data.mul_(50)  # scores beyond [0, 1], as a trained one's are
    network.save_pretrained(folder)
    transformers.ViTImageProcessor(
        size={"height": 24, "width": 24}, image_mean=[0.4] * 3, image_std=[0.3] * 3
    ).save_pretrained(folder)
    return folder


def test_a_folder_of_transformers(hf_folder, tmp_path):
    module, spec = load_model(f"hf:{hf_folder}")
    assert spec.labels == ("cat", "dog", "owl")
    assert (spec.preprocessing.size, spec.preprocessing.crop) == (24, False)
    assert spec.preprocessing.mean == pytest.approx((0.4,) * 3)
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = module.model(images).logits.softmax(1)
    check(module, spec, images, expected, tmp_path / "x.onnx")


def test_a_folder_that_says_its_classes_are_independent(hf_folder, tmp_path):
    folder = tmp_path / "many"
    shutil.copytree(hf_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    module, spec = load_model(f"hf:{folder}")
    assert spec.score == "sigmoid"
    images = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = module(images).sigmoid()
    export_onnx(module, spec, tmp_path / "x.onnx", batches=(1, 2))
    for clf in (Classifier(tmp_path / "x.onnx", "cpu"), Classifier.from_torch(module, spec)):
        torch.testing.assert_close(clf(images), expected, atol=1e-5, rtol=0)


def test_a_file_of_torch_export(tmp_path):
    net, spec, images, expected = small(channels=1, size=28, classes=10)
    program = torch.export.export(net, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    facts = (
        '{"size": 28, "mean": [0.5], "std": [0.25], "labels": '
        + str([*"0123456789"]).replace("'", '"')
        + "}"
    )
    torch.export.save(program, tmp_path / "x.pt2", extra_files={"preprocessing.json": facts})
    module, found = load_model(tmp_path / "x.pt2")
    assert found.preprocessing == spec.preprocessing
    assert found.labels == tuple("0123456789")
    torch.testing.assert_close(
        Classifier.from_torch(module, found)(images), expected, atol=1e-5, rtol=0
    )
    torch.export.save(torch.export.export(net, (images[:1],)), tmp_path / "fixed.pt2")
    with pytest.raises(ValueError, match="export it in eval mode with a dynamic batch"):
        load_model(tmp_path / "fixed.pt2")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMED)
def test_models_by_name(name, tmp_path):
    module, spec = load_model(name, "none")
    if name == "vit_b_16":  # torchvision's head starts at zero, and so would every map
        nn.init.normal_(module.heads.head.weight, std=0.02)
    size = spec.preprocessing.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(images).softmax(1)
    check(module, spec, images, expected, tmp_path / "x.onnx", metrics=("rcap",))


# ---- the same from the command line


def one_channel():
    """What `package.module:function` names: a CNN of one channel and 28 pixels."""
    module, spec, *_ = small(channels=1, size=28, classes=10)
    module.preprocessing = spec.preprocessing
    module.labels = tuple("0123456789")
    return module


@pytest.mark.parametrize("row", ["one channel of 28", "a folder of transformers"])
def test_from_the_command_line(row, hf_folder, tmp_path, capsys):
    if row == "one channel of 28":
        name = f"{one_channel.__module__}:{one_channel.__name__}"
    else:
        name = f"hf:{hf_folder}"
    module, spec = load_model(name)
    side = spec.preprocessing.size
    folder = tmp_path / "photos"
    for i in range(3):
        save_photo(folder / spec.labels[i] / f"{i}.png", i, side, side)
    items = open_dataset(folder, spec.num_classes, spec.labels).items
    with torch.no_grad():
        images = load_images([item.path for item in items], spec)
        expected = module(images).softmax(1)

    onnx = tmp_path / "x.onnx"
    assert main(["export", name, str(onnx)]) == 0
    torch.testing.assert_close(Classifier(onnx, "cpu")(images), expected, atol=1e-5, rtol=0)

    words = ["explain", *(str(item.path) for item in items), "--model", name, "--n", "2"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "maps"), "--device", "cpu"]) == 0
    for line, row in zip(capsys.readouterr().out.splitlines(), expected, strict=True):
        printed = float(line.partition("->")[0].split()[-1])
        assert printed == pytest.approx(float(row.max()), abs=6e-4), line

    methods = [method for method in gag_fast.methods() if refusal(method, module) is None]
    words = ["evaluate", str(folder), "--model", name, "--methods", ",".join(methods), "--n", "2"]
    words += ["--providers", "cpu", "--workers", "1", "--out", str(tmp_path / "run")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network without rectifiers, as the table has it
        assert main(words) == 0
    table = RunFolder(tmp_path / "run").read().to_pylist()
    assert {(r["image"], r["method"]) for r in table} == {
        (item.image, method) for item in items for method in methods
    }
    place = {item.image: i for i, item in enumerate(items)}
    for row in table:
        assert row["status"] == "ok", row["error"]
        right = float(expected[place[row["image"]], row["target"]])
        assert row["confidence"] == pytest.approx(right, abs=1e-5)


def test_softmax_inside_is_not_softmaxed_again():
    clf = Classifier.from_torch(nn.Sequential(nn.Flatten(), nn.Softmax(1)))
    found = clf(torch.tensor([[[[6.0, 1.0, 0.0]]]]))
    torch.testing.assert_close(found[0, 0], torch.tensor(0.9909), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("give", "score", "message"),
    [
        (lambda z: z.softmax(1), "logits", "sum to 1; write score='probabilities'"),
        (lambda z: z, "probabilities", "write score='logits'"),
        (torch.sigmoid, "probabilities", "write score='sigmoid' for independent classes"),
    ],
)
def test_a_declaration_that_the_numbers_contradict(give, score, message):
    module, spec, images, _ = small(give)
    with pytest.raises(gag_fast.GagFastError, match=message):
        Classifier.from_torch(module, spec, score=score)(images)


def test_export_asks_for_what_it_needs(tmp_path):
    with pytest.raises(ExportError, match=r"needs to know .*ModelSpec\('name', gag_fast.Preproc"):
        export_onnx(small()[0], tmp_path / "x.onnx")


# ---- ONNX files of others


@pytest.fixture
def foreign(tmp_path):
    """Writes the file of a small network with its axes, numbers and outputs changed."""
    import onnx
    from onnx import TensorProto, helper

    def write(kind="float", last=False, more=False):
        weight = small()[0].layers[0].weight.detach().numpy()
        half = kind == "half"
        number = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        pixels = kind == "uint8"
        shape = ["n", 20, 20, 3] if last else ["n", 3, 20, 20]
        given = {"float": TensorProto.FLOAT, "half": number, "uint8": TensorProto.UINT8}[kind]
        nodes, at = [], "x"
        if pixels:
            nodes += [
                helper.make_node("Cast", [at], ["xf"], to=TensorProto.FLOAT),
                helper.make_node("Div", ["xf", "scale"], ["xs"]),
            ]
            at = "xs"
        if last:
            nodes.append(helper.make_node("Transpose", [at], ["xt"], perm=[0, 3, 1, 2]))
            at = "xt"
        nodes += [
            helper.make_node("Conv", [at, "w"], ["c"], strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["c"], ["g"]),
            helper.make_node("Flatten", ["g"], ["y"]),
        ]
        outputs = [helper.make_tensor_value_info("y", number, ["n", 6])]
        if more:
            nodes.append(helper.make_node("Flatten", ["c"], ["features"]))
            outputs.append(helper.make_tensor_value_info("features", number, ["n", 486]))
        dtype = np.float16 if half else np.float32
        constants = [onnx.numpy_helper.from_array(weight.astype(dtype), "w")]
        constants.append(onnx.numpy_helper.from_array(np.array(255, np.float32), "scale"))
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", given, shape)], outputs, constants
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, str(tmp_path / "foreign.onnx"))
        x = torch.rand(2, 3, 20, 20).mul(255).round().div(255)
        scores = torch.conv2d(x, torch.from_numpy(weight), stride=2).mean((2, 3))
        return tmp_path / "foreign.onnx", x, scores.softmax(1)

    return write


@pytest.mark.parametrize("kind", ["float", "half", "uint8"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("more", [False, True])
def test_files_of_others(foreign, kind, last, more):
    path, x, expected = foreign(kind, last, more)
    said = {"mean": (0.5,) * 3, "std": (0.25,) * 3} if kind == "uint8" else {}
    images = (x - 0.5) / 0.25 if said else x
    if more:
        with pytest.raises(gag_fast.GagFastError, match=r"has several outputs, y .*: name the sc"):
            Classifier(path, "cpu", **said)
        with pytest.raises(gag_fast.GagFastError, match=r"has no output 'z'; it has y"):
            Classifier(path, "cpu", output="z", **said)
        said["output"] = "y"
    clf = Classifier(path, "cpu", batch_size=2, **said)
    torch.testing.assert_close(clf(images), expected, atol=2e-3 if kind == "half" else 1e-5, rtol=0)


def test_pixels_need_to_be_told_of(foreign):
    with pytest.raises(gag_fast.GagFastError, match=r"takes pixels \(uint8\): say what the images"):
        Classifier(foreign("uint8")[0], "cpu")


# ---- any fixed batch


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("last", [False, True])
def test_a_fixed_batch_and_a_number_of_images_that_it_does_not_divide(foreign, batch, last):
    import onnx

    path, *_ = foreign(last=last)
    model = onnx.load(str(path))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, str(path))
    x = torch.rand(7, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    weight = small()[0].layers[0].weight.detach()
    expected = torch.conv2d(x, weight, stride=2).mean((2, 3)).softmax(1)
    clf = Classifier(path, "cpu")
    assert clf.fixed_batch == batch == clf.batch_size
    torch.testing.assert_close(clf(x), expected, atol=1e-5, rtol=0)
    targets = torch.arange(7) % 6
    found = gag_fast.evaluate(clf, x, x.mean(1), targets)
    function = Classifier.from_callable(lambda x: torch.conv2d(x, weight, stride=2).mean((2, 3)))
    right = gag_fast.evaluate(function, x, x.mean(1), targets)
    torch.testing.assert_close(found.dauc, right.dauc, atol=1e-5, rtol=0)
    with pytest.raises(GagFastError, match=f"fixed batch.*{batch}|{batch}.*fixed batch"):
        Classifier(path, "cpu", batch_size=batch + 1)(x)
