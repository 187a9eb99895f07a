"""Names and texts in SQL, for DuckDB and PostgreSQL alike: quoted, and short enough.

1. Every name is quoted, so that it keeps its case and may contain anything.
2. PostgreSQL cuts a name after 63 bytes without a word. A longer one is shortened here instead, with a digest of the
   full name at its end, so that two long names do not become one.
"""

from hashlib import sha256

LONGEST_POSTGRES_NAME = 63
"""Bytes."""

DIGEST_CHARACTERS = 8


def quoted(name: str) -> str:
    """Return a name as it stands in a statement."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as it stands in a statement.

    A backslash has no meaning there: PostgreSQL has `standard_conforming_strings` on, and DuckDB knows no escapes.
    """
    return "'" + text.replace("'", "''") + "'"


def postgres_name(name: str) -> str:
    """Return the name that something has in PostgreSQL (rule 2)."""
    data = name.encode()
    if len(data) <= LONGEST_POSTGRES_NAME:
        return name
    start = data[: LONGEST_POSTGRES_NAME - DIGEST_CHARACTERS - 1].decode(errors="ignore")
    return f"{start}_{sha256(data).hexdigest()[:DIGEST_CHARACTERS]}"
