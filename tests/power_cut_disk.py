"""A disk in memory that keeps track of what was flushed, so that a power cut can be simulated.

1. The data of a file is durable after a flush of the file, a name after a flush of its folder. Neither flush covers the
   other.
2. Unflushed changes may survive a power cut or not, each independently and in any order. Writes are torn at page
   boundaries. A seeded random generator decides; without one, nothing unflushed survives.
3. A rename within a folder is atomic. A rename from one folder to another is two changes, one in each folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

PAGE = 4096
"""Size of a page in bytes; writes are torn at multiples of it."""

Tree = dict[str, bytes | None]
"""The content of a disk: that of each file by its path, and None for a folder."""


@dataclass(eq=False, slots=True)
class File:
    """A file: the content that programs see, the durable content, and the changes between them."""

    mode: int = 0o644
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        """Write data at an offset."""
        _write(self.content, offset, data)
        at = offset
        while at < offset + len(data):
            boundary = min((at // PAGE + 1) * PAGE, offset + len(data))
            self.pending.append((at, data[at - offset : boundary - offset]))
            at = boundary

    def resize(self, size: int) -> None:
        """Truncate the file or extend it with zeros."""
        _resize(self.content, size)
        self.pending.append((size, None))

    def flush(self) -> None:
        """Make the content durable."""
        self.durable = bytes(self.content)
        self.pending.clear()

    def surviving(self, chance: Random | None) -> bytes:
        """Return the content after a power cut."""
        content = bytearray(self.durable)
        for offset, data in self.pending:
            if not _survives(chance):
                continue
            if data is None:
                _resize(content, offset)
            else:
                _write(content, offset, data)
        return bytes(content)


@dataclass(eq=False, slots=True)
class Folder:
    """A folder: the names that programs see, the durable names, and the changes between them."""

    mode: int = 0o755
    names: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[Mapping[str, "File | Folder | None"]] = field(default_factory=list)

    def add(self, name: str, node: "File | Folder") -> None:
        """Add a name."""
        self._change({name: node})

    def remove(self, name: str) -> None:
        """Remove a name."""
        self._change({name: None})

    def rename(self, old: str, new: str) -> None:
        """Rename a file or folder and replace what had the new name."""
        self._change({old: None, new: self.names[old]})

    def flush(self) -> None:
        """Make the names durable."""
        self.durable = dict(self.names)
        self.pending.clear()

    def surviving(self, chance: Random | None) -> dict[str, "File | Folder"]:
        """Return the names after a power cut."""
        names = dict(self.durable)
        for change in self.pending:
            if _survives(chance):
                _apply(names, change)
        return names

    def _change(self, change: Mapping[str, "File | Folder | None"]) -> None:
        _apply(self.names, change)
        self.pending.append(change)


class Disk:
    """A disk; its initial content is durable."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.root = Folder()
        for path, content in sorted((tree or {}).items()):
            *above, name = path.split("/")
            folder = self.root
            for one in above:
                below = folder.names[one]
                assert isinstance(below, Folder)
                folder = below
            folder.add(name, Folder() if content is None else File(content=bytearray(content), durable=content))
            folder.flush()

    def after_power_cut(self, chance: Random | None) -> Tree:
        """Return what a power cut now would leave, without changing the disk."""
        tree: Tree = {}
        _gather(self.root, "", chance, tree)
        return tree


def write_tree(tree: Tree, directory: Path) -> None:
    """Write a tree into a real folder."""
    for path, content in sorted(tree.items()):
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)


def read_tree(directory: Path) -> Tree:
    """Read a tree from a real folder."""
    found = sorted(directory.rglob("*"))
    return {str(path.relative_to(directory)): None if path.is_dir() else path.read_bytes() for path in found}


def _gather(folder: Folder, above: str, chance: Random | None, tree: Tree) -> None:
    for name, node in folder.surviving(chance).items():
        if isinstance(node, File):
            tree[above + name] = node.surviving(chance)
        else:
            tree[above + name] = None
            _gather(node, f"{above}{name}/", chance, tree)


def _survives(chance: Random | None) -> bool:
    return chance is not None and chance.random() < 0.5


def _apply(names: dict[str, File | Folder], change: Mapping[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        _resize(content, offset)
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size <= len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))
