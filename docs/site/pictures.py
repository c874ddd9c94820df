"""The pages' pictures, made from a photograph that an installed package carries.

python docs/site/pictures.py     writes docs/pictures/ anew

    coffee.webp      the photograph, its map and both together
    methods.webp     the map of every method that explains the demo's classifier
    methods/*.webp   the same one by one, and legrad's, of a small transformer trained here
    measures/*.webp  what the classifier is shown when a measure scores one map
    curves.svg       the curves of five maps
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import gag_fast
from gag_fast.demo import MODEL, write_photographs
from gag_fast.export import export_onnx
from gag_fast.images import denormalise
from gag_fast.report.pictures import map_picture, overlay

PICTURES = Path(__file__).parents[1] / "pictures"
PHOTOGRAPH = "coffee.png"
COLUMNS, SIDE, GAP, CAPTION = 4, 190, 8, 24
CURVES = ("guided_absgrad", "smoothgrad", "vargrad", "vanilla", "grad_cam")
MEASURES = ["rcap", "dauc", "iauc", "srg", "road", "aic", "average_drop", "mufidelity", "idsds"]
"""Measures whose pictures say something; sic shows aic's, increase and adcc average_drop's."""
SHOWN = 6
"""Pictures of a measure at the most, from its first to its last."""
BY_TRANSFORMER = "legrad"


def tile(picture: Image.Image, side: int = SIDE) -> Image.Image:
    """A picture as a square of that side."""
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def strip(pictures: list[Image.Image], side: int) -> Image.Image:
    """Pictures beside one another, with nothing between them."""
    made = Image.new("RGBA", (len(pictures) * (side + GAP) - GAP, side))
    for place, picture in enumerate(pictures):
        made.paste(tile(picture, side), (place * (side + GAP), 0))
    return made


def sheet(tiles: dict[str, Image.Image]) -> Image.Image:
    """Pictures in rows of `COLUMNS`, a name in each."""
    rows = -(-len(tiles) // COLUMNS)
    made = Image.new("RGBA", (COLUMNS * (SIDE + GAP) - GAP, rows * (SIDE + CAPTION + GAP) - GAP))
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(15)
    for number, (name, picture) in enumerate(tiles.items()):
        row, column = divmod(number, COLUMNS)
        left, top = column * (SIDE + GAP), row * (SIDE + CAPTION + GAP)
        made.paste(tile(picture), (left, top))
        bar = (left, top + SIDE, left + SIDE - 1, top + SIDE + CAPTION - 1)
        draw.rectangle(bar, fill="#30343c")
        draw.text((left + SIDE / 2, top + SIDE + CAPTION / 2), name, "white", font, anchor="mm")
    return made


def method_maps(model: nn.Module, clf: gag_fast.Classifier, image: Tensor, target: Tensor) -> dict:
    """The map of every method that explains a convolutional network, by name."""
    by_scores = {"rise", "occlusion", "kernel_shap"}
    return {
        name: gag_fast.explain(clf if name in by_scores else model, image, target, name)[0]
        for name in gag_fast.methods()
        if name != BY_TRANSFORMER
    }


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's handwritten digits as images [N, 1, 32, 32] in [-1, 1], and what they are."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / 8 - 1
    images = nn.functional.interpolate(images, size=32, mode="bilinear")
    return images, torch.from_numpy(found.target)


def transformer() -> nn.Module:
    """A vision transformer that tells the digits apart, trained in two minutes."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(0)
    net = VisionTransformer(32, 4, 3, 4, 64, 128, num_classes=10)
    net.conv_proj = nn.Conv2d(1, 64, 4, 4)
    images, labels = digits()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    for _ in range(500):
        taken = torch.randint(200, len(images), (64,))
        loss = nn.functional.cross_entropy(net(images[taken]), labels[taken])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = (net(images[:200]).argmax(1) == labels[:200]).float().mean()
    print(f"transformer: {right:.1%} of 200 digits that it was not trained on")
    return net


def transformer_picture() -> Image.Image:
    """A digit, and legrad's map of it."""
    image = digits()[0][:1]
    found = gag_fast.explain(transformer(), image, None, BY_TRANSFORMER)[0]
    digit = Image.fromarray(((image[0, 0] + 1) * 127.5).byte().numpy()).convert("RGB")
    return strip([digit, map_picture(found)], SIDE)


class Watched(nn.Module):
    """A model that keeps what it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, images: Tensor) -> Tensor:
        """The model's scores."""
        self.seen.extend(images.detach().clone())
        return self.model(images)


def shown(model: nn.Module, spec, image: Tensor, saliency: Tensor, target: Tensor) -> dict:
    """The pictures that a measure shows the classifier to score one map, by the measure's name."""
    found = {}
    for name in MEASURES:
        watched = Watched(model)
        clf = gag_fast.Classifier.from_torch(watched, spec, batch_size=1)
        clf(image)  # the first call looks at what comes out
        watched.seen.clear()
        gag_fast.evaluate(clf, image, saliency[None], target, (name,))
        found[name] = [denormalise(x, spec.preprocessing) for x in watched.seen]
    return found


def save_curves(scores: gag_fast.Scores, names: tuple[str, ...], path: Path) -> None:
    """The deletion, insertion and recover curves of some maps of one image."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "gag-fast"  # the same file for the same numbers
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, curve in zip(axes, ("deletion", "insertion", "recover")):
        for index, name in enumerate(names):
            pixels = scores.pixels[curve][0, index] / scores.pixels["deletion"].max()
            axis.plot(pixels, scores.curves[curve][0, index], marker=".", label=name)
        axis.set(title=curve, xlabel="share of pixels")
    axes[0].set_ylabel("probability of the class")
    axes[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def save(picture: Image.Image, name: str) -> None:
    """Writes a picture below docs/pictures."""
    path = PICTURES / f"{name}.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=80)


def main() -> None:
    """Writes every picture."""
    with tempfile.TemporaryDirectory() as scratch:
        write_photographs(Path(scratch))
        model, spec = gag_fast.load_model(MODEL)
        image = gag_fast.load_images(Path(scratch) / PHOTOGRAPH, spec)
        export_onnx(model, spec, Path(scratch) / "model.onnx")
        clf = gag_fast.Classifier(Path(scratch) / "model.onnx", providers="cpu")
    target = clf(image).argmax(1)
    photograph = denormalise(image[0], spec.preprocessing)
    maps = method_maps(model, clf, image, target)
    pictures = {name: map_picture(found) for name, found in maps.items()}
    first = maps["guided_absgrad"]
    save(strip([photograph, map_picture(first), overlay(photograph, first)], 280), "coffee")
    save(sheet({"photograph": photograph, **pictures}), "methods")
    for name, picture in pictures.items():
        save(tile(picture, 224), f"methods/{name}")
    save(transformer_picture(), f"methods/{BY_TRANSFORMER}")
    for name, seen in shown(model, spec, image, first, target).items():
        places = np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).round().astype(int)
        save(strip([seen[place] for place in places], 112), f"measures/{name}")
    stack = torch.stack([maps[name] for name in CURVES])[None]
    save_curves(gag_fast.evaluate(clf, image, stack, target), CURVES, PICTURES / "curves.svg")


if __name__ == "__main__":
    main()
