"""A command writes, replaces and deletes what it made itself, and nothing else."""

import json

import pytest

from gag_fast import demo
from gag_fast.cli import main
from gag_fast.report import command
from gag_fast.report.reading import read_run
from gag_fast.runs.folder import RunError, RunFolder, claim


def tree(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_with_files_is_not_taken(photos, start, tmp_path):
    home = tmp_path / "home"
    (home / "work" / "deep").mkdir(parents=True)
    (home / "work" / "deep" / ".letter.tmp").write_text("years of work")
    (home / ".draft.odt.tmp").write_text("more")
    before = tree(home)
    with pytest.raises(RunError, match=r"not a run folder, and not empty: it holds \.draft") as e:
        start(photos(2), out="home")
    assert "\n" not in str(e.value)
    assert tree(home) == before
    assert {p.name for p in home.iterdir()} == {"work", ".draft.odt.tmp"}


def test_of_a_run_only_its_own_leftovers_go(photos, start):
    data = photos(6)
    out = start(data, keep_maps=True).out
    ours = [
        *(out / "results" / ".part-000001.parquet.tmp", out / "maps" / ".part-000001.npz.tmp"),
        *(out / "sessions" / ".0007.json.tmp", out / ".manifest.json.tmp"),
    ]
    users = [
        *(out / ".notes.md.tmp", out / "results" / ".figures.tmp", out / "maps" / ".a.npz.tmp"),
        *(out / "mine" / ".part-000001.parquet.tmp", out / "notes.txt"),
    ]
    (out / "mine").mkdir()
    for path in (*ours, *users):
        path.write_text("x")
    start(data, keep_maps=True)
    assert not [p for p in ours if p.exists()]
    assert all(p.exists() for p in users)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", json.dumps({"name": "an extension", "manifest_version": 3})),
        ("manifest.json", "not JSON"),
        ("results/table.csv", "1,2,3"),
        ("maps/paris.osm", "<osm/>"),
        ("model.pt", "weights"),
    ],
)
def test_names_like_a_run_s_make_no_run(tmp_path, name, content):
    path = tmp_path / "other" / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder(tmp_path / "other")
    assert path.read_text() == content


def test_what_a_start_killed_early_left_is_taken(photos, start, tmp_path):
    for name in ("results", "maps", "sessions"):
        (tmp_path / "run" / name).mkdir(parents=True)
    for name in (".lock", ".manifest.json.tmp", ".model-abc123.onnx", "maps/.part-000000.npz.tmp"):
        (tmp_path / "run" / name).write_text("")
    assert start(photos(2)).complete


def test_a_run_that_is_cleared_leaves_the_users_files(photos, start):
    out = start(photos(4), keep_maps=True).out
    (out / "notes.txt").write_text("mine")
    (out / "results" / "notes.txt").write_text("mine")
    RunFolder(out).clear()
    assert set(tree(out)) == {
        p.relative_to(out) for p in (out / "notes.txt", out / "results" / "notes.txt")
    }


def test_the_demo_takes_no_folder_of_another(tmp_path):
    (tmp_path / "index.html").write_text("my page")
    with pytest.raises(demo.DemoError, match=r"no earlier call made it: it holds index\.html"):
        demo.run(tmp_path)
    assert tree(tmp_path) == {(tmp_path / "index.html").relative_to(tmp_path): b"my page"}


@pytest.mark.parametrize("command", ["reproduce fig4", "synthetic"])
def test_other_commands_take_no_folder_of_another(tmp_path, capsys, command):
    (tmp_path / "train.csv").write_text("mine")
    assert main([*command.split(), "--out", str(tmp_path)]) == 2
    assert "it holds train.csv; give another folder" in capsys.readouterr().err
    assert (tmp_path / "train.csv").read_text() == "mine"


def report_to(out, run, *more):
    return main(["report", str(run), "--out", str(out), *more])


def test_a_report_replaces_no_file_of_another(photos, start, tmp_path, capsys):
    run, out = start(photos(2)).out, tmp_path / "site"
    for name in ("index.html", "table.csv", "figures/ranks-rcap.svg"):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    before = tree(out)
    assert report_to(out, run, "--formats", "text,csv,html") == 2
    line = capsys.readouterr().err
    assert "was not written by a report, or was changed since (so were 1 more)" in line
    assert len(line.splitlines()) == 1
    assert tree(out) == before
    assert report_to(out, run, "--formats", "text") == 0  # beside them is room
    assert {name: tree(out)[name] for name in before} == before


def test_a_report_replaces_what_a_report_wrote(photos, start, tmp_path, capsys):
    run, out = start(photos(2)).out, tmp_path / "site"
    everything = ("--formats", "text,markdown,csv,latex,html,figures,tables")
    assert report_to(out, run, *everything) == 0
    assert report_to(out, run, *everything) == 0
    assert report_to(out, run, "--formats", "html") == 0
    (out / "table.csv").write_text("edited by hand")
    capsys.readouterr()
    assert report_to(out, run, *everything) == 2
    assert f"{out / 'table.csv'} was not written by a report" in capsys.readouterr().err
    assert (out / "table.csv").read_text() == "edited by hand"
    (out / "table.csv").unlink()
    assert report_to(out, run, *everything) == 0


def test_a_report_that_was_killed_is_written_again(photos, start, tmp_path, monkeypatch):
    """Between two files: both the old and the new ones are known as a report's."""
    run, out = start(photos(2)).out, tmp_path / "site"
    assert report_to(out, run, "--formats", "html") == 0
    read, written = read_run(run), []

    def killed(path, content):
        if written:
            raise KeyboardInterrupt
        path.write_bytes(content)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(command, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            command.write_report([read], out, ["html", "text"], title="another")
    assert written == [out / "index.html"]
    assert report_to(out, run, "--formats", "html,text") == 0


def test_the_report_folder_of_a_run_is_a_report_s(photos, start, tmp_path):
    run = start(photos(2)).out
    for folder in (run / "report", tmp_path / "report"):
        folder.mkdir()
        (folder / "index.html").write_text("of version 0.1.0")
    assert main(["report", str(run)]) == 0
    assert "of version 0.1.0" not in (run / "report" / "index.html").read_text()
    assert report_to(tmp_path / "report", run) == 2


def test_a_folder_claimed_is_taken_again(tmp_path):
    claim(tmp_path / "a")
    (tmp_path / "a" / "b").write_text("")
    claim(tmp_path / "a")


def test_what_a_killed_export_left_goes_with_the_next_start(photos, start, tmp_path):
    (tmp_path / "run" / "results").mkdir(parents=True)
    left = [".model-k3j_9x.onnx", ".model.onnx.4321.tmp"]
    for name in left:
        (tmp_path / "run" / name).write_bytes(b"half")
    assert start(photos(2)).complete
    assert not [name for name in left if (tmp_path / "run" / name).exists()]
