"""Archives of the sandbox's events, and the ways to make Parquet of them that `load.py` compares.

Run as a program: `load_days.py WAY FOLDER TARGET`. It prints one line of JSON.

ours            a day after the other in two processes of one thread, as `asyncexport load` does
handwritten     one DuckDB statement with the same columns and order, on two threads
leanest         one DuckDB statement that is told the custom variables, and makes nothing but columns of their values
day             one day in this process
exact           one archive row by row, without DuckDB
"""

import gzip
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import duckdb

from asyncexport.core.bundles import DAY, Range
from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.columns import EVENT_KEY, ColumnKind, Layout
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import render
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.exact_path import read_exactly
from asyncexport.warehouse.make_day import make_day

FIRST = 1_767_225_600
"""2026-01-01, in seconds since 1970."""

WORKERS = 2
MEMORY = 1 << 30
"""DuckDB's limit per worker; the single statements get that of all workers."""

LAYOUT = Layout(Type.EVENT)


def write_archives(folder: Path, *, bundles: int, seconds: int, rows_per_hour: float) -> tuple[int, int]:
    """Write the archives of consecutive bundles; return how many rows they have and how many bytes these are."""
    folder.mkdir(parents=True)
    events = SandboxSyntheticRows(1, rows_per_hour, quiet=0)
    rows = inflated = 0
    described = []
    for number in range(bundles):
        start = FIRST + number * seconds
        content = b"".join(render(events.between(start, start + seconds), "ndjson"))
        rows += content.count(b"\n")
        inflated += len(content)
        described.append(write_archive(folder / f"{number:03}.ndjson.gz", content, start=start, seconds=seconds))
    (folder / "archives.json").write_text(json.dumps(described))
    return rows, inflated


def write_archive(file: Path, content: bytes, *, start: int, seconds: int) -> list[object]:
    """Write an archive; return what `archives_in` makes a `SourceArchive` of."""
    data = gzip.compress(content, 6, mtime=0)
    file.write_bytes(data)
    return [file.name, sha256(data).hexdigest(), content.count(b"\n"), start, start + seconds]


def read_archive(file: Path) -> bytes:
    """Return the content of an archive."""
    return gzip.decompress(file.read_bytes())


def archives_in(folder: Path) -> tuple[SourceArchive, ...]:
    """Return the archives of a folder as the ledger would describe them."""
    return tuple(
        SourceArchive(path, digest, rows, Range(start, end), end + 100_000.0, 1)
        for path, digest, rows, start, end in json.loads((folder / "archives.json").read_text())
    )


def requests(folder: Path, target: Path) -> list[DayRequest]:
    """Return what has to be made of the archives in a folder."""
    found: dict[int, list[SourceArchive]] = {}
    for archive in archives_in(folder):
        found.setdefault(archive.range.start // DAY * DAY, []).append(archive)
    made = []
    for start, archives in found.items():
        source = DaySource("everyone-events", start, Format.NDJSON, tuple(archives))
        scratch = target / f"scratch-{source.date}"
        scratch.mkdir(parents=True)
        flat, quarantine = scratch.with_suffix(".parquet"), scratch.with_suffix(".ndjson.gz")
        made.append(DayRequest(folder, source, LAYOUT, "receipt", flat, quarantine, scratch, memory=MEMORY))
    return made


def ours(folder: Path, target: Path) -> dict[str, object]:
    """Make the days in processes of one thread each."""
    with ProcessPoolExecutor(WORKERS) as pool:
        answers = list(pool.map(_timed_day, requests(folder, target)))
    return {"rows": sum(sum(made.rows.values()) for made, _ in answers), "peak_mib": max(peak for _, peak in answers)}


def day(folder: Path, target: Path) -> dict[str, object]:
    """Make one day."""
    (request,) = requests(folder, target)
    made, peak = _timed_day(request)
    return {"rows": sum(made.rows.values()), "exact": len(made.exact), "peak_mib": peak}


def exact(folder: Path, _target: Path) -> dict[str, object]:
    """Read the first archive row by row."""
    archive = archives_in(folder)[0]
    began = time.process_time()
    with (folder / archive.path).open("rb") as file:
        read_exactly(
            file,
            Format(archive.path.split(".")[1]),
            LAYOUT,
            archive=archive.path,
            max_row=64 << 20,
            has_key=True,
            write=lambda _: None,
            quarantine=lambda _: None,
        )
    return {"rows": archive.rows, "seconds": time.process_time() - began}


def _timed_day(request: DayRequest) -> tuple[DayMade, float]:
    made = make_day(request)
    return made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def handwritten(folder: Path, target: Path) -> dict[str, object]:
    """Write one statement that transforms the rows as JSON, and merges what is left of them into `vars`."""
    types = json.dumps({column.name: column.kind.value for column in LAYOUT.standard})
    nothing = json.dumps(dict.fromkeys((column.name for column in LAYOUT.standard), None))
    key = ", ".join(f'"{name}"' for name in EVENT_KEY)
    names = ", ".join(f'"{column.name}"' for column in LAYOUT.standard)
    return _run(
        folder,
        f"""COPY (
            SELECT {names}, vars, CAST(NULL AS VARCHAR) AS _rescued,
                'ax1-' || md5(concat_ws('|', {key}, vars)) AS event_id,
                _archive, _bundle_start, _bundle_end, _exported_at, _revision
            FROM (SELECT unnest(json_transform(json, '{types}')),
                    CAST(json_merge_patch(json, '{nothing}') AS VARCHAR) AS vars, filename
                FROM read_ndjson_objects({_files(folder)}, filename = true))
            JOIN ({_origins(folder)}) ON filename = file
            ORDER BY UserId, SessionId, EventStart
        ) TO '{target / "data.parquet"}' (FORMAT parquet, COMPRESSION zstd)""",
        target,
    )


def leanest(folder: Path, target: Path) -> dict[str, object]:
    """Write one statement that reads typed columns, given the names of the custom variables."""
    with duckdb.connect() as duck:
        file = str(folder / archives_in(folder)[0].path)
        found = duck.execute("SELECT DISTINCT unnest(json_keys(json)) FROM read_ndjson_objects(?)", [file]).fetchall()
    own = {column.name: column.kind.value for column in LAYOUT.standard if column.kind is not ColumnKind.JSON}
    types = own | {name: "VARCHAR" for (name,) in sorted(found) if name not in own}
    columns = ", ".join(f"'{name}': '{type_}'" for name, type_ in types.items())
    return _run(
        folder,
        f"""COPY (
            SELECT * FROM read_json({_files(folder)}, format = 'newline_delimited', columns = {{{columns}}})
            ORDER BY UserId, SessionId, EventStart
        ) TO '{target / "data.parquet"}' (FORMAT parquet, COMPRESSION zstd)""",
        target,
    )


def _run(folder: Path, statement: str, target: Path) -> dict[str, object]:
    with duckdb.connect(config={"threads": WORKERS}) as duck:
        limit = WORKERS * MEMORY
        duck.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{limit}B'; SET temp_directory = '{target / 'spill'}'")
        (rows,) = duck.execute(statement).fetchone() or (0,)
    if rows != sum(archive.rows for archive in archives_in(folder)):
        raise SystemExit(f"{rows} rows were written")
    return {"rows": rows, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _files(folder: Path) -> str:
    names = ", ".join(f"'{folder / archive.path}'" for archive in archives_in(folder))
    return f"[{names}]"


def _origins(folder: Path) -> str:
    rows: Sequence[str] = [
        f"('{folder / one.path}', '{one.path}', {_time(one.range.start)}, {_time(one.range.end)}, "
        f"{_time(one.exported_at)}, CAST({one.revision} AS BIGINT))"
        for one in archives_in(folder)
    ]
    names = "file, _archive, _bundle_start, _bundle_end, _exported_at, _revision"
    return f"SELECT * FROM (VALUES {', '.join(rows)}) AS origins({names})"


def _time(moment: float) -> str:
    return f"CAST('{datetime.fromtimestamp(moment, UTC).isoformat()}' AS TIMESTAMPTZ)"


WAYS: dict[str, Callable[[Path, Path], dict[str, object]]] = {
    "ours": ours,
    "handwritten": handwritten,
    "leanest": leanest,
    "day": day,
    "exact": exact,
}

if __name__ == "__main__":
    way, archives, written_to = sys.argv[1:]
    print(json.dumps(WAYS[way](Path(archives), Path(written_to))))
