"""Tables of the pages that are read off the code: presets, and the command line's options.

python docs/site/page_tables.py     writes docs/presets.md anew
"""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path
from typing import Any

from gag_fast.cli import build_parser
from gag_fast.presets import PRESETS, Preset

PRESETS_PAGE = Path(__file__).parents[1] / "presets.md"
_MARKS = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.S)


def meanings() -> dict[str, str]:
    """Each field of `Preset` and what its docstring says of it."""
    text = inspect.cleandoc(Preset.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", text, re.M | re.S)
    return {name: " ".join(words.split()) for name, words in found}


def differing() -> list[str]:
    """The fields in which some preset is not as the paper's."""
    return [
        field.name
        for field in fields(Preset)
        if any(
            getattr(p, field.name) != getattr(PRESETS["paper"], field.name)
            for p in PRESETS.values()
        )
    ]


def presets_table() -> str:
    """Fields that differ, a column a preset; what is not as in "paper" is bold."""
    lines = ["| field | " + " | ".join(f"`{name}`" for name in PRESETS) + " | what it is |"]
    lines += ["| --- |" + " --- |" * (len(PRESETS) + 1)]
    about = meanings()
    for name in (n for n in differing() if n != "name"):
        cells = [_cell(name, preset) for preset in PRESETS.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {_text(about[name])} |")
    return "\n".join(lines) + "\n"


def common_table() -> str:
    """Fields that are the same in every preset."""
    lines = ["| field | in all | what it is |", "| --- | --- | --- |"]
    about, different = meanings(), differing()
    for field in fields(Preset):
        if field.name not in different:
            value = _text(_value(getattr(PRESETS["paper"], field.name)))
            lines.append(f"| `{field.name}` | {value} | {_text(about[field.name])} |")
    return "\n".join(lines) + "\n"


def _cell(name: str, preset: Preset) -> str:
    value = _value(getattr(preset, name))
    return value if getattr(PRESETS["paper"], name) == getattr(preset, name) else f"**{value}**"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{v:g}" for v in value)
    if value is None:
        return "as moved"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def filled(page: str) -> str:
    """A page's text with its tables made anew."""
    tables = {"differing": presets_table, "common": common_table}
    return _MARKS.sub(lambda m: f"{m[1]}{tables[m[2]]()}{m[3]}", page)


def command_line() -> str:
    """Every command with its options, read off the parser."""
    parts = []
    (commands,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        parts.append(f"## gag-fast {name}\n\n{parser.description}\n")
        example, _, more = (parser.epilog or "").removeprefix("example:\n").partition("\n\n")
        parts.append(f"```text\n{textwrap.dedent(example)}\n```\n\n{_text(more)}\n")
        table = "| argument | what it is |\n| --- | --- |\n" + "".join(_rows(parser))
        parts.append(f'<div class="options" markdown>\n\n{table}\n</div>\n')
    return "\n".join(parts)


def _rows(parser: argparse.ArgumentParser) -> list[str]:
    found = []
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or "--help" in action.option_strings:
            continue
        words = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        if action.option_strings and action.nargs != 0:
            words += f" {_metavar(action)}"
        text = parser._get_formatter()._expand_help(action)
        found.append(f"| `{words}` | {_text(' '.join(text.split()))} |\n")
    return found


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None and action.metavar is None:
        return "|".join(map(str, action.choices))
    metavar = action.metavar or action.dest.upper()
    return metavar if isinstance(metavar, str) else " ".join(metavar)


if __name__ == "__main__":
    PRESETS_PAGE.write_text(filled(PRESETS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
