import base64
import hashlib
import json
import re
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from gag_fast.measures import MEASURES
from gag_fast.report import html, payload
from gag_fast.report.command import report, write_report
from gag_fast.report.compare import against_method, two_runs
from gag_fast.report.gallery import choose, gallery
from gag_fast.report.page import focus_method
from gag_fast.report.reading import Run, read_run
from tests.report.made_up_runs import make_run, photograph

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'\u2028.png"


def unpack(column, rows):
    planes = np.frombuffer(zlib.decompress(base64.b64decode(column["data"])), np.uint8)
    values = planes.reshape(4, rows).T.copy().view("<i4")[:, 0]
    return np.where(values == -(2**31), np.nan, values / 10.0 ** column["digits"])


def big_run(images: int, methods: int, curves: bool = True) -> Run:
    """A run that was never on disk; numbers only."""
    rng = np.random.default_rng(0)
    rows = images * methods
    return Run(
        path=Path(__file__),
        manifest={},
        images=[f"val/n{i % 1000:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(images)],
        methods=[f"method_{k}" for k in range(methods)],
        image=np.repeat(np.arange(images), methods),
        method=np.tile(np.arange(methods), images),
        target=np.repeat(rng.integers(0, 1000, images), methods),
        confidence=np.repeat(rng.random(images), methods),
        ok=np.ones(rows, bool),
        scores={MEASURES[n].column: rng.random(rows) for n in ("rcap", "dauc", "iauc")},
        curves={"deletion": rng.random((rows, 11), np.float32)} if curves else {},
    )


def test_rows_survive_packing(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=9, pictures=False, fail={(1, "vargrad"): "no"}))
    packed = payload.pack(run)
    columns = {c["name"]: unpack(c, packed["rows"]) for c in packed["columns"]}
    assert packed["rows"] == packed["total"] == 45
    assert [packed["images"][int(i)] for i in columns["image"]] == [
        run.images[i] for i in run.image
    ]
    np.testing.assert_array_equal(columns["method"], run.method)
    np.testing.assert_array_equal(columns["status"], run.ok)
    for metric in run.metrics:
        shown = columns[f"{metric.label} {metric.arrow}"]
        np.testing.assert_allclose(shown, run.scores[metric.column], atol=0.50001e-4)


def test_values_too_large_for_four_decimals_lose_decimals_not_size():
    column = payload._column("x", "number", np.array([3e7, np.nan, -3e7, np.inf]), 4)
    assert column["digits"] == 1
    np.testing.assert_array_equal(unpack(column, 4), [3e7, np.nan, -3e7, np.nan])


def test_of_too_many_rows_whole_images_are_kept():
    packed = payload.pack(big_run(1000, 3, curves=False), max_rows=300)
    assert packed["rows"] == 300
    assert packed["total"] == 3000
    assert len(packed["images"]) == 100
    counts = np.bincount(unpack(packed["columns"][0], 300).astype(int))
    assert (counts == 3).all()


def test_json_cannot_leave_its_script_element():
    text = payload.script_json([NASTY, "é"])
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == [NASTY, "é"]


def test_names_from_data_are_escaped_everywhere(tmp_path):
    name = NASTY.replace("/", "∕")  # a slash cannot be in a file's name
    path = make_run(
        tmp_path / "a",
        images=3,
        names=[name, "b.png", "c.png"],
        methods=("guided_absgrad", "<b>bold</b>"),
        fail={(1, "<b>bold</b>"): "<script>alert(3)</script> failed"},
        labels=["<i>cat</i>"] * 4,
        pictures=False,
    )
    # The same with a slash in it, as a Parquet file from elsewhere may hold.
    run = read_run(path)
    run.images[0] = NASTY
    page = html.render([run])
    for forbidden in ("<script>alert", "<img src=x", "<b>bold", "<i>cat"):
        assert forbidden not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert "&lt;script&gt;alert(3)&lt;/script&gt; failed" in page


def test_page_is_self_contained_and_runs_one_script_only(tmp_path):
    page = html.render([read_run(make_run(tmp_path / "a"))])
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert "default-src &#39;none&#39;" in policy or "default-src 'none'" in policy
    script = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy.replace("&#39;", "'")


def test_page_has_its_sections(tmp_path):
    methods = ("guided_absgrad@0", "guided_absgrad@50", "guided_absgrad@85", "vanilla")
    run = read_run(make_run(tmp_path / "a", methods=methods, fail={(0, "vanilla"): "why not"}))
    page = html.render([run])
    headings = re.findall(r"<h2[^>]*>([^<]*)", page)
    assert [h.strip() for h in headings] == [
        "Summary",
        "How sure",
        "Curves",
        "Gallery",
        "Distributions",
        "The percentile p",
        "Every row",
        "Failures",
        "Throughput",
        "Settings",
    ]
    assert "why not" in page
    assert page.count("<img") == 12 * 5  # photograph and four overlays of every image


def test_page_of_bare_rows(tmp_path):
    run = read_run(make_run(tmp_path / "a", pictures=False, curves=False, methods=("vanilla",)))
    run.manifest.clear()
    page = html.render([run])
    assert "Gallery" not in page
    assert "Every row" in page


def test_page_when_everything_failed(tmp_path):
    fail = {(i, "vanilla"): f"photo_{i:04d}.png: broken" for i in range(3)}
    run = read_run(make_run(tmp_path / "a", images=3, methods=("vanilla",), fail=fail))
    page = html.render([run])
    assert "Summary" not in page
    assert "<b>3</b> …: broken" in page  # one reason, counted


def test_gallery_picks_best_worst_and_random(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=20, pictures=False))
    groups = choose(run, MEASURES["dauc"], "smoothgrad", 3)
    values = run.matrix("dauc")[:, run.methods.index("smoothgrad")]
    order = [run.images[i] for i in np.argsort(values)]
    assert [g.title for g in groups] == ["Best", "Worst", "Random"]
    assert [c.image for c in groups[0].cards] == order[:3]  # DAUC: lower is better
    assert [c.image for c in groups[1].cards] == order[::-1][:3]
    assert not {c.image for c in groups[2].cards} & {*order[:3], *order[-3:]}
    assert choose(run, MEASURES["dauc"], "smoothgrad", 3) == groups


def test_gallery_without_photographs_or_maps_says_nothing_false(tmp_path):
    path = make_run(tmp_path / "a", images=4)
    for file in (tmp_path / "a-photos").iterdir():
        file.unlink()
    run = read_run(path)
    cards = gallery(run, MEASURES["rcap"], "vanilla")[0].cards
    assert all([t.caption for t in c.tiles] == run.methods for c in cards)  # maps alone
    for shard in (path / "maps").iterdir():
        shard.write_bytes(b"broken")
    assert all(not c.tiles for c in gallery(run, MEASURES["rcap"], "vanilla")[0].cards)


def test_focus_is_guided_absgrad_at_85(tmp_path):
    run = big_run(2, 1)
    run.methods = ["vanilla", "guided_absgrad@0", "guided_absgrad@85"]
    assert focus_method(run) == "guided_absgrad@85"
    run.methods = ["vanilla", "smoothgrad"]
    assert focus_method(run) == "vanilla"


def test_comparison_of_two_runs(tmp_path):
    first = read_run(make_run(tmp_path / "a", images=30, pictures=False))
    second = read_run(make_run(tmp_path / "b", images=25, pictures=False))  # other numbers
    second.scores["rcap"] = second.scores["rcap"] * 0
    for row, (image, method) in enumerate(zip(second.image, second.method)):
        name = second.images[image]
        second.scores["rcap"][row] = first.matrix("rcap")[first.images.index(name), method] + 0.01
    lines = {(c.method, c.metric.column): c for c in two_runs(first, second)}
    line = lines["vanilla", "rcap"]
    assert line.result.difference.mean == pytest.approx(0.01)
    assert line.result.difference.n == 25
    assert (line.result.higher, line.verdict) == (25, "better")
    assert line.second - line.first == pytest.approx(0.01)
    second.images = [f"other/{name}" for name in second.images]
    assert two_runs(first, second) == []


def test_verdict_knows_which_direction_is_better(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=40, pictures=False))
    lines = {(c.method, c.metric.column): c for c in against_method(run, "guided_absgrad")}
    assert lines["vanilla", "dauc"].result.difference.mean > 0
    assert lines["vanilla", "dauc"].verdict == "worse"
    assert lines["vanilla", "rcap"].verdict == "worse"


def test_report_writes_and_prints(tmp_path, capsys):
    first = make_run(tmp_path / "a", images=4, fail={(0, "vanilla"): "no"})
    second = make_run(tmp_path / "b", images=4, seed=1)
    assert report([first, second], tmp_path / "out") == 0
    files = sorted(p.name for p in (tmp_path / "out").iterdir() if p.name != ".gag-fast-report")
    assert files == ["index.html", "table.csv", "table.md", "table.tex", "table.txt"]
    printed = capsys.readouterr().out
    assert "1 of 20 rows failed" in printed
    assert f"wrote {tmp_path / 'out' / 'index.html'}" in printed
    page = (tmp_path / "out" / "index.html").read_text()
    assert "b against a" in page
    assert (tmp_path / "out" / "table.md").read_text().count("| method |") == 2
    assert report([first], formats=["text"]) == 0
    assert [p.name for p in (first / "report").iterdir()] == ["table.txt"]


def test_report_names_what_it_does_not_know(tmp_path):
    run = read_run(make_run(tmp_path / "a", images=2, pictures=False))
    with pytest.raises(ValueError, match="got 'pdf'"):
        write_report([run], tmp_path / "out", ["pdf"])
    with pytest.raises(ValueError, match="at least one"):
        write_report([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_fifty_thousand_images_and_ten_methods_in_half_a_minute(tmp_path):
    methods = [f"method_{k}" for k in range(10)]
    run = make_run(tmp_path / "run", images=50_000, methods=methods, pictures=False)
    begin = time.perf_counter()
    write_report([read_run(run)], tmp_path / "page")
    seconds = time.perf_counter() - begin
    size = (tmp_path / "page" / "index.html").stat().st_size
    print(f"500,000 rows: {seconds:.1f} s, a page of {size / 1e6:.1f} MB")
    assert seconds < 30
    assert size < 10e6


def test_three_thousand_methods_in_bounded_time(tmp_path, capsys):
    methods = [f"method{i}" for i in range(3000)]
    run = make_run(tmp_path / "run", images=3, methods=methods, pictures=False, curves=False)
    begin = time.process_time()
    assert report([run]) == 0
    assert time.process_time() - begin < 120
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "50 of 3,000: the best" in page or "51 of 3,000: the best" in page
    rows = (tmp_path / "run" / "report" / "table.csv").read_text().splitlines()
    assert len({line.partition(",")[0] for line in rows[1:]}) == 3000


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "{root}/secret.png"])
def test_pictures_outside_the_data_s_folder_are_not_embedded(tmp_path, name, capsys):
    name = name.format(root=tmp_path)
    run = make_run(tmp_path / "run", images=2, names=["photo_0000.png", name], pictures=False)
    (tmp_path / "run-photos" / "a").mkdir(parents=True)
    for path in (tmp_path / "secret.png", tmp_path / "run-photos" / "photo_0000.png"):
        photograph(1).save(path)
    assert report([run], formats=["html"]) == 0
    assert "1 images lie outside the data set's folder" in capsys.readouterr().out
    page = tmp_path / "run" / "report" / "index.html"
    assert page.read_text().count("data:image/jpeg") == 1
    assert report([run], formats=["html"], allow_outside=True) == 0
    assert page.read_text().count("data:image/jpeg") == 2
