r"""What is found out about an archive before it is read: the names of its fields, and whether DuckDB reads it exactly.

1. DuckDB rewrites numbers (1.50 becomes 1.5, 1e5 becomes 100000.0, and of 25 digits 17 are left), accepts NaN and a
   comma before a closing bracket, and shows a repeated name only by an error. Archives with such a row are read row by
   row instead.
2. An archive is scanned in one statement. Rows are suspected by regular expressions over the raw text, which may
   suspect a row wrongly but never overlook one: `LOOK` begins with a character, so that the search for it is fast, and
   only rows that it finds are searched with `SUSPECT`.
3. The rows that remain are read by `is_rewritten`, which sees strings and numbers apart.
4. DuckDB compares names of columns without regard to case. Of names that differ only in case, the first one becomes a
   column, and archives that have another one are read row by row. So are archives whose names hold control characters.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.core.warehouse.json_text import DEEPEST_LEVEL

FILE = "_asyncexport_file"
"""The column in which DuckDB returns the path of the file."""

LONGEST_ROW = 16 << 20
"""The longest row that is read in a statement, in bytes. Archives with longer ones are read row by row: DuckDB's
buffers are twice this large."""

KNOWN = "known_lists"
CREATE_KNOWN = f"CREATE TEMP TABLE {KNOWN} (list UBIGINT)"
ADD_KNOWN = f"INSERT INTO {KNOWN} SELECT unnest(?)"
"""The table of the lists of names that are known already, by their hashes. Nearly all rows of a day have one of some
hundred lists, so most of them need no further look at their names."""

BETWEEN = "\x1e"
"""Stands between the names of a row."""

BLANKS = r"[ \t\r]*"
EXPONENT = r"-?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]+"
END_ZERO = r"-?[0-9]+\.[0-9]*[0-9]0"
LONG = r"-?(?:[0-9]+\.[0-9]{10,}|[0-9]{6,}\.[0-9]+)"
TINY = r"-?0\.0000[0-9]*"
NO_NUMBER = r"-?[nN][aA][nN]|-?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?"
ODD_NUMBER = f"(?:-0|{EXPONENT}|{END_ZERO}|{LONG}|{TINY}|{NO_NUMBER}){BLANKS}"
LOOK = rf":{BLANKS}(?:[\[{{]|{ODD_NUMBER}[,}}])"
"""Where a field may hold an odd number, a list or an object."""

SUSPECT = rf"[:\[,]{BLANKS}{ODD_NUMBER}[,\]}}]|,{BLANKS}[\]}}]"
"""An odd number, or a comma before a closing bracket."""

TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*+"|(?P<number>-?[0-9][-+.0-9eE]*+)|(?P<comma>,\s*[\]}])|(?P<bracket>[\[\]{}])|(?P<word>[a-zA-Z]+)'
)
WORDS = ("true", "false", "null")


def scan_statement(file: str) -> str:
    """Return the statement that scans an archive.

    For each list of names that is not in the table KNOWN, it finds its hash, the names, their number, how many rows
    have them, the length of the longest of these, and whether one of them is suspected; the same for all other rows
    together, with NULL instead of the hash.
    """
    rows = (
        f"SELECT json_keys(json) AS names, hash(names) AS list, strlen(json) AS bytes, {_suspected()} AS suspected "
        f"FROM {_objects(file)}"
    )
    new = (
        "SELECT CASE WHEN NOT is_known THEN list END AS new, CASE WHEN NOT is_known THEN "
        f"array_to_string(names, {literal(BETWEEN)}) END AS joined, CASE WHEN NOT is_known THEN len(names) END AS "
        f"size, bytes, suspected FROM (SELECT *, list IN (SELECT list FROM {KNOWN}) AS is_known FROM ({rows}))"
    )
    return f"SELECT new, joined, size, count(*), max(bytes), bool_or(suspected) FROM ({new}) GROUP BY new, joined, size"


def suspects_statement(file: str) -> str:
    """Return the statement that finds the suspected rows of an archive."""
    return f"SELECT CAST(json AS VARCHAR) FROM {_objects(file)} WHERE {_suspected()}"


def _suspected() -> str:
    ends = " OR ".join(f"suffix(json, {literal(end + '}')})" for end in (",", " ", "\t", "\r"))
    brackets = " + ".join(f"strlen(json) - strlen(replace(json, '{one}', ''))" for one in "[{")
    is_deep = f"{brackets} >= {DEEPEST_LEVEL}"
    return (
        f"CASE WHEN regexp_matches(json, {literal(LOOK)}) OR {ends} THEN regexp_matches(json, {literal(SUSPECT)}) OR "
        f"{is_deep} ELSE false END"
    )


def _objects(file: str) -> str:
    return (
        f"read_ndjson_objects([{literal(file)}], compression = 'none', hive_partitioning = false, "
        f"maximum_object_size = {LONGEST_ROW})"
    )


def is_rewritten(row: str) -> bool:
    """Whether DuckDB would read this row, which it accepts as JSON, as something else than it is."""
    level = deepest = 0
    for token in TOKEN.finditer(row):
        match token.lastgroup:
            case "number":
                if _is_rewritten_number(token[0]):
                    return True
            case "comma":
                return True
            case "word":
                if token[0] not in WORDS:
                    return True
            case "bracket":
                level += 1 if token[0] in "[{" else -1
                deepest = max(deepest, level)
            case _:
                pass
    return deepest + 1 > DEEPEST_LEVEL


def _is_rewritten_number(text: str) -> bool:
    if text.removeprefix("-").isdecimal():
        return text == "-0"
    return repr(float(text)) != text or "e" in text


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found in one archive.

    Attributes:
        rows: The number of its rows.
        longest: The length of the longest row, in bytes.
        lists: The lists of names that are new, by their hashes.
        repeats: A name that a row has twice, or "".
        suspected: Whether some rows are suspected.
    """

    rows: int
    longest: int
    lists: Mapping[int, frozenset[str]]
    repeats: str
    suspected: bool

    @classmethod
    def of(cls, found: Iterable[tuple[int | None, str, int, int, int, bool]]) -> "Scan":
        """Read the result of `scan_statement`."""
        rows, longest, lists, repeats, suspected = 0, 0, dict[int, frozenset[str]](), "", False
        for key, joined, size, count, length, suspect in found:
            rows += count
            longest = max(longest, length)
            suspected |= suspect
            if key is not None:
                parts = joined.split(BETWEEN) if size else []
                lists[key] = frozenset(parts)
                if len(lists[key]) != size:
                    repeats = next((one for one in parts if parts.count(one) > 1), BETWEEN)
        return cls(rows, longest, lists, repeats, suspected)


class Names:
    """The names of a day's fields that become columns while reading (rule 4); the layout's own names come first.

    Attributes:
        found: All names that archives have so far.
    """

    def __init__(self, layout: Layout) -> None:
        self.found: set[str] = set()
        self._by_case = {name.casefold(): name for name in (FILE, *(column.name for column in layout.fields))}

    def odd_one(self, names: Iterable[str]) -> str | None:
        """Return one of the names of an archive that cannot be a column beside the others, or None."""
        chosen = self._by_case.copy()
        for name in sorted(names):
            if name == FILE or not name or not name.isprintable() or chosen.setdefault(name.casefold(), name) != name:
                return name
        return None

    def add(self, names: Iterable[str]) -> None:
        """Add the names of an archive, none of which is odd."""
        for name in names:
            self.found.add(name)
            self._by_case.setdefault(name.casefold(), name)
