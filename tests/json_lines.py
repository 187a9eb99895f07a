"""The lines of `--json` as the README has them."""

import re
from pathlib import Path
from typing import Any

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def documented() -> dict[str, frozenset[str]]:
    """The keys of each type, by the README's table."""
    table = README.partition("<!-- JSON lines:")[2].partition("<!-- end of JSON lines -->")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    return {kind: frozenset(re.findall(r"`(\w+)`", keys)) for types, _, _, keys in rows for kind in _words(types)}


def check(record: dict[str, Any]) -> dict[str, Any]:
    """The record itself, if the README has its type and all of its keys."""
    kind = record["type"]
    keys = documented().get(kind)
    assert keys is not None, f"the README has no JSON line of the type {kind!r}"
    unknown = record.keys() - keys - {"type"}
    assert not unknown, f"the README's JSON line {kind!r} lacks {', '.join(sorted(unknown))}"
    return record


def _words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)
