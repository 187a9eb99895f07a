"""The statement that makes the Parquet file of a day: it casts, rescues, sorts, numbers and writes the rows.

1. The rows are sorted by user, session and time (individuals by their id), then by their key, content and archive. So
   the order is the same whatever order they came in; only equal rows of one archive can be exchanged. The content are
   the values, not the texts that they were read from, which depend on the reader.
2. Rows with equal keys are neighbours in this order. Their running number is the distance to the first of them, and
   the id of an event is the MD5 of its key's MD5 and this number. Only the MD5 of a key is sorted: a key may be as long
   as the row.
3. The origin of a row is added at the end, from a small table of the archives.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.casting import cast, may_fail
from asyncexport.core.warehouse.columns import LAYOUT_VERSION, ORIGIN, Layout
from asyncexport.core.warehouse.days import DaySource, SourceArchive
from asyncexport.core.warehouse.identifiers import literal, quoted

EVENT_ID_PREFIX = "ax1-"
"""Names the recipe of the ids, and keeps them apart from Fullstory's own."""

RECEIPT_KEY, LAYOUT_KEY, ARCHIVES_KEY, COLUMNS_KEY = "receipt", "layout", "archives", "columns"
"""The keys of the file's own metadata. The last two hold JSON: a list of archives, and what each column means."""

ORDER: Mapping[Type, tuple[str, ...]] = {
    Type.EVENT: ("UserId", "SessionId", "EventStart"),
    Type.INDIVIDUAL: ("IndvId",),
}
"""The columns that a file is sorted by, per type."""


def day_statement(
    texts: Sequence[str],
    layout: Layout,
    source: DaySource,
    *,
    target: str,
    receipt: str,
) -> str:
    """Return the statement.

    Args:
        texts: The statements that read the files as text. Their column `file` is the path of the archive.
        layout: The columns of the table.
        source: The day.
        target: The path to write to.
        receipt: The receipt of the day.
    """
    rows = " UNION ALL ".join(texts)
    return (
        f"COPY ({_named(_numbered(_sorted(_cast(rows, layout), layout)), layout, source)}) TO {literal(target)} "
        f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {_metadata(layout, source, receipt=receipt)})"
    )


def _cast(rows: str, layout: Layout) -> str:
    """Cast the texts t0, t1, … to the values v0, v1, …, and add to `rescued` what does not fit."""
    kinds = [column.kind for column in layout.fields]
    values = ", ".join(f"{cast(f't{number}', kind)} AS v{number}" for number, kind in enumerate(kinds))
    made = f"SELECT *, {values} FROM ({rows})"
    checked = [
        (column.name, f"t{number}", f"(t{number} IS NOT NULL AND v{number} IS NULL)")
        for number, column in enumerate(layout.fields)
        if may_fail(column.kind)
    ]
    members = ", ".join(
        f"CASE WHEN {fails} THEN {literal(orjson.dumps(name).decode() + ':')} || CAST(to_json({text}) AS VARCHAR) END"
        for name, text, fails in sorted(checked)
    )
    rescued = (
        f"CASE WHEN {' OR '.join(fails for _, _, fails in checked)} THEN '{{' || concat_ws(',', {members}, "
        f"rescued[2:-2]) || '}}' ELSE rescued END"
    )
    kept = ", ".join(f"v{number}" for number in range(len(kinds)))
    whole = f"SELECT {kept}, vars, {rescued} AS rescued, md5(key) AS key, file FROM ({made})"
    return f"SELECT *, hash({kept}, vars, rescued) AS content FROM ({whole})"


def _sorted(rows: str, layout: Layout) -> str:
    names = [column.name for column in layout.fields]
    order = [f"v{names.index(name)}" for name in ORDER[layout.type]]
    columns = ", ".join(f"{one} ASC NULLS LAST" for one in (*order, "key", "content", "file"))
    return f"SELECT * FROM ({rows}) ORDER BY {columns}"


def _numbered(rows: str) -> str:
    """Number the rows that have equal keys. They are neighbours, so nothing needs to be sorted again."""
    begun = f"SELECT *, row_number() OVER () AS place, key IS DISTINCT FROM lag(key) OVER () AS begins FROM ({rows})"
    return (
        "SELECT *, place - max(CASE WHEN begins THEN place END) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT "
        f"ROW) AS number FROM ({begun})"
    )


def _named(rows: str, layout: Layout, source: DaySource) -> str:
    """Give the columns their names, and add the origin."""
    names = [f"v{number} AS {quoted(column.name)}" for number, column in enumerate(layout.fields)]
    names += ["vars", "rescued AS _rescued"]
    if layout.type is Type.EVENT:
        names.append(f"'{EVENT_ID_PREFIX}' || md5(key || '-' || number) AS event_id")
    origin = [column.name for column in ORIGIN]
    table = ", ".join(map(_origin_row, source.archives))
    return (
        f"SELECT {', '.join([*names, *origin])} FROM ({rows}) JOIN (VALUES {table}) AS origins({', '.join(origin)}) "
        "ON file = _archive"
    )


def _origin_row(archive: SourceArchive) -> str:
    times = (archive.range.start, archive.range.end, archive.exported_at)
    start, end, exported = (literal(datetime.fromtimestamp(one, UTC).isoformat()) for one in times)
    return (
        f"({literal(archive.path)}, {start}::TIMESTAMPTZ, {end}::TIMESTAMPTZ, "
        f"{exported}::TIMESTAMPTZ, {archive.revision}::BIGINT)"
    )


def _metadata(layout: Layout, source: DaySource, *, receipt: str) -> str:
    made_from = [{"path": one.path, "sha256": one.sha256, "rows": one.rows} for one in source.archives]
    says = {column.name: column.says for column in layout.columns}
    facts = {
        RECEIPT_KEY: receipt,
        LAYOUT_KEY: str(LAYOUT_VERSION),
        ARCHIVES_KEY: orjson.dumps(made_from).decode(),
        COLUMNS_KEY: orjson.dumps(says).decode(),
    }
    return f"{{{', '.join(f'{literal(name)}: {literal(text)}' for name, text in facts.items())}}}"


def counts_statement(target: str) -> str:
    """Return the statement that counts rows, and rows with something rescued, by archive in a Parquet file."""
    return (
        f"SELECT _archive, count(*), count(_rescued) FROM read_parquet({literal(target)}, hive_partitioning = false) "
        "GROUP BY _archive"
    )
