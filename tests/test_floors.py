"""Who may import whom: the floors, the purity of the core, one home for each dependency."""

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
    frozenset({"config", "client", "engine", "storage", "ledger", "display"}),
    frozenset({"run"}),
    frozenset({"simulate"}),
    frozenset({"cli"}),
)
"""A module imports from its own wing and from the floors below; wings of one floor never import each other."""

HOMES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset({"client", "sandbox"}),
    "yarl": frozenset({"client", "sandbox"}),
    "aiofiles": frozenset({"storage"}),
    "aiolimiter": frozenset({"engine"}),
    "sqlite3": frozenset({"ledger"}),
    "typer": frozenset({"cli"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli", "display"}),
    "pydantic": frozenset({"config"}),
    "pydantic_settings": frozenset({"config"}),
    "isal": frozenset({"core.archive"}),
    "google_crc32c": frozenset({"core.archive", "sandbox"}),
}
"""Where each dependency lives; orjson may be wherever JSON is spoken."""

IMPURE = frozenset(
    {"asyncio", "time", "random", "os", "io", "pathlib", "socket", "threading", "tempfile", "shutil", "subprocess"}
)
"""What the core must do without: it has no wait, file, socket, clock or chance of its own."""


def room_of(path: Path) -> str:
    """`core.archive` for what is in the core, else the first name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] == "core" and len(parts) > 1:
        return f"core.{parts[1]}"
    return parts[0]


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax of a module.

    Without the garbage collector: what it ends in the middle of this may parse, too, and Python 3.11 then stumbles over
    its own count of the depth (a SystemError).
    """
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.enable()


def imports(path: Path) -> Iterator[str]:
    """Every module named in an import, wherever it stands in the file."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def floor(room: str) -> int:
    """The floor a room is on."""
    return next(level for level, rooms in enumerate(FLOORS) if room.split(".", maxsplit=1)[0] in rooms)


def may_import(room: str, other: str) -> bool:
    """Whether a room may know another one of the package."""
    match room:
        case "__init__" | "__main__":
            return True
        case "sandbox":
            return other in {"errors", "core", "sandbox"}
        case "cli":
            return other in frozenset().union(*FLOORS) | {"sandbox"}
        case _:
            return other == room.split(".", maxsplit=1)[0] or (other != "sandbox" and floor(other) < floor(room))


def test_a_module_imports_from_floors_below():
    """No room knows another on its floor, and nothing below knows what is above."""
    ours = [(path, name) for path in MODULES for name in imports(path) if name.startswith("asyncexport.")]
    assert ours
    faults = [(path, name) for path, name in ours if not may_import(room_of(path), name.split(".")[1])]
    assert [f"{path.relative_to(PACKAGE)} imports {name}" for path, name in faults] == []


def test_a_dependency_has_one_home():
    """Whoever wants to exchange a library finds it in one place."""
    housed = [(path, name) for path in MODULES for name in imports(path) if name.split(".")[0] in HOMES]
    assert housed
    faults = []
    for path, name in housed:
        room, homes = room_of(path), HOMES[name.split(".")[0]]
        if not {room, room.split(".")[0]} & homes:
            faults.append(f"{path.relative_to(PACKAGE)} imports {name}, which has its home in {', '.join(homes)}")
    assert faults == []


def impurities(path: Path) -> Iterator[str]:
    """What a module of the core must do without, and does not."""
    yield from (f"imports {name}" for name in imports(path) if name.split(".")[0] in IMPURE)
    for node in ast.walk(parsed(path)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await():
                yield f"waits in line {node.lineno}"
            case ast.Call(func=ast.Name(id="open")):
                yield f"opens a file in line {node.lineno}"


def test_the_core_is_pure():
    """Decisions need no event loop, file, socket, clock or chance."""
    core = sorted((PACKAGE / "core").rglob("*.py"))
    assert core
    assert [f"{path.relative_to(PACKAGE)} {fault}" for path in core for fault in impurities(path)] == []


def test_every_room_is_on_a_floor():
    """A new module is given its place before it is used."""
    known = frozenset().union(*FLOORS) | {"sandbox", "__init__", "__main__"}
    assert {room_of(path).split(".")[0] for path in MODULES} <= known


def test_the_package_itself_is_light():
    """Importing the package loads none of its dependencies."""
    heavy = "aiohttp,pydantic,rich,typer,sqlite3,aiofiles"
    probe = f"import sys, asyncexport; print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
