"""The vendor's client against fakesnow, an emulator of Snowflake, and what is in a schema there.

The emulator runs DuckDB. It knows no policies, limits, locks or warehouses, and stores no comments; which claims it
cannot prove is said in asyncexport/warehouse/README.md.
"""

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from asyncexport.core.warehouse.columns import Column, ColumnKind
from asyncexport.core.warehouse.snowflake_login import SnowflakeLogin, address
from asyncexport.core.warehouse.snowflake_sql import SnowflakeSchema, snowflake_name
from tests.made_environment import NotMadeError, environment
from tests.sink_rig import EVENTS, NUMBERS, SinkRig, comparable

PACKAGES = ("fakesnow[server]==0.12.1", "snowflake-connector-python==4.8.1")

CLIENT = "snowflake"

if TYPE_CHECKING:
    from asyncexport.warehouse.sinks.snowflake import SnowflakeSink
    from asyncexport.warehouse.sinks.snowflake_connection import SnowflakeConnection

DAY = "2026-01-31"

DATABASE = "ANALYTICS"


def why_no_client() -> str:
    """Return why the vendor's client cannot be used here; empty if it can."""
    return "" if find_spec(CLIENT) else "snowflake-connector-python is not installed (the extra `test` has it)"


class Emulator:
    """A running emulator.

    Attributes:
        url: Its address.
        key_file: A private key; the emulator accepts any.
    """

    def __init__(self, url: str, key_file: Path) -> None:
        self.url = url
        self.key_file = key_file

    @property
    def login(self) -> SnowflakeLogin:
        """A login."""
        return SnowflakeLogin(address(self.url), "LOADER_NAME", str(self.key_file), DATABASE)


@contextmanager
def running() -> Iterator[Emulator]:
    """Run the emulator in a temporary directory.

    Raises:
        NotMadeError: there is no emulator here.
    """
    python = environment(PACKAGES) / "bin" / "python"
    folder = Path(tempfile.mkdtemp(prefix="snowflake-"))
    variables = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [python, str(Path(__file__).with_name("fakesnow_main.py"))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=variables,
            cwd=folder,
        )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().decode().strip()
        if not port:
            raise NotMadeError(f"fakesnow did not start: {(folder / 'log').read_text()[-500:]}")
        key_file = folder / "key.p8"
        key_file.write_bytes(private_key())
        emulator = Emulator(f"http://127.0.0.1:{port}", key_file)
        make_database(emulator.login)
        yield emulator
    finally:
        server.kill()
        server.communicate()
        shutil.rmtree(folder)


def make_database(login: SnowflakeLogin) -> None:
    """Make the database of a login."""
    from asyncexport.warehouse.sinks.snowflake_connection import SnowflakeConnection  # noqa: PLC0415 - as in the rig

    connection = SnowflakeConnection(login)
    with connection.doing("make the database"):
        connection.run(f"CREATE DATABASE IF NOT EXISTS {login.database}")
    connection.close()


def emulator_or_skip() -> Iterator[Emulator]:
    """Run the emulator, or skip the tests with the reason why there is none."""
    try:
        with running() as emulator:
            yield emulator
    except NotMadeError as error:
        pytest.skip(f"there is no emulator of Snowflake: {error}")


def private_key(passphrase: bytes | None = None) -> bytes:
    """Return a new private key."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - it comes with the vendor's client
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


class SnowflakeRig(SinkRig):
    """A schema of a test's own, and the destination that loads into it."""

    def __init__(self, login: SnowflakeLogin, folder: Path, *, schema: str = "") -> None:
        from asyncexport.warehouse.sinks.snowflake import SnowflakeSink  # noqa: PLC0415 - it needs the vendor's client
        from asyncexport.warehouse.sinks.snowflake_connection import SnowflakeConnection  # noqa: PLC0415

        self.login = login
        self.folder = folder
        self.schema = SnowflakeSchema(login.database, schema or f"S{next(NUMBERS)}")
        # The emulator answers what it does not understand with an error of the kind that the client tries again.
        self.connection = SnowflakeConnection(login, request_seconds=5)
        self.sink: SnowflakeSink = SnowflakeSink(SnowflakeConnection(login, request_seconds=5), schema=self.schema)

    def another(self, connection: type["SnowflakeConnection"]) -> "SnowflakeSink":
        """Return another destination of the same schema, with a connection of this kind."""
        return type(self.sink)(connection(self.login, request_seconds=5), schema=self.schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()
        self.connection.close()

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Run a statement in the schema."""
        with self.connection.doing("run a test's statement"):
            self.connection.run(f"USE SCHEMA {self.schema.qualified}")
            return self.connection.run(text)

    def drop_schema(self) -> None:
        """Drop the schema with all that is in it."""
        with self.connection.doing("drop the schema"):
            self.connection.run(f"DROP SCHEMA IF EXISTS {self.schema.qualified} CASCADE")

    def make_schema(self) -> None:
        """Make the schema, for a table that is made beforehand."""
        with self.connection.doing("make the schema"):
            self.connection.run(f"CREATE SCHEMA {self.schema.qualified}")

    def rows(self, columns: Sequence[Column] = EVENTS.columns, table: str = "t") -> Counter[tuple[Any, ...]]:
        """Return the multiset of the rows, in the form of `rows_in_parquet`."""
        names = ", ".join(map(as_read, columns))
        found = self.query(f'SELECT {names}, "DATE" FROM {self.schema.of(table)}')
        return Counter((*comparable(row[:-1], columns), str(row[-1])) for row in found)


def as_read(column: Column) -> str:
    """Return a column as `readable` does for DuckDB."""
    name = f'"{snowflake_name(column.name)}"'
    match column.kind:
        case ColumnKind.TIME:
            return f"DATE_PART(EPOCH_MICROSECOND, {name})"
        case ColumnKind.JSON:
            return f"TO_JSON({name})"
        case _:
            return name
