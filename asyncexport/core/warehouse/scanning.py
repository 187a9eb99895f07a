r"""What is found out about an archive before it is read: the names of its fields, and whether DuckDB reads it exactly.

1. DuckDB rewrites numbers (1.50 becomes 1.5, 1e5 becomes 100000.0, and of 25 digits 17 are left), accepts NaN and a
   comma before a closing bracket, and shows a repeated name only by an error. Archives with such a row are read row by
   row instead.
2. An archive is scanned in one statement. Rows are suspected by regular expressions over the raw text, which may
   suspect a row wrongly but never overlook one: `LOOK` begins with a character, so that the search for it is fast, and
   only rows that it finds are searched with `SUSPECT`.
3. The rows that remain are read by `is_rewritten`, which sees strings and numbers apart.
4. DuckDB compares names of columns without regard to case. Of names that differ only in case, one becomes a column, and
   archives that have another one are read row by row. So are archives whose names hold control characters.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.identifiers import literal
from asyncexport.core.warehouse.json_text import DEEPEST_LEVEL

FILE = "_asyncexport_file"
"""The column in which DuckDB returns the path of the file."""

LONGEST_ROW = 16 << 20
"""The longest row that is read in a statement, in bytes. Archives with longer ones are read row by row: DuckDB's
buffers are twice this large."""

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

    For each list of names that rows have, it finds how many names these are, how many rows have them, the length of the
    longest of these, and whether one of them is suspected.
    """
    rows = (
        f"SELECT array_to_string(json_keys(json), {literal(BETWEEN)}) AS names, len(json_keys(json)) AS size, "
        f"strlen(json) AS bytes, {_suspected()} AS suspected FROM {_objects(file)}"
    )
    return f"SELECT names, size, count(*), max(bytes), bool_or(suspected) FROM ({rows}) GROUP BY names, size"


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
        f"read_ndjson_objects([{literal(file)}], compression = 'gzip', hive_partitioning = false, "
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
        file: The path of the archive.
        rows: The number of its rows.
        names: How many rows have each name.
        longest: The length of the longest row, in bytes.
        repeats: A name that a row has twice, or "".
        suspected: Whether some rows are suspected.
    """

    file: str
    rows: int
    names: Mapping[str, int]
    longest: int
    repeats: str
    suspected: bool

    @classmethod
    def of(cls, file: str, found: Iterable[tuple[str, int, int, int, bool]]) -> "Scan":
        """Read the result of `scan_statement`."""
        rows, names, longest, repeats, suspected = 0, dict[str, int](), 0, "", False
        for joined, size, count, bytes_, suspect in found:
            parts = joined.split(BETWEEN) if size else []
            if len(set(parts)) != size:
                repeats = next((one for one in parts if parts.count(one) > 1), BETWEEN)
            for name in parts:
                names[name] = names.get(name, 0) + count
            rows += count
            longest = max(longest, bytes_)
            suspected |= suspect
        return cls(file, rows, names, longest, repeats, suspected)


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a day's fields.

    Attributes:
        columns: All names that get a column while reading.
        odd: The files that have other names, with one of these.
    """

    columns: frozenset[str]
    odd: Mapping[str, str]

    @classmethod
    def of(cls, scans: Sequence[Scan], layout: Layout) -> "Names":
        """Choose the names: of those that differ only in case, the layout's own, else the most frequent one."""
        totals: dict[str, int] = {}
        for scan in scans:
            for name, count in scan.names.items():
                totals[name] = totals.get(name, 0) + count
        chosen = {name.casefold(): name for name in (FILE, *(column.name for column in layout.fields))}
        for name in sorted(totals, key=lambda one: (-totals[one], one)):
            if name and name.isprintable():
                chosen.setdefault(name.casefold(), name)
        columns = {*chosen.values()} - {FILE}
        odd = {scan.file: name for scan in scans for name in sorted(scan.names) if name not in columns}
        return cls(frozenset(columns & totals.keys()), odd)
