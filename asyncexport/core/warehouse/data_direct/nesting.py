"""Custom variables as nested objects.

The export flattens what a site sets: `{"order": {"total": 4}}` becomes the field `evt_order.total_int`. Here the prefix
is removed and the name is split at its dots again.

1. If a name is both a value and the parent of others (`a_str` beside `a_str.b_str`), the others keep their dotted
   names. So does a name with an empty part (`a..b`) or with more than `DEEPEST` parts.
2. A suffix is removed only if no other variable of the row would then have the same name, and the name does not become
   the parent of others.
3. Values are as they are written. Names are in order.
"""

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import TypeAlias

from asyncexport.core.warehouse.columns import SUFFIXES
from asyncexport.core.warehouse.data_direct.json_members import json_name

Tree: TypeAlias = dict[str, "str | Tree"]

DEEPEST = 32
"""Far more parts than a site's objects have levels, and far fewer than a reader of JSON can handle."""

TYPE_SUFFIXES: tuple[str, ...] = (*SUFFIXES, *(f"{suffix}s" for suffix in SUFFIXES))
"""The suffixes of single values and of lists."""


def nested(variables: Mapping[str, str], *, strip: bool) -> str:
    """Return variables as a JSON object.

    Args:
        variables: The JSON text of each value by name, without the prefix.
        strip: Whether to remove the suffixes of types.
    """
    names = _stripped(variables) if strip else {name: name for name in variables}
    values = {names[name]: value for name, value in sorted(variables.items())}
    tree: Tree = {}
    for name in sorted(values):
        has_value_above = any(parent in values for parent in _parents(name))
        _put(tree, [name] if has_value_above else _parts(name), values[name])
    return _written(tree)


def _stripped(names: Iterable[str]) -> dict[str, str]:
    """Return the name that each name becomes (rule 2)."""
    before = set(names)
    parents = {parent for name in before for parent in _parents(name)}
    after = {name: _without_suffix(name) for name in before}
    count: dict[str, int] = {}
    for name in after.values():
        count[name] = count.get(name, 0) + 1
    return {
        name: short if short != name and count[short] == 1 and short not in before and short not in parents else name
        for name, short in after.items()
    }


def _without_suffix(name: str) -> str:
    short = next((name.removesuffix(suffix) for suffix in TYPE_SUFFIXES if name.endswith(suffix)), name)
    return short if short and not short.endswith(".") else name


def _parts(name: str) -> list[str]:
    """Return the parts of a name; the name itself if it is not split."""
    parts = name.split(".", DEEPEST)
    return parts if all(parts) and len(parts) <= DEEPEST else [name]


def _parents(name: str) -> list[str]:
    return list(accumulate(_parts(name)[:-1], "{}.{}".format))


def _put(tree: Tree, parts: list[str], value: str) -> None:
    for part in parts[:-1]:
        inner = tree.setdefault(part, {})
        assert isinstance(inner, dict), "a name that is a value is no parent (rule 1)"  # noqa: S101
        tree = inner
    tree[parts[-1]] = value


def _written(tree: Tree) -> str:
    members = (
        f"{json_name(name)}:{inner if isinstance(inner, str) else _written(inner)}" for name, inner in tree.items()
    )
    return "{" + ",".join(members) + "}"
