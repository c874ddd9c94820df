"""gag-fast reproduce: the paper's tables and Figure 4 on any data set and classifier."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gag_fast._errors import GagFastError
from gag_fast._text import one_line
from gag_fast.cli.ending import ending
from gag_fast.cli.options import MODEL_HELP, PROVIDERS, add_weights, natural, positive

if TYPE_CHECKING:
    from gag_fast.experiments.experiment import Experiment

SUMMARY = "run the paper's experiments and print its tables beside the published figures"
EXAMPLE = (
    "  gag-fast reproduce table1 table2 table3 --data PHOTOS/labels.csv \\\n"
    "      --model efficientnet_lite0 --images 60 --out runs/tables\n"
    "  gag-fast reproduce table2 --case imagenet-s --data ImageNetS919 --out runs/imagenet-s\n"
    "  gag-fast reproduce methods --data PHOTOS/labels.csv --model efficientnet_lite0 \\\n"
    "      --images 100 --confidence 0 --out runs/methods\n"
    "  gag-fast reproduce fig4 --out runs/fig4\n"
    "\n"
    "--case brings the model, preprocessing, method settings and scoring of one of the paper's\n"
    "three case studies; --fetch CASE prints where its data and weights come from. Only images\n"
    "whose label the classifier gives 90 % or more take part, as in the paper. methods is all ten\n"
    "methods and what each costs (forward and backward passes an image). fig4 alone shows\n"
    "Figure 4's ideal maps; with --data and --model the same comparison on real ones too. The\n"
    "same command goes on after a stop."
)
_CASES = ("imagenet-s", "isic", "places365")
_WHAT = ("table1", "table2", "table3", "methods", "fig4")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("what", nargs="*", type=_experiment_name, metavar="|".join(_WHAT))
    parser.add_argument("--data", type=Path, help="folder of images, or table of them")
    parser.add_argument("--case", choices=_CASES, help="one of the paper's case studies")
    parser.add_argument("--model", metavar="NAME", help=MODEL_HELP)
    add_weights(parser)
    parser.add_argument("--out", type=Path, metavar="OUT", help="folder of everything written")
    parser.add_argument(
        "--images", type=positive, metavar="N", help="so many, drawn by the seed (default: all)"
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        help="smallest probability of the label (default: 0.9)",
    )
    parser.add_argument(
        "--classes",
        type=positive,
        metavar="N",
        help="only images of the first N classes (the paper's imagenet-s figures: 406)",
    )
    parser.add_argument(
        "--n", type=positive, help="gradients an image (default: the settings', or 20)"
    )
    parser.add_argument("--seed", type=natural, default=0, help="(default: 0)")
    parser.add_argument(
        "--settings",
        metavar="NAME",
        help="of the methods, e.g. official:imagenet (a case has its own)",
    )
    parser.add_argument(
        "--beside", choices=_CASES, help="print this case's published figures beside the results"
    )
    parser.add_argument(
        "--preset", help="of the scores (default: paper; for a case official, the authors' code)"
    )
    parser.add_argument("--providers", choices=PROVIDERS, help="what scores (default: the best)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="of the gradients")
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--workers", type=positive, help="decoding processes, or Ray workers")
    parser.add_argument(
        "--fetch", choices=_CASES, metavar="CASE", help="print where a case's files come from"
    )


def _experiment_name(text: str) -> str:
    if text not in _WHAT:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(_WHAT)}, got {text!r}")
    return text


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.runs.folder import claim

    if args.fetch:
        from gag_fast.experiments.cases import CASES

        print(CASES[args.fetch].fetch)
        return 0
    if not args.what:
        raise GagFastError(f"say what to reproduce: some of {', '.join(_WHAT)}")
    if args.out is None:
        raise GagFastError("--out OUT is needed")
    tables = tuple(what for what in args.what if what != "fig4")
    on_data = args.data is not None
    if tables and not on_data:
        raise GagFastError(f"{', '.join(tables)} needs --data, and --model or --case")
    claim(args.out, "model.json", "selection.json", "fig4.txt")
    status = 0
    if "fig4" in args.what:
        _figure4(args.out)
        if on_data:
            _figure4_on_data(_experiment(args, ("table1",)))
    if tables:
        status = _tables(_experiment(args, tables))
    return status


def _experiment(args: argparse.Namespace, tables: tuple[str, ...]) -> Experiment:
    from gag_fast.experiments.experiment import Experiment

    return Experiment(
        tables=tables,
        data=args.data,
        out=args.out,
        model=args.model,
        weights=args.weights,
        case=args.case,
        images=args.images,
        confidence=args.confidence,
        classes=args.classes,
        n=args.n,
        seed=args.seed,
        beside=args.beside,
        preset=args.preset,
        settings=args.settings,
        providers=args.providers,
        device=args.device,
        engine=args.engine,
        workers=args.workers,
    )


def _tables(asked: Experiment) -> int:
    from gag_fast.experiments.reproduce import reproduce, write_report

    outcome = reproduce(asked)
    summary = outcome.summary
    written = write_report(asked, outcome)
    print(
        f"{summary.images} of {outcome.candidates} images looked at have their label at "
        f"{asked.confidence:g} or more; n {asked.samples}, seed {asked.seed}"
    )
    if summary.computed:
        print(f"{summary.computed} images computed in {summary.seconds:.0f} s")
    print("written: " + ", ".join(str(path) for path in written))
    sys.stdout.flush()
    for image, reason in list(summary.failures.items())[:20]:
        print(one_line(f"gag-fast: failed: {image}: {reason}"), file=sys.stderr)
    return ending(summary, " (the tables are of those)")


def _figure4(out: Path) -> None:
    from gag_fast.experiments import draw, propositions

    figure = propositions.run_figure4()
    text = propositions.to_text(figure)
    print(text)
    (out / "fig4.txt").write_text(text + "\n", encoding="utf-8")
    if draw.available():
        print(f"written: {draw.figure4(figure, out / 'fig4.svg')}")
    else:
        print("(no figure: matplotlib is missing; pip install 'gag-fast[plot]')")


def _figure4_on_data(asked: Experiment) -> None:
    from gag_fast.experiments import propositions
    from gag_fast.experiments.reproduce import score_four
    from gag_fast.report.statistics import MIN_IMAGES

    scores = score_four(asked)
    found = propositions.real_verdicts(scores, MIN_IMAGES)
    count = len(scores["rcap"])
    lines = [
        f"GAG-85 of {count} images as M1, its square root (the same ranks, noisier) as M2, both "
        "reversed as M3 and M4",
        *propositions.verdict_lines(found),
    ]
    print("\n" + "\n".join(lines))
    with (asked.out / "fig4.txt").open("a", encoding="utf-8") as file:
        file.write("\n" + "\n".join(lines) + "\n")
