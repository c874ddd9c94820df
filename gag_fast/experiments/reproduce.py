"""The paper's tables on a data set: select images, make and score maps, print.

    OUT/weights.pt             the case's weights in the names of its module (cases only)
    OUT/model.onnx             the classifier that scores
    OUT/selection.json         the images with enough confidence, and how they were chosen
    OUT/masks/                 their masks as black and white (cases with masks only)
    OUT/<tables>/              a run folder: manifest and a row for each (image, map)
    OUT/table1.md, .csv, .svg  each table, its numbers and its figure
    OUT/trends.md              the published claims, and which hold

A step whose result exists is skipped, so the same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gag_fast._progress import Progress
from gag_fast.attribution.explanation import Explanation
from gag_fast.attribution.inputs import id_of_name
from gag_fast.classifier import Classifier
from gag_fast.experiments import maps
from gag_fast.experiments.cases import CASES
from gag_fast.experiments.experiment import Experiment
from gag_fast.experiments.prepare import as_input, prepare
from gag_fast.experiments.propositions import four_of
from gag_fast.explainer import explain_many
from gag_fast.metrics import evaluate
from gag_fast.report.reading import Run, read_run
from gag_fast.report.statistics import MIN_IMAGES
from gag_fast.runs.chunks import cut
from gag_fast.runs.decoding import Decoder
from gag_fast.runs.request import Request, Summary
from gag_fast.runs.run import run

_CHUNK = 4  # images a part; with 47 maps of each, a part takes a minute or two on two cores


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
    """Makes and scores every map that the tables need, or goes on where an earlier call stopped.

    Args:
        asked: the experiment.
        quiet: no progress.

    Raises:
        ValueError: something that was asked for is impossible; one line.
    """
    ready = prepare(asked, quiet)
    methods = maps.methods_of(asked.tables)
    layer = asked.case is not None and "grad_cam" in methods
    how = Explanation(
        n=asked.samples,
        seed=asked.seed,
        settings=asked.methods_settings,
        options={"layer": CASES[asked.case or ""].grad_cam_layer} if layer else {},
    )
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
            explanation=how,
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
    ready = prepare(asked, quiet)
    classifier = Classifier(ready.onnx, providers=asked.providers)
    parts: dict[str, list[np.ndarray]] = {"rcap": [], "dauc": [], "iauc": []}
    device = asked.device or "cpu"
    module = ready.module.to(device)
    with (
        Progress(len(ready.dataset), quiet=quiet) as progress,
        Decoder(ready.spec.preprocessing) as decoder,
    ):
        for chunk, decoded in decoder.stream(cut(ready.dataset, 8)):
            good = [i for i, d in enumerate(decoded) if d.pixels is not None]
            if good:
                images = as_input([decoded[i] for i in good], ready.spec).to(device)
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
                    image_ids=[id_of_name(chunk.items[i].image) for i in good],
                )
                four = four_of(*made.values())
                found = evaluate(classifier, images, four, targets, preset=asked.scoring)
                for name, values in parts.items():
                    values.append(torch.as_tensor(getattr(found, name)).cpu().numpy())
            progress.add(len(chunk.items))
    return {name: np.concatenate(values) for name, values in parts.items()}


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
    found = trends.findings(scores, asked.tables, MIN_IMAGES)
    if found:
        say(f"Published trends (a verdict needs {MIN_IMAGES} images)\n")
        say(trends.to_markdown(found) + "\n")
        path = asked.out / "trends.md"
        path.write_text(trends.to_markdown(found) + "\n", encoding="utf-8")
        written.append(path)
    if not draw.available():
        say("(no figures: matplotlib is missing; pip install 'gag-fast[plot]')")
    return written
