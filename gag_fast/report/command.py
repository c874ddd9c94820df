"""`gag-fast report RUN...`: tables on the terminal and in files, and the page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gag_fast._errors import GagFastError
from gag_fast._files import replacing
from gag_fast._text import one_line
from gag_fast.report import html, tables
from gag_fast.report.compare import check_alike
from gag_fast.report.export import export_scores
from gag_fast.report.files import figure_files, table_files
from gag_fast.report.ownership import owning
from gag_fast.report.reading import Run, read_run

FORMATS = (*tables.FORMATS, "html")
"""What is written unless asked otherwise."""

ALL_FORMATS = (*FORMATS, "figures", "tables")
"""`figures`: every chart of the page as SVG and PDF; `tables`: every table as CSV and LaTeX."""


def write_report(
    runs: Sequence[Run],
    out,
    formats: Sequence[str] = FORMATS,
    *,
    title: str | None = None,
    lead: str = "",
    credits: dict[str, str] | None = None,
) -> list[Path]:
    """Writes the report of runs that are read already; see `report`.

    Returns the files: `table.txt`, `table.md`, `table.csv`, `table.tex` and `index.html`, as asked,
    and those of the folders `figures` and `tables`; with several runs, each table file holds their
    tables one after the other.

    Raises:
        ValueError: no run, an unknown format, or a folder that holds a file of such a name which
            no report wrote.
        OSError: the folder cannot be written.
    """
    unknown = [f for f in formats if f not in ALL_FORMATS]
    if unknown:
        raise GagFastError(f"format must be one of {', '.join(ALL_FORMATS)}, got {unknown[0]!r}")
    if not runs:
        raise GagFastError("a report needs at least one run folder")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = html.distinct_names(runs)
    summaries = [tables.summarize(run, title=name) for run, name in zip(runs, names, strict=True)]
    shown = None
    if {"html", "figures", "tables"} & set(formats):
        shown = html.contents(runs, summaries=summaries, credits=credits)
    contents: dict[str, bytes] = {}
    for name in formats:
        if name in tables.FORMATS:
            suffix, write = tables.FORMATS[name]
            text = "\n".join(write(summary) for summary in summaries)
            contents[f"table.{suffix}"] = text.encode("utf-8", "backslashreplace")
            continue
        assert shown is not None
        if name == "html":
            text = html.render_contents(shown, title=title, lead=lead)
            contents["index.html"] = text.encode("utf-8", "backslashreplace")
        else:
            files = figure_files(shown) if name == "figures" else table_files(shown)
            contents |= {f"{name}/{file}": content for file, content in files}
    with owning(out, contents):
        return [_write(out / name, content) for name, content in contents.items()]


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as aside:
        aside.write_bytes(content)
    return path


def report(
    run_dirs: Sequence[Path],
    out=None,
    formats: Sequence[str] = FORMATS,
    *,
    export=None,
    anyway: bool = False,
    allow_outside: bool = False,
) -> int:
    """Reads run folders, prints their tables, writes the report and says where it is.

    Args:
        run_dirs: run folders, or exported files; with several, the page compares the others with
            the first.
        out: folder for the files; default: `report` in the first run folder (beside an exported
            file).
        formats: any of ALL_FORMATS.
        export: a Parquet file for the rows of all the runs; None: none.
        anyway: compare runs of different data, model or preset too.
        allow_outside: show pictures that lie outside the data sets' folders too.

    Returns the exit status, 0.

    Raises:
        ValueError: a folder that is no run, runs that cannot be compared, or an unknown format;
            one line for the user.
    """
    runs = [read_run(path, allow_outside=allow_outside) for path in run_dirs]
    names = html.distinct_names(runs)
    if not anyway:
        check_alike(runs)
    first = Path(run_dirs[0])
    default = first / "report" if first.is_dir() else first.with_suffix("") / "report"
    written = write_report(runs, Path(out) if out else default, formats)
    if export is not None:
        written.append(export_scores(runs, names, export))
    for run, name in zip(runs, names, strict=True):
        sys.stdout.write(tables.to_text(tables.summarize(run, title=name)))
        for note in run.notes:
            sys.stdout.write(f"note: {one_line(note)}\n")
        failed = int((~run.ok).sum())
        if failed:
            sys.stdout.write(
                f"{failed:,} of {run.rows:,} rows failed; the page lists the reasons\n"
            )
        sys.stdout.write("\n")
    folders = {path.parent: 0 for path in written if path.parent.name in ("figures", "tables")}
    for path in written:
        if path.parent in folders:
            folders[path.parent] += 1
        else:
            sys.stdout.write(f"wrote {one_line(path)}\n")
    for folder, count in folders.items():
        sys.stdout.write(f"wrote {count} files to {one_line(folder)}\n")
    return 0
