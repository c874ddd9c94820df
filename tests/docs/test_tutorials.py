"""The notebooks of docs/tutorials run, and what they show is small and theirs."""

import ast
import base64
import json
import os
import time

import pytest

import gag_fast
from tests import ROOT

BOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
NAMES = ["explain_and_score", "many_images", "your_own_method"]
PICTURE = 300_000
"""Bytes of the largest picture."""


def cells(path):
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def test_there_are_three():
    assert [path.stem for path in BOOKS] == NAMES


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_executed_in_order_without_an_error(path):
    found = cells(path)
    assert [c["execution_count"] for c in found] == list(range(1, len(found) + 1))
    outputs = [o for c in found for o in c["outputs"]]
    assert any(o["output_type"] == "execute_result" for o in outputs)
    assert [o for o in outputs if o["output_type"] == "error"] == []
    for output in outputs:
        for kind, data in output.get("data", {}).items():
            if kind.startswith("image/"):
                assert len(base64.b64decode("".join(data))) <= PICTURE
    assert str(ROOT) not in path.read_text()


@pytest.mark.parametrize("path", BOOKS, ids=lambda p: p.stem)
def test_its_code_compiles_and_names_what_there_is(path):
    for cell in cells(path):
        text = source(cell)
        tree = ast.parse("\n".join(text.splitlines()[1:]) if text.startswith("%%") else text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "gag_fast":
                assert node.attr in gag_fast.__all__, ast.unparse(node)


@pytest.mark.slow
def test_all_three_execute_in_five_minutes(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    begin = time.perf_counter()
    for path in BOOKS:
        here = tmp_path / path.stem
        here.mkdir()
        book = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(
            book, timeout=280, resources={"metadata": {"path": str(here)}}
        )
        client.execute()
    assert time.perf_counter() - begin < 300
