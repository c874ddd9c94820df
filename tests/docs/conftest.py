"""What the snippets find around them: names that are defined, files that lie there.

A page says `images`, `targets`, `clf` without making them; here they are real ones: two
photographs that installed packages carry, EfficientNet-Lite0 and its exported file.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import gag_fast
from gag_fast import export
from gag_fast.attribution import settings

FEW = 2
"""Gradients an image where a snippet does not say how many."""

NAMES = ("coffee.png", "chelsea.png")


@dataclass(frozen=True)
class Prelude:
    """Names and files that a snippet may use, each made when the first one does.

    Attributes:
        values: makers of values by name.
        files: makers of files or folders by the name that a snippet calls them.
    """

    values: Mapping[str, Callable[[], Any]]
    files: Mapping[str, Callable[[], Path]]

    def namespace(self, names: set[str]) -> dict[str, Any]:
        """The values of those names, besides the package itself and torch."""
        made = {name: make() for name, make in self.values.items() if name in names}
        return {"__name__": "snippet", "gag_fast": gag_fast, "torch": torch, **made}

    def lay_out(self, text: str, folder: Path) -> None:
        """Puts the files that a text names into a folder; two photographs are always there."""
        for name, make in self.files.items():
            if name in text or name == "photos":
                source, target = make(), folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, dirs_exist_ok=True)
                elif not target.exists():
                    target.symlink_to(source)


def once(make: Callable[[], Any]) -> Callable[[], Any]:
    """The same value at every call."""
    kept: list[Any] = []

    def give() -> Any:
        if not kept:
            kept.append(make())
        return kept[0]

    return give


@pytest.fixture(scope="session")
def two_photographs(tmp_path_factory):
    """A folder with two of the demo's photographs."""
    pytest.importorskip("skimage", reason="needs gag-fast[demo]")
    from PIL import Image

    from gag_fast.demo import PHOTOGRAPHS

    folder = tmp_path_factory.mktemp("snippets") / "photos"
    folder.mkdir()
    for photograph in PHOTOGRAPHS:
        if photograph.name in NAMES:
            Image.fromarray(photograph.load()).save(folder / photograph.name)
    return folder


@pytest.fixture(scope="session")
def prelude(request, two_photographs, tmp_path_factory):
    """What README.md and the pages call by name, over EfficientNet-Lite0."""

    def fixture(name: str) -> Any:
        return request.getfixturevalue(name)

    scratch = tmp_path_factory.mktemp("prelude")
    images = once(
        lambda: gag_fast.load_images([two_photographs / n for n in NAMES], fixture("lite0")[1])
    )
    clf = once(lambda: gag_fast.Classifier(fixture("lite0_onnx"), batch_size=4))
    targets = once(lambda: clf()(images()).argmax(1))

    def export_gradients() -> Path:
        model, spec = fixture("lite0")
        path = scratch / "lite0.grad.onnx"
        export.export_gradients(model, path, spec, batches=(2,), providers=["cpu"])
        return path

    gradient_file = once(export_gradients)

    def export_explanation() -> Path:
        model, spec = fixture("lite0")
        path = scratch / "lite0.gag.onnx"
        options = {"gradients": gradient_file(), "providers": ["cpu"]}
        export.export_explanation(model, path, spec, **options)
        return path

    def finished_run() -> Path:
        gag_fast.run(
            two_photographs,
            "efficientnet_lite0",
            ["guided_absgrad", "smoothgrad"],
            scratch / "run",
            onnx=fixture("lite0_onnx"),
            n=FEW,
            quiet=True,
        )
        return scratch / "run"

    def grads() -> torch.Tensor:
        return torch.randn(2, 20, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def masks() -> torch.Tensor:
        found = torch.zeros(2, 224, 224)
        found[:, 60:180, 50:190] = 1
        return found

    stack = once(grads)
    values = {
        "images": images,
        "inputs": images,
        "targets": targets,
        "model": lambda: fixture("lite0")[0],
        "spec": lambda: fixture("lite0")[1],
        "clf": clf,
        "grads": stack,
        "gradients": lambda: stack().unbind(1),
        "maps": once(lambda: gag_fast.guided_absgrad(stack(), p=85)),
        "masks": masks,
    }
    files = {
        "photos": lambda: two_photographs,
        **{
            name: once(lambda: Path(fixture("lite0_onnx"))) for name in ("lite0.onnx", "model.onnx")
        },
        "lite0.grad.onnx": gradient_file,
        "lite0.gag.onnx": once(export_explanation),
        "runs/photos": once(finished_run),
    }
    return Prelude(values, files)


@pytest.fixture
def few_gradients(monkeypatch):
    """A snippet that does not say how many gradients an image has gets few: it takes seconds."""
    monkeypatch.setattr(settings, "DEFAULT", replace(settings.DEFAULT, n=FEW))
