"""Days that are made of archives hold the same rows in every destination: odd rows, made-up ones, and real ones."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pytest

from asyncexport.core.access import Access
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.bigquery_sql import FIRST_TIME, LAST_TIME
from asyncexport.core.warehouse.columns import Column, ColumnKind, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS, DataDirectRecipe
from asyncexport.core.warehouse.jsonb import fit_for_jsonb
from asyncexport.core.warehouse.views import TableFacts
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import EVENT_FIELDS, render
from asyncexport.warehouse.data_direct import make_data_direct
from asyncexport.warehouse.day_maker import DataDirectRequest
from asyncexport.warehouse.make_day import make_day
from asyncexport.warehouse.sinks.duckdb import DuckDbTables, DuckDbViews
from asyncexport.warehouse.sinks.duckdb_file import DuckDbFile
from tests.bigquery_rig import BigQueryRig, client_of
from tests.bigquery_server import server_or_skip
from tests.bigquery_server import why_not as why_no_bigquery
from tests.day_making import MIDNIGHT, ndjson, request_of
from tests.odd_rows import ODD_OBJECTS
from tests.postgres_rig import PostgresRig
from tests.postgres_server import PostgresServer, running, why_not
from tests.sink_rig import canonical, day_path, readable, rows_in_parquet
from tests.snowflake_rig import SnowflakeRig, emulator_or_skip, why_no_client

DAY = "2026-01-01"
LAYOUT = Layout(Type.EVENT, ("evt_price_real", "user_plan_str"))
FLAT, DIRECT = "everyone", "everyone__datadirect"
TABLES: Mapping[str, Sequence[Column]] = {FLAT: LAYOUT.columns, DIRECT: COLUMNS}

REAL_ROWS = json.loads((Path(__file__).parent / "demo_shop_events.json").read_text(encoding="utf-8"))

ODD = b"\n".join([*(odd.row for odd in ODD_OBJECTS if odd.row.lstrip().startswith(b"{")), b'{"UserId":5}'])

NUL = ndjson({"UserId": 1, "EventType": "custom", "PageName": "a\0b", "evt_a_str": "\0", "evt_b_int": 10**30})


def made_up(format_: Format) -> bytes:
    """Return the made-up events of an hour."""
    rows = list(SandboxSyntheticRows(3, 400).between(MIDNIGHT + 43_200, MIDNIGHT + 46_800))
    keys = () if format_ is Format.NDJSON else tuple(sorted({name for row in rows for name in row} - {*EVENT_FIELDS}))
    return b"".join(render(iter(rows), format_, fields=None, columns=EVENT_FIELDS, keys=keys))


@pytest.fixture(scope="module", params=["ndjson", "csv"])
def files(request, tmp_path_factory) -> dict[str, Path]:
    """Make a day, and return the Parquet file of each table."""
    form = Format(request.param)
    contents = [made_up(form)]
    if form is Format.NDJSON:
        contents += [ndjson(*REAL_ROWS), ODD, NUL]
    folder = tmp_path_factory.mktemp("day")
    recipe = DataDirectRecipe()
    direct = DataDirectRequest(folder / "datadirect.parquet", recipe.receipt("flat"), recipe)
    asked = request_of(folder, *contents, form=form, layout=LAYOUT)
    make_day(asked)
    make_data_direct(asked.flat, direct, memory=1 << 30, scratch=asked.scratch)
    return {FLAT: asked.flat, DIRECT: direct.file}


def rows_of(file: Path, table: str) -> Counter[tuple[Any, ...]]:
    """Return the multiset of the rows of a Parquet file."""
    found = rows_in_parquet({DAY: file}, TABLES[table])
    assert sum(found.values()) > 100
    return found


@pytest.mark.parametrize("tables", [True, False])
def test_duckdb_holds_the_rows_of_the_day(files, tables, tmp_path):
    """Both tables hold exactly the rows of their Parquet files, as views and as copies."""
    file = DuckDbFile(tmp_path / "w.duckdb", scratch=tmp_path / "s", memory=1 << 28, access=Access.PRIVATE)
    copies = DuckDbTables(file)
    sink = copies if tables else DuckDbViews(file, directory=tmp_path, parquet=copies)
    for table, columns in TABLES.items():
        path = day_path(tmp_path, table, DAY)
        path.parent.mkdir(parents=True)
        path.hardlink_to(files[table])
        sink.prepare(table, columns)
        assert sink.replace(table, DAY, path, "receipt") == sum(rows_of(path, table).values())
        sink.finish(table, TableFacts(Type.EVENT if table == FLAT else None))
        with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as con:
            names = ", ".join(map(readable, columns))
            found = con.execute(f'SELECT {names}, CAST("date" AS VARCHAR) FROM "{table}"').fetchall()
            assert con.execute(f'SELECT days FROM "{table}__coverage"').fetchall() == [(1,)]
        assert Counter(as_stored(row, columns, fits=False) for row in found) == rows_of(path, table)


def as_stored(row: Sequence[Any], columns: Sequence[Column], *, fits: bool) -> tuple[Any, ...]:
    """Return a row in the form of `rows_in_parquet`; `fits`: as PostgreSQL can hold it."""
    values: list[Any] = []
    for value, column in zip(row, columns, strict=False):
        if isinstance(value, str) and column.kind is ColumnKind.JSON:
            values.append(canonical(fit_for_jsonb(value) if fits else value))
        elif isinstance(value, str) and fits:
            values.append(value.replace("\0", "\N{REPLACEMENT CHARACTER}"))
        else:
            values.append(value)
    return (*values, row[-1])


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server for all tests of the module."""
    with running() as server:
        yield server


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
def test_postgresql_holds_the_rows_of_the_day(files, server, tmp_path):
    """Both tables hold exactly the rows of their Parquet files, but for what PostgreSQL cannot hold."""
    with PostgresRig(server, tmp_path) as rig:
        for table, columns in TABLES.items():
            wanted = rows_of(files[table], table)
            rig.sink.prepare(table, columns)
            assert rig.sink.replace(table, DAY, files[table], "receipt") == sum(wanted.values())
            rig.sink.finish(table, TableFacts(Type.EVENT if table == FLAT else None))
            fitting = Counter[tuple[Any, ...]]()
            for row, times in wanted.items():
                fitting[as_stored(row, columns, fits=True)] += times
            assert rig.rows(columns, table) == fitting
            assert rig.query(f"SELECT days FROM {table}__coverage") == [(1,)]
        changed = any(as_stored(row, TABLES[FLAT], fits=True) != row for row in rows_of(files[FLAT], FLAT))
        assert bool(rig.notes) == changed


def in_bigquery(row: Sequence[Any], columns: Sequence[Column]) -> tuple[Any, ...]:
    """Return a row of `rows_in_parquet` as BigQuery can hold it."""
    values = zip(row, columns, strict=False)
    held = (
        None if column.kind is ColumnKind.TIME and value is not None and not FIRST_TIME <= value <= LAST_TIME else value
        for value, column in values
    )
    return (*held, row[-1])


@pytest.mark.skipif(bool(why_no_bigquery()), reason=why_no_bigquery() or "-")
def test_bigquery_holds_the_rows_of_the_day(files, tmp_path):
    """Both tables hold exactly the rows of their Parquet files, but for times that BigQuery cannot hold."""
    with server_or_skip(tmp_path) as address, BigQueryRig(lambda: client_of(address), "d", tmp_path) as rig:
        for table, columns in TABLES.items():
            wanted = rows_of(files[table], table)
            rig.sink.prepare(table, columns)
            assert rig.sink.replace(table, DAY, files[table], "receipt") == sum(wanted.values())
            held = Counter[tuple[Any, ...]]()
            for row, times in wanted.items():
                held[in_bigquery(row, columns)] += times
            assert rig.rows(columns, table) == held
            assert rig.sink.row_counts(table) == {DAY: sum(wanted.values())}
        assert bool(rig.notes) == any(in_bigquery(row, TABLES[FLAT]) != row for row in rows_of(files[FLAT], FLAT))


def with_doubles(row: Sequence[Any]) -> tuple[Any, ...]:
    """Return a row with the numbers within its JSON as doubles: the emulator keeps no more of them."""

    def as_double(found: re.Match[str]) -> str:
        number = Fraction(found[1])
        return f'"number {float(number) if abs(number) < 10**308 else "too large"}"'

    return tuple(re.sub(r'"number ([^"]+)"', as_double, one) if isinstance(one, str) else one for one in row)


@pytest.mark.timeout(900)  # it may make the emulator's environment
@pytest.mark.skipif(bool(why_no_client()), reason=why_no_client() or "-")
def test_snowflake_holds_the_rows_of_the_day(files, tmp_path):
    """Both tables hold exactly the rows of their Parquet files."""
    with contextmanager(emulator_or_skip)() as emulator, SnowflakeRig(emulator.login, tmp_path) as rig:
        for table, columns in TABLES.items():
            wanted = rows_of(files[table], table)
            rig.sink.prepare(table, columns)
            assert rig.sink.replace(table, DAY, files[table], "receipt") == sum(wanted.values())
            assert Counter(map(with_doubles, rig.rows(columns, table).elements())) == Counter(
                map(with_doubles, wanted.elements())
            )
