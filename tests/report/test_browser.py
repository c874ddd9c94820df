"""The page in headless Chromium: it opens, sorts, filters, pages and shows every picture.

Without a driver: a script is appended to a copy of the page (whose policy is opened for it), works
the page as a person would, and leaves what it saw in the document that Chromium prints.
"""

import csv
import io
import json
import re
import subprocess
from functools import cache
from xml.etree import ElementTree

import numpy as np
import pytest

from gag_fast.report.command import write_report
from gag_fast.report.live import exact_map
from gag_fast.report.reading import read_run
from tests.chromium import CHROMIUM
from tests.chromium import FLAGS as BARE
from tests.report.made_up_runs import make_run, statistics

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

FLAGS = (*BARE, "--virtual-time-budget=8000")

PROBE = """
<script>
(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const seen = { errors: [] };
  try {
    const box = document.querySelector(".rows");
    for (let i = 0; i < 50 && !box.dataset.ready; i++) await wait(50);
    const headers = () => [...box.querySelectorAll("thead th")];
    const column = (name) => headers().findIndex((h) => h.textContent === name);
    const header = (name) => headers()[column(name)];
    const lines = () => [...box.querySelectorAll("tbody tr")];
    const cells = (name) => lines().map((r) => r.cells[column(name)].textContent);
    const text = (row, names) => names.map((n) => row.cells[column(n)].textContent).join("|");
    const rows = (...names) => lines().map((row) => text(row, names));
    seen.ready = box.dataset.ready;
    seen.total = box.querySelector("output").textContent;
    seen.first = cells("image").length;
    header("RCAP ↑").click(); seen.down = cells("RCAP ↑"); seen.sort = header("RCAP ↑").ariaSort;
    header("RCAP ↑").click(); seen.up = cells("RCAP ↑");
    header("image").click(); seen.images = cells("image");
    box.querySelector("[data-go='last']").click(); seen.lastPage = cells("image").length;
    seen.pages = box.querySelector(".pager span").textContent;
    seen.nextDisabled = box.querySelector("[data-go='1']").disabled;
    const form = box.querySelector("form");
    form.elements.status.value = "0";
    form.elements.status.dispatchEvent(new Event("input", { bubbles: true }));
    seen.failed = rows("image", "method", "RCAP ↑");
    form.elements.status.value = "";
    form.elements.method.selectedIndex = 2;
    form.elements.text.value = "PHOTO_0007";
    form.elements.text.dispatchEvent(new Event("input", { bubbles: true }));
    seen.filtered = rows("image", "method");
    const summary = document.querySelector("table.summary");
    const methods = () => [...summary.tBodies[0].rows].map((r) => r.cells[0].textContent.trim());
    seen.before = methods();
    summary.tHead.rows[0].cells[2].click(); seen.after = methods();
    const pictures = [...document.images];
    for (const picture of pictures) picture.loading = "eager";
    for (let i = 0; i < 50 && !pictures.every((p) => p.complete); i++) await wait(50);
    seen.pictures = pictures.map((p) => p.complete ? p.naturalWidth : 0);
    const box2 = document.querySelector(".live");
    for (let i = 0; i < 50 && !box2.dataset.ready; i++) await wait(50);
    seen.live = [document.querySelectorAll(".live").length, box2.hidden];
    seen.sliders = {};
    const slider = box2.querySelector("[name=p]");
    const ink = () => box2.querySelector("canvas").toDataURL();
    seen.begins = slider.value;
    const before = ink();
    for (const p of ["0", "30", "85", "100"]) {
      slider.value = p;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      const shares = box2.shown.shares.map((row) => row.share);
      seen.sliders[p] = { map: [...box2.shown.map].map((v) => +v.toFixed(6)), shares };
      seen.sliders[p].text = box2.querySelector("tbody").textContent;
    }
    seen.moved = ink() !== before;
    const whole = ink();
    box2.querySelector("[name=focus]").click();
    seen.dimmedOutside = ink() !== whole;
    seen.image = box2.parentNode.querySelector("b").textContent;
    for (const fold of document.querySelectorAll("details")) fold.open = true;
    seen.saved = [];
    window.Blob = class {
      constructor(parts, { type }) { seen.saved.push([type, parts.join("")]); }
    };
    URL.createObjectURL = () => "#";
    HTMLAnchorElement.prototype.click = function () {};
    for (const button of document.querySelectorAll(".save button")) button.click();
    seen.cut = [...document.querySelectorAll("main *")].filter((e) => {
      const style = getComputedStyle(e);
      const hidden = style.overflowX === "hidden" && e.scrollWidth > e.clientWidth + 1;
      return hidden || style.textOverflow === "ellipsis";
    }).map((e) => e.tagName + "." + e.className);
    const outside = (e) => e.getBoundingClientRect().right > innerWidth + 1;
    seen.outside = [...document.querySelectorAll("main *")]
      .filter((e) => !e.closest(".scroll, pre, svg") && outside(e))
      .map((e) => e.tagName + "." + e.className);
    const legend = document.querySelector(".legend li:nth-child(2)");
    legend.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
    const curves = [...document.querySelectorAll("svg .line")];
    seen.dimmed = curves.map((l) => l.dataset.m + ":" + l.style.opacity);
    seen.dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const style = getComputedStyle(document.body);
    seen.colors = [style.backgroundColor, style.color];
    seen.width = [document.documentElement.scrollWidth, innerWidth];
    const names = [...document.querySelectorAll(".scroll tbody th")].filter((e) => e.offsetWidth);
    seen.narrowest = Math.min(...names.map((e) => e.getBoundingClientRect().width));
    seen.scrolls = [...document.querySelectorAll(".scroll")]
      .filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent.slice(0, 80));
    seen.injected = window.injected === undefined;
  } catch (error) { seen.errors.push(String(error)); }
  document.body.replaceChildren();
  const result = document.body.appendChild(document.createElement("pre"));
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  parent.postMessage(result.textContent, "*");
})();
</script>
"""

# A window of headless Chromium is 500 pixels wide at the least; a frame may be narrower.
FRAME = """<!doctype html><title>frame</title><body style="margin: 0">
<iframe src="{name}" width="{width}" height="844" style="border: 0"></iframe>
<script>
addEventListener("message", (event) => {{
  document.body.replaceChildren();
  const result = document.body.appendChild(document.createElement("pre"));
  result.id = "seen";
  result.textContent = event.data;
}});
</script></body>
"""

DESK = "--window-size=1400,900"
DARK = "--blink-settings=preferredColorScheme=0"
NASTY = "<img src=x onerror=window.injected=1>.png"


def dump(page, profile, *flags):
    """The document after Chromium has run it."""
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    names = [NASTY, *(f"photo_{i:04d}.png" for i in range(1, 20))]
    fail = {(3, "vanilla"): "too dark", (5, "smoothgrad"): "<b>no</b>"}
    run = make_run(folder / "run", names=names, fail=fail, live=True)
    return write_report([read_run(run)], folder, ["html"])[0]


@pytest.fixture(scope="module")
def look(page, tmp_path_factory):
    """look(flags..., frame=width) -> what the probe saw, in a window or in a frame so wide."""
    text = page.read_text()
    text, opened = re.subn(r"script-src [^;]*;", "script-src 'unsafe-inline';", text)
    assert opened == 1
    probed = page.with_name("probed.html")
    probed.write_text(text.replace("</body>", PROBE + "</body>"))

    @cache
    def look(*flags, frame=None):
        opened = probed
        if frame:
            opened = page.with_name(f"frame{frame}.html")
            opened.write_text(FRAME.format(name=probed.name, width=frame))
        found = dump(opened, tmp_path_factory.mktemp("profile"), *flags)
        seen = re.search(r'<pre id="seen">(.*?)</pre>', found, re.S)
        assert seen, found[-2000:]
        unescaped = seen[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        seen = json.loads(unescaped)
        assert seen["errors"] == []
        return seen

    return look


def test_own_policy_lets_the_page_work(page, tmp_path):
    """Unchanged, with its policy: the script ran, and drew the first rows."""
    found = dump(page, tmp_path)
    assert 'data-ready="true"' in found
    assert "100 rows" in found


def test_page_works(look):
    seen = look(DESK)
    assert seen["ready"] == "true"
    assert seen["total"] == "100 rows"
    assert seen["first"] == 50
    down = [float(v) for v in seen["down"]]
    assert seen["sort"] == "descending"
    assert down == sorted(down, reverse=True)
    up = [float(v) for v in seen["up"]]
    assert up == sorted(up)
    assert up[0] < down[-1]
    assert seen["images"] == sorted(seen["images"], reverse=True)
    assert (seen["lastPage"], seen["pages"], seen["nextDisabled"]) == (50, "2 of 2", True)
    assert sorted(seen["failed"]) == ["photo_0003.png|vanilla|–", "photo_0005.png|smoothgrad|–"]
    assert seen["filtered"] == ["photo_0007.png|guided_absgrad@0"]
    assert seen["after"] == seen["before"][::-1]  # worst DAUC first; the run has them in order
    assert len(seen["pictures"]) == 12 * 6  # three groups of four, photograph and five methods
    assert all(width == 48 for width in seen["pictures"])
    assert {"0:0.14", "1:"} <= set(seen["dimmed"])
    assert seen["injected"]
    assert not seen["dark"]


def test_the_slider_makes_our_maps(look):
    """The page's maps, shares and ours, of the same statistics, at every p that was tried."""
    seen = look(DESK)
    assert seen["live"] == [12, False]
    assert seen["begins"] == "85"
    assert seen["moved"]
    assert seen["dimmedOutside"]
    names = [NASTY, *(f"photo_{i:04d}.png" for i in range(1, 20))]
    absmean, variance = statistics(names.index(seen["image"]))
    for p, shown in seen["sliders"].items():
        ours = exact_map(absmean, variance, float(p))
        found = np.array(shown["map"]).reshape(ours.shape)
        assert np.abs(found - ours).max() < 1e-2
        flat = ours.reshape(-1)
        percents = (90, 80, 70, 60, 50)
        shares = [flat[flat >= np.percentile(flat, q)].sum() / flat.sum() for q in percents]
        np.testing.assert_allclose(shown["shares"], shares, atol=1e-2)
        assert "top 50 %, the Focus Area" in shown["text"]


def test_figures_and_tables_are_saved_from_the_page(look):
    saved = look(DESK)["saved"]
    drawings = [text for kind, text in saved if kind == "image/svg+xml"]
    assert len(drawings) >= 3 + 3 + 3 + 1
    for text in drawings:
        root = ElementTree.fromstring(text)
        assert float(root.get("width")) > 0
        assert not any(e.get("class") or e.get("style") for e in root.iter())
    tables = [text for kind, text in saved if kind == "text/csv"]
    rows = next(t for t in tables if t.startswith("image,method,target"))
    assert len(rows.splitlines()) == 1 + 1  # what the filter leaves
    for text in tables:
        lines = list(csv.reader(io.StringIO(text)))
        assert len({len(line) for line in lines}) == 1
    assert any(r"\begin{tabular}" in text for kind, text in saved if kind == "text/plain")


def test_dark_page_is_dark(look):
    light = look(DESK)["colors"]
    seen = look(DESK, DARK)
    assert seen["dark"]
    brightness = [sum(map(int, re.findall(r"\d+", color)[:3])) for color in seen["colors"]]
    assert brightness[0] < 120 < 600 < brightness[1]
    assert sum(map(int, re.findall(r"\d+", light[0])[:3])) > 700


@pytest.mark.parametrize("scheme", [(), (DARK,)], ids=["light", "dark"])
def test_phone_width_has_no_sideways_scroll(look, scheme):
    seen = look(*scheme, frame=400)
    assert seen["dark"] == bool(scheme)
    content, window = seen["width"]
    assert window == 400
    assert content <= window
    assert seen["cut"] == []
    assert seen["outside"] == []
    assert seen["narrowest"] >= 120  # the names of the methods, beside numbers that scroll


def test_no_table_scrolls_on_a_desk(look):
    seen = look(DESK)
    content, window = seen["width"]
    assert content <= window == 1400
    assert seen["scrolls"] == []
    assert seen["cut"] == []
    assert seen["outside"] == []


def test_prints_to_paper(page, tmp_path):
    paper = tmp_path / "page.pdf"
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", f"--print-to-pdf={paper}"]
    subprocess.run([*command, page.as_uri()], capture_output=True, timeout=120, check=True)
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    # The photographs and maps are in it, and it is no more than some pages.
    assert content.count(b"/Subtype /Image") >= 12
    assert 2 <= len(re.findall(rb"/Type /Page\b", content)) <= 40


def test_hostile_text_stays_text_and_the_console_silent(tmp_path):
    """Names, methods, classes and errors that try to be markup, script, or the end of a script."""
    evil = '</script><script>window.injected=1;console.log("x")</script><svg onload=injected=1>'
    evil += "\"'&<!--"
    names = [f"{k}{NASTY}" for k in range(24)]
    run = make_run(
        tmp_path / "run",
        names=names,
        methods=("guided_absgrad", evil),
        labels=[evil] * 4,
        fail={(1, evil): evil},
        live=True,
    )
    read = read_run(run)
    read.columns["rcap@official"] = 1 - read.scores["rcap"]
    read.manifest["versions"] = {"gag_fast": evil}
    read.manifest["commit"] = evil
    page = write_report([read], tmp_path / "out", ["html"], title=evil, lead=evil)[0]
    flags = ("--enable-logging=stderr", DESK)
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    document = done.stdout
    assert 'data-ready="true"' in document
    assert "<svg onload" not in document
    assert "<img src=x" not in document
    assert "<script>window.injected" not in document
    assert re.search(r"Where presets disagree", document)
