"""gag-fast evaluate: explain and score a data set into a run folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gag_fast._errors import GagFastError
from gag_fast._text import one_line
from gag_fast.cli.ending import ending
from gag_fast.cli.options import (
    GRADIENTS,
    PROVIDERS,
    Listed,
    add_explaining,
    add_model,
    add_score,
    explanation_of,
    fraction,
    given_maps,
    method_lines,
    metric_lines,
    names,
    positive,
    preset_lines,
)

SUMMARY = "explain and score a data set; the same command goes on after a stop"
EXAMPLE = (
    "  gag-fast evaluate photos/ --model efficientnet_lite0 --out runs/photos \\\n"
    "      --methods guided_absgrad,absgrad,smoothgrad --metrics rcap,dauc,iauc\n"
    "  gag-fast evaluate labels.csv --model resnet50 --onnx resnet50.onnx --out runs/val\n"
    "\n"
    "DATA is a folder with a sub-folder for each class (or none: then the predicted class is\n"
    "explained), a table (.csv, .tsv, .parquet) with columns path, label and perhaps mask, .tar\n"
    "shards, or pictures in Parquet or Arrow files, as the Hub and datasets.save_to_disk have\n"
    "them; of several splits one is named: FOLDER/validation.\n"
    "RUN/results/*.parquet holds a row for each image and method; gag-fast report RUN shows them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("data", metavar="DATA", help="folder or table of images, or shards")
    add_model(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="RUN", help="folder of the results"
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="FILE", help="the classifier that scores (default: exported)"
    )
    parser.add_argument(
        "--trust-onnx", action="store_true", help="score with --onnx though it is another network"
    )
    parser.add_argument(
        "--output", metavar="NAME", help="of --onnx: the output that holds the scores"
    )
    add_score(parser)
    parser.add_argument(
        "--methods",
        action=Listed,
        lines=method_lines,
        type=names,
        metavar="a,b",
        help="methods of explanation; guided_absgrad@65 is one with p = 65, "
        "package.module:function one of your own, help lists them (default: guided_absgrad; none "
        "beside --maps)",
    )
    parser.add_argument(
        "--maps",
        type=given_maps,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="score maps that were computed elsewhere: a folder of .npy, an .npz or a .zarr with "
        "one for each image, by its name; may be given again",
    )
    parser.add_argument(
        "--metrics",
        action=Listed,
        lines=metric_lines,
        type=names,
        default=("rcap", "dauc", "iauc"),
        metavar="a,b",
        help="measures, or all; help lists them (default: rcap,dauc,iauc; data with masks have "
        "log_cosh_dice and mae too); --plan says what they cost",
    )
    parser.add_argument(
        "--preset",
        action=Listed,
        lines=preset_lines,
        default="paper",
        help="paper, official, rise or torchcam; help lists them (default: paper)",
    )
    parser.add_argument(
        "--presets",
        type=names,
        default=(),
        metavar="a,b",
        help="score the same maps under these presets too; the report says where they disagree",
    )
    parser.add_argument(
        "--providers", choices=PROVIDERS, help="what scores (default: the best that works)"
    )
    parser.add_argument(
        "--gradients",
        choices=GRADIENTS,
        default="torch",
        help="what computes them: torch, ONNX Runtime, or the faster one here (default: torch)",
    )
    add_explaining(parser)
    group = parser.add_argument_group("run")
    group.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    group.add_argument(
        "--plan",
        action="store_true",
        help="only say what it would take: pictures a measure, shared, in all, and the time",
    )
    group.add_argument(
        "--keep-maps",
        action="store_true",
        help="keep all saliency maps (float16), not only those of the images that a report shows",
    )
    group.add_argument(
        "--until-decided",
        action="store_true",
        help="take the images in a random order (of --seed) and stop once the ranking of the "
        "methods is decided",
    )
    group.add_argument(
        "--decide-by", metavar="MEASURE", help="the measure that decides (default: the first)"
    )
    group.add_argument(
        "--error-rate",
        type=fraction,
        metavar="RATE",
        default=0.05,
        help="chance of any wrong decision (default: 0.05)",
    )
    group.add_argument("--retry-failed", action="store_true", help="try the failed images again")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="(default: local)"
    )
    group.add_argument("--workers", type=positive, help="decoding processes (local) or Ray workers")
    group.add_argument(
        "--chunk",
        type=positive,
        metavar="N",
        help="images a part (default: 8, more for large data)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.report.deciding import Rule
    from gag_fast.runs.folder import DiskFullError
    from gag_fast.runs.request import Request
    from gag_fast.runs.run import run as run_request

    rule = None
    if args.until_decided:
        first = "rcap" if "all" in args.metrics else args.metrics[0]
        rule = Rule(args.decide_by or first, args.error_rate, args.seed)
    request = Request(
        data=args.data,
        out=args.out,
        model=args.model,
        weights=args.weights,
        onnx=args.onnx,
        trust_onnx=args.trust_onnx,
        score=args.score,
        output=args.output,
        methods=args.methods or (() if args.maps else ("guided_absgrad",)),
        maps=_named(args.maps),
        metrics=args.metrics,
        preset=args.preset,
        presets=args.presets,
        explanation=explanation_of(args),
        batch_size=args.batch_size,
        providers=args.providers,
        device=args.device,
        gradients=args.gradients,
        limit=args.limit,
        chunk=args.chunk,
        keep_maps=args.keep_maps,
        until_decided=rule,
        engine=args.engine,
        workers=args.workers,
        retry_failed=args.retry_failed,
    )
    if args.plan:
        from gag_fast.runs.forecast import forecast

        print(forecast(request))
        return 0
    try:
        summary = run_request(request)
    except DiskFullError as error:
        print(
            f"gag-fast: error: {error}; what is there stays valid: make room and run the same "
            "command again",
            file=sys.stderr,
        )
        return 1
    return _conclude(summary)


def _named(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise GagFastError(f"--maps: two are called alike among {', '.join(n for n, _ in pairs)}")
    return found


def _conclude(summary) -> int:
    """The table, what failed, how to go on; and the exit status."""
    from gag_fast.report.deciding import decided
    from gag_fast.report.reading import read_run
    from gag_fast.report.tables import summarize, to_text

    if summary.done > len(summary.failures):
        rows = read_run(summary.out)
        print(to_text(summarize(rows)))
        if (found := decided(rows)) is not None:
            print(one_line(found.sentence()))
    if summary.computed:
        rate = summary.computed / summary.seconds
        print(f"{summary.computed} images in {summary.seconds:.1f} s, {rate:.2f} images/s")
    print(one_line(f"results: {summary.out / 'results'}"))
    sys.stdout.flush()
    if summary.failures:
        print(
            f"gag-fast: {len(summary.failures)} of {summary.images} images failed "
            "(--retry-failed tries them again):",
            file=sys.stderr,
        )
        for image, reason in list(summary.failures.items())[:20]:
            print(one_line(f"  {image}: {reason}"), file=sys.stderr)
        if len(summary.failures) > 20:
            print(f"  … and {len(summary.failures) - 20} more, in the results", file=sys.stderr)
    return ending(summary)
