"""A disk in memory that knows what was flushed, so that its power can be cut.

1. The data of a file is durable once the file was flushed, a name once its folder was. Neither makes the other so.
2. What was not flushed may survive a cut or not, each piece by itself: a write is torn at page borders, a name is set
   or not, in any order. Chance decides, from a seed; without chance none of it survives.
3. A rename within a folder is one piece: the old name is gone and the new one is there, or neither. From one folder to
   another it is two: each name is a matter of its own folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

PAGE = 4096
"""Where writes are torn."""

Tree = dict[str, bytes | None]
"""What lies on a disk: the content of each file by its path, None for a folder."""


@dataclass(eq=False, slots=True)
class File:
    """A file: its content as programs see it, as it is on the platter, and what lies between the two."""

    mode: int = 0o644
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        """Put data at a place."""
        _write(self.content, offset, data)
        at = offset
        while at < offset + len(data):
            border = min((at // PAGE + 1) * PAGE, offset + len(data))
            self.pending.append((at, data[at - offset : border - offset]))
            at = border

    def resize(self, size: int) -> None:
        """Cut it short, or fill it up with zeros."""
        _resize(self.content, size)
        self.pending.append((size, None))

    def flush(self) -> None:
        """Make the content durable."""
        self.durable = bytes(self.content)
        self.pending.clear()

    def surviving(self, chance: Random | None) -> bytes:
        """What is left of it when the power goes."""
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
    """A folder: its names as programs see them, as they are on the platter, and what lies between the two."""

    mode: int = 0o755
    names: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[Mapping[str, "File | Folder | None"]] = field(default_factory=list)

    def add(self, name: str, node: "File | Folder") -> None:
        """Give something a name."""
        self._change({name: node})

    def remove(self, name: str) -> None:
        """Take a name away."""
        self._change({name: None})

    def rename(self, old: str, new: str) -> None:
        """Give what has one name another, in the place of what had it."""
        self._change({old: None, new: self.names[old]})

    def flush(self) -> None:
        """Make the names durable."""
        self.durable = dict(self.names)
        self.pending.clear()

    def surviving(self, chance: Random | None) -> dict[str, "File | Folder"]:
        """Which names are left when the power goes."""
        names = dict(self.durable)
        for change in self.pending:
            if _survives(chance):
                _apply(names, change)
        return names

    def _change(self, change: Mapping[str, "File | Folder | None"]) -> None:
        _apply(self.names, change)
        self.pending.append(change)


class Disk:
    """A whole disk; what lies on it at first is durable."""

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

    def after_a_cut(self, chance: Random | None) -> Tree:
        """What would be left if the power went now; asking changes nothing."""
        tree: Tree = {}
        _gather(self.root, "", chance, tree)
        return tree


def lay_out(tree: Tree, directory: Path) -> None:
    """Write a tree into a real folder."""
    for path, content in sorted(tree.items()):
        if content is None:
            (directory / path).mkdir()
        else:
            (directory / path).write_bytes(content)


def tree_of(directory: Path) -> Tree:
    """What lies in a real folder."""
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
