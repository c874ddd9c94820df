"""One bad file, name or label costs its row or its entry, with the reason; the rest is done."""

import os
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gag_fast.data import open_dataset
from gag_fast.report.command import write_report
from gag_fast.report.export import export_scores
from gag_fast.report.reading import read_run
from gag_fast.runs import decoding
from tests.photographs import save_photo
from tests.runs.run_rows import rows

ODD = b"\xff\xfe cat\n\x1b[31m.png"


@pytest.fixture
def odd(tmp_path):
    """A folder of three photographs, one of them under a name that is no UTF-8."""
    for i in range(3):
        save_photo(tmp_path / "data" / f"{i}.png", i)
    os.rename(tmp_path / "data" / "0.png", os.fsencode(tmp_path / "data") + b"/" + ODD)
    return tmp_path / "data"


def restarts(start, data, **changes):
    """The summary of a start; another finds all done."""
    first = start(data, **changes)
    again = start(data, **changes)
    assert (again.computed, again.failures) == (0, first.failures)
    return first


def test_a_file_s_name(odd, start):
    summary = restarts(start, odd)
    assert summary.complete
    assert "\\xff\\xfe cat\n\x1b[31m.png" in rows(summary.out)["image"].to_pylist()


def test_a_member_of_an_archive(odd, start, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in odd.iterdir():
            tar.add(path, path.name)
    assert restarts(start, tmp_path / "a.tar").complete


def test_a_bad_file_of_such_a_name_is_a_failed_row(odd, start):
    with open(os.fsencode(odd) + b"/" + ODD, "wb") as file:
        file.write(b"no picture")
    (reason,) = restarts(start, odd).failures.values()
    assert "\\xff\\xfe cat\\n\\x1b[31m.png: is not an image" in reason


def test_the_folders_themselves(odd, start, tmp_path):
    data = os.fsdecode(os.fsencode(tmp_path) + b"/d\xff")
    os.rename(odd, data)
    summary = restarts(start, data, out=os.fsdecode(b"run\xff"), onnx=None)
    assert summary.complete
    run = read_run(summary.out)
    assert run.name == "run\\xff"
    for path in write_report([run], tmp_path / "report"):
        path.read_text(encoding="utf-8")
    exported = export_scores([run], [run.name], tmp_path / "scores.parquet")
    assert read_run(exported).rows == run.rows


def test_maps_from_a_folder_of_such_a_name(odd, start, tmp_path):
    maps = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff"))
    maps.mkdir()
    for name in ("1", "2", os.fsdecode(ODD[:-4])):
        np.save(maps / f"{name}.npy", np.eye(32, dtype=np.float32))
    failures = restarts(start, odd, methods=(), maps={"given": maps}, onnx=None).failures
    assert all("no map of" in reason for reason in failures.values())
    assert len(failures) <= 1  # of the image whose name the table of rows holds as escapes


def test_a_table_with_names_that_are_none(start, tmp_path, odd):
    lines = ["path", "data/1.png", "a\0b.png", "x" * 300 + ".png", "data/2.png/3.png"]
    (tmp_path / "data.csv").write_text("\n".join(lines))
    failures = restarts(start, tmp_path / "data.csv").failures
    assert "no file can have such a name" in failures["a\0b.png"]
    assert "File name too long" in failures["x" * 300 + ".png"]
    assert "Not a directory" in failures["data/2.png/3.png"]
    assert len(failures) == 3


def test_masks_with_names_that_are_none(start, tmp_path, odd):
    (tmp_path / "data.csv").write_text("path,label,mask\ndata/1.png,1,a\0b.png\ndata/2.png,1,\n")
    assert list(restarts(start, tmp_path / "data.csv").failures) == ["data/1.png"]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "PARQUET"])
def test_labels_of_400_digits_are_left_out_with_a_note(tmp_path, odd, suffix):
    path, labels = ["data/1.png", "data/2.png"], ["1", "9" * 400]
    if suffix == "csv":
        text = "\n".join(["path,label", *(f"{p},{x}" for p, x in zip(path, labels))])
        (tmp_path / "data.csv").write_text(text)
    else:
        pq.write_table(pa.table({"path": path, "label": labels}), tmp_path / f"data.{suffix}")
    found = open_dataset(tmp_path / f"data.{suffix}", 5)
    assert [(i.image, i.target) for i in found.items] == [("data/1.png", 1)]
    assert found.notes == ("left out: row 2 (data/2.png): a label of 400 digits is no class index",)


def archive(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))


def test_what_macos_adds_to_archives_is_no_picture(tmp_path, odd):
    picture = (odd / "1.png").read_bytes()
    members = [("a.png", picture), ("._a.png", b"\0\5\x16\7"), ("a.cls", b"2"), ("._a.cls", b"x")]
    archive(tmp_path / "a.tar", *members, ("b.png", picture), ("b.cls", b"7" * 400))
    found = open_dataset(tmp_path / "a.tar", 5)
    assert [(i.image, i.target) for i in found.items] == [("a.png", 2)]
    assert found.notes == (
        "left out: 1 hidden entries of a.tar (._a.png, …)",
        "left out: a.tar: b.png: a label of 400 digits is no class index",
    )


def test_pipes_and_folders_named_like_archives(tmp_path, odd):
    os.mkfifo(odd / "x.tar")
    (odd / "backup.tar").mkdir()
    assert len(open_dataset(odd)) == 3
    archive(odd / "real.tar", ("a.png", (odd / "1.png").read_bytes()))
    found = open_dataset(odd)
    assert len(found) == 1
    assert {"left out: x.tar is no file", "left out: backup.tar is no file"} <= set(found.notes)
    for name in ("y.tar", "y.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="neither a folder nor a regular file"):
            open_dataset(tmp_path / name)


def test_first_images_that_are_all_bad(start, tmp_path):
    """Sparse files of 20 GB: none is read, and the decoders live to do the others."""
    for i in range(8):
        path = tmp_path / "data" / f"{i}.png"
        if i < 6:
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as file:
                file.truncate(20 << 30)
        else:
            save_photo(path, i)
    summary = restarts(start, tmp_path / "data")
    assert len(summary.failures) == 6
    assert all(
        "too large for a picture (21,474,836,480 bytes)" in r for r in summary.failures.values()
    )


def test_first_images_that_all_kill_their_decoder(start, tmp_path, monkeypatch):
    for i in range(8):
        save_photo(tmp_path / "data" / f"{i}.png", i)
    ask = decoding._Process.decode
    asked = []

    def die(self, path, *more):
        asked.append(path)
        if not path.endswith(("6.png", "7.png")):
            if not self.ready:
                self._line(time.monotonic() + 60)
                self.ready = True
            self.process.kill()
        return ask(self, path, *more)

    monkeypatch.setattr(decoding._Process, "decode", die)
    summary = start(tmp_path / "data")
    assert len(summary.failures) == 6
    assert all("the decoder died over it" in reason for reason in summary.failures.values())
    asked.clear()
    assert start(tmp_path / "data").computed == 0
    assert not asked  # what kills decoders is not tried again at every start


def test_names_of_255_bytes(start, tmp_path):
    name = "ä" * 125 + "a.png"
    assert len(name.encode()) == 255
    save_photo(tmp_path / "data" / name, 1)
    save_photo(tmp_path / "data" / "b.png", 2)
    assert restarts(start, tmp_path / "data").complete
