"""The paper's tables on a data set: select images, make and score maps, print.

    OUT/weights.pt             the case's weights in the names of its module (cases only)
    OUT/model.onnx             the classifier that scores
    OUT/selection.json         the images with enough confidence, and how they were chosen
    OUT/masks/                 their masks as black and white (cases with masks only)
    OUT/<tables>/              a run folder: manifest and a row for each (image, map)
    OUT/table1.md, .csv, .svg  each table, its numbers and its figure
    OUT/trends.md              the published claims, and which hold

Every step is skipped when its result is there, so the same command goes on after a stop.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from gag_fast._progress import Progress
from gag_fast.attribution.settings import settings_named
from gag_fast.classifier import Classifier
from gag_fast.data import DataError, Dataset, Item, open_dataset
from gag_fast.experiments import maps
from gag_fast.experiments.cases import CASES, Case, object_mask
from gag_fast.experiments.propositions import four_of
from gag_fast.explainer import explain_many
from gag_fast.images import normalise
from gag_fast.metrics import evaluate
from gag_fast.models import ModelSpec, load_model
from gag_fast.report.reading import Run, read_run
from gag_fast.runs.decoding import Decoded, Decoder
from gag_fast.runs.plan import plan
from gag_fast.runs.request import Request, Summary
from gag_fast.runs.run import run

CONFIDENCE = 0.9  # Section 5
_BATCH = 32
_CHUNK = 4  # images a part: with 47 maps of each, a minute or two on two cores


@dataclass(frozen=True)
class Experiment:
    """What is asked for.

    Attributes:
        tables: some of `maps.TABLES`.
        data: folder or table of images; for a case the folder of its structure.
        out: folder of everything that is written.
        model: NAME of `load_model`; None for a case, which has its own.
        weights: "default", "none" or a file.
        case: "imagenet-s", "isic" or "places365", or None.
        images: how many, drawn by the seed; None: all that are confident.
        confidence: smallest probability of the label.
        classes: only images of the first so many classes; None: all. The published figures of
            imagenet-s are of images in the first 406.
        n: gradients per image; None: the settings' own, 20 without settings.
        seed: of the draw and of the maps.
        beside: the case whose published figures are printed beside; None: the case's own, if any.
        preset: of the scores; None: "official" for a case, else "paper".
        settings: of the methods; None: the case's, else gag_fast's defaults.
        providers, device, engine, workers: as in `gag_fast.runs.request.Request`.
    """

    tables: tuple[str, ...]
    data: Path
    out: Path
    model: str | None = None
    weights: str = "default"
    case: str | None = None
    images: int | None = None
    confidence: float = CONFIDENCE
    classes: int | None = None
    n: int | None = None
    seed: int = 0
    beside: str | None = None
    preset: str | None = None
    settings: str | None = None
    providers: str | None = None
    device: str | None = None
    engine: str = "local"
    workers: int | None = None

    def __post_init__(self) -> None:
        unknown = [t for t in self.tables if t not in maps.TABLES]
        if unknown or not self.tables or len(set(self.tables)) < len(self.tables):
            raise ValueError(
                f"tables must be some of {', '.join(maps.TABLES)}, each once, "
                f"got {', '.join(self.tables) or 'none'}"
            )
        for case in (self.case, self.beside):
            if case is not None and case not in CASES:
                raise ValueError(f"case must be one of {', '.join(CASES)}, got {case!r}")
        if (self.case is None) == (self.model is None):
            raise ValueError("give a model or a case (which has its own model), one of the two")
        for name, value in (("images", self.images), ("classes", self.classes), ("n", self.n)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence must be a probability, got {self.confidence}")

    @property
    def methods_settings(self) -> str | None:
        """The name of the methods' settings that apply, None for gag_fast's defaults."""
        return self.settings or (CASES[self.case].settings if self.case else None)

    @property
    def scoring(self) -> str:
        """The name of the scoring preset that applies."""
        return self.preset or ("official" if self.case else "paper")

    @property
    def samples(self) -> int:
        """Gradients per image that apply."""
        if self.n is not None:
            return self.n
        return settings_named(self.methods_settings).n if self.methods_settings else 20


@dataclass(frozen=True)
class Outcome:
    """What `reproduce` did.

    Attributes:
        run: the rows.
        summary: how the run stands; its tables are final when it is complete.
        candidates: images that were looked at for the selection.
    """

    run: Run
    summary: Summary
    candidates: int


def reproduce(asked: Experiment, quiet: bool = False) -> Outcome:
    """Makes and scores every map that the tables need, or goes on with that.

    Args:
        asked: the experiment.
        quiet: no progress.

    Raises:
        ValueError: something that was asked for is impossible; one line.
    """
    ready = _prepare(asked, quiet)
    methods = maps.methods_of(asked.tables)
    options: dict[str, str] = {}
    if asked.methods_settings:
        options["settings"] = asked.methods_settings
    if asked.case is not None and "grad_cam" in methods:
        options["layer"] = CASES[asked.case].grad_cam_layer
    folder = asked.out / "-".join(asked.tables)
    summary = run(
        Request(
            data=ready.dataset,
            out=folder,
            model=ready.name,
            weights=ready.weights,
            onnx=ready.onnx,
            methods=methods,
            preset=asked.scoring,
            n=asked.samples,
            seed=asked.seed,
            options=options,
            providers=asked.providers,
            device=asked.device,
            engine=asked.engine,
            workers=asked.workers,
            chunk=_CHUNK,
        ),
        quiet=quiet,
    )
    return Outcome(read_run(folder), summary, ready.candidates)


def score_four(asked: Experiment, quiet: bool = False) -> dict[str, np.ndarray]:
    """Scores Figure 4's arrangement of real maps (`propositions.four_of`) on the chosen images.

    Args:
        asked: the experiment; its tables are not looked at.
        quiet: no progress.

    Returns:
        "rcap", "dauc", "iauc" -> `[images, 4]`; images that cannot be read are left out.
    """
    ready = _prepare(asked, quiet)
    classifier = Classifier(ready.onnx, providers=asked.providers)
    parts: dict[str, list[np.ndarray]] = {"rcap": [], "dauc": [], "iauc": []}
    device = asked.device or "cpu"
    module = ready.module.to(device)
    with (
        Progress(len(ready.dataset), quiet=quiet) as progress,
        Decoder(ready.spec.preprocessing) as decoder,
    ):
        for chunk, decoded in decoder.stream(plan(ready.dataset, 8)):
            good = [i for i, d in enumerate(decoded) if d.pixels is not None]
            if good:
                images = _input([decoded[i] for i in good], ready.spec).to(device)
                given = [chunk.items[i].target for i in good]
                scored = classifier(images).float().cpu().argmax(1).tolist()
                targets = torch.tensor([p if g is None else g for g, p in zip(given, scored)])
                made = explain_many(
                    module,
                    images,
                    targets.to(device),
                    ("guided_absgrad@85", "guided_absgrad/R@85"),
                    n=asked.samples,
                    seed=asked.seed,
                    settings=asked.methods_settings,
                )
                four = four_of(*made.values())
                found = evaluate(classifier, images, four, targets, preset=asked.scoring)
                for name, values in parts.items():
                    values.append(torch.as_tensor(getattr(found, name)).cpu().numpy())
            progress.add(len(chunk.items))
    return {name: np.concatenate(values) for name, values in parts.items()}


# ---- the steps before the run -------------------------------------------------------------------


@dataclass(frozen=True)
class _Ready:
    """A model, its exported classifier and the images that take part."""

    name: str
    weights: str
    module: nn.Module
    spec: ModelSpec
    onnx: Path
    dataset: Dataset
    candidates: int


def _prepare(asked: Experiment, quiet: bool) -> _Ready:
    asked.out.mkdir(parents=True, exist_ok=True)
    case = CASES[asked.case] if asked.case else None
    name, weights, (module, spec) = _model(asked, case)
    if case is not None:
        dataset = case.dataset(asked.data)
    else:
        dataset = open_dataset(asked.data, spec.num_classes, spec.labels)
    if asked.classes is not None:
        few = tuple(i for i in dataset.items if i.target is not None and i.target < asked.classes)
        if not few:
            raise DataError(f"{dataset.source}: no image of the first {asked.classes} classes")
        dataset = Dataset(dataset.source, few, dataset.notes)
    onnx = _export(asked.out, module, spec)
    chosen, candidates = _select(asked, dataset, spec, onnx, quiet)
    chosen = _with_masks(asked.out, case, chosen)
    return _Ready(name, weights, module, spec, onnx, chosen, candidates)


def _model(asked: Experiment, case: Case | None) -> tuple[str, str, tuple[nn.Module, ModelSpec]]:
    """NAME and weights that every process of the run can load, and the module itself.

    A case's published weights carry names of their own making, so they are stored once more under
    those of the case's module.
    """
    if case is None:
        assert asked.model is not None
        return asked.model, asked.weights, load_model(asked.model, asked.weights)
    module, spec = case.load_model(asked.weights)
    stored = asked.out / "weights.pt"
    torch.save(module.state_dict(), stored)
    return case.module_name, str(stored.resolve()), (module, spec)


def _export(out: Path, module: nn.Module, spec: ModelSpec) -> Path:
    """OUT/model.onnx, made anew when the weights are others than those it was made from."""
    from gag_fast.export import export_onnx

    path, stamp = out / "model.onnx", out / "model.json"
    wanted = {"weights_sha256": spec.weights_sha256, "preprocessing": asdict(spec.preprocessing)}
    wanted = json.loads(json.dumps(wanted))
    if not (path.is_file() and stamp.is_file() and json.loads(stamp.read_text()) == wanted):
        export_onnx(module, spec, path)
        stamp.write_text(json.dumps(wanted, indent=1) + "\n")
    return path


def _select(
    asked: Experiment, dataset: Dataset, spec: ModelSpec, onnx: Path, quiet: bool
) -> tuple[Dataset, int]:
    """The images whose label has at least the asked confidence, in the data set's order.

    Candidates are looked at in an order drawn by the seed, until there are enough.

    Returns:
        the data set of the chosen images, and how many candidates were looked at.
    """
    path = asked.out / "selection.json"
    settings = {
        "data": dataset.fingerprint(),
        "weights_sha256": spec.weights_sha256,
        "confidence": asked.confidence,
        "images": asked.images,
        "seed": asked.seed,
    }
    by_name = {item.image: item for item in dataset.items}
    if path.is_file():
        stored = json.loads(path.read_text())
        if stored["settings"] == settings:
            items = tuple(by_name[name] for name in stored["chosen"])
            return Dataset(dataset.source, items), stored["candidates"]
    order = np.random.default_rng(asked.seed).permutation(len(dataset))
    shuffled = Dataset(dataset.source, tuple(dataset.items[i] for i in order))
    classifier = Classifier(onnx, providers=asked.providers)
    confident: list[str] = []
    looked = 0
    goal = len(dataset) if asked.images is None else asked.images
    with (
        Progress(len(dataset), "candidates", quiet=quiet) as progress,
        Decoder(spec.preprocessing) as decoder,
    ):
        for chunk, decoded in decoder.stream(plan(shuffled, _BATCH)):
            readable = [pair for pair in zip(chunk.items, decoded) if pair[1].pixels is not None]
            if readable:
                scores = classifier(_input([d for _, d in readable], spec)).float().cpu()
                for (item, _), row in zip(readable, scores):
                    target = int(row.argmax()) if item.target is None else item.target
                    looked += len(confident) < goal
                    if row[target] >= asked.confidence and len(confident) < goal:
                        confident.append(item.image)
            progress.add(len(chunk.items))
            if len(confident) == goal:
                break
    if not confident:
        raise DataError(
            f"{dataset.source}: none of {looked} images has its label at a confidence of "
            f"{asked.confidence:g} or more (another model, or labels of another order?)"
        )
    names = set(confident)
    items = tuple(item for item in dataset.items if item.image in names)
    record = {
        "settings": settings,
        "candidates": looked,
        "chosen": [item.image for item in items],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
    return Dataset(dataset.source, items), looked


def _input(decoded: Sequence[Decoded], spec: ModelSpec) -> torch.Tensor:
    """Decoded images, none of which failed, as the model's input `[B, C, H, W]`."""
    pixels = [d.pixels for d in decoded if d.pixels is not None]
    return normalise(np.stack(pixels), spec.preprocessing)


def _with_masks(out: Path, case: Case | None, dataset: Dataset) -> Dataset:
    """For a case whose masks hold ids: the same images with black and white masks."""
    if case is None or case.object_id is None:
        return dataset
    items = []
    for item in dataset.items:
        name = hashlib.sha256(item.image.encode()).hexdigest()[:16]
        path = out / "masks" / f"{name}.png"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            assert item.mask is not None
            assert item.target is not None
            mask = object_mask(item.mask, case.object_id(item.target))
            Image.fromarray(mask).save(path)
        items.append(Item(item.image, item.path, item.target, path))
    return Dataset(dataset.source, tuple(items))


# ---- after it -----------------------------------------------------------------------------------


def scores_of(rows: Run) -> dict[str, dict[str, np.ndarray]]:
    """metric -> method -> `[images]`, NaN where a row failed."""
    found = {}
    for metric in rows.metrics:
        matrix = rows.matrix(metric.column)
        found[metric.column] = {name: matrix[:, i] for i, name in enumerate(rows.methods)}
    return found


def write_report(
    asked: Experiment, outcome: Outcome, say: Callable[[str], None] = print
) -> Sequence[Path]:
    """Prints the tables and the trends, writes them below OUT, and draws the tables.

    Returns:
        the files.
    """
    from gag_fast.experiments import draw, tables, trends

    scores = scores_of(outcome.run)
    passes = {m: maps.passes(m, asked.samples, asked.methods_settings) for m in outcome.run.methods}
    written = []
    for name in asked.tables:
        table = tables.make_table(name, scores, asked.beside or asked.case, passes)
        say(tables.to_text(table) + "\n")
        for suffix, text in (("md", tables.to_markdown(table)), ("csv", tables.to_csv(table))):
            path = asked.out / f"{name}.{suffix}"
            path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
            written.append(path)
        if draw.available():
            written.append(draw.table(table, asked.out / f"{name}.svg"))
    found = trends.findings(scores, asked.tables)
    if found:
        say("Published trends\n")
        say(trends.to_markdown(found) + "\n")
        path = asked.out / "trends.md"
        path.write_text(trends.to_markdown(found) + "\n", encoding="utf-8")
        written.append(path)
    if not draw.available():
        say("(no figures: matplotlib is missing; pip install 'gag-fast[plot]')")
    return written
