"""The server of the tests for BigQuery: local-bigquery, with what it lacks. Runs in an environment of its own.

Arguments: the folder of its data. Writes its address to stdout, and ends when stdin does.

local-bigquery takes `table$20260101` for the name of another table. Here it means the partition of that day, as Google
documents it: all rows of the job must have this day, and they replace those of the day. A column of type JSON is
refused, as the service refuses it for Parquet, and so are a column that must not be NULL, since the files say that it
may be, and another schema than that of the table.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from local_bigquery import app
from local_bigquery.catalog import tables
from local_bigquery.engine.database import quote
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import load, runner
from local_bigquery.settings import settings

load_whole_table = load.run


def load_partition(cur: Any, config: Any, upload: str | None) -> Any:
    """Replace one day of a table, or do as before if the job names no partition."""
    project, dataset, name = tables.reference(config.destinationTable)
    table, _, day = name.partition("$")
    if not day:
        return load_whole_table(cur, config, upload)
    found = tables.get(project, dataset, table)
    by = found.timePartitioning
    if by is None or by.type != "DAY":
        raise BigQueryError("invalid", f"The table {table} is not partitioned by day")
    check_schema(config, {field.name.lower(): field.type for field in found.schema_.fields})
    of = quote(project, dataset, table)
    whole = config.replace(
        destinationTable=config.destinationTable.replace(tableId=table), writeDisposition="WRITE_APPEND"
    )
    column, date = quote(by.field), f"DATE '{day[:4]}-{day[4:6]}-{day[6:]}'"
    cur.execute("BEGIN")
    try:
        cur.execute(f"DELETE FROM {of} WHERE {column} = {date}")
        others = cur.execute(f"SELECT count(*) FROM {of}").fetchone()[0]
        done = load_whole_table(cur, whole, upload)
        here = cur.execute(f"SELECT count(*) FROM {of} WHERE {column} = {date}").fetchone()[0]
        check_day(cur.execute(f"SELECT count(*) FROM {of}").fetchone()[0] - others, here)
        cur.execute("COMMIT")
    except BaseException:
        cur.execute("ROLLBACK")
        raise
    return done


def check_day(loaded: int, of_day: int) -> None:
    """Refuse rows of other days."""
    if loaded != of_day:
        raise BigQueryError("invalid", "Some rows belong to different partitions")


def check_schema(config: Any, types: dict[str, str]) -> None:
    """Refuse another schema than the table's, columns of type JSON and those that must not be NULL."""
    given = {field.name.lower(): field for field in config.schema_.fields}
    if given.keys() != types.keys():
        raise BigQueryError("invalid", f"Provided Schema does not match: {sorted(given.keys() ^ types.keys())}")
    for field in given.values():
        if field.type == "JSON":
            raise BigQueryError("invalid", "Unsupported field type: JSON")
        if field.mode == "REQUIRED":
            raise BigQueryError("invalid", f"Field {field.name} does not match NULLABLE as specified in the file")


def main() -> None:
    """Serve until stdin ends."""
    settings.data_dir = Path(sys.argv[1])
    load.run = runner.HANDLERS["load"] = load_partition
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    main()
