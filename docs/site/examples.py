"""Examples in docstrings are code: a Griffe extension that shows an `Example:` as such."""

from __future__ import annotations

from typing import Any

from griffe import DocstringSectionAdmonition, Extension, Object


class Examples(Extension):
    """Fences the text of every `Example:` section, which is Python without a fence."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each object once it is loaded."""
        if obj.docstring is None:
            return
        for section in obj.docstring.parsed:
            if isinstance(section, DocstringSectionAdmonition) and section.title == "Example":
                text = section.value.contents
                if "```" not in text:
                    section.value.contents = f"```python\n{text}\n```"
