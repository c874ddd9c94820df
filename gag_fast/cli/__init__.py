"""The command `gag-fast`: a table of sub-commands, one module each.

A sub-command's module has SUMMARY, EXAMPLE, add_arguments(parser) and run(args) -> exit status; it
imports what is heavy inside run, so that --help is quick.

Exit status: 0 everything asked for was done, 1 something failed, 2 a mistake in what was asked,
128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from gag_fast import __version__
from gag_fast._errors import memory_fault
from gag_fast._text import one_line
from gag_fast.cli.options import complete
from gag_fast.cli.streams import lasting

COMMANDS = ("demo", "export", "explain", "evaluate", "report", "reproduce", "synthetic", "doctor")

FAILED, MISTAKE, INTERRUPTED = 1, 2, 130
TRACEBACK = "GAG_FAST_TRACEBACK"


class _Commands(argparse.HelpFormatter):
    """Room for the longest command's name, which argparse reckons without its indent."""

    def format_help(self) -> str:
        """The help's text."""
        self._action_max_length += self._indent_increment
        return super().format_help()


class _Parser(argparse.ArgumentParser):
    """argparse with an error of one line."""

    def error(self, message: str) -> NoReturn:
        line = one_line(f"gag-fast: error: {message} (see {self.prog} --help)")
        self.exit(MISTAKE, f"{line}\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="gag-fast",
        description="Guided AbsoluteGrad saliency maps: explain classifiers, score explanations.",
        epilog="gag-fast COMMAND --help shows a command's options and an example.",
        formatter_class=_Commands,
    )
    parser.add_argument("--version", action="version", version=f"gag-fast {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f"gag_fast.cli.{name}")
        sub = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY[:1].upper() + module.SUMMARY[1:] + ".",
            epilog=f"example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status.

    A mistake prints one line; the environment variable GAG_FAST_TRACEBACK shows where it came from.
    """
    parser = build_parser()
    complete(parser)
    with lasting():
        args = parser.parse_args(argv)
        if args.command is None:
            parser.print_help()
            return 0
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    warnings.showwarning = _warnings_shown()
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("gag-fast: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        error = memory_fault(error) or error
        print(f"gag-fast: error: {one_line(_describe(error))}", file=sys.stderr)
        mistakes = (ValueError, TypeError, ImportError, OSError)
        asked_too_much = isinstance(error, MemoryError)
        return MISTAKE if isinstance(error, mistakes) and not asked_too_much else FAILED


def _describe(error: Exception) -> str:
    """The message in one line; with the error's kind where the words are not this package's own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, (ValueError, RuntimeError, ImportError)) and lines:
        return " ".join(lines)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {' '.join(lines)} (set {TRACEBACK}=1 to see where)"


def _warnings_shown() -> Callable[..., None]:
    """Shows each warning meant for users once, in one line, and none for library developers."""
    shown: set[str] = set()

    def show(message, category, filename, lineno, file=None, line=None) -> None:
        text = one_line(" ".join(str(message).split()))
        meant = issubclass(category, (UserWarning, RuntimeWarning)) and "gag_fast" in str(filename)
        if meant and text not in shown:
            shown.add(text)
            print(f"gag-fast: warning: {text}", file=sys.stderr)

    return show
