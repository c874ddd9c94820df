"""Damaged files of every kind: an answer or an error of one line; nothing else, and no hang.

Each kind starts from files that are right. 2,000 files and more with `make fuzz`.
"""

import io
import json
import random
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import gag_fast
from gag_fast import _run_files as files
from gag_fast._errors import GagFastError
from gag_fast.data import DataError, Item, PlaceReader, open_dataset
from gag_fast.images import FORMATS, ImageError, decode_image, decode_mask
from gag_fast.models import Preprocessing
from gag_fast.report.command import write_report
from gag_fast.report.reading import ReportError, read_run
from gag_fast.runs.decoding import Decoder
from tests.fuzz import rounds
from tests.fuzz.damage import damaged
from tests.report.made_up_runs import make_run
from tests.tables_of_pictures import picture, table_of
from tests.tiny_classifier import MODEL


def one_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error), repr(str(error))


def told(error: Exception, without: str | None = None) -> None:
    assert str(error)
    assert without is None or without not in str(error)


# ---- images ----------------------------------------------------------------------------------


def pictures():
    """A picture in every format that this Pillow can write."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (24, 18, 3), np.uint8))
    Image.init()
    for name in FORMATS:
        if name in Image.SAVE:
            buffer = io.BytesIO()
            picture.save(buffer, name)
            yield name, buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"), list(pictures()), ids=lambda v: v if type(v) is str else ""
)
def test_pictures(name, content):
    draw = random.Random(name)
    for _ in rounds("pictures", 40, 300):
        data = damaged(content, draw)
        for decode in (decode_image, decode_mask):
            try:
                assert decode(data, "a").mode in ("RGB", "L")
            except ImageError as error:
                one_line(error)


def test_pictures_in_the_decoder(tmp_path):
    """The same through the process that decodes: it answers for each, and lives."""
    draw = random.Random(7)
    kinds = [content for _, content in pictures()]
    with Decoder(Preprocessing(size=16, resize=16), workers=1) as decoder:
        answers = []
        for i in rounds("pictures", 60, 600):
            path, mask = tmp_path / f"{i}.png", tmp_path / f"{i}.mask.png"
            path.write_bytes(damaged(draw.choice(kinds), draw))
            mask.write_bytes(damaged(draw.choice(kinds), draw))
            answers.append(decoder.submit(Item(path.name, path, mask=mask)))
        for answer in answers:
            found = answer.result()
            assert (found.error is None) == (found.pixels is not None)
            assert "\n" not in (found.error or "")
            assert "the decoder died" not in (found.error or "")


# ---- ONNX files and metadata -----------------------------------------------------------------


def test_onnx_files(onnx, tmp_path):
    draw = random.Random(3)
    content = onnx.read_bytes()
    images = np.zeros((1, 3, 32, 32), np.float32)
    for i in rounds("ONNX files", 60, 400):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(damaged(content, draw))
        try:
            scores = gag_fast.Classifier(path, "cpu", batch_size=1, threads=1)(images)
            assert scores.shape[0] == 1
        except GagFastError as error:
            one_line(error)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The tiny classifier's gradient and explanation as ONNX files."""
    from gag_fast.export import export_explanation, export_gradients

    folder, (module, spec) = tmp_path_factory.mktemp("graphs"), gag_fast.load_model(MODEL)
    gradients, explanation = folder / "grad.onnx", folder / "gag.onnx"
    export_gradients(module, gradients, spec, batches=(1,), providers=["cpu"])
    export_explanation(module, explanation, spec, gradients=gradients, providers=["cpu"])
    return {gag_fast.OnnxGradients: gradients, gag_fast.OnnxExplanation: explanation}


@pytest.mark.parametrize("kind", [gag_fast.OnnxGradients, gag_fast.OnnxExplanation])
def test_gradient_and_explanation_files(graphs, kind, tmp_path):
    draw = random.Random(kind.__name__)
    content = graphs[kind].read_bytes()
    images = torch.zeros(1, 3, 32, 32)
    for i in rounds("ONNX files", 20, 300):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(damaged(content, draw))
        try:
            opened = kind(path, "cpu", threads=1)
            maps = opened(images, [0], n=2) if kind is gag_fast.OnnxExplanation else None
            maps = gag_fast.explain(opened, images, [0], n=2) if maps is None else maps
            assert maps.shape == (1, 32, 32)
        except GagFastError as error:
            one_line(error)


_JSON = ("null", "0", "-1", "1e999", "NaN", "[]", "{}", '""', "[1]", '["a"]', "true", "[" * 9999)


def test_metadata(onnx, tmp_path):
    import onnx as library

    draw = random.Random(4)
    for i in rounds("ONNX files", 40, 300):
        model = library.load(str(onnx))
        for prop in draw.sample(list(model.metadata_props), 2):
            prop.value = draw.choice((*_JSON, damaged(prop.value.encode(), draw).decode("latin-1")))
        path = tmp_path / f"{i}.onnx"
        library.save(model, str(path))
        try:
            gag_fast.Classifier(path, "cpu", batch_size=1, threads=1)
        except GagFastError as error:
            one_line(error)


# ---- data sets -------------------------------------------------------------------------------


def tables():
    """A data set of each kind: (name, content)."""
    path, label = [f"{i}.png" for i in range(6)], [str(i) for i in range(6)]
    rows = "\n".join(["path,label,mask", *(f"{p},{x},m{p}" for p, x in zip(path, label))])
    yield "a.csv", rows.encode()
    yield "a.tsv", rows.replace(",", "\t").encode()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"path": path, "label": label}), buffer)
    yield "a.parquet", buffer.getvalue()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for p, x in zip(path, label):
            for name, content in (
                (p, b"picture" * 99),
                (p[:-3] + "json", b'{"label": %s}' % x.encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    yield "a.tar", buffer.getvalue()
    cells = [picture(bytes([i]) * 99, p) for i, p in enumerate([*path[:4], None, None])]
    table = table_of([*cells, None], [0, 1, 2, 3, -1, None, 9], "abcd", mask=[*path, None])
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=3)
    yield "pictures.parquet", buffer.getvalue()
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    yield "pictures.arrow", buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"), list(tables()), ids=lambda v: v if type(v) is str else ""
)
def test_data_sets(tmp_path, name, content):
    draw = random.Random(name)
    path = tmp_path / name
    for _ in rounds("data sets", 60, 400):
        path.write_bytes(damaged(content, draw))
        try:
            dataset = open_dataset(path, 10)
        except DataError as error:
            told(error)
        else:
            assert all(
                item.image.encode() and item.target in (None, *range(10)) for item in dataset.items
            )
            dataset.fingerprint()
            with PlaceReader() as reader:
                for item in dataset.items:
                    try:
                        assert reader.read(item.path, item.place)
                    except ImageError as error:
                        told(error)


# ---- run folders -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    path = make_run(tmp_path_factory.mktemp("fuzz") / "run", images=3, methods=("a", "b"))
    manifest = json.loads((path / "manifest.json").read_text())
    (part,) = (path / "results").iterdir()
    table = pq.read_table(part)
    part.write_bytes(files.write_part(table, files.settings_hash(manifest["settings"])))
    return path


def test_parts(run_folder):
    draw = random.Random(5)
    (part,) = (run_folder / "results").iterdir()
    content = part.read_bytes()
    good = files.read_part(part)
    try:
        for _ in rounds("parts and manifests", 150, 1500):
            part.write_bytes(damaged(content, draw))
            try:
                assert files.read_part(part).equals(good)  # damage that is none: the same bytes
            except files.RunError as error:
                one_line(error)
    finally:
        part.write_bytes(content)


_VALUES = (None, 0, -1, 1e300, "", "x", [], {}, [1], ["a"], {"a": {}}, True, "\ud800", 2**70)


def edited(node, draw: random.Random) -> None:
    """Replaces or removes some value of a manifest, at any depth."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and draw.random() < 0.7:
            node = node[key]
            continue
        if draw.random() < 0.2:
            del node[key]
        else:
            node[key] = draw.choice(_VALUES)
        return


def test_manifests(run_folder, tmp_path):
    """A report on an edited manifest: a page, or one line."""
    draw = random.Random(6)
    path = run_folder / "manifest.json"
    content = path.read_text()
    try:
        for _ in rounds("parts and manifests", 12, 150):
            manifest = json.loads(content)
            part = draw.choice(("data", "model", "settings"))
            edited(manifest if draw.random() < 0.2 else manifest[part], draw)
            path.write_text(json.dumps(manifest))
            try:
                files.read_manifest(path)
            except files.RunError as error:
                one_line(error)
            try:
                write_report([read_run(run_folder)], tmp_path / "report", ["html", "text"])
            except (ReportError, GagFastError) as error:
                one_line(error)
    finally:
        path.write_text(content)


# ---- checkpoints -----------------------------------------------------------------------------


def test_checkpoints(tmp_path):
    from gag_fast.models.weights import read_state

    draw = random.Random(8)
    path = tmp_path / "a.pt"
    torch.save({"state_dict": {"fc.weight": torch.eye(4), "fc.bias": torch.zeros(4)}}, path)
    content = path.read_bytes()
    for _ in rounds("checkpoints", 150, 1000):
        path.write_bytes(damaged(content, draw))
        try:
            assert all(isinstance(key, str) for key in read_state(path))
        except GagFastError as error:
            one_line(error)
            told(error, without="weights_only")
