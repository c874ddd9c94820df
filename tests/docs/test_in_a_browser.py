"""The site in headless Chromium: wide and narrow, light and dark, and what its front page runs."""

import http.server
import os
import subprocess
import sys

import pytest

from tests import ROOT
from tests.chromium import CHROMIUM, handler_of, visit

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

WIDTHS = (1400, 400)
CONTRAST = 4.5
"""Of letters to what is behind them, at the least (WCAG AA)."""

LOOK = """
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const channels = (text) => {
  const [r, g, b, a = 1] = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
  return text.startsWith("color(") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
const light = (c) => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = c.map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};

/** What is behind an element: its own and its ancestors' colours, one upon the other. */
function behind(view, element) {
  const found = [];
  for (let e = element; e; e = e.parentElement) {
    const colour = channels(view.getComputedStyle(e).backgroundColor);
    found.unshift(colour);
    if (colour[3] >= 1) break;
  }
  return found.reduce((under, top) => over(top, under), [255, 255, 255]);
}

/** Text of too little contrast, what is wider than the page, pictures that are not there. */
function faults(frame) {
  const view = frame.contentWindow, page = frame.contentDocument, found = [];
  if (page.documentElement.scrollWidth > view.innerWidth) found.push("the page scrolls sideways");
  for (const picture of page.querySelectorAll("article img")) {
    if (!picture.naturalWidth) found.push(`no picture ${picture.src}`);
    if (picture.getBoundingClientRect().right > view.innerWidth) found.push(`cut: ${picture.src}`);
  }
  const texts = page.createTreeWalker(page.body, NodeFilter.SHOW_TEXT);
  const low = new Set();
  while (texts.nextNode()) {
    const text = texts.currentNode.nodeValue.trim(), element = texts.currentNode.parentElement;
    const style = view.getComputedStyle(element);
    if (!text || !element.getClientRects().length || style.visibility === "hidden") continue;
    if (element.matches("script, style, .headerlink, [aria-hidden=true] *")) continue;
    const under = behind(view, element), letters = over(channels(style.color), under);
    const [a, b] = [light(letters), light(under)];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const where = `${element.tagName}.${element.className} "${text.slice(0, 30)}"`;
    if (contrast < CONTRAST) low.add(`contrast ${contrast.toFixed(2)}: ${where}`);
  }
  return [...found, ...low];
}

/** A page in a frame of a width, light and dark by the theme's own switch. */
async function look(name, width) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 900px`;
  frame.src = name;
  document.body.replaceChildren(frame);
  await new Promise((done) => frame.addEventListener("load", done));
  const page = frame.contentDocument, found = {};
  for (const picture of page.images) picture.loading = "eager";
  for (let i = 0; i < 2; i++) {
    const scheme = page.body.dataset.mdColorScheme;
    await wait(300); // colours change in a quarter of a second
    found[scheme] = faults(frame);
    page.querySelector("form[data-md-component=palette] label:not([hidden])").click();
  }
  return found;
}
"""

ALL = """
const seen = {};
try {
  for (const name of PAGES) for (const width of WIDTHS) {
    localStorage.clear();
    seen[`${name} at ${width}`] = await look(name, width);
  }
} catch (error) { seen.error = String(error.stack ?? error); }
await fetch("seen", { method: "POST", body: JSON.stringify(seen) });
"""

TRIED = """
const seen = {};
const until = async (what) => {
  for (let i = 0; i < 1800; i++) {
    const found = what();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error(`never: ${what}`);
};
try {
  const frame = document.createElement("iframe");
  frame.style = "width: 1000px; height: 900px";
  frame.src = "index.html";
  document.body.append(frame);
  await new Promise((done) => frame.addEventListener("load", done));
  const front = frame.contentDocument;
  seen.link = front.querySelector('a[href="try/index.html"]').textContent;
  front.querySelector("details.try").open = true;
  const inner = front.querySelector("details.try iframe");
  inner.scrollIntoView();
  const find = (id) => inner.contentDocument?.getElementById(id);
  await until(() => find("status")?.textContent.startsWith("ready"));
  seen.ready = find("status").textContent;
  const photograph = await (await fetch("photograph.png")).blob();
  const dropped = new DataTransfer();
  dropped.items.add(new File([photograph], "photograph.png", { type: "image/png" }));
  find("n").value = 3;
  find("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true }));
  await until(() => / s, /.test(find("status").textContent));
  seen.classes = [...find("class").options].map((option) => option.textContent);
  const ink = () => find("map").toDataURL();
  const before = ink();
  find("p").value = 10;
  find("p").dispatchEvent(new Event("input"));
  seen.slider = [find("percent").textContent, ink() !== before];
} catch (error) { seen.error = String(error.stack ?? error); }
await fetch("seen", { method: "POST", body: JSON.stringify(seen) });
"""


def build(folder, **env):
    """The site, strictly, in a folder."""
    for package in ("mkdocs", "mkdocstrings", "material", "latex2mathml"):
        pytest.importorskip(package)
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def looked_at(site, script, profile, **how):
    """What a script sees that runs in a page beside the site's."""
    page = f'<!doctype html><body><script type="module">{script}</script></body>'
    return visit(site, page, profile, **how)


def test_every_page_can_be_read_wide_and_narrow_light_and_dark(tmp_path):
    site = build(tmp_path / "site")
    pages = sorted(p.name for p in site.glob("*.html") if p.name != "404.html")
    assert len(pages) > 20
    given = f"const PAGES = {pages}, WIDTHS = {list(WIDTHS)}, CONTRAST = {CONTRAST};"
    seen = looked_at(site, f"{given}\n{LOOK}\n{ALL}", tmp_path / "profile")
    assert len(seen) == len(pages) * len(WIDTHS)
    assert all(set(found) == {"default", "slate"} for found in seen.values())
    wrong = {f"{at} {s}": f for at, found in seen.items() for s, f in found.items() if f}
    assert wrong == {}


def test_without_something_to_try_the_front_page_says_how_to_have_it(tmp_path):
    site = build(tmp_path / "site")
    assert "make docs-try" in (site / "index.html").read_text()
    assert "try/index.html" not in (site / "index.html").read_text()
    assert not (site / "try").exists()


@pytest.mark.slow
def test_a_photograph_is_explained_on_the_front_page(tmp_path):
    """Exports EfficientNet-Lite0 with its page: a minute or two."""
    skimage = pytest.importorskip("skimage", reason="needs gag-fast[demo]")
    from PIL import Image

    from gag_fast.export import ExportError, export_web
    from gag_fast.models import load_model

    runtime = os.environ.get("GAG_FAST_ONNXRUNTIME_WEB")
    try:
        module, spec = load_model("efficientnet_lite0")
        export_web(module, tmp_path / "try", spec, providers=["cpu"], runtime=runtime)
    except ExportError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(f"onnxruntime-web cannot be had here: {error}")
    site = build(tmp_path / "site", GAG_FAST_DOCS_TRY=str(tmp_path / "try"))
    Image.fromarray(skimage.data.coffee()).save(site / "photograph.png")
    isolating = handler_of(site / "serve.py")
    for handler in (isolating, http.server.SimpleHTTPRequestHandler):
        profile = tmp_path / f"profile-{handler.__name__}"
        seen = looked_at(site, TRIED, profile, handler=handler)
        assert seen["link"] == "by itself"
        assert seen["ready"].startswith("ready (WebAssembly")
        assert "1 thread(s)" in seen["ready"] or handler is isolating
        assert seen["classes"][0].startswith("espresso (")
        assert seen["slider"] == ["p = 10", True]
