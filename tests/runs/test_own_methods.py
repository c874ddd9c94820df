"""Runs of methods that are not ours: the user's own, Captum's, and maps from elsewhere."""

import copy
import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import gag_fast
from gag_fast.data import open_dataset
from gag_fast.runs.folder import RunError, RunFolder
from tests import ROOT
from tests.attribution.test_own_methods import ramp
from tests.photographs import SAMPLES
from tests.runs.run_rows import parts, rows, same_bits
from tests.runs.test_run import wait_for_parts
from tests.tiny_classifier import MODEL

SIDE = 32
OWN, CAPTUM = "tests.attribution.test_own_methods:ramp", "captum.attr:Saliency"


def write_maps(folder, data, skip=()):
    """A map for each image, by a fixed seed: folder/blue/000.npy."""
    rng = np.random.default_rng(0)
    made = {}
    for item in open_dataset(data).items:
        made[item.image] = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
        if item.image not in skip:
            path = (folder / item.image).with_suffix(".npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, made[item.image])
    return made


def methods_of(table):
    return set(table["method"].to_pylist())


def test_ours_captums_and_given_maps_killed_and_restarted(photos, start, onnx, tmp_path):
    pytest.importorskip("captum.attr", reason="Captum is not installed")
    data = photos(40)
    write_maps(tmp_path / "elsewhere", data)
    asked = {"methods": ("guided_absgrad", CAPTUM), "maps": {"elsewhere": tmp_path / "elsewhere"}}
    quiet = start(data, out="quiet", **asked)
    assert quiet.complete
    assert methods_of(rows(quiet.out)) == {"guided_absgrad", CAPTUM, "elsewhere"}
    words = [
        *(sys.executable, "-m", "gag_fast", "evaluate", str(data), "--model", MODEL),
        *("--onnx", str(onnx), "--out", str(tmp_path / "killed"), "--n", "3", "--chunk", "4"),
        *("--workers", "1", "--providers", "cpu", "--methods", f"guided_absgrad,{CAPTUM}"),
        *("--maps", str(tmp_path / "elsewhere")),
    ]
    running = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    wait_for_parts(tmp_path / "killed", 2, running)
    running.kill()
    running.communicate()
    done = len(parts(tmp_path / "killed"))
    assert 2 <= done < 10
    summary = start(data, out="killed", **asked)
    assert summary.computed == 40 - 4 * done
    assert rows(quiet.out).num_rows == 120
    assert same_bits(rows(summary.out), rows(quiet.out))


@pytest.mark.slow
def test_the_same_over_forty_photographs(lite0_onnx, tmp_path):
    """One of ours, one of Captum's and a folder of maps; killed three times and restarted."""
    pytest.importorskip("captum.attr", reason="Captum is not installed")
    files = sorted(SAMPLES.glob("*.jpg"))[:40]
    if len(files) < 40:
        pytest.skip(f"no 40 photographs in {SAMPLES}; set GAG_FAST_PHOTOS")
    with (SAMPLES / "labels.csv").open() as file:
        labels = {row["file"]: row["class_index"] for row in csv.DictReader(file)}
    table = tmp_path / "photographs.csv"
    table.write_text("path,label\n" + "".join(f"{f},{labels[f.name]}\n" for f in files))
    rng = np.random.default_rng(0)
    names = [item.image for item in open_dataset(table).items]
    made = {name: rng.normal(size=(224, 224)).astype(np.float32) for name in names}
    np.savez(tmp_path / "elsewhere.npz", **made)

    def begin(out):
        words = [
            *(sys.executable, "-m", "gag_fast", "evaluate", str(table), "--out", str(out)),
            *("--model", "efficientnet_lite0", "--onnx", str(lite0_onnx), "--n", "2"),
            *("--chunk", "4", "--workers", "1", "--providers", "cpu", "--metrics", "rcap,dauc"),
            *("--methods", f"guided_absgrad,{CAPTUM}", "--maps", str(tmp_path / "elsewhere.npz")),
        ]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )

    quiet = begin(tmp_path / "quiet")
    _, err = quiet.communicate()
    assert quiet.returncode == 0, err
    for goal in (2, 4, 7):
        running = begin(tmp_path / "killed")
        wait_for_parts(tmp_path / "killed", goal, running)
        running.kill()
        running.communicate()
    assert 7 <= len(parts(tmp_path / "killed")) < 10
    last = begin(tmp_path / "killed")
    _, err = last.communicate()
    assert last.returncode == 0, err
    expected = rows(tmp_path / "quiet")
    assert expected.num_rows == 120
    assert set(expected["status"].to_pylist()) == {"ok"}
    assert methods_of(expected) == {"guided_absgrad", CAPTUM, "elsewhere"}
    assert same_bits(rows(tmp_path / "killed"), expected)


@pytest.mark.parametrize("kind", ["npz by name", "npz of one array", "zarr"])
def test_maps_in_one_file_are_those_in_a_folder(photos, start, tmp_path, kind):
    data = photos(5)
    made = write_maps(tmp_path / "m", data)
    path = tmp_path / "m.npz"
    if kind == "npz by name":
        np.savez(path, **made)
    elif kind == "npz of one array":
        np.savez(path, images=np.array(list(made)), maps=np.stack(list(made.values())))
    else:
        zarr = pytest.importorskip("zarr", reason="Zarr is not installed")
        path = tmp_path / "m.zarr"
        group = zarr.open_group(str(path), mode="w")
        text = getattr(np.dtypes, "StringDType", lambda: str)()  # NumPy 1 has fixed widths alone
        group["images"] = np.array(list(made), dtype=text)
        group["maps"] = np.stack([*made.values()])
    folder = start(data, out="folder", methods=(), maps={"m": tmp_path / "m"})
    file = start(data, out="file", methods=(), maps={"m": path})
    assert same_bits(rows(folder.out), rows(file.out))
    assert methods_of(rows(file.out)) == {"m"}


def test_their_scores_are_those_of_the_library(photos, start, onnx, tmp_path):
    from gag_fast.attribution.processing import min_max
    from gag_fast.images import load_image, preprocess

    data = photos(3)
    made = write_maps(tmp_path / "m", data)
    found = {r["image"]: r for r in rows(start(data, methods=(), maps={"m": tmp_path / "m"}).out)
             .to_pylist()}  # fmt: skip
    spec = gag_fast.load_model(MODEL)[1]
    items = open_dataset(data, 5, spec.labels).items
    images = torch.stack([preprocess(load_image(i.path), spec.preprocessing) for i in items])
    maps = min_max(torch.stack([torch.from_numpy(made[i.image]) for i in items]))
    targets = torch.tensor([i.target for i in items])
    expected = gag_fast.evaluate(gag_fast.Classifier(onnx, "cpu"), images, maps, targets)
    for i, item in enumerate(items):
        assert found[item.image]["rcap"] == pytest.approx(float(expected.rcap[i]), abs=1e-6)


def test_without_gradients_and_without_labels(photos, start, tmp_path, monkeypatch):
    from gag_fast.attribution.gradients import GradientEngine

    def no(*_, **__):
        raise AssertionError("nobody asked for gradients")

    monkeypatch.setattr(GradientEngine, "__enter__", no)
    photos(3)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, item in enumerate(open_dataset(tmp_path / "data").items):
        item.path.rename(flat / f"{i}.png")
    write_maps(tmp_path / "m", flat)
    table = rows(start(flat, methods=(), maps={"m": tmp_path / "m"}).out)
    assert table["target"].to_pylist() == table["predicted"].to_pylist()
    assert set(table["status"].to_pylist()) == {"ok"}


def test_a_bad_map_costs_its_row(photos, start, tmp_path):
    data = photos(6)
    names = [item.image for item in open_dataset(data).items]
    write_maps(tmp_path / "m", data, skip=names[:1])
    bad = [(tmp_path / "m" / name).with_suffix(".npy") for name in names[1:5]]
    np.save(bad[0], np.zeros((7, 7)))
    bad[1].write_bytes(b"no array")
    np.save(bad[2], np.array([{}], dtype=object))
    np.save(bad[3], np.full((SIDE, SIDE), np.nan))
    summary = start(data, methods=("vanilla",), maps={"m": tmp_path / "m"})
    found = {(r["image"], r["method"]): r for r in rows(summary.out).to_pylist()}
    words = ["no map of", r"is \[7, 7\], the model's images are \[32, 32\]", "cannot be read",
             "cannot be read|is object", "not finite"]  # fmt: skip
    for name, word in zip(names, words):
        assert found[name, "vanilla"]["status"] == "ok"
        with pytest.raises(AssertionError, match=word):
            raise AssertionError(found[name, "m"]["error"])
    assert found[names[5], "m"]["status"] == "ok"
    assert not summary.complete


def test_a_failing_method_costs_its_rows(photos, start):
    own = "tests.attribution.test_own_methods:breaks"
    found = rows(start(photos(2), methods=("vanilla", own)).out).to_pylist()
    assert {(r["method"], r["status"]) for r in found} == {("vanilla", "ok"), (own, "failed")}
    assert {r["error"] for r in found if r["method"] == own} == {
        f"{own} failed: KeyError: 'no such thing'"
    }


def test_other_maps_and_another_function_are_another_run(photos, start, tmp_path, monkeypatch):
    data = photos(3)
    made = write_maps(tmp_path / "m", data)
    module = tmp_path / "of_mine.py"
    module.write_text("def f(model, x, targets):\n    return x[:, 0].abs()\n")
    monkeypatch.syspath_prepend(tmp_path)
    asked = {"methods": ("of_mine:f",), "maps": {"m": tmp_path / "m"}}
    out = start(data, **asked).out
    assert start(data, **asked).computed == 0
    path = (tmp_path / "m" / next(iter(made))).with_suffix(".npy")
    np.save(path, made[next(iter(made))] + 1)
    with pytest.raises(RunError, match=r"given_maps\.m: \w{12}… in the folder, \w{12}… now"):
        start(data, **asked)
    np.save(path, made[next(iter(made))])
    module.write_text("def f(model, x, targets):\n    return x[:, 1].abs()\n")
    with pytest.raises(RunError, match=r"own_methods\.of_mine:f: \w{12}… in the folder"):
        start(data, **asked)
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["methods"] == ["of_mine:f"]
    assert list(settings["given_maps"]) == ["m"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"maps": {"m": "gone"}}, "gone: no such folder or file of maps"),
        ({"maps": {"m": __file__}}, "maps must be a folder, an .npz or a .zarr"),
        ({"maps": {"vanilla": "x"}}, "maps and methods are both called vanilla"),
        ({"methods": ("gone:f",)}, "cannot import 'gone'"),
    ],
)
def test_mistakes(photos, start, changes, words):
    with pytest.raises(ValueError, match=words) as caught:
        start(photos(2), **changes)
    assert "\n" not in str(caught.value)


def test_the_same_from_python(photos, start, onnx, tmp_path):
    data = photos(5)
    write_maps(tmp_path / "m", data)
    common = {"onnx": onnx, "chunk": 4, "providers": "cpu", "workers": 1, "quiet": True}
    summary = gag_fast.run(
        data, MODEL, ["guided_absgrad", OWN], tmp_path / "api", maps={"m": tmp_path / "m"},
        n=3, seed=2, **common,
    )  # fmt: skip
    expected = start(data, methods=("guided_absgrad", OWN), maps={"m": tmp_path / "m"}, seed=2)
    assert summary.complete
    assert same_bits(rows(summary.out), rows(expected.out))
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert len(summary.to_frame()) == 15 == RunFolder(summary.out).read().num_rows
    with pytest.raises(TypeError, match="unknown option 'sed'; did you mean 'seed'"):
        gag_fast.run(data, MODEL, "vanilla", tmp_path / "x", sed=1, **common)
    assert os.listdir(tmp_path / "m")


def greedy(model, images, targets):
    """A method that finds no memory."""
    return np.empty((1 << 25, 1 << 25), np.float64)


def test_a_method_out_of_memory_costs_its_own_rows(photos, start):
    data, own = photos(5), f"{__name__}:greedy"
    summary = start(data, methods=("vanilla", own))
    assert not summary.complete
    table = rows(summary.out).to_pylist()
    for row in table:
        assert row["status"] == ("failed" if row["method"] == own else "ok")
    reasons = {row["error"] for row in table} - {None}
    assert len(reasons) == 1
    assert f"{own} failed: MemoryError: Unable to allocate" in reasons.pop()
    assert start(data, methods=("vanilla", own)).computed == 0


# ---- methods and models that are at hand


def test_functions_and_classes_as_they_are(photos, start, onnx, tmp_path):
    attr = pytest.importorskip("captum.attr", reason="Captum is not installed")
    data = photos(5)
    common = {"onnx": onnx, "chunk": 4, "providers": "cpu", "workers": 1, "quiet": True, "n": 3}
    saliency = f"{attr.Saliency.__module__}:Saliency"
    found = gag_fast.run(data, MODEL, [ramp, attr.Saliency], tmp_path / "api", **common)
    expected = start(data, methods=(OWN, saliency))
    assert same_bits(rows(found.out), rows(expected.out))
    assert methods_of(rows(gag_fast.run(data, MODEL, ramp, tmp_path / "one", **common).out)) == {
        OWN
    }
    with pytest.raises(
        gag_fast.GagFastError, match=r"<lambda> is none that gives this one; put it"
    ):
        gag_fast.run(data, MODEL, lambda model, x, targets: x, tmp_path / "x", **common)


def test_a_model_at_hand(photos, start, tmp_path, onnx):
    data = photos(6)
    module, spec = gag_fast.load_model(MODEL)
    common = {"chunk": 4, "providers": "cpu", "workers": 1, "quiet": True, "n": 3}
    ours = ["guided_absgrad", "vanilla"]
    module.train()
    found = gag_fast.run(data, (module, spec), ours, tmp_path / "pair", onnx=onnx, **common)
    assert module.training  # as it was
    assert same_bits(rows(found.out), rows(start(data).out))
    alone = gag_fast.run(data, module, ours, tmp_path / "alone", **common)  # by its attributes
    table = rows(alone.out)
    assert set(table["status"].to_pylist()) == {"ok"}
    settings = json.loads((alone.out / "manifest.json").read_text())["settings"]
    assert settings["model"] == "Sequential"
    assert settings["model_sha256"] == spec.weights_sha256
    again = gag_fast.run(data, copy.deepcopy(module), ours, alone.out, **common)
    assert again.computed == 0
    with torch.no_grad():
        module[-1].bias[0] += 1e-3
    with pytest.raises(RunError, match=r"model_sha256: \w{12}… in the folder, \w{12}… now"):
        gag_fast.run(data, module, ours, alone.out, **common)
    assert same_bits(rows(alone.out), table)


def test_what_a_first_try_exported_of_another_model_is_not_taken(photos, tmp_path):
    data, out = photos(3), tmp_path / "run"
    common = {"providers": "cpu", "workers": 1, "quiet": True, "n": 2}
    module, spec = gag_fast.load_model(MODEL)
    first = gag_fast.run(data, (module, spec), "vanilla", out, **common)
    for part in (first.out / "results").iterdir():  # as if it had ended before
        part.unlink()
    other = copy.deepcopy(module)
    torch.nn.init.normal_(other[-1].weight, generator=torch.Generator().manual_seed(5))
    second = gag_fast.run(data, (other, spec), "vanilla", out, **common)
    fresh = gag_fast.run(data, (other, spec), "vanilla", tmp_path / "fresh", **common)
    assert same_bits(rows(second.out), rows(fresh.out))


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        (
            3,
            {},
            r"must be a name, a torch\.nn\.Module or \(module, gag_fast\.ModelSpec\(\.\.\.\)\)",
        ),
        (lambda: gag_fast.load_model(MODEL)[0], {"engine": "ray"}, "load the model by its name"),
        (
            lambda: (gag_fast.load_model(MODEL)[0], gag_fast.ModelSpec("it", num_classes=7)),
            {},
            "it has 5 classes, its spec says 7",
        ),
        (lambda: torch.nn.Conv2d(1, 2, 3), {}, "Conv2d fails on an input of shape"),
    ],
)
def test_models_that_cannot_be(photos, tmp_path, model, changes, words):
    given = model() if callable(model) else model
    with pytest.raises(ValueError, match=words) as caught:
        gag_fast.run(photos(2), given, "vanilla", tmp_path / "x", quiet=True, **changes)
    assert "\n" not in str(caught.value)


def test_a_model_that_says_nothing_of_its_images_is_told(photos, tmp_path, caplog):
    from gag_fast.models import given_model

    module = gag_fast.load_model(MODEL)[0]
    del module.preprocessing
    spec = given_model(module)[1]
    assert spec.preprocessing == gag_fast.Preprocessing()
    assert "Sequential says nothing of its preprocessing; taking" in caplog.text


def test_the_layer_that_grad_cam_looks_at_stands_in_the_manifest(photos, start):
    data = photos(2)
    chosen = start(data, methods=("grad_cam", "vanilla"))
    resolved = json.loads((chosen.out / "manifest.json").read_text())["resolved"]
    assert resolved["layer"] == "3"
    named = start(data, methods=("grad_cam", "vanilla"), options={"layer": "3"}, out="named")
    stored = json.loads((named.out / "manifest.json").read_text())
    assert stored["settings"]["options"] == {"layer": "3"}
    assert same_bits(rows(named.out), rows(chosen.out))
    other = start(data, methods=("grad_cam",), options={"layer": "0"}, out="other")
    assert not same_bits(rows(other.out), rows(start(data, methods=("grad_cam",), out="b").out))
