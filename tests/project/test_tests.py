"""The tests as a house: packages without edits of sys.path, and each fixture in one place."""

import ast
from collections import defaultdict

from tests import ROOT

FILES = sorted(p for folder in ("tests", "benchmarks") for p in (ROOT / folder).rglob("*.py"))


def fixtures(path):
    """Name and body of each fixture that a file defines; a body says what the fixture is."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                called = decorator.func if isinstance(decorator, ast.Call) else decorator
                if ast.unparse(called) == "pytest.fixture":
                    yield node.name, "\n".join(ast.unparse(line) for line in node.body)


def test_a_fixture_exists_once():
    homes = defaultdict(list)
    for path in FILES:
        for fixture in fixtures(path):
            homes[fixture].append(str(path.relative_to(ROOT)))
    assert homes
    assert {name: paths for (name, _), paths in homes.items() if len(paths) > 1} == {}


def test_every_folder_of_tests_is_a_package():
    folders = {p.parent for p in FILES}
    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


def test_no_file_edits_the_import_path():
    edits = ("sys.path.insert", "sys.path.append")
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in edits
    ]
    assert calls == []
