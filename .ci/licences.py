"""The licence of every package that gag-fast needs, as their own metadata states it: Markdown."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution


def needed(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    """Adds a package and all that it needs here to `found`, name -> licence."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return  # of another platform
    key = package.metadata["Name"].lower()
    if key in found:
        return
    found[key] = f"{package.version} | {licence(package.metadata)}"
    for line in package.requires or []:
        marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if marker is None or marker[1] in extras:
            needed(re.match(r"[\w.-]+", line)[0], frozenset(), found)


def licence(metadata) -> str:
    """SPDX expression, classifiers or the first line of the licence's text, in this order."""
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    named = [c.split(" :: ")[-1] for c in metadata.get_all("Classifier") or [] if "License" in c]
    text = (metadata.get("License") or "not stated").strip().splitlines()[0]
    return ", ".join(n for n in named if n != "OSI Approved") or text[:60]


if __name__ == "__main__":
    packages: dict[str, str] = {}
    needed("gag-fast", frozenset(sys.argv[1:] or ["demo"]), packages)
    print("| package | version | licence |\n| --- | --- | --- |")
    for name, facts in sorted(packages.items()):
        print(f"| {name} | {facts} |")
