"""Known holes of the installed packages, by pip-audit; a package not looked up is a failure.

pip-audit passes over what its service does not know and says that no holes were found. Behind a
mirror without the service that is every package, so what was looked up is counted here.

    python .ci/audit.py [pip-audit's arguments]
"""

from __future__ import annotations

import json
import subprocess
import sys


def main(arguments: list[str]) -> int:
    """0: all looked up and no hole known; 1: holes; 2: not everything could be looked up."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        print(f"error: pip-audit did not finish: {lines[-1]}", file=sys.stderr)
        return 2
    skipped = [p for p in packages if "skip_reason" in p and "editable" not in p["skip_reason"]]
    looked_up = [p for p in packages if "vulns" in p]
    holes = [(p, hole) for p in looked_up for hole in p["vulns"]]
    for package, hole in holes:
        fixed = ", ".join(hole["fix_versions"]) or "none yet"
        print(f"{package['name']} {package['version']}: {hole['id']} (mended in: {fixed})")
    print(f"{len(looked_up)} packages looked up, {len(holes)} known holes")
    if holes:
        return 1
    if skipped or not looked_up:
        why = f", {skipped[0]['skip_reason']}" if skipped else ""
        print(f"error: {len(skipped)} packages could not be looked up{why}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
