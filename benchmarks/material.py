"""What the benchmarks work on: gradient stacks, EfficientNet-Lite0, photographs and maps.

The classifier comes with its ImageNet weights and is exported once a process.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gag_fast._files import cache_folder
from gag_fast.images import SUFFIXES, load_image, preprocess
from gag_fast.models import ModelSpec, Preprocessing, load_model

if TYPE_CHECKING:
    from gag_fast.classifier import Classifier

SWEEP = [15.0, 25.0, 35.0, 45.0, 55.0, 65.0, 75.0, 85.0, 95.0]
MAPS = 4  # saliency maps that `smooth_maps` makes of an image


@dataclass(frozen=True)
class Stack:
    """A gradient stack [B, n, 3, side, side]."""

    batch: int = 8
    n: int = 20
    side: int = 224
    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def make(self, device: str = "cpu", seed: int = 0) -> torch.Tensor:
        """Normal numbers, small as gradients are."""
        generator = torch.Generator(device).manual_seed(seed)
        shape = (self.batch, self.n, 3, self.side, self.side)
        # In place: benchmarks.memory reads the peak of the process right after this.
        stack = torch.empty(shape, device=device).normal_(0, 0.05, generator=generator)
        stack = stack.to(self.dtype)
        if self.channels_last:
            stack = stack.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        return stack

    @property
    def bytes(self) -> int:
        """Bytes of the stack: the least that any aggregation must read."""
        return self.batch * self.n * 3 * self.side**2 * self.dtype.itemsize

    @property
    def operations(self) -> int:
        """Welford's 8 operations a gradient, then about 8 a pixel and channel."""
        return self.batch * 3 * self.side**2 * (8 * self.n + 8)

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        layout = ", channels_last" if self.channels_last else ""
        return f"[{self.batch}, {self.n}, 3, {self.side}, {self.side}] {dtype}{layout}"


@functools.cache
def lite0() -> tuple[nn.Module, ModelSpec]:
    """The torch module and its spec."""
    return load_model("efficientnet_lite0")


@functools.cache
def lite0_onnx() -> Path:
    """The module as an ONNX file, in a folder that goes with the process."""
    # Imported where it is used: gradient stacks can be made without onnx and ONNX Runtime.
    from gag_fast.export import export_onnx

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "efficientnet_lite0.onnx"
    export_onnx(*lite0(), path)
    return path


@functools.cache
def network(name: str) -> tuple[nn.Module, ModelSpec]:
    """A network by name; all but EfficientNet-Lite0 with random weights, the same every time."""
    if name == "efficientnet_lite0":
        return lite0()
    torch.manual_seed(0)
    module, spec = load_model(name, "none")
    for parameter in module.parameters():
        if not parameter.any() and parameter.ndim == 2:  # ViT's head: all its gradients were zero
            nn.init.normal_(parameter, std=0.02)
    return module, spec


def gradient_file(name: str) -> Path:
    """The network's gradients as ONNX, exported once and kept."""
    from gag_fast.export import export_gradients

    # Another provider is compared with the CPU's where it is opened.
    return _kept(f"{name}.grad", partial(_exported, export_gradients, name, providers=["cpu"]))


def explanation_file(name: str) -> Path:
    """The network's guided_absgrad as ONNX, likewise."""
    from gag_fast.export import export_explanation

    how = {"gradients": gradient_file(name), "providers": ["cpu"]}
    return _kept(f"{name}.gag", partial(_exported, export_explanation, name, **how))


def _exported(export: Callable[..., object], name: str, path: Path, **how: object) -> None:
    module, spec = network(name)
    export(module, path, spec, **how)


def _kept(name: str, write: Callable[[Path], object]) -> Path:
    """A file in the cache folder: what takes up to minutes to write.

    Its name has a hash of the code that writes it, so that a new way to write is a new file.
    """
    from gag_fast import export

    written_by = hashlib.sha256(torch.__version__.encode())
    for source in sorted(Path(export.__file__).parent.glob("*.py")):
        written_by.update(source.read_bytes())
    folder = cache_folder() / "benchmarks"
    path = folder / f"{name}-{written_by.hexdigest()[:12]}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write(path)
    return path


@functools.cache
def classifier(device: str = "cpu") -> Classifier:
    """The file in an ONNX Runtime session."""
    from gag_fast.classifier import Classifier

    return Classifier(lite0_onnx(), providers=device)


def scored_images(count: int, maps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Photographs [B, 3, 224, 224], maps [B, maps, 224, 224], predicted classes [B]."""
    preprocessing = lite0()[1].preprocessing
    images = photographs(None, count, preprocessing)
    saliency = smooth_maps(count, preprocessing.size)[:, :maps]
    return images, saliency, torch.as_tensor(classifier()(images)).argmax(1)


def photographs(folder: Path | None, count: int, preprocessing: Preprocessing) -> Tensor:
    """`count` photographs [B, 3, size, size] from a folder, or crops of scikit-image's."""
    if folder is not None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        step = max(1, len(files) // count)
        chosen = files[::step][:count]
        return torch.stack([preprocess(load_image(path), preprocessing) for path in chosen])
    from PIL import Image
    from skimage import data

    found = []
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        picture = Image.fromarray(getattr(data, name)())
        side = min(picture.size)
        for i in range(-(-count // 4)):  # crops along the longer side and smaller and smaller
            edge = int(side * (1 - 0.08 * i))
            box = (i * 4, i * 4, i * 4 + edge, i * 4 + edge)
            found.append(preprocess(picture.crop(box), preprocessing))
    return torch.stack(found[:count])


def smooth_maps(count: int, size: int) -> Tensor:
    """[count, MAPS, size, size] in [0, 1]: noise at four scales, as maps of methods differ."""
    generator = torch.Generator().manual_seed(0)
    maps = []
    for cells in (7, 28, 56, size)[:MAPS]:
        coarse = torch.rand(count, 1, cells, cells, generator=generator) ** 4
        maps.append(torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[:, 0])
    stacked = torch.stack(maps, dim=1)
    return stacked / stacked.amax(dim=(-2, -1), keepdim=True)
