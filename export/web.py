"""A static page that explains photographs in the browser: no server-side code, nothing fetched.

The folder holds the page, the classifier's gradients as ONNX and onnxruntime-web. The statistics of
the n gradients stay in the page, so its slider moves p without another gradient.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from torch import nn

from gag_fast._errors import first_line
from gag_fast._files import replacing
from gag_fast.export.gradients import export_gradients
from gag_fast.export.writing import ExportError
from gag_fast.models import ModelSpec

RUNTIME = "onnxruntime-web"
VERSION = "1.30.0"
"""Of onnxruntime-web: the page was tested with it."""
PAGE = ("index.html", "page.js", "algorithm.js", "style.css", "serve.py")
_NEEDED = (
    "ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)


def export_web(
    module: nn.Module,
    folder: str | os.PathLike[str],
    spec: ModelSpec,
    *,
    noise: float = 0.15,
    gradients: str | os.PathLike[str] | None = None,
    runtime: str | os.PathLike[str] | None = None,
    providers: Sequence[str] | None = None,
    log: Callable[[str], None] | None = None,
) -> Path:
    """Writes the page; files of the same names are replaced.

    Args:
        module: as for `export_gradients`.
        folder: the page's, made if it is not there.
        spec: of the module.
        noise: std of the noise as a fraction of (max - min) of the image.
        gradients: what `export_gradients` wrote for this module; None: it is written now.
        runtime: folder of the npm package onnxruntime-web, or its `dist`; None: npm fetches
            version `VERSION`.
        providers: as for `export_gradients`.
        log: called with a line for each step, or None.

    Returns:
        the page's index.html.

    Raises:
        ExportError: neither npm nor a folder of onnxruntime-web, or what `export_gradients` says.
    """
    say = log or (lambda line: None)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gag_fast-") as scratch:
        say(f"placing {RUNTIME} beside the page")
        source = Path(runtime) if runtime is not None else _by_npm(Path(scratch))
        _place_runtime(source, folder / RUNTIME)
    if gradients is None:
        export_gradients(module, folder / "gradients.onnx", spec, providers=providers, log=log)
    else:
        with replacing(folder / "gradients.onnx") as aside:
            shutil.copyfile(gradients, aside)
    (folder / "model.json").write_text(json.dumps(_facts(spec, noise), ensure_ascii=False))
    page = files("gag_fast.export") / "page"
    for name in PAGE:
        (folder / name).write_bytes((page / name).read_bytes())
    return folder / "index.html"


def _facts(spec: ModelSpec, noise: float) -> dict[str, object]:
    """What the page must know of the model."""
    return {
        "name": spec.name,
        "labels": spec.labels,
        "classes": spec.num_classes,
        "noise": noise,
        **asdict(spec.preprocessing),
    }


def _by_npm(scratch: Path) -> Path:
    """The package, by npm from its registry; npm checks the hash."""
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(
            f"the page needs {RUNTIME}: install Node.js with npm, or give the package's folder "
            "(--onnxruntime-web FOLDER)"
        )
    command = [npm, "pack", "--silent", f"{RUNTIME}@{VERSION}"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    found = sorted(scratch.glob("*.tgz"))
    if done.returncode or not found:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise ExportError(f"npm cannot fetch {RUNTIME} {VERSION}: {reason[-1]}")
    with tarfile.open(found[0]) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def _place_runtime(source: Path, target: Path) -> None:
    """Copies what the page loads."""
    built = source / "dist" if (source / "dist").is_dir() else source
    missing = [name for name in _NEEDED if not (built / name).is_file()]
    if missing:
        raise ExportError(f"{source} is no {RUNTIME}: it lacks {', '.join(missing)}")
    target.mkdir(exist_ok=True)
    try:
        for name in _NEEDED:
            shutil.copyfile(built / name, target / name)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {first_line(error)}") from None
