"""The page in headless Chromium: its maps are those of explain() for the same photograph."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gag_fast
from gag_fast.cli import main
from gag_fast.export import ExportError, export_web, web
from gag_fast.images import fit, normalise, pixels_of
from gag_fast.models import ModelSpec, Preprocessing, load_model
from tests.chromium import CHROMIUM, handler_of, visit
from tests.export.test_gradients import Small
from tests.tiny_classifier import MODEL

SPEC = ModelSpec(
    "tiny", Preprocessing(size=16, resize=20, mean=(0.4,) * 3, std=(0.3,) * 3), 5, tuple("abcde")
)
NPM = shutil.which("npm")
QUANTILES = (0.99, 0.999, 1)

# Beside the page, whose policy it shares: what it finds goes back to the server.
PROBE = """
import { classes, explain, open, pixels, prepare, run, saliency } from "./page.js";
const seen = { isolated: crossOriginIsolated };
try {
  const ask = await (await fetch("ask.json")).json();
  const opened = await open();
  seen.provider = opened.provider;
  const found = await pixels(await (await fetch("photo.png")).blob());
  const image = prepare(found.data, found.width, found.height, opened.model);
  const { logits } = await run(opened, image, 0);
  [seen.predicted] = classes(logits, 1)[0];
  const begin = performance.now();
  let steps = 0;
  const step = (done) => (steps = done);
  const how = { n: ask.n, noise: opened.model.noise, seed: 3, step };
  const statistics = await explain(opened, image, ask.target, how);
  seen.seconds = (performance.now() - begin) / 1000;
  seen.steps = steps;
  seen.image = Array.from(image.slice(0, 4096));
  seen.maps = ask.percents.map((p) => Array.from(saliency(statistics, p)));
} catch (error) { seen.error = String(error.stack ?? error); }
await fetch("seen", { method: "POST", body: JSON.stringify(seen) });
"""

# The page itself in a frame, worked as a visitor would.
VISITOR = """
const frame = document.querySelector("iframe");
const there = (id) => frame.contentDocument.getElementById(id);
const until = async (what) => {
  for (let i = 0; i < 2400 && !what(); i++) await new Promise((done) => setTimeout(done, 50));
  if (!what()) throw new Error(`not so after two minutes: ${what}; ${there("status").textContent}`);
};
const status = () => there("status").textContent;
const drawn = () => {
  const { width, height } = there("map");
  return Array.from(there("map").getContext("2d").getImageData(0, 0, width, height).data);
};
const photo = async () => {
  const files = new frame.contentWindow.DataTransfer();
  files.items.add(new File([await (await fetch("photo.png")).blob()], "photo.png"));
  return files;
};
const tell = (id, name) => there(id).dispatchEvent(new Event(name));
let finished = 0; // explanations: a small network's are over before one looks
const count = () => { if (status().startsWith("6 gradients in")) finished += 1; };
const seen = {};
try {
  await until(() => frame.contentDocument.readyState === "complete" && there("status"));
  await until(() => status().startsWith("ready"));
  new MutationObserver(count).observe(there("status"), { childList: true });
  seen.model = there("model").textContent;
  there("n").value = 6;
  there("file").files = (await photo()).files;
  tell("file", "change");
  await until(() => finished === 1);
  seen.choices = Array.from(there("class").options, (option) => option.text);
  seen.chosen = Number(there("class").value);
  seen.map = drawn();
  there("p").value = 0;
  tell("p", "input");
  [seen.at0, seen.percent] = [drawn(), there("percent").textContent];
  seen.finished = finished;
  there("class").value = there("class").options[1].value;
  tell("class", "change");
  seen.other = Number(there("class").value);
  await until(() => finished === 2);
  seen.of_other = drawn();
  const drop = new frame.contentWindow.DragEvent("drop", { dataTransfer: await photo() });
  there("drop").dispatchEvent(drop);
  await until(() => finished === 3);
  seen.dropped = drawn();
} catch (error) { seen.error = String(error.stack ?? error); }
await fetch("seen", { method: "POST", body: JSON.stringify(seen) });
"""


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """onnxruntime-web, from a folder or by npm."""
    if os.environ.get("GAG_FAST_ONNXRUNTIME_WEB"):
        return Path(os.environ["GAG_FAST_ONNXRUNTIME_WEB"])
    if NPM is None:
        pytest.skip("no npm on PATH, and GAG_FAST_ONNXRUNTIME_WEB names no folder")
    try:
        return web._by_npm(tmp_path_factory.mktemp("npm"))
    except ExportError as error:
        pytest.skip(f"onnxruntime-web cannot be had here: {error}")


def photograph(width, height):
    """Smooth colours with some noise, as PNG."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(pixels + rng.integers(-9, 10, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def probed(folder, profile, page, script):
    """What a script sees that `page` loads as probe.js; serve.py's handler serves both."""
    (folder / "probe.js").write_text(script)
    return visit(folder, page, profile, handler_of(folder / "serve.py"))


def explained_the_same(module, spec, folder, profile, photo, n, quantile):
    """The page's maps against explain()'s of the same photograph and noise; what it saw."""
    (folder / "photo.png").write_bytes(photo)
    percents = [0, 50, 85]
    ask = {"n": n, "target": 3, "percents": percents}
    (folder / "ask.json").write_text(json.dumps(ask))
    page = (folder / "index.html").read_text()
    page = page.replace('src="page.js"', 'src="probe.js"').replace('id="drop"', 'id="other"')
    seen = probed(folder, profile, page, PROBE)
    picture = fit(Image.open(io.BytesIO(photo)).convert("RGB"), spec.preprocessing)
    image = normalise(pixels_of(picture)[None], spec.preprocessing)
    level = 1 / 255 / min(spec.preprocessing.std)
    off = np.abs(np.array(seen["image"]) - image.flatten()[: len(seen["image"])].numpy())
    assert off.max() < 1e-5 + (level if n > 6 else 0), "the photograph's pixels"
    size = spec.preprocessing.size
    for p, found in zip(percents, seen["maps"], strict=True):
        right = gag_fast.explain(module, image, 3, n=n, p=p, seed=3, image_ids=[0])[0]
        difference = np.abs(np.array(found).reshape(size, size) - right.numpy())
        print(f"p = {p}: " + ", ".join(f"{np.quantile(difference, q):.1e}" for q in QUANTILES))
        assert np.quantile(difference, quantile) < 1e-3
    with torch.no_grad():
        assert seen["predicted"] == int(module.eval()(image).argmax())
    return seen


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_the_page_explains_as_explain_does(runtime, tmp_path):
    folder = tmp_path / "page"
    page = export_web(Small(), folder, SPEC, runtime=runtime, providers=["cpu"])
    assert page == folder / "index.html"
    how = (Small(), SPEC, folder, tmp_path / "profile", photograph(61, 47), 6, 1.0)
    seen = explained_the_same(*how)
    assert seen["isolated"]
    assert seen["provider"].startswith("WebAssembly")
    assert seen["steps"] == 6


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_a_visitor_sees_classes_and_map_and_moves_p(runtime, tmp_path):
    folder = tmp_path / "page"
    export_web(Small(), folder, SPEC, runtime=runtime, providers=["cpu"])
    photo = photograph(61, 47)
    (folder / "photo.png").write_bytes(photo)
    frame = '<iframe src="index.html"></iframe><script type="module" src="probe.js"></script>'
    seen = probed(folder, tmp_path / "profile", frame, VISITOR)
    assert seen["model"] == "tiny"
    image = normalise(
        pixels_of(fit(Image.open(io.BytesIO(photo)), SPEC.preprocessing))[None], SPEC.preprocessing
    )
    shares = Small().eval()(image).softmax(1)[0].detach()
    order = shares.argsort(descending=True).tolist()
    assert seen["choices"] == [f"{'abcde'[k]} ({100 * shares[k]:.1f} %)" for k in order]
    assert [seen["chosen"], seen["other"]] == order[:2]
    assert seen["percent"] == "p = 0"
    assert seen["finished"] == 1, "moving p computed gradients again"

    def same(found, target, p):
        """The brightest and the darkest pixels of what was drawn are those of explain's map."""
        right = gag_fast.explain(Small(), image, target, n=6, p=p, image_ids=[0])[0].flatten()
        light = np.array(found).reshape(-1, 4)[:, :3].sum(1)
        assert right[light.argmax()] > 0.98
        assert right[light.argmin()] < 0.02
        assert np.corrcoef(light, right)[0, 1] > 0.9

    same(seen["map"], order[0], 85)
    same(seen["at0"], order[0], 0)
    same(seen["of_other"], order[1], 0)
    same(seen["dropped"], order[0], 0)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")
def test_lite0(runtime, tmp_path):
    module, spec = load_model("efficientnet_lite0")
    folder = tmp_path / "page"
    export_web(module, folder, spec, runtime=runtime, providers=["cpu"])
    photo = photograph(400, 300)
    seen = explained_the_same(module, spec, folder, tmp_path / "profile", photo, 20, 0.99)
    print(f"20 gradients in {seen['seconds']:.1f} s, {seen['provider']}")


def test_the_command_writes_explanation_and_page_from_gradients_exported_once(
    runtime, tmp_path, capsys
):
    page, maps = tmp_path / "page", tmp_path / "x.gag.onnx"
    words = ["export", MODEL, tmp_path / "x.onnx", "--providers", "cpu"]
    words += ["--explanation", maps, "--web", page, "--onnxruntime-web", runtime]
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err.count("tracing the gradient") == 1
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        *(str(tmp_path / "x.onnx"), str(maps), str(page / "index.html"))
    ]
    x = torch.zeros(1, 3, 32, 32)
    assert gag_fast.OnnxGradients(page / "gradients.onnx", "cpu")(x, [0]).shape == x.shape
    assert gag_fast.OnnxExplanation(maps, "cpu")(x, [0], n=2).shape == (1, 32, 32)


def test_nothing_is_fetched_from_elsewhere():
    for name in web.PAGE:
        text = (Path(web.__file__).parent / "page" / name).read_text()
        addresses = {word for word in text.split() if "http" in word and "127.0.0.1" not in word}
        assert not {a for a in addresses if "://" in a}, name


def test_without_npm_the_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(web.shutil, "which", lambda name: None)
    with pytest.raises(ExportError, match=r"install Node\.js with npm, or give the package's"):
        export_web(Small(), tmp_path / "page", SPEC)
    with pytest.raises(ExportError, match=r"is no onnxruntime-web: it lacks ort\.wasm"):
        export_web(Small(), tmp_path / "page", SPEC, runtime=tmp_path)
