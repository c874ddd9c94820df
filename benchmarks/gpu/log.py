"""What a run on a GPU found, written down row by row: a run cut short still leaves its figures."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Log:
    """Checks, timings, what was skipped and what broke; each is printed and saved as it comes."""

    def __init__(self, out: Path | None, stamp: dict[str, Any]) -> None:
        self.out = out
        self.data: dict[str, Any] = {
            "stamp": stamp,
            "checks": [],
            "timings": [],
            "skipped": [],
            "broken": [],
            "facts": {},
        }

    def check(self, name: str, ok: bool, detail: str) -> None:
        """A comparison and whether it held."""
        self._add("checks", {"name": name, "ok": bool(ok), "detail": detail})
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {detail}", flush=True)

    def timing(self, name: str, milliseconds: float, **facts: Any) -> None:
        """A time, with what else was found."""
        self._add("timings", {"name": name, "ms": milliseconds, **facts})
        text = "  ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()
        )
        print(f"{milliseconds:10.4f} ms  {name}  {text}", flush=True)

    def skip(self, name: str, why: str) -> None:
        """Something that cannot be done here, and why."""
        self._add("skipped", {"name": name, "why": why})
        print(f"skip {name}: {why}", flush=True)

    def fact(self, name: str, value: Any) -> None:
        """A figure that is neither a check nor a time."""
        self.data["facts"][name] = value
        self.save()

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """An error inside is written down and ends the section, not the run."""
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            self._add("broken", {"name": name, "error": what, "where": where})
            print(f"BROKEN {name} at {where}: {what}", flush=True)

    @property
    def failed(self) -> list[str]:
        """Names of the checks that did not hold and of the sections that broke."""
        wrong = [check["name"] for check in self.data["checks"] if not check["ok"]]
        return wrong + [section["name"] for section in self.data["broken"]]

    def save(self) -> None:
        """Writes gpu.json and gpu.md."""
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            (self.out / "gpu.json").write_text(json.dumps(self.data, indent=1) + "\n")
            (self.out / "gpu.md").write_text(self.markdown())

    def markdown(self) -> str:
        """The timings as a table."""
        stamp = self.data["stamp"]
        held = sum(check["ok"] for check in self.data["checks"])
        lines = [
            f"Measured on {stamp['device']}, commit {stamp['commit']}; "
            f"{held} of {len(self.data['checks'])} checks held.",
            "",
            "| case | ms | share of copy bandwidth |",
            "| --- | ---: | ---: |",
        ]
        for row in self.data["timings"]:
            share = f"{100 * row['share']:.0f} %" if "share" in row else ""
            lines.append(f"| {row['name']} | {row['ms']:.4f} | {share} |")
        return "\n".join(lines) + "\n"

    def _add(self, kind: str, row: dict[str, Any]) -> None:
        self.data[kind].append(row)
        self.save()
