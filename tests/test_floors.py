"""Which modules may import which: the floors, the purity of the core, and one home for each dependency."""

import ast
import gc
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import asyncexport

PACKAGE = Path(asyncexport.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"core"}),
    frozenset(
        {"config", "client", "engine", "storage", "ledger", "display", "monitor", "deploy", "warehouse", "mirror"}
    ),
    frozenset({"run"}),
    frozenset({"simulate"}),
    frozenset({"cli"}),
)
"""A module imports from its own package and from floors below; packages on the same floor never import each other."""

HOMES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset({"client", "monitor", "sandbox"}),
    "yarl": frozenset({"client", "sandbox"}),
    "aiofiles": frozenset({"storage"}),
    "aiolimiter": frozenset({"engine"}),
    "sqlite3": frozenset({"ledger"}),
    "typer": frozenset({"cli"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli", "display"}),
    "prometheus_client": frozenset({"monitor"}),
    "duckdb": frozenset({"warehouse"}),
    "psycopg": frozenset({"warehouse"}),
    "google": frozenset({"warehouse"}),
    "snowflake": frozenset({"warehouse"}),
    "distributed": frozenset({"warehouse"}),
    "obstore": frozenset({"mirror"}),
    "pydantic": frozenset({"config"}),
    "pydantic_settings": frozenset({"config"}),
    "isal": frozenset({"core.archive"}),
    "google_crc32c": frozenset({"core.archive", "sandbox"}),
}
"""The packages that may import each dependency; orjson may be imported anywhere."""

OPTIONAL = frozenset({"prometheus_client", "duckdb", "psycopg", "google", "snowflake", "distributed", "obstore"})
"""The dependencies that only extras install."""

IMPURE = frozenset(
    {"asyncio", "time", "random", "os", "io", "pathlib", "socket", "threading", "tempfile", "shutil", "subprocess"}
)
"""Modules that the core must not import, since it never waits and uses no file, socket, clock or randomness."""


def package_of(path: Path) -> str:
    """Return `core.archive` and the like for the core, else the first name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "core" and len(parts) > 1:
        return f"core.{parts[1]}"
    return parts[0]


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a module.

    The garbage collector is off, since destructors that run during the parse may parse as well, which makes Python 3.11
    raise a SystemError about its recursion depth.
    """
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imports(path: Path) -> Iterator[str]:
    """Yield every imported module, wherever the import is in the file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def floor(package: str) -> int:
    """Return the level of a package's floor."""
    return next(level for level, packages in enumerate(FLOORS) if package.split(".", maxsplit=1)[0] in packages)


def may_import(package: str, other: str) -> bool:
    """Return whether one package may import another."""
    match package:
        case "__init__" | "__main__":
            return True
        case "sandbox":
            return other in {"errors", "core", "sandbox"}
        case "cli":
            return other in frozenset().union(*FLOORS) | {"sandbox"}
        case _:
            return other == package.split(".", maxsplit=1)[0] or (other != "sandbox" and floor(other) < floor(package))


def test_a_module_imports_from_floors_below():
    """No package imports another on its floor or above."""
    ours = [(path, name) for path in MODULES for name in imports(path) if name.startswith("asyncexport.")]
    assert ours
    faults = [(path, name) for path, name in ours if not may_import(package_of(path), name.split(".")[1])]
    assert [f"{path.relative_to(PACKAGE)} imports {name}" for path, name in faults] == []


def test_a_dependency_has_one_home():
    """A dependency is only imported by the packages that are its home."""
    housed = [(path, name) for path in MODULES for name in imports(path) if name.split(".")[0] in HOMES]
    assert housed
    faults = []
    for path, name in housed:
        package, homes = package_of(path), HOMES[name.split(".")[0]]
        if not {package, package.split(".")[0]} & homes:
            faults.append(f"{path.relative_to(PACKAGE)} imports {name}, which has its home in {', '.join(homes)}")
    assert faults == []


def impurities(path: Path) -> Iterator[str]:
    """Yield what a module of the core does but must not."""
    yield from (f"imports {name}" for name in imports(path) if name.split(".")[0] in IMPURE)
    for node in ast.walk(parsed(path)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"waits in line {node.lineno}"
            case ast.Call(func=ast.Name(id="open")):
                yield f"opens a file in line {node.lineno}"


def test_the_core_is_pure():
    """The core has no coroutines, files, sockets, clocks or randomness."""
    core = sorted((PACKAGE / "core").rglob("*.py"))
    assert core
    assert [f"{path.relative_to(PACKAGE)} {fault}" for path in core for fault in impurities(path)] == []


def test_every_package_is_on_a_floor():
    """A new package must be given a floor."""
    known = frozenset().union(*FLOORS) | {"sandbox", "__init__", "__main__"}
    assert {package_of(path).split(".")[0] for path in MODULES} <= known


def test_importing_the_package_is_cheap():
    """Importing the package loads none of its dependencies."""
    heavy = "aiohttp,pydantic,rich,typer,sqlite3,aiofiles"
    probe = f"import sys, asyncexport; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plain_installation_can_import_everything_but_the_code_of_the_extras():
    """A library that an extra installs is imported only where it is used, so all else works without it."""
    needed = [path for path in MODULES if package_of(path) in {"run", "simulate", "cli", "display", "deploy", "config"}]
    names = sorted(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in needed)
    probe = f"import sys; sys.modules.update(dict.fromkeys({sorted(OPTIONAL)})); [__import__(name) for name in {names}]"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.stderr == ""
