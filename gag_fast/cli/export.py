"""gag-fast export: a classifier as a verified ONNX file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from gag_fast.cli.options import (
    MODEL_HELP,
    PROVIDERS,
    add_score,
    add_weights,
    names,
)

SUMMARY = "write a classifier as ONNX and verify what was written"
EXAMPLE = (
    "  gag-fast export efficientnet_lite0 lite0.onnx\n"
    "  gag-fast export resnet50 resnet50.onnx --weights my_resnet50.pt\n"
    "  gag-fast export efficientnet_lite0 lite0.onnx --gradients lite0.grad.onnx"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("name", metavar="NAME", help=MODEL_HELP)
    parser.add_argument("out", type=Path, metavar="OUT.onnx", help="the file to write")
    add_weights(parser)
    add_score(parser)
    parser.add_argument(
        "--gradients", type=Path, metavar="FILE", help="write the gradients of its scores too"
    )
    parser.add_argument(
        "--explanation",
        type=Path,
        metavar="FILE",
        help="write guided_absgrad as one file too: images and noise in, maps out",
    )
    parser.add_argument(
        "--web",
        type=Path,
        metavar="DIR",
        help="write a page too that explains photographs in the browser",
    )
    parser.add_argument(
        "--onnxruntime-web",
        type=Path,
        metavar="FOLDER",
        help="the npm package for --web (default: npm fetches it)",
    )
    parser.add_argument(
        "--providers",
        type=names,
        metavar="a,b",
        help="what must compute gradients and maps right: "
        f"{', '.join(PROVIDERS)} (default: all that can run here)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from gag_fast.export import export_explanation, export_gradients, export_onnx, export_web
    from gag_fast.models import load_model

    def log(line: str) -> None:
        print(line, file=sys.stderr)

    module, spec = load_model(args.name, args.weights, score=args.score)
    print(export_onnx(module, spec, args.out, log=log))
    how: dict[str, Any] = {"providers": args.providers, "log": log}
    with tempfile.TemporaryDirectory(prefix="gag_fast-") as folder:
        gradients = args.gradients
        if gradients is not None:
            print(export_gradients(module, gradients, spec, **how))
        elif args.explanation is not None or args.web is not None:  # once for both
            gradients = Path(folder) / "gradients.onnx"
            export_gradients(module, gradients, spec, **how)
        how["gradients"] = gradients
        if args.explanation is not None:
            print(export_explanation(module, args.explanation, spec, **how))
        if args.web is not None:
            page = export_web(module, args.web, spec, runtime=args.onnxruntime_web, **how)
            print(f"{page}: python {page.parent / 'serve.py'} shows it")
    return 0
