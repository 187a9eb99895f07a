"""The destination PostgreSQL when something goes wrong: no server, no rights, a crash, other loaders, odd values."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncexport.core.warehouse.copy_text import copy_line, copy_statement
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.postgres import PostgresSink
from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection
from tests.postgres_rig import DAY, PostgresRig
from tests.postgres_server import PostgresServer, running, why_not
from tests.sink_rig import EVENTS, FACTS, event, rows_in_parquet

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

OLD = [event(1, number, "10:00:00") for number in range(5)]
NEW = [event(2, number, "11:00:00") for number in range(7)]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server for all tests of the module."""
    with running() as server:
        yield server


@pytest.fixture
def rig(server: PostgresServer, tmp_path: Path) -> Iterator[PostgresRig]:
    """Return the rig of an empty schema."""
    with PostgresRig(server, tmp_path) as rig:
        yield rig


def in_thread(call: Callable[[], int]) -> Future[int]:
    """Start a call in a thread of its own."""
    future: Future[int] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except SinkError as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def wait_until_locked(rig: PostgresRig) -> None:
    """Wait until a session waits for a lock."""
    with psycopg.connect(rig.server.dsn, autocommit=True) as con:
        while con.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").fetchone() is None:
            pass


BLOCKED_INSERT = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_advisory_lock_shared(1); RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE INSERT ON t__2026_01 FOR EACH ROW WHEN (NEW."SessionId" = 5) EXECUTE FUNCTION wait();
"""

BLOCKS = {
    "the COPY": (BLOCKED_INSERT, "SELECT pg_advisory_lock(1)"),
    "the receipt": ("", "SELECT * FROM _asyncexport_loads FOR UPDATE"),
}


@pytest.mark.parametrize("where", BLOCKS)
def test_a_server_that_crashes_keeps_the_day_as_it_was(rig, where):
    """Rows and receipt are the old ones, whether the crash comes within the rows or after them; a repeat is exact."""
    before = rig.load({DAY: OLD})
    new = rig.parquet(NEW)
    preparation, block = BLOCKS[where]
    if preparation:
        rig.query(preparation)
    with closing(psycopg.connect(rig.server.dsn)) as blocker:
        blocker.execute(f"SET search_path = {rig.schema}")
        blocker.execute(block)
        loading = in_thread(lambda: rig.sink.replace("t", DAY, new, "new"))
        wait_until_locked(rig)
        rig.server.stop("immediate")
        with pytest.raises(SinkError, match=f"could not replace {DAY} of t in PostgreSQL: the connection was lost"):
            loading.result(timeout=60)
    with pytest.raises(SinkError, match="could not connect to PostgreSQL: there is no such socket"):
        rig.sink.replace("t", DAY, new, "new")
    rig.server.start()
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: "of 2026-01-31, 5"}
    assert rig.sink.replace("t", DAY, new, "new") == 7
    assert rig.rows() == rows_in_parquet({DAY: new}, EVENTS.columns)
    assert (rig.sink.receipts("t"), rig.sink.row_counts("t")) == ({DAY: "new"}, {DAY: 7})


def test_a_load_that_is_killed_leaves_the_day_as_before(rig):
    """The server undoes the transaction of a client that is gone, and lets the next loader in."""
    before = rig.load({DAY: OLD})
    new = rig.parquet(NEW)
    command = [sys.executable, "-m", "tests.sink_driver", "postgres", rig.server.dsn, rig.schema, str(new)]
    with closing(psycopg.connect(rig.server.dsn)) as blocker:
        blocker.execute(f"SET search_path = {rig.schema}")
        blocker.execute(BLOCKS["the receipt"][1])
        with subprocess.Popen(command, cwd=Path(__file__).parent.parent) as other:
            wait_until_locked(rig)
            other.kill()
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: "of 2026-01-31, 5"}
    assert rig.sink.replace("t", DAY, new, "new") == 7
    assert rig.rows() == rows_in_parquet({DAY: new}, EVENTS.columns)


def test_two_loaders_at_once_leave_one_complete_day(rig):
    """Whichever comes last, the rows and the receipt are those of one of them, and never both."""
    files = [rig.parquet(OLD), rig.parquet(NEW)]
    sinks = [rig.another(), rig.another()]

    def load(number: int) -> None:
        for _ in range(8):
            sinks[number].prepare("t", EVENTS.columns)
            sinks[number].replace("t", DAY, files[number], str(number))
            sinks[number].finish("t", FACTS)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(load, range(2)))
    (receipt,) = rig.sink.receipts("t").values()
    assert rig.rows() == rows_in_parquet({DAY: files[int(receipt)]}, EVENTS.columns)
    for sink in sinks:
        sink.close()


def test_a_second_loader_waits_for_the_first(rig):
    """While one replaces a day, another waits, and then sees what it has done, in any default isolation."""
    rig.load({DAY: OLD})
    new = rig.parquet(NEW)
    rig.sink.close()
    rig.sink = rig.another(f"{rig.server.dsn} options='-c default_transaction_isolation=serializable'")
    with psycopg.connect(rig.server.dsn) as blocker:
        blocker.execute(f"SET search_path = {rig.schema}")
        blocker.execute(BLOCKS["the receipt"][1])
        first = in_thread(lambda: rig.sink.replace("t", DAY, new, "new"))
        wait_until_locked(rig)
        other = rig.another(f"{rig.server.dsn} options='-c default_transaction_isolation=serializable'")
        second = in_thread(lambda: other.replace("t", DAY, new, "second"))
        with psycopg.connect(rig.server.dsn, autocommit=True) as con:
            advisory = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while con.execute(advisory).fetchone() is None:
                assert not second.done()
        blocker.rollback()
    assert (first.result(timeout=60), second.result(timeout=60)) == (7, 7)
    other.close()


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("host=/nowhere password=secret", "there is no such socket"),
        ("postgresql://me:secret@127.0.0.1:1/db", "nothing listens there"),
        ("postgresql://me:se@cret@127.0.0.1:1/db", "its host name cannot be found"),
        ("postgresql://me:sec/ret@127.0.0.1:1/db", "its connection string cannot be understood"),
        ("postgresql://me:12/secret@127.0.0.1:1/db", "its host name cannot be found"),
        ("postgresql://me:sec?ret@127.0.0.1:1/db", "nothing listens there"),
        ("postgresql://me:sec%zzret@127.0.0.1:1/db", "its connection string cannot be understood"),
        ("password=secret nonsense", "its connection string cannot be understood"),
        ("service=secret", "the service file does not have its service"),
        ("port=secret host=/nowhere", "its connection string cannot be understood"),
        ("connect_timeout=secret host=/nowhere", "its connection string cannot be understood"),
        ("{server} password=secret dbname=secret", "it answered: database does not exist"),
        ("{server} user=secret", "it answered: role does not exist"),
    ],
)
def test_without_a_connection_the_message_has_no_part_of_the_connection_string(rig, dsn, message):
    """The error says what happened, and neither it nor its cause repeats what may be a password."""
    sink = rig.another(dsn.format(server=rig.server.dsn))
    with pytest.raises(SinkError) as caught:
        sink.receipts("t")
    assert str(caught.value) == f"could not connect to PostgreSQL: {message}"
    assert caught.value.sink == "postgres"
    shown = "".join(map(str, (caught.value, caught.value.hint, caught.value.__cause__, repr(sink), vars(caught.value))))
    assert not any(part in shown for part in ("secret", "cret", "ret@"))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


ANSWERS = {
    'password authentication failed for user "secret"': "password authentication failed for user",
    "authentification par mot de passe échouée pour l'utilisateur « secret »": (
        "authentification par mot de passe échouée pour l'utilisateur"
    ),
    "Passwort-Authentifizierung für Benutzer »secret« fehlgeschlagen": (
        "Passwort-Authentifizierung für Benutzer fehlgeschlagen"
    ),
    "no such database: db-secret": "no such database: …",
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_a_server_answers_is_said_without_the_names_in_it(rig, answer):
    """A server may speak another language, and a pool in front of it writes names without quotes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sink = rig.another(
            f"host=127.0.0.1 port={port} user=secret dbname=db-secret sslmode=disable gssencmode=disable"
        )
        found = in_thread(lambda: len(sink.receipts("t")))
        connection, _ = listening.accept()
        with connection:
            connection.recv(1000)
            fields = f"SFATAL\0C28000\0M{answer}\0\0".encode()
            connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            with pytest.raises(SinkError) as caught:
                found.result(timeout=60)
    assert str(caught.value) == f"could not connect to PostgreSQL: it answered: {ANSWERS[answer]}"
    assert caught.value.hint.startswith("check user, password and database")


def test_a_connection_that_ended_meanwhile_is_made_again(rig):
    """A server or a proxy may end a connection that is idle for long."""
    rig.load({DAY: OLD})
    rig.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'asyncexport'")
    assert rig.sink.replace("t", DAY, rig.parquet(NEW), "new") == 7


def test_a_connection_that_a_firewall_forgets_is_noticed_within_minutes(rig):
    """Unless the connection string says otherwise."""
    for more, idle in (("", "60"), (" keepalives_idle=7 application_name=mine", "7")):
        connection = PostgresConnection(rig.server.dsn + more)
        with connection.transaction("x") as con:
            given = con.info.get_parameters()
            assert given["keepalives_idle"] == idle
            assert given["application_name"] == ("mine" if more else "asyncexport")
        connection.close()


def sink_of_role(rig: PostgresRig, options: str = "") -> PostgresSink:
    """Return the destination of a role that has no rights of its own yet."""
    rig.query(f"DROP ROLE IF EXISTS loader_{rig.schema}; CREATE ROLE loader_{rig.schema} LOGIN")
    return rig.another(rig.server.dsn.replace("user=postgres", f"user=loader_{rig.schema} {options}"))


def test_without_a_right_the_message_says_which_ones_are_needed(rig):
    """The schema cannot be made, and then the table not be changed."""
    sink = sink_of_role(rig)
    with pytest.raises(SinkError, match=r"could not prepare the table t in PostgreSQL: permission denied") as caught:
        sink.prepare("t", EVENTS.columns)
    assert "the role needs CREATE in the schema" in caught.value.hint
    before = rig.load({DAY: OLD})
    rig.query(f"GRANT USAGE ON SCHEMA {rig.schema} TO loader_{rig.schema}")
    with pytest.raises(SinkError, match=r"permission denied for table t \(42501\)"):
        sink.replace("t", DAY, rig.parquet(NEW), "new")
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    sink.close()


def test_a_role_with_rights_on_tables_made_beforehand_needs_no_others(rig):
    """With the tables, views and partitions there, SELECT, INSERT and DELETE are enough."""
    rig.load({DAY: OLD})
    role = f"loader_{rig.schema}"
    sink = sink_of_role(rig)
    rig.query(
        f"GRANT USAGE ON SCHEMA {rig.schema} TO {role}; GRANT SELECT, INSERT, DELETE ON t TO {role}; "
        f"GRANT SELECT, INSERT, UPDATE ON _asyncexport_loads, _asyncexport_tables TO {role}"
    )
    new = rig.parquet(NEW)
    sink.prepare("t", EVENTS.columns)
    assert sink.replace("t", DAY, new, "new") == 7
    sink.finish("t", FACTS)
    assert rig.rows() == rows_in_parquet({DAY: new}, EVENTS.columns)
    sink.close()


TRIGGERS = {
    "a full disk": ("RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100';", r"extend file \(53100\)"),
    "a refused value": ("PERFORM 'secret'::int;", r"invalid input syntax for type integer in row 1 \(22P02\)"),
    "a number that is refused": ("PERFORM '909909909909'::int;", r"value is out of range for type integer in row 1"),
    "an error of its own": ("RAISE EXCEPTION 'secret %', NEW;", r"a trigger raised an error \(P0001\)"),
    "a conflict": ("RAISE EXCEPTION 'retry' USING ERRCODE = '40001';", r"retry \(40001\)"),
    "a constraint": ("RAISE EXCEPTION 'no' USING ERRCODE = '23514';", r"no \(23514\)"),
    "a row left out": ("RETURN NULL;", "of 7 rows it kept 0"),
}


@pytest.mark.parametrize("fault", TRIGGERS)
def test_a_fault_within_the_rows_keeps_the_day_as_it_was(rig, fault):
    """Rows and receipt are the old ones, and no value of the customers' is in the message."""
    before = rig.load({DAY: OLD})
    action, message = TRIGGERS[fault]
    rig.query(
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action} RETURN NEW; END $$; "
        "CREATE TRIGGER fail BEFORE INSERT ON t__2026_01 FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    with pytest.raises(SinkError, match=message) as caught:
        rig.sink.replace("t", DAY, rig.parquet(NEW), "new")
    assert not any(part in str(caught.value) for part in ("secret", "909"))
    assert bool(caught.value.hint) == ("refused" not in fault)
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: "of 2026-01-31, 5"}


KEEPING = {
    "a trigger": (
        (
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
            "CREATE TRIGGER keep BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION keep()"
        ),
        "the rows that it had cannot all be deleted",
    ),
    "a policy": (
        'ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON t USING ("SessionId" > 2)',
        r"query would be affected by row-level security policy for table \"t\" \(42501\)",
    ),
}


@pytest.mark.parametrize("by", KEEPING)
def test_rows_that_something_keeps_from_being_deleted_are_an_error(rig, by):
    """Otherwise the day would have old rows beside the new ones, and a receipt that says nothing of it."""
    before = rig.load({DAY: OLD})
    role = f"loader_{rig.schema}"
    sink = sink_of_role(rig)
    rig.query(f"GRANT ALL ON SCHEMA {rig.schema} TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA {rig.schema} TO {role}")
    statement, message = KEEPING[by]
    rig.query(statement)
    for file in (rig.parquet(NEW), None):
        with pytest.raises(SinkError, match=message) as caught:
            sink.replace("t", DAY, file, "new")
        assert caught.value.hint
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    assert rig.sink.receipts("t") == {DAY: "of 2026-01-31, 5"}
    sink.close()


def test_rows_that_somebody_has_deleted_are_no_error(rig):
    """A day is replaced, however many of its rows are left."""
    rig.load({DAY: OLD})
    rig.query('DELETE FROM t WHERE "SessionId" > 2')
    files = rig.load({DAY: NEW})
    assert rig.rows() == rows_in_parquet(files, EVENTS.columns)


@pytest.mark.parametrize(("option", "code"), [("statement_timeout", "57014"), ("lock_timeout", "55P03")])
def test_a_timeout_keeps_the_day_as_it_was(rig, option, code):
    """A timeout that the role has is an error with a hint."""
    before = rig.load({DAY: OLD})
    sink = rig.another(f"{rig.server.dsn} options='-c {option}=100'")
    with psycopg.connect(rig.server.dsn) as blocker:
        blocker.execute(f"SET search_path = {rig.schema}")
        blocker.execute("LOCK TABLE t")
        with pytest.raises(SinkError, match=rf"\({code}\)") as caught:
            sink.replace("t", DAY, rig.parquet(NEW), "new")
    assert caught.value.hint
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    sink.close()


def test_a_parquet_file_that_cannot_be_read_keeps_the_day_as_it_was(rig):
    """The transaction is rolled back, and the connection can be used again."""
    before = rig.load({DAY: OLD})
    broken = rig.folder / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(SinkError, match=r"could not read .*broken\.parquet"):
        rig.sink.replace("t", DAY, broken, "new")
    with pytest.raises(SinkError, match="could not read"):
        rig.sink.replace("t", DAY, rig.folder / "none.parquet", "new")
    assert rig.rows() == rows_in_parquet(before, EVENTS.columns)
    assert rig.sink.replace("t", DAY, rig.parquet(NEW), "new") == 7


def test_a_refused_value_is_named_by_its_place(rig):
    """The message has the row and the column, but not the value."""
    with pytest.raises(
        SinkError, match=r"invalid input syntax for type json in row 6, column vars \(22P02\)"
    ) as caught:
        rig.load({DAY: [*OLD, event(1, 1, "10:00:00", vars="{secret")]})
    assert "secret" not in str(caught.value)


def test_a_database_of_another_encoding_is_refused(rig):
    """Texts could not be stored there as they are."""
    rig.query("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    sink = rig.another(rig.server.dsn.replace("dbname=postgres", "dbname=ascii"))
    with pytest.raises(SinkError, match="does not have the encoding UTF8"):
        sink.prepare("t", EVENTS.columns)
    sink.close()


def test_what_postgresql_cannot_hold_is_replaced_and_reported(rig):
    """U+0000 becomes U+FFFD, numbers beyond the limits become strings; other values of the row stay as they are."""
    deep = "[" * 6000 + "]" * 6000
    rows = [
        event(1, 1, "10:00:00", PageName="a\0\\\tb", vars='{"evt_a_str":"1.50"}'),
        event(1, 2, "10:00:00", vars='{"a\\u0000":"\\ud800x","b":1e999999,"c":1.50,"d":12345678901234567890123}'),
        event(1, 3, "10:00:00", vars=deep, PageName="\\.", UserCreated="0000-01-01T00:00:00Z"),
        event(1, 4, "10:00:00", vars='{"a":"NaN \\\\u0000"}'),
    ]
    rig.load({DAY: [*rows, *OLD]})
    found = rig.query(
        'SELECT "PageName", vars::text, "UserCreated"::text FROM t WHERE "SessionId" BETWEEN 1 AND 4 '
        'AND vars IS NOT NULL ORDER BY "SessionId"'
    )
    assert found == [
        ("a\ufffd\\\tb", '{"evt_a_str": "1.50"}', None),
        (None, '{"b": "1e999999", "c": 1.50, "d": 12345678901234567890123, "a\ufffd": "\ufffdx"}', None),
        ("\\.", json.dumps(deep), "0001-01-01 00:00:00+00 BC"),
        (None, '{"a": "NaN \\\\u0000"}', None),
    ]
    (note,) = rig.notes
    assert note.startswith(f"postgres: 3 rows of t, {DAY}, have characters or numbers that PostgreSQL cannot hold")


TEXTS = st.text(st.sampled_from("a0é🎈\0\x01\t\n\r\\\"'.N{}[]:,eE+-1d8uD") | st.characters(exclude_categories=["Cs"]))
NUMBERS_AS_WRITTEN = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?", fullmatch=True)
SCALARS = NUMBERS_AS_WRITTEN | TEXTS.map(json.dumps) | TEXTS.map(lambda text: json.dumps(text, ensure_ascii=False))
SURROGATES = st.sampled_from(['"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\\\ud800"', "NaN", "-Infinity"])
JSON = st.lists(SCALARS | SURROGATES).map(lambda parts: f"[{','.join(parts)}]")


VALUES = st.lists(st.tuples(st.none() | TEXTS, st.none() | JSON), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(VALUES)
def test_every_text_and_every_json_is_accepted(rig, values):
    """Texts arrive as they are but for U+0000, no JSON is refused, and DuckDB and Python make the same lines."""
    rows = [event(1, number, "10:00:00", PageName=text, vars=vars_) for number, (text, vars_) in enumerate(values)]
    (file,) = rig.load({DAY: rows}).values()
    found = rig.query('SELECT "PageName", vars IS NULL FROM t ORDER BY "SessionId"')
    wanted = [(text and text.replace("\0", "\ufffd"), vars_ is None) for text, vars_ in values]
    assert found == wanted
    with duckdb.connect() as duck:
        columns = {"PageName": "VARCHAR", "vars": "VARCHAR"}
        lines = duck.execute(copy_statement(columns, frozenset({"vars"}), day=DAY, file=str(file))).fetchall()
    for (line, odd), (text, vars_) in zip(lines, values, strict=True):
        assert (line is None) != (odd is None)
        made, changed = copy_line((text, vars_, DAY), (False, True, False))
        assert line is None or (line, False) == (made, changed)
        assert odd is None or odd == [text, vars_, DAY]
