import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gag_fast.report.reading import ReportError, read_run
from tests.report.made_up_runs import METHODS, make_run


def write(folder, part=0, **columns):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "results" / f"part-{part:06d}.parquet")
    return folder


def test_reads_everything(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=9, fail={(2, "vanilla"): "too dark"}))
    assert run.methods == list(METHODS)
    assert len(run.images) == 9
    assert run.rows == 45
    assert [m.column for m in run.metrics] == ["rcap", "dauc", "iauc"]
    assert {name: c.shape for name, c in run.curves.items()} == {
        "recover": (45, 5),
        "deletion": (45, 11),
        "insertion": (45, 11),
    }
    row = 2 * 5 + 4
    assert run.errors == {row: "too dark"}
    assert not run.ok[row]
    assert np.isnan(run.curves["deletion"][row]).all()
    assert np.isnan(run.matrix("rcap")[2, 4])
    assert np.isfinite(run.matrix("rcap")).sum() == 44
    assert run.setting("model") == "tiny"
    assert run.setting("nothing", 3) == 3
    assert run.section("preset")["name"] == "paper"


def test_two_columns_are_enough(tmp_path):
    run = read_run(write(tmp_path / "a", image=["x", "y"], method=["m", "m"]))
    assert run.metrics == []
    assert run.manifest == {}
    assert run.target.tolist() == [-1, -1]
    assert run.ok.all()


def test_a_retry_replaces_the_failure_and_not_the_other_way(tmp_path):
    folder = tmp_path / "a"
    write(folder, 0, image=["x", "y"], method=["m", "m"], rcap=[0.1, 0.2], status=["failed", "ok"])
    write(folder, 1, image=["x", "y"], method=["m", "m"], rcap=[0.3, 0.4], status=["ok", "failed"])
    run = read_run(folder)
    assert run.rows == 2
    assert run.ok.all()
    assert run.matrix("rcap")[:, 0].tolist() == [0.3, 0.2]


def test_methods_that_differ_in_p_are_told_apart(tmp_path):
    folder = write(
        tmp_path / "a",
        image=["x"] * 3,
        method=["g", "g", "v"],
        p=[0.0, 85.0, 85.0],
        rcap=[1.0, 2, 3],
    )
    assert read_run(folder).methods == ["g@0", "g@85", "v"]


def test_dictionary_columns_and_parts_of_different_schema(tmp_path):
    folder = write(tmp_path / "a", 0, image=pa.array(["x"]).dictionary_encode(), method=["m"])
    write(folder, 1, image=["y"], method=["m"], dauc=pa.array([0.5], pa.float32()))
    run = read_run(folder)
    assert run.images == ["x", "y"]
    np.testing.assert_array_equal(run.matrix("dauc"), [[np.nan], [0.5]])


def test_curves_of_several_lengths_are_left_out(tmp_path):
    folder = write(
        tmp_path / "a", image=["x", "y"], method=["m", "m"], deletion=[[0.1], [0.1, 0.2]]
    )
    assert read_run(folder).curves == {}


def test_what_is_no_run_is_named(tmp_path):
    with pytest.raises(ReportError, match="nowhere: no such run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="no results"):
        read_run(tmp_path)
    with pytest.raises(ReportError, match="no column 'method'"):
        read_run(write(tmp_path / "a", image=["x"]))
    with pytest.raises(ReportError, match="no rows"):
        read_run(
            write(tmp_path / "b", image=pa.array([], pa.string()), method=pa.array([], pa.string()))
        )
    broken = write(tmp_path / "c", image=["x"], method=["m"])
    (broken / "results" / "part-000001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ReportError, match=r"part-000001\.parquet: not a readable Parquet file"):
        read_run(broken)
    manifest = write(tmp_path / "d", image=["x"], method=["m"])
    (manifest / "manifest.json").write_text("{")
    with pytest.raises(ReportError, match=r"manifest\.json"):
        read_run(manifest)
