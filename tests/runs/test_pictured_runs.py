"""Runs over tables of pictures: the rows of the same photographs in a folder, whatever happens."""

import os
import time
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import gag_fast
from gag_fast.data import open_dataset
from gag_fast.images import load_image, preprocess
from tests.photographs import SAMPLES
from tests.runs.run_rows import CLASSES, parts, process, rows, same_bits
from tests.runs.test_bad_images import UNREADABLE
from tests.tables_of_pictures import STRUCT, picture, save, save_shards, table_of
from tests.tiny_classifier import MODEL

FORMS = ("arrow", "parquet")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def cells_of(folder):
    """The photographs of a folder as (cells, labels), by the order of the folder."""
    items = open_dataset(folder, 5, gag_fast.load_model(MODEL)[1].labels).items
    return [picture(i.path.read_bytes(), i.image) for i in items], [
        sorted(CLASSES).index(i.image.split("/")[0]) for i in items
    ]


def stored(form, folder, cells, labels=None, shards=2, **columns):
    """The cells in so many files; what to give as the data."""
    size = -(-len(cells) // shards)
    classes = None if labels is None else sorted(CLASSES)
    tables = [
        table_of(
            cells[k : k + size],
            None if labels is None else labels[k : k + size],
            classes,
            **{name: column[k : k + size] for name, column in columns.items()},
        )
        for k in range(0, len(cells), size)
    ]
    if form == "arrow":
        return save(folder, *tables)
    save_shards(folder / "data", "validation", *tables, rows=5)
    return folder


@pytest.fixture
def in_a_table(photos, tmp_path):
    """Makes (a folder of `count` photographs, the same as a table)."""

    def make(form, count=20):
        folder = photos(count)
        return folder, stored(form, tmp_path / form, *cells_of(folder))

    return make


def restarts(start, data, **changes):
    """The summary of a start; another finds all done."""
    first = start(data, **changes)
    again = start(data, **changes)
    assert (again.computed, again.failures) == (0, first.failures)
    return first


# ---- the same rows -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("workers", [1, 3])
def test_the_rows_are_those_of_the_folder(in_a_table, start, form, workers):
    folder, data = in_a_table(form)
    before = sorted(p.name for p in data.rglob("*"))
    summary = restarts(start, data, out="table", workers=workers)
    assert summary.complete
    assert same_bits(rows(summary.out), rows(start(folder, out="folder").out))
    assert sorted(p.name for p in data.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize("form", FORMS)
def test_in_a_random_order_too(in_a_table, start, form):
    from gag_fast.report.deciding import Rule

    folder, data = in_a_table(form, 40)
    rule = Rule("rcap", 0.4, seed=3)
    runs = [start(d, out=f"run-{d.name}", until_decided=rule).out for d in (folder, data)]
    assert same_bits(*map(rows, runs))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"needs the photographs of {SAMPLES}")
@pytest.mark.parametrize("form", FORMS)
def test_photographs(start, tmp_path, form):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in sorted(SAMPLES.glob("*.jpg"))[:12]:
        (folder / path.name).symlink_to(path)
    cells = [picture(p.read_bytes(), p.name) for p in sorted(folder.iterdir())]
    data = stored(form, tmp_path / "table", cells)
    assert same_bits(rows(start(folder, out="a").out), rows(start(data, out="b").out))


def test_a_split_by_its_name(in_a_table, start):
    _, data = in_a_table("parquet", 6)
    assert start(data / "validation").complete
    assert start(data / "data" / "validation").computed == 0


def test_the_command_and_the_classes_names(in_a_table, onnx, tmp_path):
    _, data = in_a_table("parquet", 6)
    running = process(data / "validation", tmp_path / "run", onnx)
    _, err = running.communicate()
    assert running.returncode == 0, err
    found = rows(tmp_path / "run").to_pylist()
    labels = gag_fast.load_model(MODEL)[1].labels
    assert all(row["target"] == labels.index(row["image"].split("/")[0]) for row in found)


def test_masks(in_a_table, start, tmp_path):
    folder, _ = in_a_table("arrow", 4)
    cells, labels = cells_of(folder)
    mask = np.zeros((40, 36), np.uint8)
    mask[10:30, 10:20] = 255
    buffer = BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    (folder / "m.png").write_bytes(buffer.getvalue())
    given = [picture(buffer.getvalue()), None, picture(b"no picture"), picture(buffer.getvalue())]
    names = [cell["path"] for cell in cells]
    lines = [f"{n},{n.split('/')[0]},{m}" for n, m in zip(names, ["m.png", "", "m.png", "m.png"])]
    (folder / "data.csv").write_text("\n".join(["path,label,mask", *lines]))
    expected = rows(start(folder / "data.csv", out="csv").out)

    def others(table):
        return table.filter(pa.array([name != names[2] for name in table["image"].to_pylist()]))

    for form in FORMS:
        masks = pa.array(given, STRUCT)
        data = stored(form, tmp_path / f"m{form}", cells, labels, mask=masks)
        summary = restarts(start, data, out=f"run-{form}")
        assert list(summary.failures) == [names[2]]
        assert same_bits(others(rows(summary.out)), others(expected))
    plain = pa.array([None if m is None else m["bytes"] for m in given], pa.binary())
    data = stored("parquet", tmp_path / "plain", cells, labels, mask=plain)
    summary = restarts(start, data, out="run-plain")
    assert list(summary.failures) == [names[2]]
    assert summary.failures[names[2]].endswith("PPM, JPEG2000, AVIF")


# ---- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_is_the_same_and_a_changed_row_is_noticed(in_a_table, start, form):
    folder, data = in_a_table(form, 12)
    out = start(data).out
    whole, before = rows(out), parts(out)
    for path in data.rglob("*.*"):
        os.utime(path, (1, 1))
    assert start(data).computed == 0
    cells, labels = cells_of(folder)
    cells[5], other = picture(cells[2]["bytes"], cells[5]["path"]), cells[5]["path"]
    stored(form, data, cells, labels)
    assert start(data).computed == 4
    after, now = parts(out), rows(out)
    assert [n for n in after if after[n] != before[n]] == ["part-000001.parquet"]
    kept = pa.array([name != other for name in now["image"].to_pylist()])
    assert same_bits(now.filter(kept), whole.filter(kept))
    assert not same_bits(now, whole)


def test_the_file_beside_a_row_is_the_one_that_counts(in_a_table, start):
    folder, data = in_a_table("parquet", 8)
    cells, labels = cells_of(folder)
    (data / "p.png").write_bytes(cells[1]["bytes"])
    cells[1] = picture(None, "p.png")
    stored("parquet", data, cells, labels)
    summary = restarts(start, data)
    assert summary.complete
    os.utime(data / "p.png", (1, 1))
    assert start(data).computed == 0
    (data / "p.png").write_bytes(cells[2]["bytes"])
    assert start(data).computed == 4
    (data / "p.png").unlink()
    assert start(data).computed == 0  # gone: its rows stay


@pytest.mark.parametrize("form", FORMS)
def test_other_labels_are_other_data(in_a_table, start, form):
    folder, data = in_a_table(form, 6)
    start(data)
    cells, labels = cells_of(folder)
    stored(form, data, cells, labels[::-1])
    with pytest.raises(ValueError, match=r"data: \w{12}… in the folder"):
        start(data)


@pytest.mark.parametrize("form", FORMS)
def test_killed_and_taken_up_again(in_a_table, start, onnx, tmp_path, form):
    folder, data = in_a_table(form, 4 * 20)
    out = tmp_path / "run"
    for goal in (2, 6):
        running = process(data, out, onnx)
        while len(list(out.glob("results/*.parquet"))) < goal:
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.001)
        running.kill()
        running.communicate()
    assert 6 <= len(parts(out)) < 20
    assert start(data).complete
    assert same_bits(rows(out), rows(start(folder, out="quiet").out))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_on_ray(in_a_table, start, form):
    ray = pytest.importorskip("ray", reason="needs gag-fast[ray]")
    folder, data = in_a_table(form)
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False)
    try:
        remote = start(data, out="ray", engine="ray", workers=2)
    finally:
        ray.shutdown()
    assert remote.complete
    assert same_bits(rows(remote.out), rows(start(folder, out="folder").out))


# ---- rows that are bad ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_bad_rows_cost_themselves_alone(in_a_table, start, tmp_path, form):
    folder, _ = in_a_table(form, 8)
    good = rows(start(folder, out="good").out)
    cells, labels = cells_of(folder)
    bad = [(picture(make(), name), why) for name, (make, why) in UNREADABLE.items()]
    bad += [
        (picture(EPS, "eps.png"), "is not an image that can be read"),
        (picture(None, "gone.png"), "gone.png: no such file"),
        (picture(None, "../good/manifest.json"), "lies outside of the data set's folder"),
        (None, "has no picture"),
        (picture(None, None), "has no picture"),
        (picture(cells[0]["bytes"], "label.png"), "label 17 is none of its 3 classes"),
    ]
    data = stored(
        form,
        tmp_path / "bad",
        [*cells, *(cell for cell, _ in bad)],
        [*labels, *[0] * (len(bad) - 1), 17],
        shards=1,
    )
    summary = restarts(start, data, out="bad-run")
    (file,) = (p.name for p in data.rglob(f"*.{form}"))
    for row, (cell, why) in enumerate(bad, start=8):
        assert why in summary.failures[(cell and cell["path"]) or f"{file}#{row}"]
    assert len(summary.failures) == len(bad)
    found = rows(summary.out)
    ok = pa.array([status == "ok" for status in found["status"].to_pylist()])
    assert same_bits(found.filter(ok), good)


def test_eps_in_a_row_starts_no_program(start, tmp_path, monkeypatch):
    witness, program = tmp_path / "it-ran", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {witness}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for form in FORMS:
        data = stored(form, tmp_path / form, [picture(EPS, "a.eps"), picture(EPS, "b.png")])
        assert len(start(data, out=f"run-{form}").failures) == 2
    assert not witness.exists()


def test_a_file_that_swells_when_it_is_read_costs_its_rows(start, photos, tmp_path):
    """One value of 64 MB stands in the dictionary, and every row is that value."""
    cells, _ = cells_of(photos(4))
    (data := tmp_path / "d").mkdir()
    table = pa.table({"image": pa.array([bytes(64 << 20)]).dictionary_encode().take([0] * 7)})
    with pq.ParquetWriter(
        data / "0.parquet", table.schema, compression="zstd", store_schema=False
    ) as file:
        file.write_table(table)
    del table
    pq.write_table(pa.table({"image": [c["bytes"] for c in cells]}), data / "1.parquet")
    assert (data / "0.parquet").stat().st_size < 1 << 20
    summary = restarts(start, data)
    assert len(summary.failures) == 7
    assert summary.done == 11


def test_the_first_images_of_a_file_of_others(in_a_table, onnx, tmp_path):
    """`explain` takes such a folder too, and each picture once."""
    from gag_fast.cli.explain import _items

    folder, data = in_a_table("arrow", 5)
    items = _items([data, data])
    assert [i.image for i in items] == [f"{data}/{c['path']}" for c in cells_of(folder)[0]]


def test_pixels_are_those_of_the_files(in_a_table):
    from gag_fast.runs.decoding import Decoder

    spec = gag_fast.load_model(MODEL)[1]
    folder, data = in_a_table("parquet", 7)
    files = {i.image: i.path for i in open_dataset(folder).items}
    with Decoder(spec.preprocessing, workers=2) as decoder:
        items = open_dataset(data).items
        for item, future in [(item, decoder.submit(item)) for item in items]:
            found = future.result()
            assert found.bytes == files[item.image].stat().st_size
            assert found.mtime_ns == item.path.stat().st_mtime_ns
            expected = preprocess(load_image(files[item.image]), spec.preprocessing)
            assert gag_fast.images.normalise(found.pixels, spec.preprocessing).equal(expected)
