"""How large things are, and what they are called: one name for one thing, and nothing that has outgrown its subject."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_floors import MODULES, PACKAGE, parsed

LONGEST_CLASS, LONGEST_FILE, LONGEST_FUNCTION = 150, 400, 50
"""Lines, docstrings included."""

LARGER: dict[str, str] = {}
"""What may be larger, with the reason: `file.py`, `file.py:Class` or `file.py:function`."""

MOST_PROTOCOLS = 15


def sizes() -> Iterator[tuple[str, int, int]]:
    """Each file, class and function of the package: its name, its lines, and how many it may have."""
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
    """From the name's line to the last one."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class at the top of a module, with its file."""
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                yield str(path.relative_to(PACKAGE)), node


def test_nothing_has_outgrown_its_subject():
    """A class, a file or a function that is too long has a second subject, or its reason stands in `LARGER`."""
    too_long = {name: f"{lines} lines, {most} at most" for name, lines, most in sizes() if lines > most}
    assert {name: why for name, why in too_long.items() if name not in LARGER} == {}
    assert sorted(set(LARGER) - set(too_long)) == [], "these are small enough by now"


def test_no_two_public_classes_share_a_name():
    """Whoever reads a name knows which thing is meant."""
    homes = defaultdict(list)
    for file, node in classes():
        if not node.name.startswith("_"):
            homes[node.name].append(file)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_names_tell_where_a_class_belongs():
    """Models of the configuration end in Settings, the sandbox's own classes begin with Sandbox."""
    wrong = []
    for file, node in classes():
        public = not node.name.startswith("_")
        if file.startswith("sandbox/") and public and not node.name.startswith("Sandbox"):
            wrong.append(f"{file}:{node.name}")
        if file == "config/model.py" and public and not node.name.endswith("Settings"):
            wrong.append(f"{file}:{node.name}")
    assert wrong == []


def test_there_are_few_protocols():
    """A Protocol is for what lies outside a wing; within one, the class itself is named."""
    protocols = [
        f"{file}:{node.name}" for file, node in classes() if any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    assert protocols
    assert len(protocols) <= MOST_PROTOCOLS, protocols


def module_of(path: Path) -> str:
    """The dotted name of a module; a package has that of its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def needed_by(path: Path, modules: frozenset[str]) -> set[str]:
    """The modules of the package that one imports, at its top or within a function."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return (found & modules) - {module_of(path)}


def test_imports_run_one_way():
    """No module needs one that needs it, however many lie between."""
    modules = frozenset(map(module_of, MODULES))
    # What a package hands on of its own modules is no way back to it.
    needed = {module_of(path): needed_by(path, modules) for path in MODULES if path.name != "__init__.py"}
    assert needed
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
    assert tuple(TopologicalSorter(needed).static_order())
