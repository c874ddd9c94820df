"""The fenced blocks of the pages that users read: what each holds, and how it is to be run.

Marks stand in the Markdown as comments, which no reader sees:

<!-- snippets: in order -->    anywhere in a page: its python blocks go on from one another
<!-- run -->                   on the line before a console block: its commands are run, too
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests import ROOT

IN_ORDER = "<!-- snippets: in order -->"
RUN = "<!-- run -->"

RUNS = {"python", "console"}
"""Languages of blocks that are run or parsed."""

SHOWN = {"text", "json", "sql", "html", "javascript", "cpp", "toml", "yaml", "csv", "mermaid"}
"""Languages of blocks that are no Python and no commands."""

NOT_RUN = "py"
"""The language of Python that is shown and not run; `test_snippets.py` counts them."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<rest>[^`]*)$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: the file, relative to the checkout.
        line: of its first line of text, from 1.
        language: after the fence.
        text: what stands between the fences, without their indentation.
        marked: whether `<!-- run -->` stands before it.
        in_order: whether its page's blocks go on from one another.
    """

    page: str
    line: int
    language: str
    text: str
    marked: bool
    in_order: bool

    @property
    def id(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def names(self) -> set[str]:
        """The names that a python block reads."""
        return {n.id for n in ast.walk(ast.parse(self.text)) if isinstance(n, ast.Name)}

    @property
    def packages(self) -> set[str]:
        """The packages that a python block needs: imported, or behind what it calls."""
        found = {name for mark, name in BEHIND.items() if mark in self.text}
        for node in ast.walk(ast.parse(self.text)):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
        return found

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a console block, its pipes and redirections cut off."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = []
        for line in lines:
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|;<>&")
            lexer.commenters = "#"
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, "|"]:
                if set(word) <= set("|;<>&"):
                    found += [words] if words else []
                    words = []
                else:
                    words.append(word)
        return found


BEHIND = {
    ".to_frame(": "pandas",
    "gag_fast.plot(": "matplotlib",
    "GuidedAbsGrad(": "captum",
    'providers="openvino"': "onnxruntime_ep_openvino",
}
"""What a text may call, and the optional package behind it."""


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@cache
def blocks() -> tuple[Block, ...]:
    """Every fenced block of every page, in order."""
    return tuple(b for p in pages() for b in parse(p.read_text(), p.relative_to(ROOT).as_posix()))


def parse(text: str, page: str) -> list[Block]:
    """The fenced blocks of a page."""
    found, lines, number = [], text.splitlines(), 0
    in_order = IN_ORDER in text
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        indent = len(fence["indent"])
        end = next((i for i in range(number + 1, len(lines)) if lines[i].strip() == "```"), None)
        if end is None:
            raise ValueError(f"{page}:{number + 1}: a fence is opened and not closed")
        body = "".join(f"{line[indent:]}\n" for line in lines[number + 1 : end])
        marked = number > 0 and lines[number - 1].strip() == RUN
        found.append(Block(page, number + 2, fence["language"], body, marked, in_order))
        number = end + 1
    return found
