"""What the documentation site needs beyond MkDocs.

Pages made of files of the checkout and of notebooks, their links, formulas without a script,
figures in the page's colours, and a look at what was built: nothing in it is fetched from
elsewhere.

`<!-- include FILE -->` in a page shows a file of the checkout, `<!-- command line -->` every
command's options, `<!-- other public names -->` the reference of names that the page has not named,
`<!-- try -->` the page that explains photographs in the browser where `make docs-try` made one.
Links that leave docs/ become links to the page that shows that file, or plain text where there is
none.
"""

from __future__ import annotations

import itertools
import logging
import os
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File
from notebooks import as_markdown
from page_tables import command_line

import gag_fast

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "build" / "docs" / "gag_fast"

TRY = "GAG_FAST_DOCS_TRY"
"""The environment variable that names what `gag-fast export --web` wrote; it becomes try/."""

_TRIED = """\
<details class="try"><summary>Drop a photograph: what does the classifier look at?</summary>
<iframe src="try/index.html" title="Explains photographs" loading="lazy"></iframe>
</details>

It runs in this page (EfficientNet-Lite0, 30 MB to fetch once, from here) and
<a href="try/index.html">by itself</a>; no photograph leaves this machine. A browser does so only
from a server, not from a folder: `python build/site/serve.py`."""

_UNTRIED = """\
`make docs-try` makes these pages with one more, here: drop a photograph, and the browser explains
it."""

log = logging.getLogger("mkdocs.hooks.gag_fast")

_INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.M)
_COMMANDS = "<!-- command line -->"
_OTHERS = "<!-- other public names -->"
_TRY = "<!-- try -->"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
_FIGURE = re.compile(r'<img alt="([^"]*)" src="([^":]*\.svg)" */>')
_FETCHED = re.compile(
    r'<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc="(?:https?:)?//[^"]*"'
    r'|<link\b[^>]*\brel="(?:stylesheet|preload|preconnect|icon)"[^>]*\bhref="(?:https?:)?//[^"]*"'
    r'|<link\b[^>]*\bhref="(?:https?:)?//[^"]*"[^>]*\brel="(?:stylesheet|preload|preconnect|icon)"'
)


def on_startup(**_: Any) -> None:
    """Lays the package out as it is installed: gag_fast, and export/ as gag_fast.export."""
    PACKAGE.mkdir(parents=True, exist_ok=True)
    for old in PACKAGE.iterdir():
        old.unlink()
    for path in [*(ROOT / "gag_fast").iterdir(), ROOT / "export"]:
        (PACKAGE / path.name).symlink_to(path)


def on_files(files: Any, config: Any) -> Any:
    """A page beside each notebook."""
    for path in sorted((ROOT / "docs").rglob("*.ipynb")):
        page = path.relative_to(ROOT / "docs").with_suffix(".md")
        text, pictures = as_markdown(path)
        files.append(File.generated(config, page.as_posix(), content=text))
        for name, content in pictures.items():
            place = page.with_name(name).as_posix()
            files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The files that a page includes, and links out of docs/ turned into links to pages."""
    here = posixpath.dirname(page.file.src_uri)
    text = _linked(markdown, f"docs/{here}" if here else "docs", page.file.src_uri)
    if _COMMANDS in text:
        text = text.replace(_COMMANDS, command_line())
    if _TRY in text:
        text = text.replace(_TRY, _TRIED if os.environ.get(TRY) else _UNTRIED)
    if _OTHERS in text:
        missing = [name for name in gag_fast.__all__ if f"::: gag_fast.{name}\n" not in text]
        text = text.replace(_OTHERS, "\n\n".join(f"::: gag_fast.{name}" for name in missing))
    return _INCLUDE.sub(lambda found: _included(found[1], page.file.src_uri), text)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Formulas as MathML, which browsers draw by themselves, and figures as part of the page."""
    folder = ROOT / "docs" / posixpath.dirname(page.file.src_uri)
    count = itertools.count(1)
    html = _FIGURE.sub(lambda m: _figure(folder / m[2], m[1], f"figure{next(count)}-"), html)
    return _formulas(html)


def _figure(path: Path, words: str, prefix: str) -> str:
    """A figure of matplotlib's within a page: white paper and black ink become the page's."""
    _, tag, text = path.read_text(encoding="utf-8").partition("<svg ")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"#f{6}\b", "var(--md-default-bg-color)", text)
    text = re.sub(r"#0{6}\b", "currentcolor", text)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}", text)
    return f'{tag}class="figure" role="img" aria-label="{words}" {text}'


def _formulas(html: str) -> str:
    from latex2mathml.converter import convert

    def drawn(found: re.Match[str]) -> str:
        source = found[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        if found[2] == "(":
            return convert(source)
        return f'<div class="formula">{convert(source, display="block")}</div>'

    return _FORMULA.sub(drawn, html)


def on_post_build(config: Any, **_: Any) -> None:
    """Lays try/ beside the pages; warns of one that would fetch something from elsewhere."""
    site = Path(config["site_dir"])
    if os.environ.get(TRY):
        shutil.copytree(os.environ[TRY], site / "try")
        (site / "try" / "serve.py").rename(site / "serve.py")
    for path in sorted(site.rglob("*.html")):
        for found in _FETCHED.findall(path.read_text(encoding="utf-8")):
            log.warning("%s fetches from elsewhere: %s", path.name, found)


def _pages() -> dict[str, str]:
    """File of the checkout -> the page of docs/ that shows it."""
    found = {}
    for path in (ROOT / "docs").rglob("*.ipynb"):
        inside = path.relative_to(ROOT / "docs")
        found[f"docs/{inside.as_posix()}"] = inside.with_suffix(".md").as_posix()
    for path in (ROOT / "docs").rglob("*.md"):
        inside = path.relative_to(ROOT / "docs").as_posix()
        found[f"docs/{inside}"] = inside
        for included in _INCLUDE.findall(path.read_text(encoding="utf-8")):
            found[included] = inside
    return found


def _included(name: str, shown_by: str) -> str:
    text = (ROOT / name).read_text(encoding="utf-8")
    return _linked(text, posixpath.dirname(name), shown_by)


def _linked(text: str, folder: str, shown_by: str) -> str:
    """A text's links as a page of docs/ needs them; `folder` is where the text itself lies."""
    pages = _pages()

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if target.startswith(("#", "http:", "https:", "mailto:")):
            return found[0]
        path, hash_, anchor = target.partition("#")
        whole = posixpath.normpath(posixpath.join(folder, path))
        if whole in pages:
            base = posixpath.dirname(shown_by) or "."
            return f"[{label}]({posixpath.relpath(pages[whole], base)}{hash_}{anchor})"
        if whole.startswith("docs/") and (ROOT / whole).exists():
            base = posixpath.dirname(shown_by) or "."
            return f"[{label}]({posixpath.relpath(whole[5:], base)}{hash_}{anchor})"
        if not (ROOT / whole).exists():
            log.warning("%s: a link to %s, which is not there", shown_by, target)
        return label

    return _LINK.sub(link, text)
