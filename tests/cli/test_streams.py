"""What stands at the other end of stdout and stderr never ends the work, nor is it told to obey."""

import csv
import os
import subprocess
import sys

import pytest

from gag_fast._text import one_line, storable
from gag_fast.report import tables
from gag_fast.report.reading import read_run
from tests import ROOT
from tests.photographs import save_photo
from tests.report.made_up_runs import make_run
from tests.tiny_classifier import MODEL


def gag_fast(words, folder, redirect="", **env):
    """The command in a shell that redirects its streams."""
    line = f'exec "$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", line, "-", sys.executable, "-m", "gag_fast", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
    )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("streams") / "run", images=4)


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(run_folder, redirect, tmp_path):
    found = gag_fast(["report", run_folder, "--out", tmp_path / "r"], tmp_path, redirect)
    assert (found.returncode, found.stderr) == (0, b"")
    assert len(list((tmp_path / "r").glob("[!.]*"))) == 5


def test_a_reader_that_goes_away(run_folder, tmp_path):
    line = '"$@" | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}'
    found = subprocess.run(
        [
            *("bash", "-c", line, "-", sys.executable, "-m", "gag_fast", "report"),
            *(str(run_folder), "--out", str(tmp_path / "r")),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert (found.returncode, found.stderr) == (0, b"")
    assert len(list((tmp_path / "r").glob("[!.]*"))) == 5


def test_a_terminal_of_ascii(run_folder, tmp_path):
    words = ["report", run_folder, "--out", tmp_path / "r"]
    found = gag_fast(words, tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert (found.returncode, found.stderr) == (0, b"")
    head, rule = found.stdout.splitlines()[1:3]
    assert b"RCAP ^" in head
    assert rule == b"-" * len(rule)
    assert b"\\u" not in found.stdout


# ---- names -----------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\nrm -rf ~\u202e"


def test_one_line():
    assert one_line("plain ä → 猫") == "plain ä → 猫"
    assert one_line(EVIL) == r"\x1b]0;owned\x07\x1b[2J\nrm -rf ~\u202e"
    assert one_line("a\udcffb") == r"a\xffb"
    assert storable("a\udcffb\ud800") == r"a\udcffb\ud800"
    assert storable("a\udcffb") == r"a\xffb"


def test_names_do_not_reach_the_terminal_raw(cli, tmp_path):
    save_photo(tmp_path / "d" / f"{EVIL}.png", 1)
    (tmp_path / "d" / f"bad{EVIL}.png").write_bytes(b"no picture")
    found = cli("explain", "d", "--model", MODEL, "--n", 2)
    assert found.status == 1
    (made,) = (tmp_path / "explanations").iterdir()
    assert made.name.isprintable()
    found2 = cli("explain", f"gone{EVIL}.png", "--model", MODEL, "--n", 2)
    words = ("evaluate", "d", "--model", MODEL, "--n", 2, "--out", "run", "--providers", "cpu")
    found3 = cli(*words)
    assert found3.status == 1
    found4 = cli("report", f"no{EVIL}run")
    for text in (found, found2, found3, found4):
        for line in (text.out + text.err).splitlines():
            assert line.isprintable(), line
            assert not line.startswith("rm")


def test_a_picture_s_name_may_be_as_long_as_names_get(cli, tmp_path):
    save_photo(tmp_path / ("x" * 243 + ".png"), 1)
    save_photo(tmp_path / ("x" * 244 + ".png"), 2)
    paths = sorted(tmp_path.glob("x*.png"))
    assert cli("explain", *paths, "--model", MODEL, "--n", 2).status == 0
    assert len(list((tmp_path / "explanations").iterdir())) == 2


FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "a\nb", EVIL)


@pytest.fixture
def summary(tmp_path):
    run = read_run(make_run(tmp_path / "run", methods=FORMULAS, pictures=False))
    return tables.summarize(run, title=f"title\r\\input{{x}}\u2028{EVIL}")


def test_cells_of_a_csv_are_no_formulas(summary):
    rows = list(csv.reader(tables.to_csv(summary).splitlines()))
    names = list(dict.fromkeys(row[0] for row in rows[1:]))
    assert names[:6] == ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(A1)", r"\t=1", r"a\nb"]
    assert all(float(row[2]) == pytest.approx(float(row[2])) for row in rows[1:])


def test_a_comment_of_latex_cannot_be_left(summary):
    text = tables.to_latex(summary)
    assert text.isascii() or "\u2028" not in text
    for line in text.split("\n"):
        assert line.isprintable()
        assert "input" not in line or line.startswith("% ")


def test_other_tables_hold_no_control_characters(summary):
    for write in (tables.to_text, tables.to_markdown):
        assert all(line.isprintable() for line in write(summary).split("\n"))
