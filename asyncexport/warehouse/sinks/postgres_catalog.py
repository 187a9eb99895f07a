"""What the catalog of PostgreSQL says about a table. A name is qualified, as it stands in a statement."""

import psycopg

from asyncexport.core.warehouse.identifiers import literal


def exists(con: psycopg.Connection, name: str) -> bool:
    """Return whether there is a table or a view."""
    return con.execute(f"SELECT to_regclass({literal(name)}) IS NOT NULL").fetchone() == (True,)


def types_of(con: psycopg.Connection, name: str) -> dict[str, str]:
    """Return the columns of a table and their types; empty if there is no such table."""
    found = con.execute(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = to_regclass({literal(name)}) AND attnum > 0 AND NOT attisdropped"
    )
    return {str(column): str(type_) for column, type_ in found}
