"""The connection to PostgreSQL: made when it is needed, made again after it was lost, and its errors in our words.

1. The connection string may contain a password. libpq repeats parts of a string that it cannot make sense of, and a
   password with an `@` or a `/` becomes part of a host name there. So nothing that libpq says before there is a
   connection is passed on, except what the server itself answers, without the names in it.
2. A value that the server refuses is not repeated either: it is the customers' data.
3. All settings hold for one transaction only, so that a pool in front of the server may share its connections.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

import psycopg
from psycopg.conninfo import conninfo_to_dict

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.errors import SinkError

NAME = SinkName.POSTGRES.value

CONNECT_SECONDS = 10
"""How long a connection attempt may take, unless the connection string says otherwise."""

CONNECTION_FAULTS = MappingProxyType(
    {
        "Connection refused": "nothing listens there",
        "No such file or directory": "there is no such socket",
        "could not translate host name": "its host name cannot be found",
        "failed to resolve host": "its host name cannot be found",
        "timeout expired": "there was no answer in time",
        "Connection timed out": "there was no answer in time",
        "No route to host": "there is no route to it",
        "Network is unreachable": "there is no route to it",
        "no password supplied": "the server asks for a password, and the connection string has none",
        "SSL": "no encrypted connection could be agreed on",
        "certificate": "the certificates do not match",
        "server closed the connection unexpectedly": "the server ended the connection",
    }
)
"""What went wrong, by a part of libpq's message."""

HINTS = MappingProxyType(
    {
        "42501": "the role needs CREATE in the schema; with tables made beforehand, SELECT, INSERT and DELETE on them, "
        "and SELECT, INSERT and UPDATE on _asyncexport_loads and _asyncexport_tables",
        "53100": "make room on the server's disk, and load again",
        "57014": "raise statement_timeout of the role, and load again",
        "55P03": "another session holds a lock on the table: end it, or raise lock_timeout of the role",
        "25006": "the server is read-only: name its primary in the connection string",
    }
)
"""What to do, by the code of the server's error."""

_LOST = (psycopg.OperationalError, psycopg.InterfaceError)


class PostgresConnection:
    """A connection; its methods block.

    Args:
        dsn: The connection string. It appears in no message.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def transaction(self, doing: str) -> Iterator[psycopg.Connection]:
        """Begin a transaction, which is rolled back if the caller fails.

        Args:
            doing: What it is for, for the message of an error: `read the receipts`.

        Raises:
            SinkError: the server cannot be reached, or refused something.
        """
        connection = self._connected()
        try:
            with connection.transaction():
                connection.execute("SET LOCAL TimeZone = 'UTC'")
                connection.execute("SET LOCAL standard_conforming_strings = on")
                yield connection
        except psycopg.Error as error:
            raise translated(doing, error) from error
        finally:
            if connection.closed:
                self._connection = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        """Return a connection that works: a server or a proxy may have ended the last one meanwhile."""
        if self._connection is not None:
            try:
                self._connection.execute("SELECT 1")
            except psycopg.Error:
                self.close()
            else:
                return self._connection
        self._connection = self._connect()
        return self._connection

    def _connect(self) -> psycopg.Connection:
        given = _understood(self._dsn)
        try:
            connection = psycopg.connect(
                self._dsn,
                client_encoding="utf8",
                connect_timeout=int(given.get("connect_timeout") or CONNECT_SECONDS),
                application_name=given.get("application_name") or "asyncexport",
                autocommit=True,
                prepare_threshold=None,
            )
        except (psycopg.Error, ValueError) as error:
            raise _no_connection(str(error)) from None  # the cause may repeat parts of the connection string
        return connection


def _understood(dsn: str) -> dict[str, str]:
    """Return the parts of a connection string.

    Raises:
        SinkError: it cannot be understood.
    """
    try:
        given = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except psycopg.Error:
        given = {"port": "unknown"}
    numbers = (*given.get("port", "").split(","), given.get("connect_timeout", ""))
    if all(number.isdecimal() for number in numbers if number):
        return given
    raise SinkError(
        "could not connect to PostgreSQL: its connection string cannot be understood",
        sink=NAME,
        hint="write it as postgresql://user:password@host:5432/database, with %40 for @, %3A for : and %2F for /",
    )


def _no_connection(text: str) -> SinkError:
    answer = re.search(r"FATAL: +([^\n]+)", text)
    if answer is not None:
        said = re.sub(r' ?"[^"]*"', "", answer[1])  # the names are parts of the connection string
        return SinkError(f"could not connect to PostgreSQL: it answered: {said}", sink=NAME)
    fault = next((said for part, said in CONNECTION_FAULTS.items() if part in text), "the attempt failed")
    return SinkError(
        f"could not connect to PostgreSQL: {fault}",
        sink=NAME,
        hint="check that the server runs and that the connection string names it",
    )


def translated(doing: str, error: psycopg.Error) -> SinkError:
    """Return the error of a statement in our words."""
    code = error.sqlstate or ""
    primary = error.diag.message_primary
    if code.startswith(("08", "57P")) or (primary is None and isinstance(error, _LOST)):
        return SinkError(
            f"could not {doing} in PostgreSQL: the connection was lost",
            sink=NAME,
            hint="check that the server runs, and load again",
        )
    if primary is None:
        return SinkError(f"could not {doing} in PostgreSQL: {type(error).__name__}", sink=NAME)
    if code.startswith("22"):
        where = re.search(r"COPY [^,]+, line (\d+)(?:, column ([^:]+))?", error.diag.context or "")
        primary = re.sub(r': ".*', "", primary, flags=re.DOTALL)
        if where is not None:
            primary += f" in row {where[1]}" + (f", column {where[2]}" if where[2] else "")
    return SinkError(f"could not {doing} in PostgreSQL: {primary} ({code})", sink=NAME, hint=HINTS.get(code, ""))
