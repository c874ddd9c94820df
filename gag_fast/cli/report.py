"""gag-fast report: tables and one HTML page from run folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from gag_fast.cli.options import names, parquet_file

SUMMARY = "tables and an HTML page from one or more runs"
EXAMPLE = (
    "  gag-fast report runs/val\n"
    "  gag-fast report runs/a runs/b --out comparison --formats html,text\n"
    "  gag-fast report runs/val --export val.parquet    # one file, which report takes like a RUN"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run folders (or exported files); others against the first",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where to (default: report/ in the first RUN)"
    )
    parser.add_argument(
        "--formats",
        type=names,
        metavar="a,b",
        help="some of text, markdown, csv, latex, html (default: these five), figures (every chart "
        "as SVG and PDF), tables (every table as CSV and LaTeX)",
    )
    parser.add_argument(
        "--export",
        type=parquet_file,
        metavar="FILE",
        help="write every row, with the manifest's hash, to one Parquet file",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="compare runs of different data, model or preset all the same",
    )
    parser.add_argument(
        "--allow-outside",
        action="store_true",
        help="show pictures whose names lead out of the data set's folder (../ or absolute) too",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.report.command import FORMATS, report

    return report(
        args.runs,
        args.out,
        args.formats or FORMATS,
        export=args.export,
        anyway=args.anyway,
        allow_outside=args.allow_outside,
    )
