"""Rows are those of this run, of these files, bit for bit as they were written; or they are not."""

import json
import random
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gag_fast import _run_files as files
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.inputs import id_of_name
from gag_fast.report.command import report
from gag_fast.report.reading import ReportError, read_run
from gag_fast.runs.folder import RunError, RunFolder
from gag_fast.runs.request import Request
from gag_fast.runs.run import run
from tests import ROOT
from tests.runs.run_rows import parts, rows, same_bits

OLD = ROOT / "tests" / "runs" / "run_of_0_1_0"


# ---- masks -----------------------------------------------------------------------------------


@pytest.fixture
def masked(photos, tmp_path):
    """A table of 6 images with masks, and a function that draws the mask of one."""
    photos(6)

    def draw(index, rows):
        mask = np.zeros((40, 36), np.uint8)
        mask[rows, 5:30] = 255
        Image.fromarray(mask).save(tmp_path / f"mask{index}.png")

    lines = ["path,label,mask"]
    for i in range(6):
        draw(i, slice(10, 20))
        lines.append(f"data/{('blue', 'green', 'red')[i % 3]}/00{i}.png,{i % 3},mask{i}.png")
    (tmp_path / "data.csv").write_text("\n".join(lines))
    return tmp_path / "data.csv", draw


def test_a_changed_mask_is_noticed(masked, start):
    data, draw = masked
    settings = {"metrics": ("mae",), "chunk": 2}
    out = start(data, **settings).out
    before = parts(out)
    draw(3, slice(0, 38))
    summary = start(data, **settings)
    assert summary.computed == 2
    assert [n for n, t in parts(out).items() if t != before[n]] == ["part-000001.parquet"]
    assert same_bits(rows(out), rows(start(data, out="fresh", **settings).out))
    assert start(data, **settings).computed == 0


def test_a_touched_mask_is_not_a_changed_one(masked, start):
    data, draw = masked
    start(data, metrics=("mae",))
    for i in range(6):
        draw(i, slice(10, 20))
    assert start(data, metrics=("mae",)).computed == 0


def test_a_mask_that_is_mended_is_noticed_and_one_that_is_not_is_left(masked, start, tmp_path):
    data, draw = masked
    (tmp_path / "mask4.png").write_bytes(b"no mask")
    (tmp_path / "data" / "green" / "001.png").write_bytes(b"no picture")
    (tmp_path / "mask2.png").unlink()
    assert len(start(data, metrics=("mae",), chunk=2).failures) == 3
    assert start(data, metrics=("mae",), chunk=2).computed == 0
    draw(4, slice(10, 20))
    draw(2, slice(10, 20))
    summary = start(data, metrics=("mae",), chunk=2)
    assert (summary.computed, len(summary.failures)) == (4, 1)


# ---- parts -----------------------------------------------------------------------------------


def test_every_flipped_bit_is_noticed_or_changes_nothing(photos, start):
    out = start(photos(3), chunk=3).out
    path = out / "results" / "part-000000.parquet"
    whole, good = path.read_bytes(), files.read_part(path)
    draw = random.Random(4)
    noticed = 0
    for _ in range(1500):
        position = draw.randrange(8 * len(whole))
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            found = files.read_part(path)
        except RunError:
            noticed += 1
        else:
            assert found.equals(good)
    assert noticed >= 1490  # the rest hit the seal's own name


def test_pages_carry_checksums_for_every_reader(photos, start):
    out = start(photos(3)).out
    path = out / "results" / "part-000000.parquet"
    whole = path.read_bytes()

    def reads(place, verify):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        source = pa.BufferReader(bytes(damaged))
        try:
            pq.ParquetFile(source, page_checksum_verification=verify).read()
        except (OSError, ValueError, pa.ArrowException):
            return False
        return True

    assert any(reads(place, False) and not reads(place, True) for place in range(4, 800))


def test_a_flipped_bit_is_computed_again_and_stops_a_report(photos, start):
    data = photos(6)
    out = start(data).out
    whole = rows(out)
    path = out / "results" / "part-000001.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[-200] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ReportError, match=r"part-000001\.parquet: "):
        read_run(out)
    assert start(data).computed == 2
    assert same_bits(rows(out), whole)


def test_parts_of_another_run_replace_no_rows(photos, start, capsys):
    data = photos(8)
    out, other = start(data).out, start(data, out="other", seed=5).out
    whole, figures = rows(out), read_run(out).scores["rcap"]
    results = out / "results"
    shutil.copy(other / "results" / "part-000000.parquet", results / "part-000007.parquet")
    shutil.copy(results / "part-000000.parquet", results / "part-000009.parquet")
    found = read_run(out)
    np.testing.assert_array_equal(found.scores["rcap"], figures)
    assert [note.partition(" is left out: ")[2] for note in found.notes] == [
        "of a run with other settings",
        "beyond the 2 parts of the run",
    ]
    assert report([out], formats=["text"]) == 0
    assert "note: part-000007.parquet is left out: of a run" in capsys.readouterr().out
    assert start(data).computed == 0
    assert same_bits(rows(out), whole)


def test_a_part_in_the_place_of_another_is_left_out(photos, start):
    data = photos(8)
    out = start(data).out
    shutil.copy(out / "results" / "part-000000.parquet", out / "results" / "part-000001.parquet")
    assert read_run(out).notes == ["part-000001.parquet is left out: the rows of another part"]
    assert start(data).computed == 4


def test_parts_of_two_runs_without_a_manifest_are_refused(photos, start):
    data = photos(8)
    out, other = start(data).out, start(data, out="other", seed=5).out
    shutil.copy(other / "results" / "part-000000.parquet", out / "results" / "part-000000.parquet")
    (out / "manifest.json").unlink()
    with pytest.raises(ReportError, match="its parts are of 2 runs, and no manifest says which"):
        read_run(out)


# ---- the manifest ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("settings"),
        lambda m: m.pop("format"),
        lambda m: m.update(format="1"),
        lambda m: m.update(settings=[1]),
        lambda m: m.update(resolved={"threads": 10**9}),
        lambda m: m.update(resolved={"batch_size": "many"}),
        lambda m: m.update(resolved=7),
        lambda m: m.update(versions=7),
        lambda m: m["settings"].pop("seed"),
        lambda m: m["settings"].update(preset="paper"),
        lambda m: m["settings"].update(methods=None),
    ],
)
def test_an_edited_manifest_gives_one_line(photos, start, change):
    data = photos(2)
    out = start(data).out
    manifest = json.loads((out / "manifest.json").read_text())
    change(manifest)
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError) as caught:
        start(data)
    assert "\n" not in str(caught.value)
    assert str(out) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '{"a": ' * 100_000, "\xff", '{"settings": {}}'],
    ids=["empty", "list", "number", "deep", "no UTF-8", "no format"],
)
def test_a_manifest_that_is_none_gives_one_line(photos, start, text):
    data = photos(2)
    out = start(data).out
    (out / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(RunError, match=r"manifest\.json: ") as caught:
        start(data)
    assert "\n" not in str(caught.value)


def test_a_report_on_an_edited_manifest_gives_one_line(photos, start):
    out = start(photos(2)).out
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["settings"]["p"] = 50.0
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ReportError, match="was it edited") as caught:
        read_run(out)
    assert "\n" not in str(caught.value)


# ---- runs of earlier versions ----------------------------------------------------------------


def test_a_run_of_the_first_version_is_taken_up(tmp_path, monkeypatch):
    """Its manifest, settings' hash and part are those that version wrote; half is to be done."""
    shutil.copytree(OLD, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tests")
    before = parts(tmp_path / "run")
    request = Request(
        data="data.csv",
        out="run",
        model="tiny_classifier:build",
        onnx="tiny.onnx",
        methods=("guided_absgrad", "vanilla"),
        metrics=("rcap", "dauc", "iauc", "log_cosh_dice", "mae"),
        explanation=Explanation(n=3),
        chunk=2,
        workers=1,
        providers="cpu",
        batch_size=4,
    )
    summary = run(request, quiet=True)
    assert (summary.done, summary.computed, summary.failures) == (4, 2, {})
    after = parts(tmp_path / "run")
    assert list(after) == ["part-000000.parquet", "part-000001.parquet"]
    assert after["part-000000.parquet"] == before["part-000000.parquet"]
    assert rows(tmp_path / "run").num_rows == 8
    # Its images meet their noise by the rule of that time, a hash of the pixels.
    for row in pq.read_table(tmp_path / "run" / "results" / "part-000001.parquet").to_pylist():
        assert row["image_id"] not in (0, id_of_name(row["image"]))
    assert len(read_run(tmp_path / "run").images) == 4
    with pytest.raises(RunError, match=r"seed: 0 in the folder, 1 now"):
        run(Request(**{**vars(request), "explanation": Explanation(n=3, seed=1)}), quiet=True)


def test_a_folder_reads_old_and_new_parts_together():
    assert RunFolder(OLD / "run").read().num_rows == 4
