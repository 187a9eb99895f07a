"""The destination PostgreSQL, against a real server."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import DATE, ColumnKind, Layout
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.errors import SinkError
from tests.postgres_rig import DAY, PostgresRig
from tests.postgres_server import PostgresServer, running, why_not
from tests.sink_rig import EVENTS, FACTS, PEOPLE, event, rows_in_parquet

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

ODD_TEXTS = [
    "",
    "\\N",
    "\\.",
    "\n\\.\n",
    "\t",
    "\r\n",
    "\\t",
    "'\"",
    "é🎈",
    "NULL",
    "\\\\",
    "a\x01\x7f",
    "\ufeff",
    "%s",
]

ROWS = [
    event(2**62, 7, "10:00:00", PageId=-(2**63), vars='{"a":12345678901234567890123456789.50}', evt_price_real=0.1),
    event(2**62, 7, "10:00:01", UserEmail="a@b", UserAppKey="k", evt_price_real=-5e-324, _rescued='{"x":"1.6"}'),
    event(2**62, 8, "11:00:00", PageId=3, UserEmail="", evt_price_real=1.7976931348623157e308, evt_tags_strs='["a"]'),
    event(1, 9, "12:00:00.123456", user_vip_bool=True, UserCreated="0000-01-01T00:00:00Z"),
    event(1, 9, "9999-12-31T23:59:59.999999Z", user_vip_bool=False, UserCreated="0001-01-01T00:00:00Z"),
    event(3, 0, "12:00:00"),
    event(3, 0, "12:00:00"),
    *(event(4, number, "12:00:00", PageName=text, UserEmail=text[::-1]) for number, text in enumerate(ODD_TEXTS)),
    {"EventType": "odd"},
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server for all tests of the module."""
    with running() as server:
        yield server


@pytest.fixture
def rig(server: PostgresServer, tmp_path: Path) -> Iterator[PostgresRig]:
    """Return an empty schema's rig."""
    with PostgresRig(server, tmp_path) as rig:
        yield rig


def test_a_table_holds_exactly_the_rows_of_the_parquet_files(rig):
    """Every value arrives, in a table that is partitioned by month, with comments; a second load changes nothing."""
    days = {DAY: ROWS, "2026-02-01": ROWS[:3], "2026-12-31": ROWS[:2]}
    for _ in range(2):
        files = rig.load(days)
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
        assert rig.sink.row_counts("t") == {day: len(rows) for day, rows in days.items()}
        assert rig.sink.receipts("t") == {day: f"of {day}, {len(rows)}" for day, rows in days.items()}
    parts = rig.query("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 't'::regclass ORDER BY 1")
    assert parts == [("t__2026_01",), ("t__2026_02",), ("t__2026_12",)]
    columns = "SELECT attname, format_type(atttypid, NULL), col_description(attrelid, attnum) FROM pg_attribute"
    found = rig.query(f"{columns} WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum")
    assert found == [(one.name, TYPES[one.kind], one.says) for one in (*EVENTS.columns, DATE)]
    assert rig.notes == []


TYPES = {
    ColumnKind.INTEGER: "bigint",
    ColumnKind.TIME: "timestamp with time zone",
    ColumnKind.REAL: "double precision",
    ColumnKind.SWITCH: "boolean",
    ColumnKind.TEXT: "text",
    ColumnKind.JSON: "jsonb",
    ColumnKind.DAY: "date",
}


def test_a_day_that_is_replaced_or_emptied_loses_its_old_rows(rig):
    """Other days stay as they are; an empty day keeps its receipt, so that it is not loaded again."""
    rig.load({DAY: ROWS, "2026-01-30": ROWS})
    files = rig.load({DAY: ROWS[:2], "2026-01-30": []})
    assert rig.rows() == rows_in_parquet({DAY: files[DAY]}, EVENTS.columns)
    assert rig.sink.row_counts("t") == {DAY: 2, "2026-01-30": 0}
    assert rig.query("SELECT first_day, last_day, days, rows FROM t__coverage") == [
        (date(2026, 1, 31), date(2026, 1, 31), 1, 2)
    ]


def test_the_views_tell_sessions_pages_and_users(rig):
    """The views of the same text as in DuckDB give the same answers."""
    rig.load({DAY: ROWS})
    big, link = 2**62, "https://app.fullstory.com/ui/o-1-na1/session"
    columns = '"UserId", "SessionId", events, page_views, "UserAppKey", "UserEmail", replay'
    assert rig.query(f'SELECT {columns} FROM t__sessions WHERE "UserId" > 4 OR "UserId" < 4 ORDER BY 2') == [
        (big, 7, 2, 1, "k", "a@b", f"{link}/{big}:7"),
        (big, 8, 1, 1, None, None, f"{link}/{big}:8"),
        (1, 9, 2, 0, None, None, f"{link}/1:9"),
    ]
    assert rig.query('SELECT "PageId", events FROM t__pages ORDER BY 1') == [(-(2**63), 1), (3, 1)]
    users = 'SELECT "UserId", "UserAppKey", events, sessions FROM t__users WHERE "UserId" <> 4 ORDER BY 1'
    assert rig.query(users) == [(1, None, 2, 1), (3, None, 2, 0), (big, "k", 3, 2)]
    assert rig.query("SELECT complete_until, days, rows FROM t__coverage") == [
        (datetime(2026, 1, 3, tzinfo=UTC), 1, len(ROWS))
    ]
    rig.sink.finish("t", TableFacts(Type.EVENT))
    assert rig.query("SELECT DISTINCT replay FROM t__sessions") == [(None,)]


def test_individuals_have_users_and_coverage(rig):
    """Of several exports of an individual, the view has the latest."""
    old = {"IndvId": 1, "Email": "old", "_exported_at": "2026-01-01T00:00:00Z", "UserVars": '{"a":1}'}
    rig.load({DAY: [{**old, "Email": "new", "_exported_at": "2026-01-02T00:00:00Z"}, old]}, PEOPLE)
    assert rig.query('SELECT "IndvId", "Email" FROM t__users') == [(1, "new")]
    assert rig.query("SELECT days, rows FROM t__coverage") == [(1, 2)]


def test_a_view_that_is_missing_or_different_is_made_again(rig):
    """A dropped view comes back, and one with other columns is replaced, as after an update of asyncexport."""
    rig.load({DAY: ROWS})
    rig.query("DROP VIEW t__pages")
    rig.sink.finish("t", FACTS)
    assert rig.query("SELECT count(*) FROM t__pages") == [(2,)]
    rig.query(
        "DROP VIEW t__users; CREATE VIEW t__users AS SELECT 1 AS other; UPDATE _asyncexport_tables SET views = ''"
    )
    rig.sink.finish("t", FACTS)
    assert rig.query('SELECT count("UserAppKey") FROM t__users') == [(1,)]


ODD_SETTINGS = {
    "DateStyle": "German, DMY",
    "TimeZone": "America/New_York",
    "IntervalStyle": "sql_standard",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "extra_float_digits": "-15",
    "quote_all_identifiers": "on",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
}


def test_settings_of_the_role_change_nothing(rig):
    """Rows, partitions, receipts and counts are exact, whatever the role has as its defaults."""
    role = f"odd_{rig.schema}"
    rig.query(f"CREATE ROLE {role} LOGIN SUPERUSER")
    for name, value in ODD_SETTINGS.items():
        rig.query(f"ALTER ROLE {role} SET {name} = '{value}'")
    rig.sink = rig.another(rig.server.dsn.replace("user=postgres", f"user={role}"))
    days = {DAY: ROWS, "2026-02-01": ROWS[:3]}
    for _ in range(2):
        files = rig.load(days)
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
        assert rig.sink.row_counts("t") == {day: len(rows) for day, rows in days.items()}
        assert rig.sink.receipts("t") == {day: f"of {day}, {len(rows)}" for day, rows in days.items()}
    rig.query(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_a_column_that_was_added_is_null_in_earlier_days(rig):
    """Days that were loaded with fewer columns stay."""
    rig.load({DAY: ROWS}, Layout(Type.EVENT))
    rig.load({"2026-02-01": ROWS})
    found = rig.query("SELECT count(*), count(evt_price_real) FROM t GROUP BY date ORDER BY date")
    assert found == [(len(ROWS), 0), (len(ROWS), 3)]


MADE_BEFOREHAND = {
    "not partitioned": 'CREATE TABLE t ("date" date)',
    "with columns of its own": (
        'CREATE TABLE t (note text DEFAULT \'mine\', "UserId" numeric, "PageName" varchar, vars json, '
        '_rescued text, "date" date NOT NULL)'
    ),
    "partitioned by day": (
        'CREATE TABLE t ("date" date) PARTITION BY RANGE ("date"); '
        f"CREATE TABLE t_day PARTITION OF t FOR VALUES FROM ('{DAY}') TO ('2026-02-01')"
    ),
    "with a default partition": (
        'CREATE TABLE t ("date" date) PARTITION BY RANGE ("date"); CREATE TABLE t_rest PARTITION OF t DEFAULT'
    ),
    "with a default partition and a month": (
        'CREATE TABLE t ("date" date) PARTITION BY RANGE ("date"); CREATE TABLE t_rest PARTITION OF t DEFAULT; '
        "CREATE TABLE t_month PARTITION OF t FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')"
    ),
    "partitioned by user": (
        'CREATE TABLE t ("UserId" bigint, "date" date) PARTITION BY HASH ("UserId"); '
        "CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    ),
}


@pytest.mark.parametrize("made", MADE_BEFOREHAND)
def test_a_table_made_beforehand_is_accepted(rig, made):
    """However it is partitioned, it gets the columns that it lacks, and the rows."""
    rig.query(f"CREATE SCHEMA {rig.schema}")
    rig.query(MADE_BEFOREHAND[made])
    before = rig.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 't'::regclass")
    for _ in range(2):
        files = rig.load({DAY: ROWS})
        assert rig.rows() == rows_in_parquet(files, EVENTS.columns)
    assert rig.query("SELECT count(*) FROM pg_inherits WHERE inhparent = 't'::regclass") == before


def test_a_column_made_as_json_or_text_keeps_the_text_as_written(rig):
    """Only jsonb changes the spelling, and cannot hold everything."""
    rig.query(f"CREATE SCHEMA {rig.schema}")
    rig.query('CREATE TABLE t (vars json, _rescued text, "date" date)')
    text = '{"b" : 1e5, "a": -0, "b": "\\u0000\\ud800", "c": 1e999999}'
    rig.load({DAY: [event(1, 1, "10:00:00", vars=text, _rescued=text)]})
    assert rig.query("SELECT vars::text, _rescued FROM t") == [(text, text)]
    assert rig.notes == []


def test_a_new_month_does_not_wait_for_queries(rig):
    """While a transaction that has read the table is open, days of it are replaced and a partition is added."""
    rig.load({DAY: ROWS})
    files = [rig.parquet(ROWS), rig.parquet(ROWS)]
    sink = rig.another(f"{rig.server.dsn} options='-c lock_timeout=10000'")
    with psycopg.connect(rig.server.dsn) as reader:
        reader.execute(f"SET search_path = {rig.schema}")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (len(ROWS),)
        for day, file in zip((DAY, "2026-02-01"), files, strict=True):
            assert sink.replace("t", day, file, "new") == len(ROWS)
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (2 * len(ROWS),)
    sink.close()


def test_a_column_of_another_type_is_refused(rig):
    """The message names the column and both types; nothing is changed."""
    rig.query(f"CREATE SCHEMA {rig.schema}")
    rig.query('CREATE TABLE t ("PageId" integer, "date" date)')
    with pytest.raises(SinkError, match="its column PageId is integer, not bigint") as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert caught.value.sink == "postgres"
    assert rig.query("SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0") == [(2,)]


def test_names_may_be_long_and_contain_anything(rig):
    """Quotes, percent signs and more than 63 bytes: long names are shortened, and names that differ stay apart."""
    rig.schema = 'a "b" 100%s'
    rig.sink = rig.another()
    layout = Layout(Type.EVENT, ("evt_" + "x" * 70 + "_int", "evt_" + "x" * 70 + "_str"))
    one, other = layout.custom
    for table in ("é" * 60, "é" * 61):
        rig.load({DAY: [event(1, 1, "10:00:00", **{one: 5, other: "text"})]}, layout, table)
        assert rig.sink.row_counts(table) == {DAY: 1}
    made = """relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'a "b" 100%s') AND relname LIKE 'éé%'"""
    with psycopg.connect(rig.server.dsn) as con:
        relations = con.execute(f"SELECT count(*) FROM pg_class WHERE {made} AND relkind IN ('p', 'r', 'v')")
        assert relations.fetchall() == [(2 * (1 + 1 + 4),)]  # of each table: itself, a month, the views
        con.execute('DROP SCHEMA "a ""b"" 100%s" CASCADE')


def test_rows_and_receipts_of_days_that_cannot_be_are_ignored(rig):
    """Somebody may have put them there: they are neither days nor errors."""
    rig.load({DAY: ROWS})
    odd = ("infinity", "-infinity", "4000-01-01 BC", "20000-01-01")
    rig.query("CREATE TABLE t_rest PARTITION OF t DEFAULT")
    rig.query(f"INSERT INTO t (date) SELECT unnest('{{{', '.join(odd)}, NULL}}'::date[])")
    rig.query(f"INSERT INTO _asyncexport_loads SELECT 't', unnest('{{{', '.join(odd)}}}'::date[]), 'x', 1, now()")
    assert rig.sink.receipts("t") == {DAY: f"of {DAY}, {len(ROWS)}"}
    assert rig.sink.row_counts("t") == {DAY: len(ROWS)}


def test_a_record_with_other_columns_is_used_unless_one_is_missing(rig):
    """Its columns may be in any order, with further ones; if one is missing, the message says which."""
    rig.query(f"CREATE SCHEMA {rig.schema}")
    rig.query(
        "CREATE TABLE _asyncexport_loads (receipt text, more int, rows bigint, table_name text, day date, "
        "loaded_at timestamptz, PRIMARY KEY (day, table_name))"
    )
    for rows in (ROWS, ROWS[:2]):
        rig.load({DAY: rows})
        assert rig.sink.receipts("t") == {DAY: f"of {DAY}, {len(rows)}"}
    rig.query("ALTER TABLE _asyncexport_loads DROP COLUMN rows CASCADE")
    with pytest.raises(SinkError, match="the table _asyncexport_loads lacks the column rows") as caught:
        rig.sink.prepare("t", EVENTS.columns)
    assert "rename the table _asyncexport_loads" in caught.value.hint


def test_a_dropped_table_is_loaded_again(rig):
    """Its receipts go with it."""
    rig.load({DAY: ROWS})
    rig.query("DROP TABLE t CASCADE")
    assert rig.sink.receipts("t") == {}
    rig.sink.prepare("t", EVENTS.columns)
    assert rig.sink.receipts("t") == {}
