"""Decoding in other processes: the same pixels, and no file that ends a run."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gag_fast.data import Item
from gag_fast.images import fit, load_image
from gag_fast.models import Preprocessing
from gag_fast.runs import decoding
from gag_fast.runs.chunks import Chunk
from gag_fast.runs.decoding import Decoder

P = Preprocessing(size=32, resize=36)


@pytest.fixture
def photo_item(tmp_path):
    def make(name="a.png", size=(50, 40)):
        rng = np.random.default_rng(len(name))
        path = tmp_path / name
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)
        return Item(name, path)

    return make


def processes(decoder):
    return [p.process for p in decoder._processes]


def test_pixels_and_facts_of_the_file(photo_item):
    item = photo_item()
    with Decoder(P, workers=1) as decoder:
        found = decoder.submit(item).result()
    assert found.error is None
    assert np.array_equal(found.pixels, np.asarray(fit(load_image(item.path), P)))
    facts = item.path.stat()
    assert (found.bytes, found.mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert len(found.sha256) == 64
    assert found.mask is None


def test_a_mask_is_cut_like_its_image(photo_item, tmp_path):
    item = photo_item()
    half = np.zeros((50, 40), np.uint8)
    half[:, :20] = 1
    Image.fromarray(half).save(tmp_path / "m.png")
    Image.fromarray(half).resize((80, 100), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    Image.fromarray(half.T.copy()).save(tmp_path / "turned.png")
    with Decoder(P, workers=1) as decoder:
        for name in ("m.png", "large.png"):
            found = decoder.submit(Item("a", item.path, mask=tmp_path / name)).result()
            assert found.mask.shape == (32, 32)
            assert found.mask[:, :15].min() == 255
            assert found.mask[:, 17:].max() == 0
        found = decoder.submit(Item("a", item.path, mask=tmp_path / "turned.png")).result()
        assert "the mask is 50×40, the image 40×50" in found.error
        found = decoder.submit(Item("a", item.path, mask=tmp_path / "gone.png")).result()
        assert "gone.png: no such file" in found.error
        assert found.pixels is None


def test_a_bad_file_is_an_answer_not_an_exception(photo_item, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    with Decoder(P, workers=1) as decoder:
        bad = decoder.submit(Item("bad.jpg", tmp_path / "bad.jpg")).result()
        gone = decoder.submit(Item("x", tmp_path / "x.jpg")).result()
        good = decoder.submit(photo_item()).result()
    assert "bad.jpg: is not an image" in bad.error
    assert len(bad.sha256) == 64  # its bytes are known: a repaired file is noticed
    assert "x.jpg: no such file" in gone.error
    assert gone.sha256 is None
    assert good.error is None


def test_chunks_come_in_order_and_only_some_are_read_ahead(photo_item):
    taken = []

    def chunks():
        for index in range(6):
            taken.append(index)
            yield Chunk(index, (photo_item(f"{index}.png"), photo_item(f"{index}b.png")))

    with Decoder(P, workers=2) as decoder:
        for index, (chunk, decoded) in enumerate(decoder.stream(chunks(), ahead=2)):
            assert chunk.index == index
            assert len(taken) <= index + 3
            for item, one in zip(chunk.items, decoded, strict=True):
                assert np.array_equal(one.pixels, np.asarray(fit(load_image(item.path), P)))


def test_a_decoder_that_dies_is_replaced(photo_item):
    with Decoder(P, workers=1) as decoder:
        decoder.submit(photo_item()).result()
        (first,) = processes(decoder)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert decoder.submit(photo_item()).result().error is None
        assert processes(decoder) != [first]


def test_a_file_that_kills_its_decoder_twice_is_blamed(photo_item, monkeypatch):
    item = photo_item()
    ask = decoding._Process.decode

    def die(self, path, *more):
        if path.endswith("a.png"):
            os.kill(self.process.pid, signal.SIGSEGV)
        return ask(self, path, *more)

    monkeypatch.setattr(decoding._Process, "decode", die)
    with Decoder(P, workers=1) as decoder:
        bad = decoder.submit(item).result()
        good = decoder.submit(photo_item("other.png")).result()
    assert bad.error == f"{item.path}: the decoder died over it (signal 11)"
    assert good.error is None


def test_decoders_that_never_work_end_the_run(photo_item, monkeypatch):
    monkeypatch.setattr(decoding.sys, "executable", "/bin/false")
    with Decoder(P, workers=1) as decoder:
        futures = [decoder.submit(photo_item(f"{i}.png")) for i in range(5)]
        assert "died over it (status 1)" in futures[0].result().error
        with pytest.raises(RuntimeError, match="no decoder process can work here"):
            futures[4].result()


def test_a_decoder_that_hangs_is_ended(photo_item, monkeypatch):
    item = photo_item()
    with Decoder(P, workers=1) as decoder:
        decoder.submit(item).result()
        os.kill(processes(decoder)[0].pid, signal.SIGSTOP)
        monkeypatch.setattr(decoding, "TIMEOUT", 0.3)
        begin = time.monotonic()
        assert decoder.submit(item).result().error.endswith("took longer than 0 s")
        assert time.monotonic() - begin < 5
        monkeypatch.setattr(decoding, "TIMEOUT", 60)
        assert decoder.submit(item).result().error is None


def test_processes_end_with_the_decoder(photo_item):
    with Decoder(P, workers=2) as decoder:
        for future in [decoder.submit(photo_item(f"{i}.png")) for i in range(6)]:
            future.result()
        running = processes(decoder)
        assert running
    assert all(process.poll() is not None for process in running)


def test_decoders_load_no_torch():
    import subprocess
    import sys

    code = "import sys, gag_fast.runs.decoder_process; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"
    assert Path(decoding.__file__).exists()
