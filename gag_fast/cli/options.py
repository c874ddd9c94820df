"""Types and groups of options that several sub-commands share."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gag_fast.attribution.explanation import Explanation

MODEL_HELP = (
    "efficientnet_lite0, any classifier of torchvision, timm:NAME, hf:ID-or-FOLDER, a file of "
    "torch.export (.pt2), or package.module:function for a function that returns a torch module"
)
PROVIDERS = ("cpu", "cuda", "tensorrt", "openvino")
GRADIENTS = ("torch", "onnx", "auto")


def names(text: str) -> tuple[str, ...]:
    """A comma-separated list."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError("must be one or more names with commas between them")
    if len(set(found)) != len(found):
        raise argparse.ArgumentTypeError(f"{text!r} has a name twice")
    return found


def parquet_file(text: str) -> Path:
    """The name of a Parquet file to write."""
    if not text.lower().endswith((".parquet", ".pq")):
        raise argparse.ArgumentTypeError(
            f"is a Parquet file, its name ends in .parquet, got {text}"
        )
    return Path(text)


def given_maps(text: str) -> tuple[str, str]:
    """NAME=PATH, or a PATH whose last part without its suffix is the name."""
    name, equals, path = text.partition("=")
    if not equals:
        name, path = PurePath(text).stem, text
    if not name or not path:
        raise argparse.ArgumentTypeError(f"must be PATH or NAME=PATH, got {text!r}")
    return name, path


def method_option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value a number, a list or another JSON value, else a word."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals or not value:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def method_lines() -> Iterable[tuple[str, str]]:
    """Each method and what it is."""
    from gag_fast.attribution.registry import ABOUT

    yield from ABOUT.items()
    yield "package.module:function", "one of your own"


def metric_lines() -> Iterable[tuple[str, str]]:
    """Each measure, its better direction, what it is and what it takes."""
    from gag_fast.measures import MEASURES

    for m in MEASURES.values():
        yield m.name, f"{m.arrow} {m.about} Takes: {m.cost}."
    yield "all", "every one that the data and the model allow"


def preset_lines() -> Iterable[tuple[str, str]]:
    """Each preset and whose definitions it has."""
    from gag_fast.presets import ABOUT

    yield from ABOUT.items()


class Listed(argparse.Action):
    """An option of names: `help` in their place prints what there is, a line each, and ends.

    Args:
        lines: gives (name, what it is).
    """

    def __init__(self, *words: Any, lines: Callable[[], Iterable[tuple[str, str]]], **more: Any):
        super().__init__(*words, **more)
        self.lines = lines

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Stores the names, or lists them."""
        if values in ("help", ("help",)):
            found = list(self.lines())
            width = max(len(name) for name, _ in found)
            for name, about in found:
                print(f"{name:<{width}}  {about}")
            parser.exit(0)
        setattr(namespace, self.dest, values)

    def completer(self, prefix: str, **_: Any) -> list[str]:
        """The last of several names between commas, for the shell."""
        before, comma, _last = prefix.rpartition(",")
        return [f"{before}{comma}{name}" for name, _ in self.lines()]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell that asks for completions, where argcomplete is installed."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


def positive(text: str) -> int:
    """An integer of 1 or more."""
    return _integer(text, 1)


def natural(text: str) -> int:
    """An integer of 0 or more."""
    return _integer(text, 0)


def percent(text: str) -> float:
    """A number from 0 to 100."""
    return _number(text, 0, 100)


def fraction(text: str) -> float:
    """A number of 0 or more."""
    return _number(text, 0, float("inf"))


def add_model(parser: argparse.ArgumentParser) -> None:
    """--model and --weights."""
    parser.add_argument("--model", required=True, metavar="NAME", help=MODEL_HELP)
    add_weights(parser)


def add_score(parser: argparse.ArgumentParser) -> None:
    """--score."""
    parser.add_argument(
        "--score",
        choices=("logits", "probabilities", "sigmoid"),
        help="what the model gives; sigmoid: classes independent of one another, or one output "
        "(default: what it shows)",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """--weights."""
    parser.add_argument(
        "--weights",
        default="default",
        metavar="default|none|FILE",
        help="the pretrained ones, random ones, or a state dict (default: default)",
    )


def add_explaining(parser: argparse.ArgumentParser) -> None:
    """What all methods of explanation take."""
    group = parser.add_argument_group("explanation")
    group.add_argument(
        "--n", type=positive, help="noisy copies of an image, or steps of a path (default: 20)"
    )
    group.add_argument(
        "--noise",
        type=fraction,
        default=0.15,
        help="std of the noise, as a share of the image's max − min (default: 0.15)",
    )
    group.add_argument(
        "--p", type=percent, default=85.0, help="percentile of the guide, 0 to 100 (default: 85)"
    )
    group.add_argument("--seed", type=natural, default=0, help="of the noise (default: 0)")
    group.add_argument(
        "--option",
        type=method_option,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of a method, as masks=1000, window=[16,32] or base=smoothgrad; may be given again",
    )
    group.add_argument(
        "--settings",
        metavar="NAME",
        help="the authors' settings: official:imagenet, official:isic or official:places365",
    )
    group.add_argument(
        "--layer",
        metavar="NAME",
        help="the layer that grad_cam looks at, as in model.named_modules() (default: the last "
        "stage, which is told)",
    )
    group.add_argument(
        "--batch-size",
        type=positive,
        help="modified images in one backward pass (default: by memory)",
    )
    group.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        help="of the gradients (default: a GPU if there is one)",
    )


def explanation_of(args: argparse.Namespace) -> Explanation:
    """How to explain, as the options of `add_explaining` say it."""
    from gag_fast.attribution.explanation import Explanation

    return Explanation(
        n=args.n,
        noise=args.noise,
        p=args.p,
        seed=args.seed,
        settings=args.settings,
        options={**({} if args.layer is None else {"layer": args.layer}), **dict(args.option)},
    )


def _integer(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
    if value < low:
        raise argparse.ArgumentTypeError(f"must be {low} or more, got {value}")
    return value


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not low <= value <= high or value == float("inf"):
        limits = f"from {low:g} to {high:g}" if high < float("inf") else f"of {low:g} or more"
        raise argparse.ArgumentTypeError(f"must be a number {limits}, got {text}")
    return value
