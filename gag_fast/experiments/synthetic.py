"""Textured objects on cluttered backgrounds, with exact masks, and a classifier trained on them.

A data set that anyone can make in a minute, in which the object's pixels are known exactly. They
are what an explanation should mark, so metrics that need a ground truth (log-cosh Dice, MAE) can
be tested end to end.

An image is 64×64. Its class is the texture of one object; the object's shape, place, size, angle,
colours and brightness say nothing about it, nor does the background: smooth coloured noise with
lines and patches of random texture, none of which is one of the six. So only pixels of the object
can tell the class.

    OUT/images/*.png  OUT/masks/*.png   one pair an image; the mask is white on the object
    OUT/train.csv     OUT/test.csv      path, label, mask
    OUT/classifier.pt                   state dict of `classifier()`

From a checkout or an installation, `gag-fast synthetic --out OUT` makes all of it, and any command
takes `OUT/test.csv` as data and `--model gag_fast.experiments.synthetic:classifier --weights
OUT/classifier.pt`.
"""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from gag_fast._errors import GagFastError
from gag_fast.images import normalise
from gag_fast.models import Preprocessing, seeded

SIZE = 64
CLASSES = ("stripes", "checks", "dots", "rings", "waves", "grid")


# ---- images -------------------------------------------------------------------------------------


def _texture(kind: str, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    """A texture's value in [-1, 1] at coordinates (u, v), in pixels."""
    a, b = 2 * math.pi * u / period, 2 * math.pi * v / period
    if kind == "stripes":
        return np.sign(np.sin(a))
    if kind == "checks":
        return np.sign(np.sin(a) * np.sin(b))
    if kind == "dots":
        return np.where(np.cos(a) + np.cos(b) > 0.9, 1.0, -1.0)
    if kind == "rings":
        return np.sign(np.sin(np.hypot(a, b)))
    if kind == "waves":
        return np.sign(np.sin(a + 1.8 * np.sin(b / 2)))
    if kind == "grid":
        return np.where(np.maximum(np.cos(a), np.cos(b)) > 0.75, 1.0, -1.0)
    raise GagFastError(f"no texture {kind!r}; there are {', '.join(CLASSES)}")


def _turned(rng: np.random.Generator, cx: float, cy: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates around (cx, cy), turned by a random angle."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float64)
    angle = rng.uniform(0, 2 * math.pi)
    u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
    return u, v


def _shape(rng: np.random.Generator, cx: float, cy: float, radius: float) -> np.ndarray:
    """A bool mask: an ellipse, a box, a triangle or a star with 5 arms."""
    u, v = _turned(rng, cx, cy)
    kind = rng.integers(4)
    if kind == 0:
        return (u / radius) ** 2 + (v / (radius * rng.uniform(0.7, 1))) ** 2 <= 1
    if kind == 1:
        return np.maximum(np.abs(u), np.abs(v) / rng.uniform(0.7, 1)) <= radius * 0.85
    if kind == 2:
        return np.maximum(np.maximum(-v, 0.5 * v + 0.866 * u), 0.5 * v - 0.866 * u) <= radius * 0.6
    return np.hypot(u, v) <= radius * (0.85 + 0.25 * np.cos(5 * np.arctan2(v, u)))


def _smooth(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth coloured noise [SIZE, SIZE, 3] around 0, about `cells` bumps along a side."""
    coarse = rng.normal(size=(1, 3, cells, cells))
    fine = F.interpolate(torch.from_numpy(coarse), SIZE, mode="bicubic", align_corners=False)
    return fine[0].permute(1, 2, 0).numpy()


def _background(rng: np.random.Generator) -> np.ndarray:
    image = 0.5 + 0.16 * _smooth(rng, 4) + 0.07 * _smooth(rng, 16)
    for _ in range(rng.integers(4, 9)):  # lines, and patches of noise or one colour
        x, y = rng.uniform(0, SIZE, size=2)
        u, v = _turned(rng, x, y)
        colour = rng.uniform(0, 1, size=3)
        if rng.random() < 0.5:
            where = (np.abs(v) < rng.uniform(0.6, 2)) & (np.abs(u) < rng.uniform(8, 40))
            image[where] = colour
        else:
            where = _shape(rng, x, y, rng.uniform(3, 8))
            grain = rng.normal(0, 0.3, size=(SIZE, SIZE, 1)) if rng.random() < 0.5 else 0.0
            image[where] = (colour + np.broadcast_to(grain, image.shape))[where]
    return image


def make_image(label: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One image of a class.

    Args:
        label: 0 to 5, a place in `CLASSES`.
        rng: numpy generator; the image is a function of its state.

    Returns:
        uint8 `[64, 64, 3]` and its mask, bool `[64, 64]`, True on the object's 6 to 35 % of it.
    """
    image = _background(rng)
    while True:
        radius = rng.uniform(14, 20)
        cx, cy = rng.uniform(radius, SIZE - radius, size=2)
        mask = _shape(rng, cx, cy, radius)
        if 0.06 <= mask.mean() <= 0.35:
            break
    u, v = _turned(rng, cx + rng.uniform(-3, 3), cy + rng.uniform(-3, 3))
    pattern = _texture(CLASSES[label], u, v, rng.uniform(6, 9))[..., None]
    # Two colours that differ in brightness by a fixed amount, whichever they are.
    middle, tint = rng.uniform(0.3, 0.7, size=3), rng.uniform(0.5, 1, size=3)
    textured = middle + rng.choice((-1, 1)) * 0.28 * tint * pattern
    image[mask] = textured[mask]
    image += rng.normal(0, 0.02, size=image.shape)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask


def make_dataset(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images of all classes in turn.

    Args:
        count: number of images N. The first m of N and of M > N are the same.
        seed: non-negative.

    Returns:
        images uint8 `[N, 64, 64, 3]`, masks bool `[N, 64, 64]`, labels int64 `[N]`.
    """
    labels = np.arange(count) % len(CLASSES)
    pairs = [make_image(int(c), np.random.default_rng((seed, i))) for i, c in enumerate(labels)]
    return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]), labels


# ---- classifier ---------------------------------------------------------------------------------


class TextureNet(nn.Module):
    """Five convolutions, ReLU, global average: logits `[B, 6]` from images `[B, 3, 64, 64]`."""

    preprocessing = Preprocessing(
        size=SIZE, resize=SIZE, crop=False, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )
    labels = CLASSES

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in ((16, 1), (32, 2), (40, 1), (64, 2), (80, 2)):
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, 3, H, W]`, normalised -> logits `[B, 6]`."""
        return self.head(self.features(x).mean(dim=(2, 3)))


def classifier() -> nn.Module:
    """The untrained network, for `--model gag_fast.experiments.synthetic:classifier`."""
    return TextureNet()


def to_input(images: np.ndarray) -> torch.Tensor:
    """uint8 `[N, 64, 64, 3]` -> the network's input, float32 `[N, 3, 64, 64]`."""
    return normalise(images, TextureNet.preprocessing)


@torch.no_grad()
def accuracy(module: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images whose class is predicted."""
    predicted = torch.cat([module(part).argmax(1) for part in to_input(images).split(256)])
    return float((predicted == torch.from_numpy(labels)).float().mean())


def train(
    images: np.ndarray,
    labels: np.ndarray,
    epochs: int,
    seed: int,
    report: Callable[[str], None] = lambda line: None,
) -> nn.Module:
    """Trains the network: Adam with a one-cycle rate, mirrored and shifted images.

    Also trains on images with parts painted black and on noisy ones, since the metrics
    and methods will show it such images.

    Args:
        images: uint8 `[N, 64, 64, 3]`.
        labels: int64 `[N]`.
        epochs: passes over the images.
        seed: of the weights, the order and the augmentation.
        report: called with one line after each epoch.

    Returns:
        the module in eval mode; the same for the same arguments on the same machine and threads.
    """
    batch = 64
    x, y = to_input(images), torch.from_numpy(labels)
    with seeded(seed):
        module = TextureNet().to(memory_format=torch.channels_last)
        steps = epochs * math.ceil(len(x) / batch)
        optimizer = torch.optim.AdamW(module.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
        for epoch in range(epochs):
            module.train()
            total = 0.0
            for rows in torch.randperm(len(x)).split(batch):
                loss = F.cross_entropy(module(_augment(x[rows])), y[rows], label_smoothing=0.02)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() * len(rows)
            report(f"epoch {epoch + 1} of {epochs}: loss {total / len(x):.3f}")
    return module.to(memory_format=torch.contiguous_format).eval()


def _augment(x: torch.Tensor) -> torch.Tensor:
    """A batch mirrored, shifted, and in parts noisy or with random cells painted black."""
    for axis in (2, 3):
        if torch.rand(()) < 0.5:
            x = x.flip(axis)
    x = x.roll(tuple(int(s) for s in torch.randint(-4, 5, (2,))), dims=(2, 3))
    spread = torch.rand(len(x), 1, 1, 1) * 0.4 * (torch.rand(len(x), 1, 1, 1) < 0.3)
    x = x + spread * torch.randn_like(x)
    share = torch.rand(len(x), 1, 1, 1) * (torch.rand(len(x), 1, 1, 1) < 0.25)
    cells = (torch.rand(len(x), 1, 16, 16) < share).float()
    black = F.interpolate(cells, SIZE) > 0
    return x.masked_fill(black, -2.0).contiguous(memory_format=torch.channels_last)


# ---- the command --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What `make` left behind.

    Attributes:
        accuracy: share of the test images that are classified right.
        seconds: wall time of the training.
    """

    train_csv: Path
    test_csv: Path
    weights: Path
    accuracy: float
    seconds: float


def make(
    out: str | os.PathLike[str],
    train_images: int = 3000,
    test_images: int = 300,
    epochs: int = 12,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Made:
    """Writes the data set below `out`, trains the classifier, writes its weights.

    Args:
        out: folder, made if it is not there; files of the same names are replaced.
        train_images, test_images: numbers of images; the test images are no training images.
        epochs: of training.
        seed: of everything.
        report: called with lines of progress.

    Raises:
        ValueError: a number that is not positive.
    """
    for name, value in (("images", train_images), ("images", test_images), ("epochs", epochs)):
        if value < 1:
            raise GagFastError(f"the number of {name} must be 1 or more, got {value}")
    if seed < 0:
        raise GagFastError(f"seed must be 0 or more, got {seed}")
    out = Path(out)
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    images, masks, labels = make_dataset(train_images + test_images, seed)
    for part, rows in (
        ("test", range(test_images)),
        ("train", range(test_images, len(images))),
    ):
        with (out / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "mask"))
            for i in rows:
                name = f"{part}_{i:05d}_{CLASSES[labels[i]]}.png"
                Image.fromarray(images[i]).save(out / "images" / name)
                Image.fromarray(masks[i]).save(out / "masks" / name)
                writer.writerow((f"images/{name}", int(labels[i]), f"masks/{name}"))
    report(f"{train_images} training and {test_images} test images in {out}")
    began = time.perf_counter()
    module = train(images[test_images:], labels[test_images:], epochs, seed, report)
    seconds = time.perf_counter() - began
    weights = out / "classifier.pt"
    torch.save(module.state_dict(), weights)
    right = accuracy(module, images[:test_images], labels[:test_images])
    report(f"trained in {seconds:.0f} s; {100 * right:.1f} % of the test images are right")
    return Made(out / "train.csv", out / "test.csv", weights, right, seconds)
