"""The pages' pictures, made from a photograph that an installed package carries.

python docs/site/pictures.py     writes docs/pictures/methods.webp and docs/pictures/curves.webp
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import gag_fast
from gag_fast.demo import MODEL, write_photographs
from gag_fast.images import denormalise
from gag_fast.report.pictures import map_picture

PICTURES = Path(__file__).parents[1] / "pictures"
PHOTOGRAPH = "coffee.png"
COLUMNS, SIDE, GAP, CAPTION = 4, 190, 8, 24
SHOWN = ("guided_absgrad", "smoothgrad", "vargrad", "vanilla", "grad_cam")


def methods_sheet(photograph: Image.Image, maps: dict) -> Image.Image:
    """The photograph and every map in rows of `COLUMNS`, a name under each."""
    tiles = {"photograph": photograph, **{name: map_picture(m) for name, m in maps.items()}}
    rows = -(-len(tiles) // COLUMNS)
    width, height = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for number, (name, tile) in enumerate(tiles.items()):
        row, column = divmod(number, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + CAPTION + GAP)
        sheet.paste(tile.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
        draw.text((left, top + SIDE + 4), name, font=font, fill="black")
    return sheet


def save_curves(scores, names: tuple[str, ...], path: Path) -> None:
    """The deletion, insertion and recover curves of some maps of one image."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, curve in zip(axes, ("deletion", "insertion", "recover")):
        for index, name in enumerate(names):
            pixels = scores.pixels[curve][0, index] / scores.pixels["deletion"].max()
            axis.plot(pixels, scores.curves[curve][0, index], marker=".", label=name)
        axis.set(title=curve, xlabel="share of pixels")
    axes[0].set_ylabel("probability of the class")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110, pil_kwargs={"quality": 85})


def main() -> None:
    """Writes both pictures."""
    import tempfile

    import torch

    with tempfile.TemporaryDirectory() as scratch:
        write_photographs(Path(scratch))
        model, spec = gag_fast.load_model(MODEL)
        images = gag_fast.load_images(Path(scratch) / PHOTOGRAPH, spec)
    targets = model(images).argmax(1)
    maps = {name: gag_fast.explain(model, images, targets, name)[0] for name in gag_fast.methods()}
    sheet = methods_sheet(denormalise(images[0], spec.preprocessing), maps)
    sheet.save(PICTURES / "methods.webp", quality=80)
    stack = torch.stack([maps[name] for name in SHOWN])[None]
    clf = gag_fast.Classifier.from_torch(model, spec)
    scores = gag_fast.evaluate(clf, images, stack, targets)
    save_curves(scores, SHOWN, PICTURES / "curves.webp")


if __name__ == "__main__":
    main()
