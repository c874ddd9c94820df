"""Every kind of bad image in a run: each ends as a row that says why, and none ends the run."""

import os
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.photographs import save_photo
from tests.runs.run_rows import rows, same_bits

GOOD = 7


def encoded(picture, kind="PNG", **options):
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(mode="RGB", size=(40, 40)):
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).convert(mode)


def bomb():
    def block(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", b"") + block(b"IEND", b"")


def corrupt():
    data = bytearray(encoded(colours()))
    data[60:200] = bytes(140)
    return bytes(data)


# Unusual, but pictures: they must come out as rows like any other.
READABLE = {
    "greyscale.png": lambda: encoded(colours("L")),
    "cmyk.jpg": lambda: encoded(colours("CMYK"), "JPEG"),
    "rgba.png": lambda: encoded(colours("RGBA")),
    "palette.gif": lambda: encoded(colours("P"), "GIF"),
    "sixteen_bits.png": lambda: encoded(
        Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)
    ),
    "animated.gif": lambda: encoded(
        colours("P"), "GIF", save_all=True, append_images=[colours("P").rotate(90)]
    ),
    "wrong_extension.jpg": lambda: encoded(colours()),
}
# kind -> (content, a part of the reason)
UNREADABLE = {
    "corrupt.png": (corrupt, "cannot be decoded"),
    "truncated.jpg": (lambda: encoded(colours(), "JPEG")[:-400], "truncated"),
    "bomb.png": (bomb, "decompression bomb"),
    "empty.jpg": (lambda: b"", "is empty (0 bytes)"),
    "text.jpg": (lambda: b"not a picture at all", "is not an image"),
}


@pytest.fixture
def folder_with(tmp_path):
    """GOOD photographs, and a function that adds a file beside them."""
    folder = tmp_path / "data"
    for i in range(GOOD):
        save_photo(folder / f"good_{i}.png", i)

    def add(name, content):
        (folder / name).write_bytes(content)
        return folder

    return add


@pytest.mark.parametrize("name", READABLE)
def test_the_unusual_is_scored(folder_with, start, name):
    summary = start(folder_with(name, READABLE[name]()))
    assert summary.complete
    assert rows(summary.out).num_rows == 2 * (GOOD + 1)


@pytest.mark.parametrize("name", UNREADABLE)
def test_the_unreadable_is_named(folder_with, start, name):
    content, reason = UNREADABLE[name]
    summary = start(folder_with(name, content()))
    assert list(summary.failures) == [name]
    assert reason in summary.failures[name]
    assert len([r for r in rows(summary.out).to_pylist() if r["status"] == "ok"]) == 2 * GOOD


def test_a_file_that_may_not_be_read(folder_with, start):
    # Root may read everything, but not what hangs on a name that leads nowhere.
    folder = folder_with("x.png", b"")
    (folder / "x.png").unlink()
    (folder / "x.png").symlink_to("nowhere.png")
    summary = start(folder)
    assert "no such file" in summary.failures["x.png"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(folder_with, start):
    folder = folder_with("x.png", encoded(colours()))
    (folder / "x.png").chmod(0)
    assert "Permission denied" in start(folder).failures["x.png"]


def test_a_file_that_vanishes_midway(folder_with, start, monkeypatch):
    """The list of images is made at the start; the file goes before it is decoded."""
    from gag_fast.runs.decoding import Decoder

    folder = folder_with("vanishing.png", encoded(colours()))
    submit = Decoder.submit

    def vanish(self, item):
        (folder / "vanishing.png").unlink(missing_ok=True)
        return submit(self, item)

    monkeypatch.setattr(Decoder, "submit", vanish)
    summary = start(folder)
    assert "no such file" in summary.failures["vanishing.png"]


def test_all_of_them_at_once(folder_with, start):
    good = rows(start(folder_with("greyscale.png", READABLE["greyscale.png"]()), out="good").out)
    for name, content in READABLE.items():
        folder = folder_with(name, content())
    for name, (content, _) in UNREADABLE.items():
        folder = folder_with(name, content())
    summary = start(folder, chunk=1)
    assert set(summary.failures) == {*UNREADABLE}
    assert not summary.complete
    found = rows(summary.out)
    ok = {r["image"] for r in found.to_pylist() if r["status"] == "ok"}
    assert ok == {*READABLE, *(f"good_{i}.png" for i in range(GOOD))}
    assert found.num_rows == 2 * (GOOD + len(READABLE) + len(UNREADABLE))
    assert good.num_rows == 2 * (GOOD + 1)


def test_their_place_in_a_chunk_changes_nothing_for_the_good(folder_with, start):
    folder = folder_with("bad.png", b"no picture")
    bad = rows(start(folder, out="bad").out)
    save_photo(folder / "bad.png", 77)
    good = rows(start(folder, out="good").out)

    def others(table):
        return table.take([i for i, n in enumerate(table["image"].to_pylist()) if n != "bad.png"])

    assert same_bits(others(bad), others(good))
