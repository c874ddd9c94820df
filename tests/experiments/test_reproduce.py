"""`gag-fast reproduce` end to end, with a classifier and a data set that take seconds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from gag_fast.cli import main
from gag_fast.data import DataError
from gag_fast.experiments import cases, maps, prepare, reproduce, synthetic
from gag_fast.experiments.experiment import Experiment
from gag_fast.models import ModelError, load_model
from gag_fast.report.reading import read_run
from tests.experiments.test_cases import mask, picture

SYNTHETIC = "gag_fast.experiments.synthetic:classifier"


@pytest.fixture(scope="module")
def small_synthetic(tmp_path_factory):
    """12 test images and an all but untrained classifier."""
    folder = tmp_path_factory.mktemp("synthetic")
    made = synthetic.make(folder, 12, 12, epochs=1, report=lambda line: None)
    prepare.export(folder, *load_model(SYNTHETIC, made.weights))  # once for all tests
    return made


@pytest.fixture
def asked(small_synthetic, tmp_path):
    for name in ("model.onnx", "model.json"):
        (tmp_path / "out").mkdir(exist_ok=True)
        shutil.copy(small_synthetic.weights.parent / name, tmp_path / "out" / name)
    return Experiment(
        tables=("table1",),
        data=small_synthetic.test_csv,
        out=tmp_path / "out",
        model=SYNTHETIC,
        weights=str(small_synthetic.weights),
        images=3,
        confidence=0.0,
        n=2,
    )


def test_table_1_and_2_of_one_run(asked):
    asked = replace(asked, tables=("table1", "table2"))
    outcome = reproduce.reproduce(asked, quiet=True)
    assert outcome.summary.complete
    assert outcome.summary.images == 3
    lines = []
    written = reproduce.write_report(asked, outcome, lines.append)
    text = "\n".join(lines)
    assert "L_lc-dce↓" in text  # the data set has masks
    assert "Guided IG^R" in text
    names = {path.name for path in written}
    assert {"table1.md", "table1.csv", "table2.md", "table2.csv", "trends.md"} <= names
    rows = read_run(asked.out / "table1-table2")
    assert set(rows.methods) == set(maps.methods_of(asked.tables))
    # Table 1's last row is Table 2's GAG, and p = 0 is plain AbsoluteGrad
    cells = (asked.out / "table1.csv").read_text().splitlines()
    gag = next(x for x in (asked.out / "table2.csv").read_text().splitlines() if "GAG," in x)
    assert cells[-1].split(",")[1:6] == gag.split(",")[1:6]


def test_the_same_command_computes_nothing_twice(asked):
    first = reproduce.reproduce(asked, quiet=True)
    stamp = (asked.out / "model.onnx").stat().st_mtime_ns
    again = reproduce.reproduce(asked, quiet=True)
    assert (first.summary.computed, again.summary.computed) == (3, 0)
    assert (asked.out / "model.onnx").stat().st_mtime_ns == stamp
    assert again.candidates == first.candidates


def test_other_settings_in_the_same_folder_are_refused(asked):
    reproduce.reproduce(asked, quiet=True)
    with pytest.raises(ValueError, match=r"other settings \(n: 2 in the folder, 3 now"):
        reproduce.reproduce(replace(asked, n=3), quiet=True)


def test_only_confident_images_take_part(asked, small_synthetic, monkeypatch):
    """A classifier that is sure of one class lets that class's images in and no others."""
    real = prepare.Classifier

    class Sure(real):
        def __call__(self, images):
            scores = torch.full((len(images), 6), 0.01)
            scores[:, 4] = 0.95
            return scores

    monkeypatch.setattr(prepare, "Classifier", Sure)
    asked = replace(asked, confidence=0.9, images=None)
    ready = prepare.prepare(asked, quiet=True)
    assert [item.target for item in ready.dataset.items] == [4, 4]
    assert ready.candidates == 12
    stored = json.loads((asked.out / "selection.json").read_text())
    assert stored["settings"]["confidence"] == 0.9
    assert stored["chosen"] == [item.image for item in ready.dataset.items]
    with pytest.raises(
        DataError, match=r"none of 12 images has its label at a confidence of 0\.99"
    ):
        prepare.prepare(replace(asked, confidence=0.99), quiet=True)


def test_images_are_drawn_by_the_seed_and_kept_in_order(asked):
    chosen = {}
    for seed in (0, 1, 2, 3):
        some = replace(asked, seed=seed)
        names = [item.image for item in prepare.prepare(some, quiet=True).dataset.items]
        assert names == sorted(names)
        assert len(names) == 3
        chosen[seed] = tuple(names)
    assert len(set(chosen.values())) > 1


def test_only_the_first_classes(asked):
    some = replace(asked, classes=2, images=None)
    items = prepare.prepare(some, quiet=True).dataset.items
    assert [item.target for item in items] == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="positive"):
        replace(asked, classes=0)


def test_what_cannot_be_asked(asked):
    with pytest.raises(ValueError, match="tables must be some of table1, table2, table3"):
        replace(asked, tables=("table4",))
    with pytest.raises(ValueError, match="give a model or a case"):
        replace(asked, case="isic")
    with pytest.raises(
        ValueError, match=r"case must be one of imagenet-s, isic, places365, got 'x'"
    ):
        replace(asked, model=None, case="x")
    with pytest.raises(ValueError, match="confidence must be a probability, got 90"):
        replace(asked, confidence=90)


# ---- a case, with a small network in the place of its own ---------------------------------------


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer4 = torch.nn.Conv2d(3, 8, 7, stride=8)
        self.fc = torch.nn.Linear(8, 1000)

    def forward(self, x):
        return self.fc(self.layer4(x).relu().mean(dim=(2, 3)))


def test_a_case_brings_its_settings_and_binary_masks(tmp_path, monkeypatch):
    root = tmp_path / "ImageNetS919"
    for number, (wnid, object_id) in enumerate((("n01440764", 1), ("n02730930", 411))):
        stem = f"ILSVRC2012_val_{number:08d}"
        picture(root / "validation" / wnid / f"{stem}.JPEG", colour=(number * 90, 120, 200))
        mask(root / "validation-segmentation" / wnid / f"{stem}.png", object_id)

    def build(weights):
        torch.manual_seed(0)
        return Tiny()

    case = cases.CASES["imagenet-s"]
    small = replace(case.preprocessing, size=64, resize=64)
    case = replace(case, build=build, preprocessing=small)
    monkeypatch.setitem(cases.CASES, "imagenet-s", case)
    asked = Experiment(
        tables=("table2",), data=root, out=tmp_path / "out", case="imagenet-s", confidence=0.0, n=2
    )
    assert (asked.scoring, asked.methods_settings) == ("official", "official:imagenet")
    outcome = reproduce.reproduce(asked, quiet=True)
    assert outcome.summary.complete
    manifest = json.loads((asked.out / "table2" / "manifest.json").read_text())["settings"]
    assert manifest["preset"]["name"] == "official"
    assert manifest["options"] == {"settings": "official:imagenet", "layer": "layer4"}
    assert manifest["preprocessing"]["crop"] is False
    assert sorted(set(outcome.run.target)) == [0, 411]
    # the object is the right half below the ignored strip: 1/2 · 5/6 of the picture
    stored = sorted((asked.out / "masks").glob("*.png"))
    assert len(stored) == 2
    shares = [(np.asarray(prepare.Image.open(path)) > 0).mean() for path in stored]
    assert shares == pytest.approx([5 / 12] * 2)
    lines = []
    reproduce.write_report(asked, outcome, lines.append)
    assert "paper MAE↓" in lines[0]
    assert "0.4377" in lines[0]


def test_n_follows_the_settings_unless_given():
    kind = {"tables": ("table1",), "data": None, "out": None}
    assert Experiment(**kind, case="isic").samples == 10
    assert Experiment(**kind, case="imagenet-s").samples == 20
    assert Experiment(**kind, model="resnet50").samples == 20
    assert Experiment(**kind, case="isic", n=20).samples == 20


# ---- cost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, "official:imagenet"])
def test_passes_are_those_that_the_engine_makes(settings, monkeypatch):
    from gag_fast import explainer
    from gag_fast.attribution.gradients import GradientEngine

    made = 0
    real = GradientEngine.gradients

    def counting(self, points, *args, **kwargs):
        nonlocal made
        made += len(points)
        return real(self, points, *args, **kwargs)

    monkeypatch.setattr(GradientEngine, "gradients", counting)
    module = synthetic.classifier().eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    methods = set(maps.SHORT.values()) - {"grad_cam"}  # which has no gradient of the image
    for method in sorted(methods | {"guided_backprop/GA", "guided_backprop/+", "smoothgrad/R"}):
        made = 0
        explainer.explain(module, images, [0, 1], method, n=3, settings=settings)
        assert made == 2 * maps.passes(method, 3, settings), method


# ---- the command line ---------------------------------------------------------------------------


def test_command_line(asked, small_synthetic, capsys):
    out = asked.out
    status = main(
        [
            *(
                "reproduce",
                "table1",
                "fig4",
                "--data",
                str(small_synthetic.test_csv),
                "--model",
                SYNTHETIC,
            ),
            *(
                "--weights",
                str(small_synthetic.weights),
                "--images",
                "2",
                "--confidence",
                "0",
                "--n",
                "2",
            ),
            *("--out", str(out)),
        ]
    )
    assert status == 0
    text = capsys.readouterr().out
    assert "GAG-85" in text
    assert "holds  Proposition 1: RCAP(M1) > RCAP(M3')" in text
    assert "GAG-85 of 2 images as M1" in text
    assert (out / "fig4.txt").read_text().count("Proposition 2") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table1", "--out", "x"], "table1 needs --data"),
        (["--out", "x"], "say what to reproduce"),
        (["fig4"], "--out OUT is needed"),
        (["table1", "--data", "nowhere", "--case", "isic", "--out", "x"], "--weights FILE"),
    ],
)
def test_mistakes_take_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_fetch_says_where_from(capsys):
    assert main(["reproduce", "--fetch", "places365"]) == 0
    assert "densenet161_places365.pth.tar" in capsys.readouterr().out


def test_synthetic_command(tmp_path, capsys):
    arguments = ["--train-images", "6", "--test-images", "6", "--epochs", "1"]
    assert main(["synthetic", "--out", str(tmp_path), *arguments]) == 0
    assert "--weights" in capsys.readouterr().out
    assert (tmp_path / "classifier.pt").is_file()


def test_a_case_without_its_weights():
    with pytest.raises(ModelError, match="densenet161_places365"):
        cases.CASES["places365"].load_model("default")
