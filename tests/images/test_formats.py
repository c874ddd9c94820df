"""No picture is a program: only named formats are read, whatever a file says that it is."""

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from gag_fast import images
from gag_fast.data import Item
from gag_fast.images import FORMATS, ImageError, load_image
from gag_fast.models import Preprocessing
from gag_fast.runs import decoding
from gag_fast.runs.decoding import Decoder

ROOT = Path(__file__).parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` on the PATH that leaves a witness; gives the witness' path."""
    witness = tmp_path / "it-ran"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {witness}\nsleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return witness


def test_an_eps_file_called_png_runs_nothing(tmp_path, ghostscript):
    (tmp_path / "cat.png").write_bytes(EPS)
    with pytest.raises(ImageError, match=r"cat\.png: is not an image that can be read"):
        load_image(tmp_path / "cat.png")
    with Decoder(Preprocessing(size=32, resize=36), workers=1) as decoder:
        item = Item("cat.png", tmp_path / "cat.png", mask=tmp_path / "cat.png")
        assert "is not an image" in decoder.submit(item).result().error
    assert not ghostscript.exists()


def test_a_decoder_starts_no_program_though_its_formats_would(tmp_path, ghostscript):
    """The second wall: with EPS in the list, the decoder still refuses to start Ghostscript."""
    (tmp_path / "cat.png").write_bytes(EPS)
    code = (
        "import sys; from gag_fast import images; from gag_fast.runs import decoder_process as d; "
        "images._formats = lambda: None; sys.argv[1:] = [sys.argv[1]]; d.main()"
    )
    preprocessing = {"size": 32, "resize": 36, "mean": [0.5] * 3, "std": [0.5] * 3, "crop": True}
    asked = {"path": str(tmp_path / "cat.png"), "place": None}
    answer = subprocess.run(
        [sys.executable, "-c", code, json.dumps({**preprocessing, "interpolation": "bilinear"})],
        input=json.dumps(asked) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    last = json.loads(answer.stdout.splitlines()[-1])
    assert "a decoder may not start a program" in last["error"]
    assert not ghostscript.exists()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_named_is_read(tmp_path, name):
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {name}")
    Image.new("RGB", (8, 6), (200, 10, 10)).save(tmp_path / "a", name)
    assert load_image(tmp_path / "a").size == (8, 6)


def test_a_camera_s_picture_of_several_is_a_jpeg(tmp_path):
    pages = [Image.new("RGB", (8, 6), c) for c in ((200, 10, 10), (10, 200, 10))]
    pages[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=pages[1:])
    assert load_image(tmp_path / "a.jpg").getpixel((0, 0))[0] > 150


@pytest.mark.parametrize("name", ["PCX", "TGA", "ICO", "SGI", "DDS"])
def test_other_formats_are_refused(tmp_path, name):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png", name)
    with pytest.raises(ImageError, match="formats: PNG, JPEG"):
        load_image(tmp_path / "a.png")


def test_a_pillow_without_avif_reads_the_others(tmp_path, monkeypatch):
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    images._formats.cache_clear()
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == (8, 6)
    images._formats.cache_clear()


def test_nothing_opens_a_picture_without_naming_the_formats():
    for path in (*(ROOT / "gag_fast").rglob("*.py"), *(ROOT / "export").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
                assert any(k.arg == "formats" for k in node.keywords), f"{path}:{node.lineno}"


def test_what_a_decoder_started_ends_with_it(tmp_path, monkeypatch):
    """A child of a decoder that hangs must not go on when the decoder is ended."""
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    program = tmp_path / "decoder"
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o755)
    monkeypatch.setattr(decoding.sys, "executable", str(program))
    monkeypatch.setattr(decoding, "TIMEOUT", 5)
    with Decoder(Preprocessing(), workers=1) as decoder:
        answer = decoder.submit(Item("a.png", tmp_path / "a.png"))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        child = int((tmp_path / "pid").read_text())
        monkeypatch.setattr(decoding, "TIMEOUT", 0.1)
    assert answer.done()
    for _ in range(200):
        if not is_running(child):
            return
        time.sleep(0.02)
    os.kill(child, 9)
    pytest.fail("the decoder's child goes on")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
