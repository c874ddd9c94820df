"""A run with every measure there is: its columns, its bits after a stop, its tables."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gag_fast.cli import main
from gag_fast.measures import MEASURES
from gag_fast.presets import preset
from gag_fast.report import html
from gag_fast.report.reading import read_run
from gag_fast.runs.folder import RunFolder
from tests.runs.run_rows import CLASSES, rows, same_bits

FEW = preset(
    "paper",
    mufidelity_samples=6,
    infidelity_samples=3,
    sensitivity_samples=2,
    randomise_groups=2,
    information_shares=(0.1, 0.5),
)


@pytest.fixture
def masked(photos, tmp_path):
    """Six images in a table, all but one with a mask."""
    photos(6)
    mask = np.zeros((40, 36), np.uint8)
    mask[10:30, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    lines = [f"data/{CLASSES[i % 3]}/{i:03d}.png,{i % 3},{'m.png' * (i != 2)}" for i in range(6)]
    (tmp_path / "data.csv").write_text("\n".join(["path,label,mask", *lines]))
    return tmp_path / "data.csv"


def test_every_column_and_the_same_bits_after_a_stop(masked, start):
    asked = {"metrics": ("all",), "preset": FEW}
    whole = start(masked, "whole", **asked)
    assert whole.complete, whole.failures
    table = RunFolder(whole.out).read()
    assert set(MEASURES) <= set(table.schema.names)
    for row in table.to_pylist():
        assert row["status"] == "ok"
        for name, measure in MEASURES.items():
            lacks = "002" in row["image"] and "masks=" in {n.value for n in measure.needs}
            assert (row[name] is None) == lacks or measure.undefined, (name, row[name])
            if row[name] is not None:
                low, high = measure.span
                assert low - 1e-6 <= row[name] <= high + 1e-6, (name, row[name])
    settings = json.loads((whole.out / "manifest.json").read_text())["settings"]
    assert settings["metrics"] == list(MEASURES)
    assert settings["preset"]["information_shares"] == [0.1, 0.5]
    # A part is lost, the same command goes on, and the rows are the same bits.
    columns = ("image", "method", *MEASURES, "status")
    before = rows(whole.out, columns)
    (whole.out / "results" / "part-000000.parquet").unlink()
    again = start(masked, "whole", **asked)
    assert again.computed == 4
    assert same_bits(rows(whole.out, columns), before)
    # Tables know the directions.
    found = read_run(whole.out)
    shown = {m.name: m.arrow for m in found.metrics}
    assert shown["mprt"] == shown["entropy"] == shown["average_drop"] == "↓"
    assert shown["srg"] == shown["road"] == shown["gini"] == shown["idsds"] == "↑"
    # The page has a row for each measure, as so many columns would not fit.
    table = html.render([found]).partition('<table class="summary">')[2].partition("</table>")[0]
    for measure in found.metrics:
        assert f'<th scope="row">{measure.label} {measure.arrow}</th>' in table


def test_a_run_of_the_papers_measures_is_known_by_their_parameters_alone(photos, start):
    out = start(photos(4)).out
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert set(settings["preset"]) == {
        *("name", "lower_bound", "interval", "threshold", "recover_base", "step_unit", "step"),
        *("last_point", "order", "area_width", "deletion_base", "insertion_base", "blur_kernel"),
        *("blur_sigma", "blur_kernel_form", "blur_padding", "mae_form", "dice_smooth"),
    }
    names = pq.read_schema(next((out / "results").glob("*.parquet"))).names
    assert not {"srg", "road", "gini"} & set(names)


def test_the_command_takes_the_names(photos, tmp_path, onnx, capsys):
    data = photos(2)
    call = ["evaluate", str(data), "--model", "tests.tiny_classifier:build", "--onnx", str(onnx)]
    call += ["--out", str(tmp_path / "run"), "--n", "2", "--providers", "cpu"]
    assert main([*call, "--metrics", "gini,srg"]) == 0
    assert "SRG ↑" in capsys.readouterr().out
    assert main([*call, "--metrics", "sgr"]) == 2
    assert "did you mean srg?" in capsys.readouterr().err
