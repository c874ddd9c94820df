"""Holds the imports to the picture in docs/architecture.md: arrows go one way."""

import ast
import re
from pathlib import Path

import pytest

from tests import ROOT

# Every room, and the rooms it may import. A room is a module of gag_fast or a package with all
# its modules; `export` is the top-level folder installed as gag_fast.export.
ROOMS: dict[str, set[str]] = {
    "_library": set(),
    "reference": set(),
    "_blur": set(),
    "_errors": set(),
    "_runtime": {"_errors"},
    "_files": set(),
    "_text": set(),
    "_inputs": set(),
    "_named": set(),
    "scores": set(),
    "models": set(),
    "presets": set(),
    "measures": set(),
    "_progress": set(),
    "_fake": {"_library"},
    "_run_files": {"_errors"},
    "onnx_metadata": {"models"},
    "images": {"models"},
    "ops": {"_fake"},
    "export": {"classifier", "models", "onnx_metadata"},
    "classifier": {"models", "onnx_metadata"},
    "data": {"images"},
    "report": {"_run_files", "images", "measures", "models", "presets"},
    "aggregate": {"_inputs", "ops"},
    "perturb": {"ops", "presets"},
    "attribution": {"_inputs", "_progress", "aggregate", "ops"},
    "metrics": {"_progress", "classifier", "measures", "ops", "perturb", "presets"},
    "explainer": {"_progress", "attribution"},
    "onnx_explanation": {"_inputs", "attribution", "classifier", "models", "onnx_metadata", "ops"},
    "captum_api": {"_inputs", "attribution", "explainer"},
    "quantus_api": {"attribution", "explainer"},
    "plotting": {"images", "measures", "metrics", "models", "report"},
    "evaluation": {"_progress", "classifier", "explainer", "measures", "metrics", "presets"},
    "runs": {
        "_progress",
        "_run_files",
        "attribution",
        "classifier",
        "data",
        "export",
        "images",
        "measures",
        "metrics",
        "models",
        "presets",
        "report",
    },
    "experiments": {
        "_progress",
        "attribution",
        "classifier",
        "data",
        "explainer",
        "export",
        "images",
        "measures",
        "metrics",
        "models",
        "presets",
        "report",
        "runs",
    },
    "demo": {"attribution", "export", "models", "report", "runs"},
    "cli": {
        "_library",
        "_progress",
        "aggregate",
        "attribution",
        "classifier",
        "data",
        "demo",
        "experiments",
        "export",
        "images",
        "measures",
        "models",
        "presets",
        "report",
        "runs",
    },
    "__main__": {"cli"},
}

# What stands below every room and may be imported by each: nothing of the package is in them.
GROUND = {"_blur", "_errors", "_files", "_inputs", "_named", "_runtime", "_text", "scores"}


def room_of(path: Path) -> str:
    if path.is_relative_to(ROOT / "export"):
        return "export"
    parts = path.relative_to(ROOT / "gag_fast").parts
    return parts[0] if len(parts) > 1 else path.stem


def sources() -> list[Path]:
    found = [*(ROOT / "gag_fast").rglob("*.py"), *(ROOT / "export").rglob("*.py")]
    return sorted(p for p in found if p != ROOT / "gag_fast" / "__init__.py")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, wherever in the file the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            match = re.match(r"gag_fast\.(\w+)", name)
            if match:
                rooms.add(match.group(1))
    return rooms


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path):
    room = room_of(path)
    assert room in ROOMS, f"{room} is in no list of rooms: add it here and in docs/architecture.md"
    public = {"__version__", "__path__", "_build_info"}
    assert imported(path) - {room} - public - GROUND <= ROOMS[room]


def test_no_relative_imports():
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}:{node.lineno}"


def test_no_function_takes_more_than_twelve_parameters():
    """The public signatures' keyword-only options aside."""
    for path in [*sources(), *(ROOT / "benchmarks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args]
                if node.name.startswith("_") and node.name != "__init__":
                    taken += node.args.kwonlyargs
                assert len(taken) <= 12, f"{path}:{node.lineno}: {node.name} takes {len(taken)}"


def test_arrows_make_no_circle():
    order, seen = [], set()

    def visit(room, trail=()):
        assert room not in trail, f"circle: {' -> '.join((*trail, room))}"
        if room not in seen:
            for below in ROOMS[room]:
                visit(below, (*trail, room))
            seen.add(room)
            order.append(room)

    for room in ROOMS:
        visit(room)
    assert len(order) == len(ROOMS)


def test_metrics_never_see_the_explainers():
    reached, todo = set(), ["metrics"]
    while todo:
        room = todo.pop()
        if room not in reached:
            reached.add(room)
            todo += ROOMS[room]
    assert not reached & {"attribution", "explainer", "aggregate"}


def test_kernels_math_knows_nothing_of_torch():
    for path in (ROOT / "csrc" / "math").glob("*.h"):
        assert "torch/" not in path.read_text(), path


def floors() -> list[set[str]]:
    """The rooms of docs/architecture.md's picture, floor by floor from the ground up."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    picture = text.partition("a floor imports only from floors below it")[2].partition("```")[0]
    lines = [line.split("·")[0].split() for line in picture.splitlines()[1:]]
    return [set(line) for line in reversed(lines) if line]


def test_the_picture_has_every_room_once():
    shown = [room for floor in floors() for room in floor]
    assert sorted(shown) == sorted(ROOMS)


def test_every_arrow_goes_down_in_the_picture():
    height = {room: number for number, floor in enumerate(floors()) for room in floor}
    wrong = [(a, b) for a in ROOMS for b in ROOMS[a] if height[a] <= height[b]]
    assert not wrong, f"docs/architecture.md has these beside or above what imports them: {wrong}"


def test_no_arrow_is_allowed_that_nothing_uses():
    used: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path in sources():
        used[room_of(path)] |= imported(path)
    unused = {room: ROOMS[room] - used[room] for room in ROOMS if ROOMS[room] - used[room]}
    assert not unused, f"take these out of ROOMS: {unused}"


# ---- modules: no circle anywhere, the benchmarks and the tests included --------------------------


def module_name(path: Path) -> str:
    """The dotted name that a file of the checkout is imported by."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("gag_fast", *parts) if parts[0] == "export" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    folders = ("gag_fast", "export", "benchmarks", "tests")
    return {module_name(p): p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))}


def module_imports(known: dict[str, Path], name: str) -> set[str]:
    """The modules of this checkout that one names in an import, wherever in its file that stands.

    `from package import name` is an import of the package only where `name` is no module of it.
    """
    found = set()
    for node in ast.walk(ast.parse(known[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & known.keys()
            if inside - known.keys():
                found.add(node.module)
    return found & known.keys() - {name}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The first circle found by following the arrows, or nothing."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for below in sorted(graph[name]):
            if found := visit(below, (*trail, name)):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, ()))), [])


def test_no_modules_import_each_other_in_a_circle():
    known = modules()
    known.pop("gag_fast")  # its table of public names imports a module only when one is asked for
    graph = {name: module_imports(known, name) for name in known}
    assert graph["benchmarks.all"] >= {"benchmarks.readme", "benchmarks.machine"}
    assert circle(graph) == []


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
