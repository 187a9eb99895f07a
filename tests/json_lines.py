"""The JSON lines as `asyncexport/JSON.md` documents them."""

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parents[1] / "asyncexport" / "JSON.md").read_text(encoding="utf-8")


def documented() -> dict[str, frozenset[str]]:
    """Return the keys of each type, as listed in the page's table."""
    table = PAGE.partition("<!-- JSON lines:")[2].partition("<!-- end of JSON lines -->")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| `")]
    return {kind: frozenset(re.findall(r"`(\w+)`", keys)) for types, _, _, keys in rows for kind in _words(types)}


def check(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record, after asserting that the page has its type and all of its keys."""
    kind = record["type"]
    keys = documented().get(kind)
    assert keys is not None, f"asyncexport/JSON.md has no type {kind!r}"
    unknown = record.keys() - keys - {"type"}
    assert not unknown, f"the type {kind!r} in asyncexport/JSON.md lacks {', '.join(sorted(unknown))}"
    return record


def _words(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)
