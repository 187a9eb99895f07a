"""How fast a day of made-up events is loaded into PostgreSQL, compared to two plain ways to COPY the same rows.

The server is Debian's, started by this script with its default settings; it waits until its disk has the data. The day
is replaced each time, so that its old rows are deleted as well. The peers add the same rows to a plain table without a
partition, an index, a lock or a receipt.
"""

import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import duckdb
import measuring
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asyncexport.core.bundles import Range
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.columns import DATE, Layout
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, quoted
from asyncexport.core.warehouse.postgres_sql import TYPES
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import EVENT_FIELDS, render
from asyncexport.warehouse.day_maker import DayRequest
from asyncexport.warehouse.make_day import make_day
from asyncexport.warehouse.sinks.postgres import PostgresSink
from asyncexport.warehouse.sinks.postgres_connection import PostgresConnection
from tests.postgres_server import running, why_not

MIDNIGHT = 1_767_225_600
"""2026-01-01, in seconds since 1970."""

DAY = "2026-01-01"
LAYOUT = Layout(Type.EVENT)
COLUMNS = (*LAYOUT.columns, DATE)
NAMES = ", ".join(quoted(column.name) for column in COLUMNS)


def archive(folder: Path, number: int, rows_per_hour: int) -> SourceArchive:
    """Write the archive of a half-hour."""
    start = MIDNIGHT + 1800 * number
    rows = list(SandboxSyntheticRows(1, rows_per_hour).between(start, start + 1800))
    content = b"".join(render(iter(rows), Format.NDJSON, fields=None, columns=EVENT_FIELDS, keys=()))
    packed = gzip.compress(content, 1)
    path = f"{number:02}.ndjson.gz"
    (folder / path).write_bytes(packed)
    hash_ = sha256(packed).hexdigest()
    return SourceArchive(path, hash_, len(rows), Range(start, start + 1800), start + 200_000, 1)


def day_in(folder: Path, *, rows_per_hour: int) -> tuple[Path, int]:
    """Make the Parquet file of a day; return it with its number of rows."""
    archives = tuple(archive(folder, number, rows_per_hour) for number in range(48))
    flat = folder / "data.parquet"
    source = DaySource("everyone", MIDNIGHT, Format.NDJSON, archives)
    made = make_day(DayRequest(folder, source, LAYOUT, "receipt", flat, folder / "quarantine", folder))
    return flat, sum(made.rows.values())


def source_of(flat: Path) -> str:
    """Return the rows as DuckDB selects them."""
    rows = f"SELECT *, DATE {literal(DAY)} AS date FROM read_parquet({one_file(str(flat))}, hive_partitioning = false)"
    return f"SELECT {NAMES} FROM ({rows})"


def duck() -> duckdb.DuckDBPyConnection:
    """Return DuckDB with one thread, as our own."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def by_rows(flat: Path, connection: psycopg.Connection) -> None:
    """Hand each row to psycopg."""
    with duck() as source, connection.cursor() as cursor, cursor.copy(f"COPY plain ({NAMES}) FROM STDIN") as copy:
        source.execute(source_of(flat))
        while rows := source.fetchmany(2000):
            for row in rows:
                copy.write_row(row)


def by_csv(flat: Path, connection: psycopg.Connection) -> None:
    """Let DuckDB write a CSV file first."""
    file = flat.with_suffix(".csv")
    with duck() as source:
        source.execute(f"COPY ({source_of(flat)}) TO {literal(str(file))} (FORMAT csv, HEADER false)")
    statement = f"COPY plain ({NAMES}) FROM STDIN (FORMAT csv)"
    with connection.cursor() as cursor, cursor.copy(statement) as copy, file.open("rb") as content:
        while piece := content.read(1 << 18):
            copy.write(piece)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of this process and of the server's process with this number."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(load: Callable[[], object], pid: int) -> measuring.Run:
    """Run something in this process and measure it, with the server's process that works for it."""
    began, cpu = time.perf_counter(), cpu_seconds(pid)
    load()
    return measuring.Run(time.perf_counter() - began, cpu_seconds(pid) - cpu)


def pid_of(connection: psycopg.Connection, application: str) -> int:
    """Return the number of the server's process that works for a program."""
    ((pid,),) = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [application])
    return int(pid)


def main() -> None:
    """Load the day in turns and report."""
    asked = measuring.options(__doc__, rounds=5)
    if why_not():
        measuring.note(f"skipped: {why_not()}")
        return
    with tempfile.TemporaryDirectory() as folder, running(durable=True) as server:
        flat, rows = day_in(Path(folder), rows_per_hour=200 if asked.quick else 12_000)
        sink = PostgresSink(PostgresConnection(server.dsn), schema="fullstory", report=measuring.note)
        sink.prepare("events", LAYOUT.columns)
        sink.replace("events", DAY, flat, "receipt")
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            of = ", ".join(f"{quoted(column.name)} {TYPES[column.kind][0]}" for column in COLUMNS)
            connection.execute(f"CREATE TABLE plain ({of})")

            def plain(load: Callable[[Path, psycopg.Connection], None]) -> measuring.Run:
                run = measured(lambda: load(flat, connection), connection.info.backend_pid)
                count = connection.execute("SELECT count(*) FROM plain").fetchone()
                if count != (rows,):
                    measuring.fail(f"{count} rows arrived instead of {rows}")
                connection.execute("TRUNCATE plain")
                return run

            pid = pid_of(connection, "asyncexport")
            runs = measuring.in_turns(
                {
                    "asyncexport": lambda: measured(lambda: sink.replace("events", DAY, flat, "receipt"), pid),
                    "csv": lambda: plain(by_csv),
                    "rows": lambda: plain(by_rows),
                },
                asked.rounds,
            )
        sink.close()
    measuring.report(
        "postgres",
        asked,
        packages=("duckdb", "psycopg"),
        rows=rows,
        rows_per_second=measuring.spread([rows / run.seconds for run in runs["asyncexport"]], digits=0),
        rows_per_cpu_second={
            name: measuring.spread([rows / run.cpu_seconds for run in done], digits=0) for name, done in runs.items()
        },
        seconds={name: measuring.seconds_of(done) for name, done in runs.items()},
        ratio_to_csv=measuring.ratio(runs["asyncexport"], runs["csv"]),
        ratio_to_rows=measuring.ratio(runs["asyncexport"], runs["rows"]),
    )


if __name__ == "__main__":
    main()
