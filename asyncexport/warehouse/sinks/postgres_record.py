"""Our own two tables in PostgreSQL: the days that are loaded, and what is known about each table.

Statements name the columns, so that such a table may have more of them, in any order.
"""

import psycopg

from asyncexport.core.warehouse import postgres_sql
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.table_columns import lacking_names
from asyncexport.core.warehouse.views import LOADS
from asyncexport.errors import SinkError
from asyncexport.warehouse.faults import unfit_record
from asyncexport.warehouse.sinks.postgres_catalog import exists, types_of
from asyncexport.warehouse.sinks.postgres_connection import NAME


class PostgresRecord:
    """The record; its methods are used within a transaction, and errors are those of the server.

    Args:
        schema: The schema of all tables.
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._loads = postgres_sql.qualified(schema, LOADS)

    def make(self, con: psycopg.Connection) -> None:
        """Make the schema and the two tables, if they are not there.

        Raises:
            SinkError: the database cannot hold all texts, or one of the tables lacks a column.
        """
        encoding = con.execute("SHOW server_encoding").fetchone()
        if encoding != ("UTF8",):
            raise SinkError(
                "could not load into PostgreSQL: the database does not have the encoding UTF8",
                sink=NAME,
                hint="create one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            )
        # CREATE … IF NOT EXISTS needs the right to create even if there is nothing to create.
        found = con.execute(f"SELECT 1 FROM pg_namespace WHERE nspname = {literal(self._schema)}").fetchone()
        if found is None:
            con.execute(f"CREATE SCHEMA {quoted(self._schema)}")
        for name, columns in postgres_sql.RECORDS.items():
            types = types_of(con, postgres_sql.qualified(self._schema, name))
            if not types:
                con.execute(postgres_sql.made_record(self._schema, name))
            elif lacks := lacking_names(columns, types):
                raise unfit_record(name, lacks[0], sink=NAME, title="PostgreSQL")

    def receipts(self, con: psycopg.Connection, table: str) -> dict[str, str]:
        """Return the receipt of each day of a table, by date; empty if there is no record."""
        if not exists(con, self._loads):
            return {}
        days = "BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"  # not infinity, which somebody may have put there
        of_table = f"table_name = {literal(table)} AND day {days}"
        found = con.execute(f"SELECT day::text, receipt FROM {self._loads} WHERE {of_table}")
        return {str(day): str(receipt) for day, receipt in found}

    def rows(self, con: psycopg.Connection, table: str, day: str) -> int:
        """Return how many rows a day had when it was loaded; 0 if it was not."""
        of_day = f"table_name = {literal(table)} AND day = DATE {literal(day)}"
        found = con.execute(f"SELECT rows FROM {self._loads} WHERE {of_day}").fetchone()
        return 0 if found is None else int(found[0])

    def forget(self, con: psycopg.Connection, table: str) -> None:
        """Remove all days of a table."""
        con.execute(f"DELETE FROM {self._loads} WHERE table_name = {literal(table)}")

    def put(self, con: psycopg.Connection, table: str, day: str, *, receipt: str, rows: int) -> None:
        """Record that a day is loaded."""
        values = f"{literal(table)}, DATE {literal(day)}, {literal(receipt)}, {rows}, now()"
        con.execute(
            f"INSERT INTO {self._loads} (table_name, day, receipt, rows, loaded_at) VALUES ({values}) "
            "ON CONFLICT (table_name, day) "
            "DO UPDATE SET receipt = EXCLUDED.receipt, rows = EXCLUDED.rows, loaded_at = EXCLUDED.loaded_at"
        )
