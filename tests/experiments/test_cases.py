"""The three cases' loaders on small folders of exactly their structures, and their models."""

import csv
import io
import pickle
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from gag_fast.data import DataError
from gag_fast.data.imagenet import WNIDS
from gag_fast.experiments import imagenet_s, isic, places365, tf_efficientnet
from gag_fast.experiments.cases import CASES, object_mask
from gag_fast.models import ModelError


def picture(path: Path, size=(40, 30), colour=(90, 120, 200)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def mask(path: Path, object_id: int, size=(40, 30)) -> Path:
    """ImageNet-S's form: the object in the right half, a strip to be ignored, the rest 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.zeros((size[1], size[0]), dtype=np.int32)
    ids[:, size[0] // 2 :] = object_id
    ids[:5] = 1000
    rgb = np.stack([ids % 256, ids // 256, np.zeros_like(ids)], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(path)
    return path


def table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# ---- ImageNet-S ---------------------------------------------------------------------------------

TENCH, BROWN_BEAR, APRON, TOILET_TISSUE = "n01440764", "n02132136", "n02730930", "n15075141"


@pytest.fixture
def imagenet_s_folder(tmp_path):
    root = tmp_path / "ImageNetS919"
    # ids: place among the 919 sorted classes, from 1. 406 (altar) is left out, so apron (411)
    # is the 411th, and the last class, 999, is the 919th: its id needs the green channel.
    for wnid, number, object_id in (
        (TENCH, 1, 1),
        (BROWN_BEAR, 2, 295),
        (APRON, 3, 411),
        (TOILET_TISSUE, 4, 919),
    ):
        stem = f"ILSVRC2012_val_{number:08d}"
        picture(root / "validation" / wnid / f"{stem}.JPEG")
        mask(root / "validation-segmentation" / wnid / f"{stem}.png", object_id)
    return root


@pytest.mark.parametrize("parent", [False, True], ids=["ImageNetS919", "its parent"])
def test_imagenet_s_takes_the_class_from_the_wordnet_id(imagenet_s_folder, parent):
    root = imagenet_s_folder.parent if parent else imagenet_s_folder
    items = CASES["imagenet-s"].dataset(root).items
    assert [i.target for i in items] == [0, 294, 411, 999]  # not the folders' places 0 to 3
    assert items[1].image == f"validation/{BROWN_BEAR}/ILSVRC2012_val_00000002.JPEG"
    assert [imagenet_s.object_id(i.target) for i in items] == [1, 295, 411, 919]


def test_imagenet_s_leaves_81_classes_out_the_first_of_them_406():
    kept = [index for index in range(1000) if index in imagenet_s._OBJECT_ID]
    assert len(kept) == 919
    assert kept[:406] == list(range(406))
    assert 406 not in kept
    assert sorted(imagenet_s._OBJECT_ID.values()) == list(range(1, 920))


def test_imagenet_s_masks_have_the_object_only(imagenet_s_folder):
    case = CASES["imagenet-s"]
    for item in case.dataset(imagenet_s_folder).items:
        got = object_mask(item.mask, case.object_id(item.target))
        assert got.shape == (30, 40)
        assert not got[:5].any()  # 1000: ignored, so not the object
        assert not got[5:, :20].any()
        assert got[5:, 20:].all()


def test_a_mask_without_the_object_is_an_error(imagenet_s_folder):
    path = imagenet_s_folder / "validation-segmentation" / TENCH / "ILSVRC2012_val_00000001.png"
    with pytest.raises(DataError, match=r"00000001\.png: .*no pixel of object 5"):
        object_mask(path, 5)
    black = picture(path.parent / "black.png", colour=(0, 0, 0))
    with pytest.raises(DataError, match="no pixel that is not black"):
        object_mask(black)


def test_imagenet_s_says_what_is_wrong_with_a_folder(imagenet_s_folder, tmp_path):
    case = CASES["imagenet-s"]
    with pytest.raises(DataError, match="no such folder"):
        case.dataset(tmp_path / "nowhere")
    missing = imagenet_s_folder / "validation-segmentation" / TENCH / "ILSVRC2012_val_00000001.png"
    missing.unlink()
    with pytest.raises(DataError, match=r"its mask .*00000001\.png is missing"):
        case.dataset(imagenet_s_folder)
    mask(missing, 1)
    picture(imagenet_s_folder / "validation" / WNIDS[406] / "x.JPEG")
    with pytest.raises(DataError, match=f"{WNIDS[406]} is not a class of ImageNet-S919"):
        case.dataset(imagenet_s_folder)
    with pytest.raises(DataError, match="ImageNetS919 has a folder validation/"):
        case.dataset(missing.parent)


# ---- ISIC ---------------------------------------------------------------------------------------


@pytest.fixture
def isic_resized(tmp_path):
    def make(folder, rows):
        table(tmp_path / folder / "train.csv", [{"patient_id": "", **row} for row in rows])
        for row in rows:
            picture(tmp_path / folder / "train" / f"{row['image_name']}.jpg")

    make(
        "jpeg-melanoma-512x512",
        [
            {"image_name": "ISIC_1", "diagnosis": "seborrheic keratosis", "tfrecord": 8},
            {"image_name": "ISIC_2", "diagnosis": "melanoma", "tfrecord": 5},
            {"image_name": "ISIC_3", "diagnosis": "nevus", "tfrecord": 0},  # fold 1
            {"image_name": "ISIC_4", "diagnosis": "cafe-au-lait macule", "tfrecord": 11},
            {"image_name": "ISIC_5", "diagnosis": "nevus", "tfrecord": -1},  # a duplicate
        ],
    )
    make(
        "jpeg-isic2019-512x512",
        [
            {"image_name": "ISIC_6", "diagnosis": "NV", "tfrecord": 20},  # 20 % 15 = 5
            {"image_name": "ISIC_7", "diagnosis": "SCC", "tfrecord": 26},  # 26 % 15 = 11
            {"image_name": "ISIC_8", "diagnosis": "AK", "tfrecord": 21},  # fold 1
        ],
    )
    return tmp_path


def test_isic_resized_copies_one_fold_nine_classes(isic_resized):
    items = CASES["isic"].dataset(isic_resized).items
    assert [(i.image.split("/")[-1], isic.CLASSES[i.target]) for i in items] == [
        ("ISIC_1.jpg", "BKL"),
        ("ISIC_2.jpg", "melanoma"),
        ("ISIC_4.jpg", "unknown"),
        ("ISIC_6.jpg", "nevus"),
        ("ISIC_7.jpg", "SCC"),
    ]
    assert items[0].image == "jpeg-melanoma-512x512/train/ISIC_1.jpg"
    assert [i.path.stem for i in isic.items(isic_resized, fold=1)] == ["ISIC_3", "ISIC_8"]


def test_isic_archive(tmp_path):
    names = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    rows = [
        {"image": f"ISIC_{i}", **{n: float(n == name) for n in names}}
        for i, name in enumerate(names)
    ]
    table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", rows)
    for row in rows:
        picture(tmp_path / "ISIC_2019_Training_Input" / f"{row['image']}.jpg")
    table(
        tmp_path / "ISIC_2020_Training_GroundTruth.csv",
        [{"image_name": "ISIC_20", "diagnosis": "solar lentigo", "target": 0}],
    )
    picture(tmp_path / "train" / "ISIC_20.jpg")
    items = CASES["isic"].dataset(tmp_path).items
    assert [isic.CLASSES[i.target] for i in items] == [
        *("BKL", "melanoma", "nevus", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "unknown")
    ]


def test_isic_says_what_is_wrong(isic_resized, tmp_path_factory):
    (isic_resized / "jpeg-melanoma-512x512/train/ISIC_2.jpg").unlink()
    with pytest.raises(DataError, match=r"train\.csv:3: no image .*ISIC_2\.jpg"):
        CASES["isic"].dataset(isic_resized)
    path = isic_resized / "jpeg-melanoma-512x512/train.csv"
    path.write_text("image_name,diagnosis,tfrecord\nISIC_1,wart,8\n")
    with pytest.raises(DataError, match=r"train\.csv:2: diagnosis 'wart'"):
        CASES["isic"].dataset(isic_resized)
    path.write_text("image_name,target\nISIC_1,0\n")
    with pytest.raises(DataError, match="no column diagnosis, tfrecord"):
        CASES["isic"].dataset(isic_resized)
    with pytest.raises(DataError, match="neither jpeg-melanoma"):
        CASES["isic"].dataset(tmp_path_factory.mktemp("empty"))
    with pytest.raises(DataError, match="fold must be 0 to 4, got 5"):
        isic.items(isic_resized, fold=5)


# ---- Places365 ----------------------------------------------------------------------------------


@pytest.fixture
def places_folder(tmp_path):
    lines = []
    for number, target in ((1, 165), (2, 0), (3, 364)):
        name = f"Places365_val_{number:08d}.jpg"
        picture(tmp_path / "val_256" / name, size=(256, 256))
        lines.append(f"{name} {target}\n")
    (tmp_path / "places365_val.txt").write_text("".join(lines))
    return tmp_path


def test_places365_reads_the_validation_list(places_folder):
    items = CASES["places365"].dataset(places_folder).items
    assert [(i.image, i.target) for i in items] == [
        ("val_256/Places365_val_00000001.jpg", 165),
        ("val_256/Places365_val_00000002.jpg", 0),
        ("val_256/Places365_val_00000003.jpg", 364),
    ]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("Places365_val_00000001.jpg", r"val\.txt:1: a line is `<file> <class>`"),
        ("Places365_val_00000001.jpg 365", "classes are 0 to 364, got 365"),
        ("Places365_val_00000009.jpg 3", r"val\.txt:1: no image .*00000009\.jpg"),
        ("", "no images"),
    ],
)
def test_places365_says_which_line_is_wrong(places_folder, line, match):
    (places_folder / "places365_val.txt").write_text(line + "\n")
    with pytest.raises(DataError, match=match):
        CASES["places365"].dataset(places_folder)


def test_places365_categories(tmp_path):
    path = tmp_path / "categories_places365.txt"
    path.write_text("".join(f"/{'abc'[i % 3]}/place{i}/indoor {i}\n" for i in range(365)))
    assert places365.categories(tmp_path)[1] == "place1/indoor"
    path.write_text("/a/airfield 0\n")
    with pytest.raises(DataError, match="0 to 364 in order"):
        places365.categories(tmp_path)


# ---- models -------------------------------------------------------------------------------------


def settle(module: torch.nn.Module) -> None:
    """Gives BatchNorm statistics that matter, so that a mix-up of layers shows."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)


@torch.no_grad()
def test_efficientnet_b4_equals_timm_from_the_winners_state_dict(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("tf_efficientnet_b4", pretrained=False, num_classes=9).eval()
    settle(theirs)
    state = {
        (f"module.enet.{k}" if "classifier" not in k else k.replace("classifier", "module.myfc")): v
        for k, v in theirs.state_dict().items()
    }
    torch.save(state, tmp_path / "9c_b4ns_448_best_fold0.pth")
    ours, spec = CASES["isic"].load_model(tmp_path / "9c_b4ns_448_best_fold0.pth")
    assert (spec.num_classes, spec.preprocessing.size) == (9, 448)
    for size in (96, 97):  # odd sizes pad differently
        x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_same_padding_puts_the_odd_pixel_last():
    conv = tf_efficientnet.SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    # 4 -> 2 with kernel 3: one pixel of padding in all, on the right and below
    out = conv(torch.arange(16.0).reshape(1, 1, 4, 4))
    assert out.flatten().tolist() == [45, 39, 66, 50]


def test_a_state_dict_with_patient_data_is_refused(tmp_path):
    torch.save({"meta.0.weight": torch.zeros(1)}, tmp_path / "meta.pth")
    with pytest.raises(ModelError, match="takes patient data"):
        CASES["isic"].load_model(tmp_path / "meta.pth")
    torch.save({"enet.conv_stem.weight": torch.zeros(1)}, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"part\.pth does not fit the model: .*is missing"):
        CASES["isic"].load_model(tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"--weights FILE \(9c_b4ns_448"):
        CASES["isic"].load_model("default")


class Python2Pickler(pickle._Pickler):
    """Writes str as Python 2 wrote it, which CSAIL's checkpoints were saved with."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str(self, text):
        raw = text.encode("latin1")
        self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        self.memoize(text)

    dispatch[str] = save_str


class python2_pickle:
    """What torch.save asks of a pickle module."""

    __name__ = "pickle"
    Pickler = Python2Pickler

    @staticmethod
    def dump(value, file, protocol):
        Python2Pickler(file, protocol=protocol).dump(value)


@torch.no_grad()
def test_densenet161_from_csails_checkpoint(tmp_path):
    module = places365.densenet161("none").eval()
    settle(module)
    state = {}
    for key, value in module.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue  # older than torch 0.4
        for kind in ("norm", "conv"):
            if "denselayer" in key:
                key = key.replace(f".{kind}1.", f".{kind}.1.").replace(f".{kind}2.", f".{kind}.2.")
        state[f"module.{key}"] = value
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in state
    path = tmp_path / "densenet161_places365.pth.tar"
    checkpoint = {"epoch": 90, "arch": "densenet161", "state_dict": state, "best_prec1": 56.1}
    torch.save(
        checkpoint,
        path,
        pickle_module=python2_pickle,
        pickle_protocol=2,
        _use_new_zipfile_serialization=False,
    )
    loaded, spec = CASES["places365"].load_model(path)
    assert spec.weights == path.name
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(x), module(x), rtol=0, atol=0)


@torch.no_grad()
def test_resnet50_from_torchvisions_file(tmp_path):
    module = imagenet_s.resnet50_v1("none")
    settle(module)
    torch.save(module.state_dict(), tmp_path / "resnet50-0676ba61.pth")
    loaded, spec = CASES["imagenet-s"].load_model(tmp_path / "resnet50-0676ba61.pth")
    assert len(spec.labels) == spec.num_classes == 1000
    assert spec.labels[0] == "tench"
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded(x), module.eval()(x), rtol=0, atol=0)


def test_preprocessing_is_that_of_section_5():
    sizes = {name: (c.preprocessing.size, c.preprocessing.crop) for name, c in CASES.items()}
    assert sizes == {"imagenet-s": (256, False), "isic": (448, False), "places365": (224, True)}
    assert all(c.preprocessing.mean == (0.485, 0.456, 0.406) for c in CASES.values())


@pytest.mark.parametrize("name", sorted(CASES))
def test_grad_cams_layer_is_the_last_stage(name):
    case = CASES[name]
    module, spec = case.load_model("none")
    seen = {}
    layer = module.get_submodule(case.grad_cam_layer)
    layer.register_forward_hook(lambda _m, _i, out: seen.update(shape=out.shape))
    with torch.no_grad():
        logits = module(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, spec.num_classes)
    assert seen["shape"][-2:] == (2, 2)  # 64 / 32
    assert case.fetch.count("http") >= 2
    assert io.StringIO(case.fetch).readline().startswith("Data: ")
