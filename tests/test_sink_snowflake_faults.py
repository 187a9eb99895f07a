"""The destination Snowflake when something fails: the day is as before, and messages have no secrets and no values."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asyncexport.core.warehouse.snowflake_login import SnowflakeLogin, address
from asyncexport.core.warehouse.snowflake_sql import SnowflakeSchema
from asyncexport.errors import SinkError
from tests.sink_rig import EVENTS, event, rows_in_parquet
from tests.snowflake_rig import DAY, Emulator, SnowflakeRig, emulator_or_skip, private_key, why_no_client

if why_no_client():
    pytest.skip(why_no_client(), allow_module_level=True)

from snowflake.connector.errors import OperationalError, ProgrammingError

from asyncexport.warehouse.sinks.snowflake import SnowflakeSink
from asyncexport.warehouse.sinks.snowflake_connection import LOGIN_FAULTS, SnowflakeConnection, translated

pytestmark = pytest.mark.timeout(900)  # the first test makes the emulator's environment

OLD = [event(number, 1, "10:00:00") for number in range(5)]
NEW = [event(number, 2, "11:00:00") for number in range(7)]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """Run an emulator for all tests of the module."""
    yield from emulator_or_skip()


@pytest.fixture
def rig(emulator: Emulator, tmp_path: Path) -> Iterator[SnowflakeRig]:
    """Return an empty schema's rig."""
    with SnowflakeRig(emulator.login, tmp_path) as rig:
        yield rig


class Meddling(SnowflakeConnection):
    """A connection that runs another statement after COPY, as a server would that does something else."""

    statement = ""

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run both."""
        found = super().run(statement)
        if statement.startswith("COPY"):
            super().run(self.statement)
        return found


MEDDLED = {
    "UPDATE t SET UserId = NULL WHERE SessionId = 2": "the number of values of UserId is 0 instead of 7",
    "DELETE FROM t WHERE UserId = 3": "the number of rows is 6 instead of 7",
    "INSERT INTO t (date, UserId) SELECT DATE '2026-01-31', 1": "the number of rows is 8 instead of 7",
    "UPDATE t SET UserId = 9 WHERE UserId = 6": "the largest value of UserId is another one",
    "UPDATE t SET EventStart = DATEADD(HOUR, 1, EventStart)": "the smallest value of EventStart is another one",
}


@pytest.mark.parametrize("statement", MEDDLED)
def test_a_day_that_differs_from_its_file_is_not_loaded(rig, statement):
    """COPY may load something else without an error; then the day stays as before, and the next load is exact."""
    files = rig.load({DAY: OLD})
    kind = type("MeddlingOnce", (Meddling,), {"statement": statement})
    sink, file = rig.another(kind), rig.parquet(NEW)
    with pytest.raises(SinkError, match=MEDDLED[statement]) as caught:
        sink.replace("t", DAY, file, "new")
    assert caught.value.hint
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: f"of {DAY}, 5"}
    kind.run = SnowflakeConnection.run  # type: ignore[attr-defined]
    assert sink.replace("t", DAY, file, "new") == 7
    assert rig.rows() == rows_in_parquet({DAY: file}, EVENTS.columns)
    sink.close()


class Stopped(BaseException):
    """What ends a thread or a process."""


class Stopping(SnowflakeConnection):
    """A connection that is stopped before one of its statements."""

    before = ""

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement, or stop."""
        if statement.startswith(self.before):
            raise Stopped
        return super().run(statement)


@pytest.mark.parametrize("before", ["PUT", "BEGIN", "UPDATE", "DELETE", "COPY", "SELECT count", "INSERT", "COMMIT"])
def test_a_load_that_is_stopped_leaves_the_day_as_it_was(rig, before):
    """Before every statement; the next load is exact and leaves nothing in the stage."""
    files = rig.load({DAY: OLD})
    sink = rig.another(type("StoppingThere", (Stopping,), {"before": before}))
    file = rig.parquet(NEW)
    try:
        sink.replace("t", DAY, file, "new")
    except Stopped:
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
        assert rig.sink.receipts("t") == {DAY: f"of {DAY}, 5"}
    sink.close()
    assert rig.sink.replace("t", DAY, file, "new") == 7
    assert rig.rows() == rows_in_parquet({DAY: file}, EVENTS.columns)
    assert rig.query("LIST @_asyncexport_stage") == []


def test_a_file_that_does_not_fit_is_refused(rig):
    """The day is as before, and the message does not repeat the value."""
    files = rig.load({DAY: OLD})
    odd = rig.folder / "odd.parquet"
    duckdb.connect().execute(f"COPY (SELECT 'CANARY' AS UserId) TO '{odd}' (FORMAT parquet)")
    with pytest.raises(SinkError, match=f"could not replace {DAY} of t in Snowflake") as caught:
        rig.sink.replace("t", DAY, odd, "new")
    assert "CANARY" not in str(caught.value)
    odd.write_bytes(b"CANARY")
    with pytest.raises(SinkError, match="could not read"):
        rig.sink.replace("t", DAY, odd, "new")
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


def test_a_path_may_contain_wildcards(rig):
    """PUT would take them for a pattern."""
    rig.folder = rig.folder / "a*b[c]?'d"
    files = rig.load({DAY: OLD})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


def test_a_session_that_has_expired_is_opened_again(rig):
    """A run may take days, and a session lives for hours."""
    rig.load({DAY: OLD})
    rig.sink._connection._connection.close()
    assert rig.sink.row_counts("t") == {DAY: 5}
    rig.sink._connection._connection.rest._token = "expired"
    rig.sink.reach()
    assert rig.sink.row_counts("t") == {DAY: 5}


def test_a_server_that_is_down_is_reported_without_the_login(tmp_path, caplog, capfd):
    """Neither the account nor the user is in the message, and the client's own log is not printed."""
    key_file = tmp_path / "CANARY.p8"
    key_file.write_bytes(private_key())
    login = SnowflakeLogin(address("http://127.0.0.1:9/"), "CANARY_user", str(key_file), "DB")
    sink = SnowflakeSink(SnowflakeConnection(login, connect_seconds=1), schema=SnowflakeSchema("DB", "S"))
    with pytest.raises(SinkError, match="could not log in to Snowflake") as caught:
        sink.reach()
    assert "CANARY" not in str(caught.value) + caught.value.hint + repr(login)
    assert caplog.text + "".join(capfd.readouterr()) == ""
    sink.close()


def test_a_key_file_that_was_damaged_is_reported(tmp_path):
    """The vendor's client reads it."""
    key_file = tmp_path / "key.p8"
    key_file.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n")
    login = SnowflakeLogin(address("http://127.0.0.1:9/"), "user", str(key_file), "DB")
    sink = SnowflakeSink(SnowflakeConnection(login, connect_seconds=1), schema=SnowflakeSchema("DB", "S"))
    with pytest.raises(SinkError, match="could not log in to Snowflake") as caught:
        sink.receipts("t")
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            ProgrammingError("No active warehouse selected in the current session.", errno=606, sqlstate="57P03"),
            "could not x in Snowflake: No active warehouse selected in the current session. (000606)",
            "name a virtual warehouse",
        ),
        (
            ProgrammingError("Insufficient privileges to operate on schema 'S'.", errno=3001, sqlstate="42501"),
            "could not x in Snowflake: Insufficient privileges to operate on schema 'S'. (003001)",
            "CREATE TABLE",
        ),
        (
            ProgrammingError("Numeric value 'CANARY'\n is not recognized", errno=100038, sqlstate="22018"),
            "could not x in Snowflake: Numeric value a value is not recognized (100038)",
            "",
        ),
        (
            ProgrammingError("The lock has not yet been released.", errno=625, sqlstate="57014"),
            "could not x in Snowflake: The lock has not yet been released. (000625)",
            "SYSTEM$ABORT_TRANSACTION",
        ),
        (
            OperationalError("CANARY-account.snowflakecomputing.com", errno=250003),
            "could not x in Snowflake: the connection was lost (250003)",
            "check the network",
        ),
    ],
)
def test_an_error_of_the_server_is_translated(error, message, hint):
    """With the code; without values and without the account."""
    found = translated("x", error)
    assert str(found) == message
    assert hint in found.hint


def test_what_is_said_of_a_failed_login_has_words_of_ours_only():
    """No part of the vendor's message is passed on."""
    assert all(said.islower() for said in LOGIN_FAULTS.values())
    assert Counter(LOGIN_FAULTS.values()).most_common(1)[0][1] <= 2
