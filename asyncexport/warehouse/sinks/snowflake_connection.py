"""The connection to Snowflake: made when it is needed, made again after it was lost, and its errors in our words.

1. The vendor's messages about a login name the account and the user, so none of them is passed on. A value that the
   server refuses is not repeated either: it is the customers' data.
2. The session has settings of its own, so that results do not depend on those of the account or the user.
3. Statements have their values in them and no parameters, because a name may contain a percent sign.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import snowflake.connector
from snowflake.connector.errors import Error, InterfaceError, OperationalError

from asyncexport.core.warehouse.choices import SinkName
from asyncexport.core.warehouse.identifiers import quoted
from asyncexport.core.warehouse.snowflake_login import SnowflakeLogin
from asyncexport.errors import SinkError

NAME = SinkName.SNOWFLAKE.value

CONNECT_SECONDS = 30
"""How long a login may take, with its retries."""

REQUEST_SECONDS = 600
"""How long the client repeats a request that fails because of the network."""

LOCK_SECONDS = 600
"""How long a statement waits for another loader, instead of twelve hours."""

SESSION: Mapping[str, Any] = MappingProxyType(
    {
        "TIMEZONE": "UTC",
        "QUOTED_IDENTIFIERS_IGNORE_CASE": False,
        "QUERY_TAG": "asyncexport",
        "LOCK_TIMEOUT": LOCK_SECONDS,
        "CLIENT_TELEMETRY_ENABLED": False,
    }
)

NOT_FOUND = (2003, 2043)
"""The codes for an object that does not exist, or that the role must not see."""

LOGIN_FAULTS = MappingProxyType(
    {
        "JWT": "it does not accept the user's key",
        "Incorrect username": "it does not accept the user and key",
        "private key": "the key file does not have a private key without a passphrase",
        "deserialize": "the key file does not have a private key without a passphrase",
        "404": "there is no such account",
        "403": "there is no such account, or its network policy forbids access from here",
        "not allowed to access": "its network policy forbids access from here",
        "resolve": "its host name cannot be found",
        "refused": "nothing listens there",
        "certificate": "the certificates do not match",
        "timed out": "there was no answer in time",
        "timeout": "there was no answer in time",
    }
)
"""What went wrong with a login, by a part of the vendor's message."""

LOGIN_HINT = "check account, user and key_file of [load.snowflake], and that the user has the public key"

HINTS = MappingProxyType(
    {
        606: "name a virtual warehouse in [load.snowflake], or give the user a default one",
        3001: "the role needs CREATE TABLE and CREATE STAGE in the schema; with everything made beforehand, SELECT, "
        "INSERT and DELETE on the tables, also UPDATE on _ASYNCEXPORT_LOADS and _ASYNCEXPORT_TABLES, and READ and "
        "WRITE on the stage _ASYNCEXPORT_STAGE",
        2003: "check that the database exists and that the user's default role may use it",
        2043: "check that the database exists and that the user's default role may use it",
        630: "raise STATEMENT_TIMEOUT_IN_SECONDS of the user or the virtual warehouse, and load again",
    }
)
"""What to do, by the code of the server's error."""

# The client logs accounts, users and statements. What matters of it is in the errors.
logging.getLogger("snowflake").setLevel(logging.CRITICAL + 1)
logging.getLogger("snowflake.connector").propagate = False

LOCK_HINT = (
    "another load changes the table, or one was killed and its transaction is still open (up to four hours): see SHOW "
    "TRANSACTIONS and end it with SYSTEM$ABORT_TRANSACTION, then load again"
)

_LOST = (OperationalError, InterfaceError)


class SnowflakeConnection:
    """A connection; its methods block.

    Args:
        login: Who logs in, and where.
        connect_seconds: How long a login may take.
        request_seconds: How long a request is repeated that fails because of the network.
    """

    def __init__(
        self,
        login: SnowflakeLogin,
        *,
        connect_seconds: int = CONNECT_SECONDS,
        request_seconds: int = REQUEST_SECONDS,
    ) -> None:
        self._login = login
        self._connect_seconds = connect_seconds
        self._request_seconds = request_seconds
        self._connection: Any = None

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement within `doing` or `transaction`, and return its rows."""
        with self._connection.cursor() as cursor:
            return list(cursor.execute(statement).fetchall())

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Connect if necessary, and translate errors.

        Args:
            what: What it is for, for the message of an error: `read the receipts`.

        Raises:
            SinkError: the server cannot be reached, or refused something.
        """
        self._connect_again_if_lost()
        try:
            yield
        except Error as error:
            if isinstance(error, _LOST):
                self.close()
            raise translated(what, error) from None  # the cause may name the account or repeat a value

    @contextmanager
    def transaction(self, what: str) -> Iterator[None]:
        """Begin a transaction, which is rolled back if the caller fails; otherwise as `doing`."""
        with self.doing(what):
            self.run("BEGIN")
            try:
                yield
                self.run("COMMIT")
            except _LOST:  # the server rolls back by itself, and a statement would wait for it in vain
                raise
            except BaseException:
                self._roll_back()
                raise

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Error):
                connection.close(retry=False)

    def _roll_back(self) -> None:
        try:
            self.run("ROLLBACK")
        except Error:
            self.close()  # the server rolls back when the session ends

    def _connect_again_if_lost(self) -> None:
        """Connect; a session may have expired since it was last used."""
        if self._connection is not None:
            try:
                self.run("SELECT 1")
            except Error:
                self.close()
        if self._connection is None:
            self._connection = self._connected()

    def _connected(self) -> Any:
        place = self._login.address
        more: dict[str, Any] = {}
        if place.host:
            more["host"] = place.host
        if place.port:
            more["port"] = place.port
        if self._login.warehouse:
            more["warehouse"] = self._login.warehouse
        try:
            return snowflake.connector.connect(
                account=place.account,
                protocol=place.protocol,
                user=self._login.user,
                database=quoted(self._login.database),
                authenticator="SNOWFLAKE_JWT",
                private_key_file=self._login.key_file,
                login_timeout=self._connect_seconds,
                network_timeout=self._request_seconds,
                session_parameters=dict(SESSION),
                application="asyncexport",
                autocommit=True,
                client_session_keep_alive=False,
                platform_detection_timeout_seconds=0.0,
                **more,
            )
        except (Error, OSError, ValueError, TypeError) as error:
            raise _no_connection(str(error)) from None  # the cause may name the account and the user


def _no_connection(text: str) -> SinkError:
    fault = next((said for part, said in LOGIN_FAULTS.items() if part in text), "the attempt failed")
    return SinkError(f"could not log in to Snowflake: {fault}", sink=NAME, hint=LOGIN_HINT)


def translated(doing: str, error: Error) -> SinkError:
    """Return the error of a statement in our words."""
    code, state = int(error.errno or 0), error.sqlstate or ""
    if isinstance(error, _LOST):
        return SinkError(
            f"could not {doing} in Snowflake: the connection was lost ({code:06d})",
            sink=NAME,
            hint="check the network and the status of Snowflake, and load again",
        )
    said = " ".join(str(error.raw_msg or error.msg or type(error).__name__).split())
    if state.startswith("22"):
        said = re.sub(r"'[^']*'|\"[^\"]*\"", "a value", said)
    hint = HINTS.get(code) or (LOCK_HINT if re.search(r"\block", said, re.IGNORECASE) else "")
    return SinkError(f"could not {doing} in Snowflake: {said[:300]} ({code:06d})", sink=NAME, hint=hint)
