"""gag-fast explain: saliency maps of single images as pictures."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gag_fast._text import one_line
from gag_fast.cli.options import (
    Listed,
    add_explaining,
    add_model,
    add_score,
    explanation_of,
    method_lines,
)

if TYPE_CHECKING:
    from gag_fast.data import Item

SUMMARY = "explain what a classifier sees in images, as pictures"
EXAMPLE = (
    "  gag-fast explain cat.jpg dog.png --model efficientnet_lite0 --out pictures\n"
    "  gag-fast explain cat.jpg --model resnet50 --target 'Egyptian cat' --method smoothgrad"
)

_BATCH = 8
"""Images explained together."""

_NAME_BYTES = 180
"""Most bytes of a picture's name; file systems allow 255, and while it is written it is longer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of them"
    )
    add_model(parser)
    add_score(parser)
    parser.add_argument(
        "--method",
        action=Listed,
        lines=method_lines,
        default="guided_absgrad",
        metavar="M",
        help="help lists them (default: guided_absgrad)",
    )
    parser.add_argument(
        "--target", metavar="CLASS", help="class index or label (default: the predicted class)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("explanations"),
        metavar="DIR",
        help="(default: explanations)",
    )
    parser.add_argument(
        "--save-maps", action="store_true", help="write each map as .npy (float32) too"
    )
    add_explaining(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; an image that cannot be read is named, the others are still done."""
    from gag_fast._progress import Progress
    from gag_fast.models import device_of, load_model
    from gag_fast.runs.decoding import Decoder

    module, spec = load_model(args.model, args.weights, score=args.score)
    target = _target(args.target, spec)
    items = _items(args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    names = _picture_names(items, args.out)
    module = module.to(device_of(args.device))
    failed = 0
    with Progress(len(items)) as progress, Decoder(spec.preprocessing, workers=1) as decoder:
        for start in range(0, len(items), _BATCH):
            several = range(start, min(start + _BATCH, len(items)))
            answers = [decoder.submit(items[i]) for i in several]
            batch = []
            for i, answer in zip(several, answers):
                decoded = answer.result()
                if decoded.pixels is None:
                    progress.note(f"gag-fast: error: {decoded.error}")
                    failed += 1
                else:
                    batch.append((items[i], decoded.pixels, args.out / f"{names[i]}.png"))
            if batch:
                failed += _explain(args, module, spec, target, batch, progress)
            progress.add(len(several))
    if failed:
        print(f"gag-fast: {failed} of {len(items)} images failed", file=sys.stderr)
    return 1 if failed else 0


def _explain(
    args: argparse.Namespace,
    module: Any,
    spec: Any,
    target: int | None,
    batch: list[tuple[Item, Any, Path]],
    progress: Any,
) -> int:
    """Explains a batch, writes its pictures and prints a line for each; how many failed."""
    import numpy as np
    import torch

    from gag_fast.attribution.explaining import explain_as
    from gag_fast.attribution.gradients import EngineOptions
    from gag_fast.attribution.registry import counted, parse
    from gag_fast.images import normalise
    from gag_fast.report.pictures import save_overlay
    from gag_fast.scores import read, scores_of

    device = next(module.parameters()).device
    images = normalise(np.stack([pixels for _, pixels, _ in batch]), spec.preprocessing).to(device)
    with torch.inference_mode():
        raw = scores_of(module(images), len(images))
        probabilities = read(raw, spec.score).probabilities(raw)
    predicted = probabilities.argmax(dim=1)
    targets = predicted if target is None else torch.full_like(predicted, target)
    engine = EngineOptions(batch_size=args.batch_size, score=spec.score)
    how = explanation_of(args)
    how = replace(how, options=counted(parse(args.method), args.n, how.options))
    layers: list[str | None] = []
    found = explain_as(
        module,
        images,
        targets,
        (args.method,),
        how,
        engine=engine,
        watch=lambda done: layers.append(done.layer),
    )
    maps, layer = found[args.method].cpu(), layers[-1]
    failed = 0
    for (item, pixels, out), saliency, shares, chosen, best in zip(
        batch, maps, probabilities.cpu(), targets.tolist(), predicted.tolist()
    ):
        if not torch.isfinite(saliency).all():
            progress.note(f"gag-fast: error: {item.image}: the saliency map is not finite")
            failed += 1
            continue
        heading = f"{_label(spec, chosen)}  {shares[chosen]:.3f}"
        below = [f"{Path(item.image).name}   {_settings(args, layer)}   {spec.name}"]
        if chosen != best:
            below.append(f"predicted: {_label(spec, best)}  {shares[best]:.3f}")
        picture = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
        save_overlay(out, picture, saliency, [one_line(line) for line in (heading, *below)])
        if args.save_maps:
            np.save(out.with_name(f"{out.stem}.npy"), saliency.float().numpy())
        looked = "" if layer is None else f" (at {layer})"
        print(one_line(f"{item.image}: {heading} -> {out}{looked}"), flush=True)
    return failed


def _settings(args: argparse.Namespace, layer: str | None) -> str:
    percent = f"p={args.p:g}" if args.method == "guided_absgrad" else None
    samples = None if args.n is None else f"n={args.n}"
    looked = None if layer is None else f"at {layer}"
    return "  ".join(filter(None, [args.method, percent, samples, args.settings, looked]))


def _label(spec: Any, index: int) -> str:
    return f"class {index}" if spec.labels is None else f"{spec.labels[index]} ({index})"


def _target(text: str | None, spec: Any) -> int | None:
    from gag_fast.data import DataError, class_of, label_index

    if text is None:
        return None
    target = class_of(text, label_index(spec.labels or ()), spec.num_classes)
    if target is None or not 0 <= target < spec.num_classes:
        raise DataError(
            f"target {text} is out of range for a model of {spec.num_classes} classes "
            f"(0 to {spec.num_classes - 1})"
        )
    return target


def _items(paths: list[Path]) -> list[Item]:
    """The files named, and the pictures of the folders named, each once."""
    from gag_fast.data import Item, open_dataset

    found: dict[tuple[Path, Any], Item] = {}
    for path in paths:
        if path.is_dir():
            inside = [replace(i, image=str(path / i.image)) for i in open_dataset(path).items]
        else:
            inside = [Item(str(path), path)]
        for item in inside:
            found.setdefault((item.path, item.place), item)
    return list(found.values())


def _picture_names(items: list[Item], out: Path) -> list[str]:
    """A name for each picture, numbered where it is taken: by another image, or by a file of `out`.

    Only what an earlier call wrote is written over: `explain d/cat.png --out d` leaves the
    photograph alone and writes d/cat-2.png. Long names are cut, and hold no control characters.
    """
    given = {_identity(item.path) for item in items} - {None}
    names: dict[str, None] = {}
    for item in items:
        stem = "".join(c if c.isprintable() else "_" for c in Path(item.image).stem)
        stem = stem.encode()[:_NAME_BYTES].decode("utf-8", "ignore")
        name, number = stem, 2
        while name in names or _is_taken(out / f"{name}.png", given):
            name, number = f"{stem}-{number}", number + 1
        names[name] = None
    return list(names)


def _identity(path: Path) -> tuple[int, int] | None:
    """What identifies a file under any of its names; None for one that is not there."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def _is_taken(picture: Path, given: set[tuple[int, int] | None]) -> bool:
    """Whether a picture of that name, or its map, would replace a file of the user's."""
    from gag_fast.report.pictures import is_ours

    maps = picture.with_name(f"{picture.stem}.npy")
    if picture.is_symlink() or _identity(picture) in given or _identity(maps) in given:
        return True
    return not is_ours(picture) if picture.exists() else maps.exists()
