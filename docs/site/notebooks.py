"""Executed notebooks as pages: what is written, the code, and what it showed."""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any


def as_markdown(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook's cells with their outputs, and the pictures among them by their files' names.

    The notebook itself is offered under the title.
    """
    parts, pictures = [], {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            for output in _joined(cell["outputs"]):
                if (picture := _picture(output)) is None:
                    parts.append(_shown(output))
                    continue
                kind, content, words = picture
                name = f"{path.stem}-{len(pictures) + 1}.{kind}"
                pictures[name] = content
                parts.append(f"![{words}]({name})")
    title, _, rest = "\n\n".join(parts).partition("\n")
    offer = f'<a href="{path.name}" download>The notebook itself</a>, to run.'
    return f"{title}\n\n{offer}\n{rest}\n", pictures


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The outputs, lines that were printed one by one as one."""
    found: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] != "stream":
            found.append(output)
        elif found and found[-1]["output_type"] == "stream":
            found[-1]["text"] += "".join(output["text"])
        else:
            found.append({**output, "text": "".join(output["text"])})
    return found


def _picture(output: dict[str, Any]) -> tuple[str, bytes, str] | None:
    """The kind, the bytes and the words of a picture that an output shows."""
    data = output.get("data", {})
    for kind in ("png", "jpeg"):
        if f"image/{kind}" in data:
            words = html.escape("".join(data.get("text/plain", "a picture")))
            return kind, base64.b64decode("".join(data[f"image/{kind}"])), words
    return None


def _shown(output: dict[str, Any]) -> str:
    """What an output without a picture shows, in its richest form."""
    if output["output_type"] == "stream":
        return _text(output["text"])
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if "text/html" in data:
        bare = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
        bare = re.sub(r' (class|border|style)="[^"]*"', "", bare)  # the page's own looks
        lines = [line.strip() for line in bare.splitlines() if line.strip()]
        return f'<div class="output">{"".join(lines)}</div>'
    return _text(data["text/plain"])


def _text(text: str) -> str:
    """Printed text; of a bar that was drawn again and again, the last state."""
    lines = [line.rpartition("\r")[2] for line in text.rstrip().split("\n")]
    return "```text\n" + "\n".join(lines) + "\n```"
