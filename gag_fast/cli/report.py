"""gag-fast report: tables and one HTML page from run folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from gag_fast.cli.options import names

SUMMARY = "tables and an HTML page from one or more runs"
EXAMPLE = (
    "  gag-fast report runs/val\n"
    "  gag-fast report runs/a runs/b --out comparison --formats html,text"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders; others against the first"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to (default: report/ in the first RUN)"
    )
    parser.add_argument(
        "--formats",
        type=names,
        metavar="a,b",
        help="some of text, markdown, csv, latex, html (default: all)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.report.command import FORMATS, report

    return report(args.runs, args.out, args.formats or FORMATS)
