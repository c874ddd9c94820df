"""gag-fast synthetic: a small data set with exact masks, and a classifier trained on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from gag_fast.cli.options import natural, positive

SUMMARY = "make a small data set with exact object masks and train a classifier on it"
EXAMPLE = (
    "  gag-fast synthetic --out synthetic\n"
    "  gag-fast reproduce table1 table2 --data synthetic/test.csv --images 60 \\\n"
    "      --model gag_fast.experiments.synthetic:classifier --weights synthetic/classifier.pt \\\n"
    "      --out runs/synthetic"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="folder to make")
    parser.add_argument(
        "--train-images", type=positive, default=3000, metavar="N", help="(default: 3000)"
    )
    parser.add_argument(
        "--test-images", type=positive, default=300, metavar="N", help="(default: 300)"
    )
    parser.add_argument("--epochs", type=positive, default=12, help="of training (default: 12)")
    parser.add_argument("--seed", type=natural, default=0, help="of everything (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.experiments.synthetic import make
    from gag_fast.runs.folder import claim

    claim(args.out)
    made = make(args.out, args.train_images, args.test_images, args.epochs, args.seed)
    print(
        f"data: {made.test_csv}\n"
        f"model: --model gag_fast.experiments.synthetic:classifier --weights {made.weights}"
    )
    return 0
