"""Sizes and names in the package: nothing is too large, and each name means one thing."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_floors import MODULES, PACKAGE, parsed

LONGEST_CLASS, LONGEST_FILE, LONGEST_FUNCTION = 150, 400, 50
"""Numbers of lines, docstrings included."""

LARGER: dict[str, str] = {}
"""Exceptions with their reasons: `file.py`, `file.py:Class` or `file.py:function`."""

MOST_PROTOCOLS = 16


def sizes() -> Iterator[tuple[str, int, int]]:
    """Yield each file, class and function of the package with its number of lines and the limit."""
    for path in MODULES:
        file = str(path.relative_to(PACKAGE))
        yield file, path.read_text(encoding="utf-8").count("\n"), LONGEST_FILE
        for node in ast.walk(parsed(path)):
            match node:
                case ast.ClassDef():
                    yield f"{file}:{node.name}", lines_of(node), LONGEST_CLASS
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    yield f"{file}:{node.name}", lines_of(node), LONGEST_FUNCTION


def lines_of(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of lines from the definition to its end."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Yield every top-level class with its file."""
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                yield str(path.relative_to(PACKAGE)), node


def test_nothing_is_too_long():
    """No file, class or function is longer than its limit, except those listed in `LARGER` with a reason."""
    too_long = {name: f"{lines} lines, {most} at most" for name, lines, most in sizes() if lines > most}
    assert {name: why for name, why in too_long.items() if name not in LARGER} == {}
    assert sorted(set(LARGER) - set(too_long)) == [], "these are within the limit and need no exception"


def test_no_two_public_classes_share_a_name():
    """Each public class name is used only once in the package."""
    homes = defaultdict(list)
    for file, node in classes():
        if not node.name.startswith("_"):
            homes[node.name].append(file)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_class_names_show_where_a_class_belongs():
    """Configuration models end in Settings, and public classes of the sandbox begin with Sandbox."""
    wrong = []
    for file, node in classes():
        public = not node.name.startswith("_")
        if file.startswith("sandbox/") and public and not node.name.startswith("Sandbox"):
            wrong.append(f"{file}:{node.name}")
        if file == "config/model.py" and public and not node.name.endswith("Settings"):
            wrong.append(f"{file}:{node.name}")
    assert wrong == []


def test_there_are_few_protocols():
    """The package has few Protocols: they are only for what is outside a package."""
    protocols = [
        f"{file}:{node.name}" for file, node in classes() if any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    assert protocols
    assert len(protocols) <= MOST_PROTOCOLS, protocols


def module_of(path: Path) -> str:
    """Return the dotted name of a module; a package has that of its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed_by(path: Path, modules: frozenset[str]) -> set[str]:
    """Return the modules of the package that a module imports, at the top or within a function."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return (found & modules) - {module_of(path)}


def test_imports_have_no_cycle():
    """No module imports itself, directly or through others."""
    modules = frozenset(map(module_of, MODULES))
    # A package that re-exports its own modules does not make a cycle.
    needed = {module_of(path): needed_by(path, modules) for path in MODULES if path.name != "__init__.py"}
    assert needed
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
    assert tuple(TopologicalSorter(needed).static_order())
