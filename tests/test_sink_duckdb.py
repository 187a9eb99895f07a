"""The destination DuckDB: views over Parquet, and tables with copies."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

from asyncexport.core.access import Access
from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import DATE, ColumnKind, Layout
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.duckdb import DuckDbTables, DuckDbViews
from asyncexport.warehouse.sinks.duckdb_file import DuckDbFile
from tests.sink_rig import EVENTS, PEOPLE, Row, comparable, day_path, event, readable, rows_in_parquet, write_parquet

ROOT = Path(__file__).parent.parent

MIDNIGHT = datetime(2026, 1, 3, tzinfo=UTC)
FACTS = TableFacts(Type.EVENT, "o-1-na1", MIDNIGHT.timestamp())

ROWS = [
    event(2**62, 7, "10:00:00", PageId=1, vars='{"a":12345678901234567890123456789.50}', evt_price_real=0.1),
    event(2**62, 7, "10:00:01", PageId=2, UserEmail="a@b", UserAppKey="k", PageUrl="https://a/é", _rescued='{"x":"1"}'),
    event(2**62, 8, "11:00:00", PageId=3, UserEmail="", UserAppKey="k2", IndvId=5),
    event(1, 9, "12:00:00", EventTargetText='"\n\\\0,', user_vip_bool=True, UserCreated="0000-01-01T00:00:00Z"),
    event(3, 0, "12:00:00"),
    event(3, 0, "12:00:00"),
    {"EventType": "odd"},
]


class Receipts(DuckDbTables):
    """A destination that is only asked for receipts."""

    def receipts(self, table: str) -> Mapping[str, str]:
        """Return one receipt."""
        return {"2026-01-01": table}

    def row_counts(self, table: str) -> Mapping[str, int]:
        """Return one count."""
        return {"2026-01-01": len(table)}


def file_in(folder: Path, *, access: Access = Access.PRIVATE) -> DuckDbFile:
    """Return the DuckDB file of a folder."""
    return DuckDbFile(folder / "main.duckdb", scratch=folder / ".spill", memory=1 << 28, access=access)


def views_in(folder: Path) -> DuckDbViews:
    """Return the destination with views."""
    return DuckDbViews(file_in(folder), directory=folder, parquet=Receipts(file_in(folder)))


def tables_in(folder: Path) -> DuckDbTables:
    """Return the destination with tables."""
    return DuckDbTables(file_in(folder))


def load(sink: DuckDbViews | DuckDbTables, folder: Path, days: Mapping[str, Sequence[Row]], layout=EVENTS) -> None:
    """Publish days in Parquet and replace them in the destination."""
    sink.prepare("t", layout.columns)
    for day, rows in days.items():
        path = day_path(folder, "t", day)
        if rows:
            write_parquet(path, layout, rows)
        else:
            path.unlink(missing_ok=True)
        assert sink.replace("t", day, path if rows else None, f"of {day}, {len(rows)}") == len(rows)
    sink.finish("t", FACTS if layout.type is Type.EVENT else TableFacts(Type.INDIVIDUAL))


def query(folder: Path, text: str):
    """Run a query as a user would, from another directory and with another time zone."""
    with duckdb.connect(folder / "main.duckdb", read_only=True) as con:
        con.execute("SET TimeZone='UTC'")
        return con.execute(text).fetchall()


def table_rows(folder: Path):
    """Return the multiset of the table's rows."""
    names = ", ".join(map(readable, EVENTS.columns))
    found = query(folder, f"SELECT {names}, CAST(date AS VARCHAR) FROM t")
    return sorted(((*comparable(row[:-1], EVENTS.columns), row[-1]) for row in found), key=repr)


BOTH = pytest.mark.parametrize("make", [views_in, tables_in])


@BOTH
def test_a_table_holds_exactly_the_rows_of_the_parquet_files(make, tmp_path, monkeypatch):
    """Both kinds have the rows of all days, in columns of the right types, wherever the file is opened."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w").mkdir()
    folder = Path("w")
    sink = make(folder)
    days: dict[str, Sequence[Row]] = {"2026-01-01": ROWS, "2026-01-02": ROWS[:3]}
    load(sink, folder, days)
    monkeypatch.chdir("/")
    folder = tmp_path / "w"
    wanted = rows_in_parquet({day: day_path(folder, "t", day) for day in days}, EVENTS.columns)
    assert table_rows(folder) == sorted(wanted.elements(), key=repr)
    types = {name: type_ for name, type_, *_ in query(folder, "DESCRIBE t")}
    assert types == {column.name: column.kind.value for column in (*EVENTS.columns, DATE)}
    described = query(folder, "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 't'")
    assert dict(described) == {column.name: column.says for column in (*EVENTS.columns, DATE)}


@BOTH
def test_a_day_that_is_replaced_or_emptied_loses_its_old_rows(make, tmp_path):
    """After each replacement the table holds the new rows only; without any rows it is empty but has its columns."""
    sink = make(tmp_path)
    load(sink, tmp_path, {"2026-01-01": [], "2026-01-02": []})
    assert query(tmp_path, "SELECT count(*), count(UserId) FROM t") == [(0, 0)]
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS, "2026-01-02": ROWS})
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS[:2]})
    load(make(tmp_path), tmp_path, {"2026-01-02": []})
    assert query(tmp_path, "SELECT date, count(*) FROM t GROUP BY date") == [(date(2026, 1, 1), 2)]
    assert query(tmp_path, "SELECT first_day, last_day, days, rows FROM t__coverage") == [
        (date(2026, 1, 1), date(2026, 1, 1), 1, 2)
    ]
    load(make(tmp_path), tmp_path, {"2026-01-01": []})
    assert query(tmp_path, "SELECT * FROM t__sessions") == []
    assert query(tmp_path, "SELECT first_day, days, rows FROM t__coverage") == [(None, 0, 0)]


@BOTH
def test_a_column_that_was_added_is_null_in_earlier_days(make, tmp_path):
    """Days that were loaded with fewer columns stay, and have NULL in the new ones."""
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS}, Layout(Type.EVENT))
    sink = make(tmp_path)
    sink.prepare("t", EVENTS.columns)
    assert query(tmp_path, "SELECT count(*), count(evt_price_real) FROM t") == [(7, 0)]
    load(sink, tmp_path, {"2026-01-02": ROWS})
    assert query(tmp_path, "SELECT date, count(*), count(evt_price_real) FROM t GROUP BY date ORDER BY date") == [
        (date(2026, 1, 1), 7, 0),
        (date(2026, 1, 2), 7, 1),
    ]


@BOTH
def test_the_views_tell_sessions_pages_and_users(make, tmp_path):
    """Sessions, pages and users have their latest identity, and a session the link to its replay."""
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS})
    big = 2**62
    columns = '"UserId", "SessionId", events, page_views, "UserAppKey", "UserEmail", replay'
    assert query(tmp_path, f"SELECT {columns} FROM t__sessions ORDER BY 2") == [
        (big, 7, 2, 2, "k", "a@b", f"https://app.fullstory.com/ui/o-1-na1/session/{big}:7"),
        (big, 8, 1, 1, "k2", None, f"https://app.fullstory.com/ui/o-1-na1/session/{big}:8"),
        (1, 9, 1, 0, None, None, "https://app.fullstory.com/ui/o-1-na1/session/1:9"),
    ]
    assert query(tmp_path, 'SELECT "PageId", events, "PageUrl" FROM t__pages ORDER BY 1') == [
        (1, 1, None),
        (2, 1, "https://a/é"),
        (3, 1, None),
    ]
    assert query(
        tmp_path, 'SELECT "UserId", "IndvId", "UserAppKey", "UserEmail", events, sessions FROM t__users ORDER BY 1'
    ) == [(1, None, None, None, 1, 1), (3, None, None, None, 2, 0), (big, 5, "k2", "a@b", 3, 2)]
    assert query(tmp_path, "SELECT complete_until, days, rows FROM t__coverage") == [(MIDNIGHT, 1, 7)]


@BOTH
def test_what_was_dropped_is_made_again(make, tmp_path):
    """A view that a user dropped comes back, and so does the table, without receipts of rows that it does not have."""
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS})
    with duckdb.connect(tmp_path / "main.duckdb") as con:
        con.execute(f"DROP VIEW t__pages; DROP {'VIEW' if make is views_in else 'TABLE'} t")
    sink = make(tmp_path)
    sink.prepare("t", EVENTS.columns)
    sink.finish("t", FACTS)
    there = 7 if make is views_in else 0
    assert query(tmp_path, "SELECT count(*) FROM t") == [(there,)]
    assert query(tmp_path, "SELECT count(*) FROM t__pages") == [(min(there, 3),)]
    assert len(sink.receipts("t")) == min(there, 1)


def test_without_a_known_organisation_there_is_no_link(tmp_path):
    """The link is NULL, and appears as soon as the organisation is known."""
    sink = tables_in(tmp_path)
    load(sink, tmp_path, {"2026-01-01": ROWS})
    sink.finish("t", TableFacts(Type.EVENT))
    assert query(tmp_path, "SELECT DISTINCT replay FROM t__sessions") == [(None,)]
    assert query(tmp_path, "SELECT complete_until FROM t__coverage") == [(None,)]
    sink.finish("t", FACTS)
    assert query(tmp_path, "SELECT count(DISTINCT replay) FROM t__sessions") == [(3,)]


@BOTH
def test_individuals_have_users_and_coverage(make, tmp_path):
    """Of several exports of an individual, the view has the latest."""
    old = {"IndvId": 1, "Email": "old", "_exported_at": "2026-01-01T00:00:00Z", "NumPages": 1}
    new = {**old, "Email": "new", "_exported_at": "2026-01-02T00:00:00Z", "NumPages": 3}
    load(make(tmp_path), tmp_path, {"2026-01-01": [new, old], "2026-01-02": [old]}, PEOPLE)
    assert query(tmp_path, 'SELECT "IndvId", "Email", "NumPages" FROM t__users') == [(1, "new", 3)]
    assert query(tmp_path, "SELECT days, rows FROM t__coverage") == [(2, 3)]
    made = {name for (name,) in query(tmp_path, "SELECT view_name FROM duckdb_views() WHERE NOT internal")}
    assert made - {"t"} == {"t__users", "t__coverage"}


@BOTH
def test_the_setting_can_be_changed(make, tmp_path):
    """A table becomes a view and the reverse, with the same rows."""
    other = tables_in if make is views_in else views_in
    load(other(tmp_path), tmp_path, {"2026-01-01": ROWS})
    before = table_rows(tmp_path)
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS})
    assert table_rows(tmp_path) == before
    assert query(tmp_path, "SELECT days, rows FROM t__coverage") == [(1, 7)]
    assert query(tmp_path, "SELECT count(*) FROM t__sessions") == [(3,)]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (views_in, "TABLE t (a INT)"),
        (views_in, "VIEW t AS SELECT 1 AS a"),
        (tables_in, "VIEW t AS SELECT 1 AS a"),
        (views_in, "TABLE t__users (a INT)"),
        (tables_in, "VIEW t__users AS SELECT 1 AS a"),
    ],
)
def test_what_somebody_else_made_is_not_dropped(make, kind, tmp_path):
    """A table or view that is not ours and has the name of ours is an error, and stays."""
    what, name, *_ = kind.split()
    with duckdb.connect(tmp_path / "main.duckdb") as con:
        con.execute(f"CREATE {kind}")
    with pytest.raises(
        SinkError, match=f"could not make {name} in .*: the {what.lower()} of that name was not made by"
    ):
        load(make(tmp_path), tmp_path, {})
    assert [name for name, *_ in query(tmp_path, f"DESCRIBE {name}")] == ["a"]


def test_a_table_made_beforehand_is_accepted(tmp_path):
    """A table with columns of its own and other names' case gets what it lacks; a column of another type is refused."""
    with duckdb.connect(tmp_path / "main.duckdb") as con:
        con.execute("CREATE TABLE T (note VARCHAR DEFAULT 'mine', userid BIGINT, \"date\" DATE)")
    load(tables_in(tmp_path), tmp_path, {"2026-01-01": ROWS})
    assert query(tmp_path, "SELECT DISTINCT note, count(userid) FROM t GROUP BY note") == [("mine", 6)]
    with duckdb.connect(tmp_path / "main.duckdb") as con:
        con.execute("ALTER TABLE t ALTER COLUMN PageId TYPE VARCHAR")
    with pytest.raises(SinkError, match="its column PageId is VARCHAR, not BIGINT"):
        tables_in(tmp_path).prepare("t", EVENTS.columns)


OPEN = "import duckdb, sys; con = duckdb.connect(sys.argv[1], read_only={}); print(1, flush=True); sys.stdin.read()"


@BOTH
def test_a_file_that_another_process_has_open_is_an_error(make, tmp_path):
    """The error says so, with the process; a reader does not stand in the way of a load that has nothing to change."""
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS})
    for read_only in (False, True):
        command = [sys.executable, "-c", OPEN.format(read_only), str(tmp_path / "main.duckdb")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout
            assert other.stdout.readline() == b"1\n"
            sink = make(tmp_path)
            if read_only:
                sink.reach()
                sink.prepare("t", EVENTS.columns)
                sink.finish("t", FACTS)
            else:
                with pytest.raises(SinkError, match="another process has it open"):
                    sink.reach()
            with pytest.raises(SinkError, match=rf"another process has it open \(PID {other.pid}\)") as caught:
                sink.prepare("t", Layout(Type.EVENT, ("evt_new_str",)).columns)
            assert caught.value.sink == "duckdb"
            other.communicate()
    load(make(tmp_path), tmp_path, {"2026-01-01": ROWS[:1]})


def test_a_replacement_that_fails_leaves_the_day_as_before(tmp_path):
    """Rows and receipt are as before if the Parquet file cannot be read."""
    sink = tables_in(tmp_path)
    load(sink, tmp_path, {"2026-01-01": ROWS})
    before = (table_rows(tmp_path), sink.receipts("t"), sink.row_counts("t"))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1")
    with pytest.raises(SinkError, match="could not write"):
        sink.replace("t", "2026-01-01", broken, "other")
    assert (table_rows(tmp_path), sink.receipts("t"), sink.row_counts("t")) == before
    assert before[1:] == ({"2026-01-01": "of 2026-01-01, 7"}, {"2026-01-01": 7})


def test_a_load_that_is_killed_leaves_the_day_as_before(tmp_path):
    """The transaction that was open is undone when the file is opened next, and a repeat is exact."""
    day = "2026-01-31"
    sink = tables_in(tmp_path)
    load(sink, tmp_path, {day: ROWS, "2026-01-30": ROWS[:2]})
    before = (table_rows(tmp_path), sink.receipts("t"), sink.row_counts("t"))
    new = write_parquet(tmp_path / "new.parquet", EVENTS, ROWS[:3])
    command = [sys.executable, "-m", "tests.sink_driver", "duckdb", str(tmp_path / "main.duckdb"), str(new)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout
        assert other.stdout.readline() == b"replaced\n"
        other.kill()
    assert (table_rows(tmp_path), sink.receipts("t"), sink.row_counts("t")) == before
    assert sink.replace("t", day, new, "new") == 3
    assert sink.row_counts("t") == {day: 3, "2026-01-30": 2}


def test_a_day_without_rows_keeps_its_receipt(tmp_path):
    """The receipt of an empty day is recorded, so that it is not loaded again."""
    sink = tables_in(tmp_path)
    assert (sink.receipts("t"), sink.row_counts("t")) == ({}, {})
    load(sink, tmp_path, {"2026-01-01": ROWS, "2026-01-02": []})
    assert sink.row_counts("t") == {"2026-01-01": 7, "2026-01-02": 0}
    assert set(sink.receipts("t")) == {"2026-01-01", "2026-01-02"}
    assert views_in(tmp_path).receipts("t") == {"2026-01-01": "t"}


def test_the_file_does_not_grow_with_replacements(tmp_path):
    """Replacing a day again and again uses the space of the rows that went."""
    path = tmp_path / "many.parquet"
    with duckdb.connect() as con:
        rows = "SELECT i AS UserId, repeat(md5(CAST(i AS VARCHAR)), 4) AS PageUrl FROM range(5000) AS r(i)"
        con.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
    sink = tables_in(tmp_path)
    sink.prepare("t", EVENTS.columns)
    sizes = []
    for number in range(8):
        assert sink.replace("t", "2026-01-01", path, str(number)) == 5000
        sizes.append((tmp_path / "main.duckdb").stat().st_size)
    assert max(sizes[2:]) <= sizes[1] * 1.2
    assert not (tmp_path / "main.duckdb.wal").exists()


def test_a_file_that_cannot_be_used_is_an_error_with_the_next_step(tmp_path):
    """Whatever is wrong with the file, the message says what to do, after which a load makes a new one."""
    load(views_in(tmp_path), tmp_path, {"2026-01-01": ROWS})
    file = tmp_path / "main.duckdb"
    whole = file.read_bytes()
    bad_block = bytearray(whole)
    bad_block[12_288 + 100] ^= 1
    for content in (b"", b"no database" * 1000, whole[:5000], bad_block, None):
        file.unlink()
        file.mkdir() if content is None else file.write_bytes(content)
        with pytest.raises(SinkError, match=r"could not read .*main\.duckdb: ") as caught:
            views_in(tmp_path).prepare("t", EVENTS.columns)
        assert caught.value.hint.startswith(f"move the {'folder' if content is None else 'file'} away")
    file.rename(tmp_path / "away")
    load(views_in(tmp_path), tmp_path, {"2026-01-01": ROWS})
    assert query(tmp_path, "SELECT count(*) FROM t") == [(7,)]


def test_a_log_without_its_file_does_not_stand_in_the_way(tmp_path):
    """If the file was deleted and not the log beside it, the log is kept under another name."""
    file, log = tmp_path / "main.duckdb", tmp_path / "main.duckdb.wal"
    with duckdb.connect(file) as con:
        con.execute("PRAGMA disable_checkpoint_on_shutdown; CREATE TABLE mine (a INT)")
    kept = log.read_bytes()
    file.unlink()
    load(tables_in(tmp_path), tmp_path, {"2026-01-01": ROWS})
    assert query(tmp_path, "SELECT count(*) FROM t") == [(7,)]
    assert (tmp_path / "main.duckdb.wal.old").read_bytes() == kept


@pytest.mark.parametrize("folder", ["a [b]*?", "it's", "UserId=7"])
def test_a_folder_may_have_any_name(folder, tmp_path):
    """Characters that DuckDB takes for a pattern or for a partition do not matter."""
    sink = DuckDbViews(file_in(tmp_path), directory=tmp_path / folder, parquet=tables_in(tmp_path))
    load(sink, tmp_path / folder, {"2026-01-01": ROWS, "2026-01-02": ROWS[:1]})
    found = query(tmp_path, 'SELECT date, max("UserId") FROM t GROUP BY date ORDER BY date')
    assert found == [(date(2026, 1, 1), 2**62), (date(2026, 1, 2), 2**62)]


def test_a_query_for_a_day_opens_only_its_file(tmp_path):
    """DuckDB leaves out the files of other days."""
    load(views_in(tmp_path), tmp_path, {f"2026-01-0{day}": ROWS for day in range(1, 6)})
    ((_, plan),) = query(tmp_path, "EXPLAIN ANALYZE SELECT sum(UserId::HUGEINT) FROM t WHERE date = '2026-01-03'")
    assert "Total Files Read: 1 " in plan


@pytest.mark.parametrize(("access", "mode"), [(Access.PRIVATE, 0o600), (Access.UMASK, 0o644)])
def test_the_file_has_the_access_of_the_output_directory(access, mode, tmp_path):
    """Only the owner may read a private file."""
    before = os.umask(0o022)
    try:
        DuckDbTables(file_in(tmp_path, access=access)).prepare("t", EVENTS.columns)
    finally:
        os.umask(before)
    assert (tmp_path / "main.duckdb").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["main.duckdb"]


def test_every_kind_of_column_has_a_type_in_duckdb():
    """No kind is missing, and DuckDB knows each type."""
    with duckdb.connect() as con:
        for kind in ColumnKind:
            assert con.execute(f"SELECT CAST(NULL AS {kind.value})").fetchall() == [(None,)]
