"""A run's rows as one file, and runs that are not to be compared."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from gag_fast.report.command import report
from gag_fast.report.compare import disagreements
from gag_fast.report.export import export_scores, manifest_hash
from gag_fast.report.reading import ReportError, read_run
from tests.report.made_up_runs import make_run


def changed(folder, **settings):
    """The run with some settings of its manifest replaced."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["settings"] |= settings
    path.write_text(json.dumps(manifest))
    return folder


def test_an_exported_run_reads_like_its_folder(tmp_path):
    folder = make_run(tmp_path / "a", images=9, pictures=False, fail={(2, "vanilla"): "too dark"})
    run = read_run(folder)
    path = export_scores([run], ["a"], tmp_path / "deep" / "scores.parquet")
    again = read_run(path)
    assert (again.images, again.methods, again.errors) == (run.images, run.methods, run.errors)
    assert again.manifest == run.manifest
    np.testing.assert_array_equal(again.ok, run.ok)
    np.testing.assert_array_equal(again.target, run.target)
    for name in run.scores:
        np.testing.assert_array_equal(again.scores[name], run.scores[name])
    for name in run.curves:
        np.testing.assert_array_equal(again.curves[name], run.curves[name])
    assert set(again.columns) >= set(run.columns)
    assert [p.name for p in path.parent.iterdir()] == ["scores.parquet"]


def test_several_runs_make_one_table(tmp_path, capsys):
    folders = [make_run(tmp_path / n, images=4, pictures=False, seed=k) for k, n in enumerate("ab")]
    assert report(folders, tmp_path / "out", ["text"], export=tmp_path / "s.parquet") == 0
    assert f"wrote {tmp_path / 's.parquet'}" in capsys.readouterr().out
    table = pq.read_table(tmp_path / "s.parquet").to_pydict()
    assert list(dict.fromkeys(table["run"])) == ["a", "b"]
    hashes = {name: manifest_hash(read_run(folder)) for name, folder in zip("ab", folders)}
    assert hashes["a"] != hashes["b"]
    assert [hashes[name] for name in table["run"]] == table["manifest_sha256"]
    with pytest.raises(ReportError, match="holds 2 runs"):
        read_run(tmp_path / "s.parquet")


def test_an_exported_file_is_reported(tmp_path):
    folder = make_run(tmp_path / "a", images=4, pictures=False)
    path = export_scores([read_run(folder)], ["a"], tmp_path / "s.parquet")
    assert report([path]) == 0
    assert (tmp_path / "s" / "report" / "index.html").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": {"name": "paper", "interval": 20}}, "preset.interval: 10 and 20"),
        ({"model": "other"}, "model: tiny and other"),
        ({"data": "b" * 64}, "data: aaaaaaaaaaaa… and bbbbbbbbbbbb…"),
    ],
)
def test_different_runs_are_refused_until_told(tmp_path, settings, words):
    first = changed(make_run(tmp_path / "a", images=3, pictures=False), data="a" * 64)
    second = changed(
        make_run(tmp_path / "b", images=3, pictures=False), **{"data": "a" * 64} | settings
    )
    with pytest.raises(ReportError) as caught:
        report([first, second], tmp_path / "out")
    assert words in str(caught.value)
    assert "--anyway" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert report([first, second], tmp_path / "out", ["text"], anyway=True) == 0


def test_what_may_differ(tmp_path):
    first = read_run(changed(make_run(tmp_path / "a", images=3, pictures=False), seed=1, n=10))
    second = read_run(changed(make_run(tmp_path / "b", images=3, pictures=False), seed=2, n=20))
    assert disagreements(first, second) == []
    second.manifest.clear()
    assert disagreements(first, second) == []


def test_a_broken_export_is_named(tmp_path):
    path = tmp_path / "s.parquet"
    with pytest.raises(ReportError, match=r"s\.parquet"):
        read_run(path)
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ReportError, match=r"s\.parquet: not a readable Parquet file"):
        read_run(path)
