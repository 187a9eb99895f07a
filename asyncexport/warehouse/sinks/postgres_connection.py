"""The connection to PostgreSQL: made when it is needed, made again after it was lost, and its errors in our words.

1. The connection string may contain a password. libpq repeats parts of a string that it cannot make sense of, and a
   password with an `@` or a `/` becomes part of a host name there. So nothing that libpq says before there is a
   connection is passed on, except what the server itself answers, without the names in it.
2. A value that the server refuses is not repeated either: it is the customers' data.
   Its messages may be in another language, with other quotation marks.
3. All settings hold for one transaction only, so that a pool in front of the server may share its connections.
   `SETTINGS` has those that results depend on: a role or a database may have others as its defaults.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.errors import SinkError

NAME = SinkName.POSTGRES.value

CONNECT_SECONDS = 10
"""How long a connection attempt may take, unless the connection string says otherwise."""

PARAMETERS: Mapping[str, str | int] = MappingProxyType(
    {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "asyncexport",
        # A firewall may forget a connection that is silent for some minutes. The default is to ask after two hours.
        "keepalives_idle": 60,
        "keepalives_interval": 10,
        "keepalives_count": 6,
    }
)
"""What a connection has unless the connection string says otherwise."""

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
        "definition of service": "the service file does not have its service",
        "service file": "its service file cannot be read",
        "no password supplied": "the server asks for a password, and the connection string has none",
        "SSL": "no encrypted connection could be agreed on",
        "certificate": "the certificates do not match",
        "server closed the connection unexpectedly": "the server ended the connection",
    }
)
"""What went wrong, by a part of libpq's message."""

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "standard_conforming_strings": "on",
        "quote_all_identifiers": "off",
        # With it, a policy that hides rows from the role is an error. Without it, they would just not be deleted.
        "row_security": "off",
    }
)

_IDLE = "raise idle_in_transaction_session_timeout and transaction_timeout of the role, and load again"
_TOO_WIDE = "name fewer variables in [load] columns: the others are in the column vars"

HINTS = MappingProxyType(
    {
        "23": "a constraint of the table refuses rows, or no partition takes them: change that, or load into another "
        "schema",
        "40": "another session changed the same rows: load again",
        "25006": "the server is read-only, or the role is: name the primary in the connection string, or set "
        "default_transaction_read_only of the role to off",
        "25P03": _IDLE,
        "25P04": _IDLE,
        "42501": "the role needs CREATE in the schema; with tables made beforehand, SELECT, INSERT and DELETE on them, "
        "and SELECT, INSERT and UPDATE on _asyncexport_loads and _asyncexport_tables; no policy may hide rows from it",
        "42809": "rename what has this name; asyncexport then makes its own",
        "42939": "choose another schema in [load.postgres]: names that begin with pg_ are the server's own",
        "42P07": "rename what has this name, or attach it to the table as the partition of its month",
        "42P10": "a column of the table is generated, or _asyncexport_loads lacks its primary key (table_name, day)",
        "42P17": "make a partition of the table that takes the day",
        "53100": "make room on the server's disk, and load again",
        "54000": _TOO_WIDE,
        "54011": _TOO_WIDE,
        "55P03": "another session holds a lock on the table: end it, or raise lock_timeout of the role",
        "57014": "raise statement_timeout of the role, and load again",
        "P0": "a trigger of the table refuses rows: drop it, or load into another schema",
    }
)
"""What to do, by the code of the server's error or its first two characters, the class."""

VALUES_REFUSED = "22"
"""The class of errors that are about a value, which the message may repeat."""

RAISED = "P0"
"""The class of errors that a trigger raises. Its message may have anything in it."""

_QUOTES = r'"\u00ab\u00bb\u201c-\u201f\u2039\u203a\u300c-\u300f'
"""The quotation marks of the server's languages."""

_QUOTED = re.compile(f" ?[{_QUOTES}][^{_QUOTES}]*[{_QUOTES}]")

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
                connection.execute("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items()))
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
                make_conninfo(self._dsn, **{name: given.get(name) or value for name, value in PARAMETERS.items()}),
                client_encoding="utf8",
                autocommit=True,
                prepare_threshold=None,
            )
        except (psycopg.Error, ValueError) as error:
            raise _no_connection(str(error), given) from None  # the cause may repeat parts of the connection string
        # With another one as the default, a loader that waited for the other would not see what that one has done.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
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


def _no_connection(text: str, given: Mapping[str, str]) -> SinkError:
    """Return the error for what libpq says; `given`: the parts of the connection string."""
    answer = re.search(r"FATAL: +([^\n]+)", text)
    if answer is not None:
        said = _QUOTED.sub("", answer[1])  # the names are parts of the connection string
        # A pool may repeat parts without quotes. A part may contain another one.
        for part in sorted(filter(None, given.values()), key=len, reverse=True):
            said = re.sub(rf"(?<!\w){re.escape(part)}(?!\w)", "…", said)
        return SinkError(
            f"could not connect to PostgreSQL: it answered: {said}",
            sink=NAME,
            hint="check user, password and database of the connection string, and which logins the server allows",
        )
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
    if code.startswith(RAISED):
        primary = "a trigger raised an error"
    if code.startswith(VALUES_REFUSED):
        where = re.search(r"COPY [^,]+, line (\d+)(?:, column ([^:]+))?", error.diag.context or "")
        primary = _QUOTED.sub("", primary.partition(": ")[0])
        if where is not None:
            primary += f" in row {where[1]}" + (f", column {where[2]}" if where[2] else "")
    hint = HINTS.get(code) or HINTS.get(code[:2], "")
    return SinkError(f"could not {doing} in PostgreSQL: {primary} ({code})", sink=NAME, hint=hint)
