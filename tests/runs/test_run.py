"""A run: its rows, its folder, and going on with it."""

import json
import os
import signal
import tarfile
import time
from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import gag_fast
from gag_fast.data import open_dataset
from gag_fast.images import load_image, preprocess
from gag_fast.runs import worker as worker_module
from gag_fast.runs.folder import RunError, RunFolder
from gag_fast.runs.rows import SCHEMA
from tests.photographs import save_photo
from tests.runs.run_rows import CLASSES, parts, process, rows, same_bits
from tests.tiny_classifier import MODEL

# ---- rows -----------------------------------------------------------------------------------


def test_a_row_for_each_image_and_method(photos, start):
    data = photos(10)
    summary = start(data)
    table = RunFolder(summary.out).read()
    assert table.schema.equals(SCHEMA)
    found = {(r["image"], r["method"]): r for r in table.to_pylist()}
    names = [item.image for item in open_dataset(data).items]
    assert set(found) == {(i, m) for i in names for m in ("guided_absgrad", "vanilla")}
    assert {r["status"] for r in found.values()} == {"ok"}
    assert summary.complete
    assert (summary.images, summary.done, summary.computed) == (10, 10, 10)
    row = found["green/001.png", "vanilla"]
    assert row["target"] == 1  # the classifier's label "green", not the folder's place
    assert len(row["deletion"]) == len(row["insertion"]) == 11
    assert len(row["recover"]) == 5
    assert row["log_cosh_dice"] is None
    assert row["error"] is None


def test_the_figures_are_those_of_the_library(photos, start, onnx):
    data = photos(4)
    out = start(data, preset="official", seed=3).out
    module, spec = gag_fast.load_model(MODEL)
    items = open_dataset(data, 5, spec.labels).items
    images = torch.stack([preprocess(load_image(i.path), spec.preprocessing) for i in items])
    targets = torch.tensor([i.target for i in items])
    clf = gag_fast.Classifier(onnx, "cpu")
    ids = {r["image"]: r["image_id"] for r in RunFolder(out).read().to_pylist()}
    assert len(set(ids.values())) == 4
    maps = gag_fast.explain(
        module, images, targets, n=3, seed=3, image_ids=[ids[i.image] for i in items]
    )
    expected = gag_fast.evaluate(clf, images, maps, targets, preset="official")
    probabilities = clf(images)
    by_image = {r["image"]: r for r in rows(out).to_pylist() if r["method"] == "guided_absgrad"}
    for k, item in enumerate(items):
        row = by_image[item.image]
        for name in ("rcap", "dauc", "iauc"):
            assert row[name] == pytest.approx(float(getattr(expected, name)[k]), abs=1e-6)
        for name in ("deletion", "insertion", "recover"):
            assert row[name] == pytest.approx(expected.curves[name][k].tolist(), abs=1e-6)
        assert row["confidence"] == pytest.approx(float(probabilities[k, targets[k]]), abs=1e-6)
        assert row["predicted"] == int(probabilities[k].argmax())


def test_without_labels_the_predicted_class_is_explained(photos, start, tmp_path):
    for i in range(6):
        save_photo(tmp_path / "flat" / f"{i}.png", i)
    table = rows(start(tmp_path / "flat").out)
    assert table["target"].to_pylist() == table["predicted"].to_pylist()


def test_masks(photos, start, tmp_path):
    photos(3)
    mask = np.zeros((40, 36), np.uint8)
    mask[10:30, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    lines = [f"data/{CLASSES[i]}/00{i}.png,{i},{'m.png' if i < 2 else ''}" for i in range(3)]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,mask", *lines]))
    found = rows(start(tmp_path / "data.csv").out).to_pylist()
    for row in found:
        masked = "002" not in row["image"]
        assert row["status"] == "ok"
        assert (row["mae"] is not None) == masked
        assert (row["log_cosh_dice"] is not None) == masked
        assert not masked or 0 < row["mae"] < 1


def test_maps_are_kept_where_asked_for(photos, start):
    out = start(photos(6), keep_maps=True).out
    shard = np.load(out / "maps" / "part-000001.npz")
    assert shard["images"].tolist() == ["green/004.png", "red/002.png"] or len(shard["images"]) == 2
    assert shard["guided_absgrad"].shape == (2, 32, 32)
    assert shard["guided_absgrad"].dtype == np.float16
    assert shard["guided_absgrad"].max() == 1
    few = start(photos(40, "more"), out="without").out / "maps"  # see test_keeping.py
    assert 12 <= sum(len(np.load(path)["images"]) for path in few.iterdir()) <= 20


def test_the_manifest_says_what_was_done(photos, start, onnx):
    out = start(photos(3), seed=11).out
    manifest = json.loads((out / "manifest.json").read_text())
    settings = manifest["settings"]
    assert settings["seed"] == 11
    assert settings["methods"] == ["guided_absgrad", "vanilla"]
    assert settings["preset"]["name"] == "paper"
    assert len(settings["onnx_sha256"]) == len(settings["model_sha256"]) == 64
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert manifest["data"]["images"] == 3
    session = json.loads((out / "sessions" / "0000.json").read_text())
    assert session["engine"] == "local"


def test_the_classifier_is_exported_when_none_is_given(photos, start):
    out = start(photos(2), onnx=None).out
    assert (out / "model.onnx").is_file()
    before = (out / "model.onnx").stat().st_mtime_ns
    start(photos(2), onnx=None)
    assert (out / "model.onnx").stat().st_mtime_ns == before


def test_pictures_in_an_archive_are_those_in_a_folder(photos, start, tmp_path):
    data = photos(6)
    items = open_dataset(data, 5, gag_fast.load_model(MODEL)[1].labels).items
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        for item in items:
            label = tarfile.TarInfo(item.image.removesuffix("png") + "cls")
            label.size = 1
            tar.add(item.path, item.image)
            tar.addfile(label, BytesIO(str(item.target).encode()))
    out = start(tmp_path / "data.tar", out="archive").out
    assert same_bits(rows(out), rows(start(data, out="folder").out))
    os.utime(tmp_path / "data.tar", (1, 1))
    assert start(tmp_path / "data.tar", out="archive").computed == 0


def test_overlapped_stages_give_the_same_bits(photos, start):
    data = photos(14)
    apart = start(data, out="apart", overlap=False).out
    overlapped = start(data, out="overlapped", overlap=True, workers=2).out
    assert same_bits(rows(apart), rows(overlapped))


# ---- going on -------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(photos, start):
    data = photos(9)
    out = start(data).out
    before = parts(out)
    summary = start(data)
    assert parts(out) == before
    assert (summary.done, summary.computed) == (9, 0)
    assert summary.complete


def test_missing_parts_are_computed_to_the_same_bits(photos, start):
    data = photos(18)
    out = start(data).out
    whole = rows(out)
    before = parts(out)
    for index in (0, 3):
        (out / "results" / f"part-{index:06d}.parquet").unlink()
    (out / "results" / ".part-000003.parquet.tmp").write_bytes(b"half")
    summary = start(data)
    assert summary.computed == 8
    assert same_bits(rows(out), whole)
    after = parts(out)
    assert after.keys() == before.keys()
    kept = [n for n in after if n not in ("part-000000.parquet", "part-000003.parquet")]
    assert all(after[n] == before[n] for n in kept)


def test_a_broken_part_is_computed_again(photos, start):
    data = photos(6)
    out = start(data).out
    whole = rows(out)
    path = out / "results" / "part-000000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert start(data).computed == 4
    assert same_bits(rows(out), whole)


def test_a_part_of_another_run_does_not_count(photos, start):
    data = photos(8)
    out, other = start(data).out, start(data, out="other", seed=5).out
    whole = rows(out)
    name = "part-000001.parquet"
    (out / "results" / name).write_bytes((other / "results" / name).read_bytes())
    assert start(data).computed == 4
    assert same_bits(rows(out), whole)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"seed": 1}, "seed: 0 in the folder, 1 now"),
        ({"p": 65.0}, "p: 85.0 in the folder, 65.0 now"),
        ({"methods": ("vanilla",)}, "methods: guided_absgrad,vanilla in the folder, vanilla now"),
        ({"preset": "rise"}, "preset.step: 0.1 in the folder, 224 now"),
        ({"limit": 2}, "images: 5 in the folder, 2 now"),
        ({"chunk": 2}, "chunk: 4 in the folder, 2 now"),
    ],
)
def test_other_settings_are_refused_with_the_difference(photos, start, changes, difference):
    data = photos(5)
    out = start(data).out
    before = parts(out)
    with pytest.raises(RunError, match="holds a run with other settings") as caught:
        start(data, **changes)
    assert difference in str(caught.value)
    assert "\n" not in str(caught.value)
    assert parts(out) == before


def test_another_model_is_refused(photos, start, tmp_path):
    data = photos(3)
    start(data)
    state = gag_fast.load_model(MODEL)[0].state_dict()
    state["0.bias"] += 1e-3
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(RunError, match=r"model_sha256: \w{12}… in the folder, \w{12}… now"):
        start(data, weights=str(tmp_path / "other.pt"))


def test_a_changed_image_is_noticed(photos, start, capfd):
    data = photos(12)
    out = start(data).out
    before, whole = parts(out), rows(out)
    image = open_dataset(data).items[5]
    save_photo(image.path, seed=999)
    assert start(data).computed == 4
    after, now = parts(out), rows(out)
    assert [n for n in after if after[n] != before[n]] == ["part-000001.parquet"]
    changed = now.filter(_is(now, image.image))
    assert not same_bits(changed, whole.filter(_is(whole, image.image)))
    assert same_bits(
        now.filter(_is(now, image.image, False)), whole.filter(_is(whole, image.image, False))
    )


def _is(table, image, same=True):
    import pyarrow as pa

    return pa.array([(name == image) == same for name in table["image"].to_pylist()])


def test_a_touched_image_is_not_a_changed_one(photos, start):
    data = photos(4)
    out = start(data).out
    before = parts(out)
    for item in open_dataset(data).items:
        os.utime(item.path, (1, 1))
    assert start(data).computed == 0
    assert parts(out) == before


def test_an_image_that_is_gone_keeps_its_rows(photos, start):
    data = photos(4)
    (tmp := data.parent / "data.csv").write_text(
        "\n".join(["path", *(f"data/{i.image}" for i in open_dataset(data).items)])
    )
    out = start(tmp).out
    open_dataset(data).items[0].path.unlink()
    assert start(tmp).computed == 0
    assert rows(out).num_rows == 8


def test_two_processes_do_not_write_into_one_folder(photos, start):
    data = photos(3)
    out = start(data).out
    with RunFolder(out).locked(), pytest.raises(RunError, match=r"another process \(pid \d+\)"):
        start(data)


# ---- images and methods that fail -----------------------------------------------------------


def test_a_failed_image_changes_no_other_row(photos, start):
    data = photos(8)
    good = rows(start(data, out="good").out)
    bad_image = open_dataset(data).items[1]
    bad_image.path.write_bytes(b"no image")
    summary = start(data, out="bad")
    bad = rows(summary.out)
    assert list(summary.failures) == [bad_image.image]
    assert "is not an image" in summary.failures[bad_image.image]
    assert not summary.complete
    assert same_bits(
        bad.filter(_is(bad, bad_image.image, False)), good.filter(_is(good, bad_image.image, False))
    )
    for row in bad.filter(_is(bad, bad_image.image)).to_pylist():
        assert row["status"] == "failed"
        assert "is not an image" in row["error"]
        assert row["rcap"] is None


def test_failures_are_tried_again_when_asked_for(photos, start):
    data = photos(8)
    good = rows(start(data, out="good").out)
    image = open_dataset(data).items[1].path
    table = data.parent / "data.csv"
    lines = [
        f"data/{i.image},{i.target}" for i in open_dataset(data, 5, ["blue", "green", "red"]).items
    ]
    table.write_text("\n".join(["path,label", *lines]))
    content = image.read_bytes()
    image.unlink()
    assert len(start(table).failures) == 1
    assert start(table).computed == 0
    summary = start(table, retry_failed=True)
    assert (summary.computed, len(summary.failures)) == (4, 1)
    image.write_bytes(content)
    summary = start(table)  # the file is another than the one that failed
    assert (summary.computed, summary.failures) == (4, {})
    assert good.num_rows == rows(summary.out).num_rows


def test_a_method_that_fails_leaves_the_others_their_rows(photos, start, monkeypatch):
    explain = worker_module.explain_as

    def broken(model, images, targets, methods, *how, **ids):
        if "vanilla" in methods:
            raise RuntimeError("CUDA out of memory\nand much more")
        return explain(model, images, targets, methods, *how, **ids)

    monkeypatch.setattr(worker_module, "explain_as", broken)
    summary = start(photos(4))
    found = rows(summary.out).to_pylist()
    assert {(r["method"], r["status"]) for r in found} == {
        ("guided_absgrad", "ok"),
        ("vanilla", "failed"),
    }
    assert set(summary.failures.values()) == {"vanilla: CUDA out of memory"}


def test_a_map_that_is_not_finite_fails_alone(photos, start, monkeypatch):
    explain = worker_module.explain_as

    def spoilt(*args, **options):
        maps = explain(*args, **options)
        maps["vanilla"][1, 3, 3] = torch.nan
        return maps

    good = rows(start(photos(4), out="good").out)
    monkeypatch.setattr(worker_module, "explain_as", spoilt)
    bad = rows(start(photos(4), out="bad").out)
    failed = [r for r in bad.to_pylist() if r["status"] == "failed"]
    assert [(r["method"], r["error"]) for r in failed] == [
        ("vanilla", "the saliency map is not finite")
    ]
    kept = [i for i, r in enumerate(bad.to_pylist()) if r["status"] == "ok"]
    assert same_bits(bad.take(kept), good.take(kept))


def test_a_model_whose_gradients_are_nan(photos, start):
    summary = start(photos(2), model="tests.tiny_classifier:not_a_number")
    assert set(summary.failures.values()) == {"the saliency map is not finite"}
    assert len(summary.failures) == 2


def test_a_classifier_that_gives_nan(photos, start, monkeypatch):
    monkeypatch.setattr(gag_fast.Classifier, "probabilities", lambda self, x: x * torch.nan)
    summary = start(photos(2))
    reason = "not a finite number: confidence, rcap, dauc, iauc"
    assert set(summary.failures.values()) == {reason}


def test_metrics_of_masks_alone(photos, start, tmp_path):
    photos(6)
    Image.new("L", (36, 40), 255).save(tmp_path / "m.png")
    lines = [f"data/{CLASSES[i % 3]}/00{i}.png,{i % 3},{'m.png' * (i == 5)}" for i in range(6)]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,mask", *lines]))
    found = rows(start(tmp_path / "data.csv", metrics=("mae",)).out).to_pylist()
    assert [r["image"] for r in found if r["mae"] is not None] == ["data/red/005.png"] * 2
    assert all(r["status"] == "ok" and r["rcap"] is None for r in found)
    with pytest.raises(ValueError, match="mae needs masks"):
        start(tmp_path / "data", out="other", metrics=("mae",))


# ---- mistakes, found before any work --------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "tests.tiny_classifier:other"}, r"tiny\.onnx has 5 classes, the model .* has 3"),
        (
            {"model": "tests.tiny_classifier:larger"},
            r"takes images of 32 pixels, the model .* of 64",
        ),
        ({"onnx": "gone.onnx"}, "gone.onnx"),
        ({"methods": ("nonsense",)}, "unknown method 'nonsense'"),
        ({"metrics": ("nonsense",)}, "nonsense"),
        ({"preset": "nonsense"}, "preset must be one of"),
        ({"model": "nonsense"}, "unknown model 'nonsense'"),
        ({"engine": "nonsense"}, "engine must be local or ray, got 'nonsense'"),
        ({"workers": 0}, "workers must be 1 or more, got 0"),
        ({"methods": ()}, "methods must be one or more different names"),
    ],
)
def test_mistakes(photos, start, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        start(photos(3), **changes)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "run").glob("results/*")) if (tmp_path / "run").exists() else True


def test_a_run_folder_that_is_a_file(photos, start, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunError, match="cannot be a run folder"):
        start(photos(2))


# ---- signals --------------------------------------------------------------------------------


def wait_for_parts(out, count, running):
    while len(list((out / "results").glob("*.parquet"))) < count:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_part_in_hand(photos, start, onnx, tmp_path, number):
    data = photos(240)
    running = process(data, tmp_path / "run", onnx)
    wait_for_parts(tmp_path / "run", 2, running)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert "finishing the part in hand" in err
    assert f"stopped by {signal.Signals(number).name} with" in err
    assert "the same command goes on from here" in err
    done = len(parts(tmp_path / "run"))
    assert 2 <= done < 60
    assert not list((tmp_path / "run").rglob("*.tmp"))
    summary = start(data)
    assert (summary.computed, summary.done) == (240 - 4 * done, 240)
    assert same_bits(rows(summary.out), rows(start(data, out="undisturbed").out))


def test_parquet_of_a_run_reads_with_plain_pyarrow(photos, start):
    out = start(photos(5)).out
    table = pq.read_table(out / "results")
    assert table.num_rows == 10


def test_the_same_maps_under_several_presets(photos, start, tmp_path, monkeypatch):
    from gag_fast.report.disagreement import disagreements
    from gag_fast.report.reading import read_run

    data = photos(6)
    start(data, presets=("official", "torchcam"))
    both = read_run(tmp_path / "run")
    for preset in ("official", "torchcam"):
        start(data, out=preset, preset=preset)
        alone = read_run(tmp_path / preset)
        for name in ("rcap", "dauc", "iauc"):
            np.testing.assert_array_equal(both.columns[f"{name}@{preset}"], alone.scores[name])
    assert [d.measure.column for d in disagreements(both)] == ["rcap", "dauc", "iauc"]
    with pytest.raises(ValueError, match="others than paper, each once, got rise, rise"):
        start(data, out="twice", presets=("rise", "rise"))
    with pytest.raises(ValueError, match="preset must be one of"):
        start(data, out="none", presets=("x",))
