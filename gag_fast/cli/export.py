"""gag-fast export: a classifier as a verified ONNX file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gag_fast.cli.options import MODEL_HELP, add_weights

SUMMARY = "write a classifier as ONNX and verify what was written"
EXAMPLE = (
    "  gag-fast export efficientnet_lite0 lite0.onnx\n"
    "  gag-fast export resnet50 resnet50.onnx --weights my_resnet50.pt"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("name", metavar="NAME", help=MODEL_HELP)
    parser.add_argument("out", type=Path, metavar="OUT.onnx", help="the file to write")
    add_weights(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.export import export_onnx
    from gag_fast.models import load_model

    module, spec = load_model(args.name, args.weights)
    report = export_onnx(module, spec, args.out, log=lambda line: print(line, file=sys.stderr))
    print(report)
    return 0
