"""gag-fast demo: the main job on real photographs with a real classifier."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "explain, export and score a pretrained classifier on real photographs"
EXAMPLE = "  gag-fast demo --out demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="(default: demo)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast import demo

    return demo.run(args.out) or 0
