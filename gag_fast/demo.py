"""`gag-fast demo`: the main job on real photographs, start to end, in under a minute.

Photographs that come inside installed packages are explained with EfficientNet-Lite0, the same
classifier is exported to ONNX, the maps are scored through ONNX Runtime, and a table, pictures and
a page are written. It uses the same code as every run (`gag_fast.runs`, `gag_fast.report`), so
what works here works on a user's own data.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gag_fast._errors import GagFastError
from gag_fast.attribution.settings import SAMPLES

MODEL = "efficientnet_lite0"
METHODS = ("guided_absgrad", "guided_absgrad@0", "smoothgrad", "vargrad", "vanilla")
SEED = 0


class DemoError(GagFastError):
    """The demo cannot run here; one line that says why and what to do."""


@dataclass(frozen=True)
class Photograph:
    """A real photograph that an installed package carries.

    Attributes:
        name: of the file the demo writes.
        load: gives its pixels, uint8 `[H, W, 3]` or `[H, W]`.
        package: where it comes from.
        credit: whose it is and under what terms, as the package states it.
    """

    name: str
    load: Callable[[], np.ndarray]
    package: str
    credit: str


def _skimage(name: str) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        import skimage.data

        found = getattr(skimage.data, name)()
        return found[0] if isinstance(found, tuple) else found  # the left picture of a stereo pair

    return load


def _sklearn(name: str) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        from sklearn.datasets import load_sample_image

        return load_sample_image(name)

    return load


PHOTOGRAPHS = (
    Photograph("coffee.png", _skimage("coffee"), "scikit-image", "Rachel Michetti, CC0"),
    Photograph("chelsea.png", _skimage("chelsea"), "scikit-image", "Stéfan van der Walt, CC0"),
    Photograph("rocket.png", _skimage("rocket"), "scikit-image", "SpaceX, public domain"),
    Photograph(
        "motorcycle.png",
        _skimage("stereo_motorcycle"),
        "scikit-image",
        "Middlebury 2014 stereo benchmark: Nesic, Westling, Wang, Kitajima, Krathwohl, Scharstein",
    ),
    Photograph("astronaut.png", _skimage("astronaut"), "scikit-image", "NASA, public domain"),
    Photograph(
        "cameraman.png", _skimage("camera"), "scikit-image", "Lav Varshney, CC0 (greyscale)"
    ),
    Photograph(
        "china.png", _sklearn("china.jpg"), "scikit-learn", "danielbuechele on Flickr, CC BY 2.0"
    ),
    Photograph(
        "flower.png",
        _sklearn("flower.jpg"),
        "scikit-learn",
        "vultilion on Flickr, CC BY 2.0 (the package's README names danielbuechele)",
    ),
)


def run(out: Path) -> int:
    """Runs the demo into the folder `out`; returns the exit status.

    What `out` holds afterwards: `index.html` (the page), `table.*`, `pictures/` (one sheet an
    image), `photographs/` with `credits.csv`, `efficientnet_lite0.onnx`, and `run/`, a run folder
    like any other. An earlier demo's run there is replaced, so that every figure printed was
    measured now.

    Raises:
        DemoError: a package with photographs or weights is not installed, or `out` is neither
            empty nor an earlier demo's.
    """
    from gag_fast.attribution.explanation import Explanation
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model
    from gag_fast.report.command import write_report
    from gag_fast.report.reading import read_run
    from gag_fast.runs.request import Request
    from gag_fast.runs.run import run as run_request

    begin = time.perf_counter()
    out = Path(out)
    folder = _clear(out)
    photographs = write_photographs(out / "photographs")
    print(f"{len(photographs)} photographs in {out / 'photographs'}")
    for photograph in photographs:
        print(f"  {photograph.name:<15} {photograph.package}: {photograph.credit}")

    onnx = out / f"{MODEL}.onnx"
    print(f"exporting {MODEL} to ONNX", flush=True)
    print(f"  {export_onnx(*load_model(MODEL), onnx)}")

    how = Explanation(n=SAMPLES, seed=SEED)
    print(f"explaining with torch (n = {how.count}), scoring through ONNX Runtime", flush=True)
    summary = run_request(
        Request(
            data=out / "photographs" / "photographs.csv",
            out=folder,
            model=MODEL,
            onnx=onnx,
            methods=METHODS,
            explanation=how,
            chunk=4,
            keep_maps=True,
        )
    )
    result = read_run(folder)
    _print_tables(result, summary)
    _write_pictures(result, out / "pictures")
    credits = {p.name: f"Photograph: {p.credit} (from {p.package})" for p in photographs}
    rate = f"{summary.computed / summary.seconds:.2f}" if summary.seconds else "–"
    lead = (
        f"{len(result.images)} photographs that come with Python packages, explained by "
        f"{len(METHODS)} methods with EfficientNet-Lite0 in torch and scored with the same "
        f"classifier in ONNX Runtime: {rate} images a second on this machine, all methods together."
    )
    page = write_report([result], out, title="Photographs, explained", lead=lead, credits=credits)
    print(f"results   {folder / 'results'}")
    print(f"pictures  {out / 'pictures'}")
    print(f"page      {page[-1].resolve().as_uri()}")
    print(f"done in {time.perf_counter() - begin:.1f} s")
    return 0 if summary.complete else 1


def write_photographs(folder: Path) -> list[Photograph]:
    """Writes the photographs as PNG, a table of them for `evaluate`, and whose they are.

    Returns those written, in order: all of `PHOTOGRAPHS`.

    Raises:
        DemoError: a package that carries some is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for photograph in PHOTOGRAPHS:
        try:
            pixels = photograph.load()
        except ImportError as error:
            raise DemoError(
                f"{photograph.name} comes with {photograph.package}, which is not installed "
                f"({error}); pip install 'gag-fast[demo]'"
            ) from None
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / photograph.name)
    with (folder / "photographs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path"], *([p.name] for p in PHOTOGRAPHS)])
    with (folder / "credits.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [[p.name, p.package, p.credit] for p in PHOTOGRAPHS]
        csv.writer(file).writerows([["path", "package", "credit"], *rows])
    return list(PHOTOGRAPHS)


def _clear(out: Path) -> Path:
    """The folder for the demo's run; an earlier demo's run in it is removed, nothing else."""
    from gag_fast.runs.folder import RunError, RunFolder, claim

    try:
        claim(out, "run")
        RunFolder(out / "run").clear()
    except RunError as error:
        raise DemoError(str(error)) from None
    return out / "run"


def _print_tables(result, summary) -> None:
    from gag_fast.report.page import label_reader
    from gag_fast.report.tables import per_image_text, summarize, to_text

    label_of = label_reader(result.setting("labels"))
    print()
    for index, image in enumerate(result.images):
        row = int(np.flatnonzero(result.image == index)[0])
        if result.ok[row]:
            label = label_of(int(result.target[row]))
            print(f"{image:<15} {label} ({100 * result.confidence[row]:.1f} %)")
    print()
    for metric in result.metrics:
        print(per_image_text(result, metric))
    print(to_text(summarize(result, title=f"{MODEL}, {len(result.images)} photographs")))
    if summary.seconds:
        rate = summary.computed / summary.seconds
        many = f"{len(result.methods)} methods, n = {result.setting('n')}"
        print(f"{summary.computed} images x {many}, {summary.seconds:.1f} s: {rate:.2f} images/s")
    for image, reason in summary.failures.items():
        print(f"failed: {image}: {reason}")
    print()


def _write_pictures(result, folder: Path) -> None:
    """A sheet (image, map, overlay) of every photograph for the first method."""
    from gag_fast.report.gallery import Pictures
    from gag_fast.report.page import label_reader
    from gag_fast.report.pictures import save_overlay

    pictures = Pictures(result)
    label_of = label_reader(result.setting("labels"))
    first = result.methods.index(METHODS[0])
    for row in np.flatnonzero((result.method == first) & result.ok):
        image = result.images[result.image[row]]
        photograph, saliency = pictures.photograph(image), pictures.saliency(image, int(row))
        if photograph is None or saliency is None:
            continue
        heading = f"{label_of(int(result.target[row]))}   {100 * result.confidence[row]:.1f} %"
        note = f"{METHODS[0]} · p = {result.setting('p'):g} · n = {result.setting('n')} · {MODEL}"
        save_overlay(folder / f"{Path(image).stem}.png", photograph, saliency, [heading, note])
