"""The SQL statements that make a day of the Data Direct table from the flat table's file of that day.

1. `flat` is the file. What SQL cannot do exactly is done in Python and joined: `urls` holds the parts of each URL that
   is needed, `variables` the nested custom variables of each event that shows them, by prefix.
2. `sessions` holds what is said about a session in other rows: the referrer of its first page and, if asked for, the
   event from which an `identify` is made up.
3. Each event of the flat file makes exactly one row or is counted as left out. The order is complete, so equal files
   make equal bytes.
"""

from collections.abc import Iterable, Iterator, Sequence

import orjson

from asyncexport.core.warehouse.choices import Identify
from asyncexport.core.warehouse.columns import EVENT_VARIABLE, ColumnKind, custom_column
from asyncexport.core.warehouse.data_direct.columns import COLUMNS, RECIPE_VERSION
from asyncexport.core.warehouse.data_direct.json_members import json_name
from asyncexport.core.warehouse.data_direct.mapping import (
    APP_COLUMNS,
    EVENT_TYPES,
    FAILED_STATUS,
    IDENTIFY,
    LEFT_OUT,
    OTHER_TYPES,
    SOURCE,
    Property,
)
from asyncexport.core.warehouse.data_direct.values import flat, json_object, json_text, number_or_text, time_text
from asyncexport.core.warehouse.day_statement import COLUMNS_KEY, RECEIPT_KEY
from asyncexport.core.warehouse.duckdb_sql import one_file
from asyncexport.core.warehouse.identifiers import literal, quoted

RECIPE_KEY = "recipe"
"""The key of the recipe's version in the file's own metadata, beside those of the flat file."""

BLOCK_ROWS = 2048
"""Rows that DuckDB computes at once, and the least in a row group."""

GROUP_BYTES = 8 << 20
"""Bytes of text in the flat table that make about one row group here. DuckDB holds a group in memory."""

MOST_BLOCKS = 8
"""The most blocks of rows in a row group. More do not make the file smaller."""

TABLES = (
    "CREATE TABLE urls (url VARCHAR, for_request BOOLEAN, parts VARCHAR)",
    "CREATE TABLE variables (event_id VARCHAR, prefix VARCHAR, nested VARCHAR)",
)
"""The tables that Python fills."""

USER_VARIABLE = "user_"
"""The prefix of a user's variables. Those of pages have no place in the Data Direct table."""

_LEFT_OUT = (
    f"coalesce({flat('EventType')} IN ({', '.join(map(literal, LEFT_OUT))}) OR ({flat('EventType')} = 'request' "
    f"AND coalesce({flat('ReqStatus')}, 0) < {FAILED_STATUS}), false)"
)

_SESSION = f"{flat('UserId')} IS NOT NULL AND {flat('SessionId')} <> 0"


def flat_file(path: str) -> str:
    """Return the statement that names the flat file."""
    options = "hive_partitioning = false, file_row_number = true"
    return f"CREATE VIEW flat AS SELECT * FROM read_parquet({one_file(path)}, {options})"


def widest_block(texts: Sequence[str]) -> str:
    """Return the query for the bytes of the largest block of rows that DuckDB computes at once.

    Args:
        texts: The columns of the flat table that hold texts.
    """
    block = f"SELECT sum({_bytes(texts)}) AS bytes FROM flat GROUP BY file_row_number // {BLOCK_ROWS}"
    return f"SELECT CAST(coalesce(max(bytes), 0) AS BIGINT) FROM ({block})"


def slices(texts: Sequence[str], *, most: int) -> str:
    """Return the query for the first and last row of each part of the file that has about `most` bytes of text."""
    rows = f"SELECT file_row_number AS number, sum({_bytes(texts)}) OVER (ORDER BY file_row_number) AS total FROM flat"
    return f"SELECT min(number), max(number) FROM ({rows}) GROUP BY total // {most} ORDER BY 1"


def _bytes(texts: Sequence[str]) -> str:
    return " + ".join(f"coalesce(strlen({flat(name)}), 0)" for name in texts)


def left_out() -> str:
    """Return the query for the events that are left out, by type."""
    return f"SELECT {flat('EventType')}, count(*) FROM flat WHERE {_LEFT_OUT} GROUP BY 1 ORDER BY 1"


def sessions(identify: Identify) -> str:
    """Return the statement that makes `sessions`: the first page's referrer, and the event to make an `identify` from.

    That event is the first one with a user's id. The time of the `identify` is that of the session's first event.
    """
    referrer = f"nullif({flat('PageRefererUrl')}, '')"
    page = f"coalesce({flat('PageStart')}, {flat('EventStart')}), {flat('PageId')}, {referrer}"
    has_key = f"{flat('UserAppKey')} <> ''"
    source = "NULL"
    if identify is Identify.PER_SESSION:
        first = f"min(ROW({flat('EventStart')}, {flat('event_id')})) FILTER (WHERE {has_key})"
        seen = f"coalesce(bool_or({flat('EventType')} = 'uservar' AND {has_key}), false)"
        source = f"CASE WHEN NOT {seen} THEN struct_extract({first}, 2) END"
    return (
        f"CREATE TABLE sessions AS SELECT {flat('UserId')} AS device, {flat('SessionId')} AS session, "
        f"struct_extract(min(ROW({page})), 3) AS referrer, "
        f"CAST({source} AS VARCHAR) AS identified_by, min({flat('EventStart')}) AS first_time "
        f"FROM flat WHERE {_SESSION} GROUP BY ALL"
    )


def urls() -> str:
    """Return the query for the URLs of which the parts are needed, each once, and whether an event needs it."""
    needed = (
        f"SELECT {flat('PageUrl')} AS url, false AS is_request FROM flat WHERE NOT {_LEFT_OUT}",
        f"SELECT {flat('ReqUrl')}, true FROM flat WHERE {flat('EventType')} = 'request' AND NOT {_LEFT_OUT}",
        "SELECT referrer, false FROM sessions",
    )
    return f"SELECT url, bool_or(is_request) FROM ({' UNION ALL '.join(needed)}) WHERE url <> '' GROUP BY url"


def variables(columns: Iterable[str]) -> str:
    """Return the query for custom variables: the event, the prefix, and two JSON objects that hold them.

    Args:
        columns: The columns of the flat table. Custom variables among them are not in `vars`; they are in the second
            object.
    """
    own = [_member(name) for name in columns if name.startswith((EVENT_VARIABLE, USER_VARIABLE))]
    members = f"'{{' || concat_ws(',', {', '.join(own)}) || '}}'" if own else "NULL"
    showing = {
        EVENT_VARIABLE: f"{flat('EventType')} = 'custom'",
        USER_VARIABLE: f"{flat('EventType')} = 'uservar' "
        f"OR {flat('event_id')} IN (SELECT identified_by FROM sessions WHERE identified_by IS NOT NULL)",
    }
    return " UNION ALL ".join(
        f"SELECT {flat('event_id')}, {literal(prefix)}, {flat('vars')}, {members} FROM flat WHERE {shows}"
        for prefix, shows in showing.items()
    )


def _member(name: str) -> str:
    """Return a member for a custom variable with a column: its value, or else what did not fit the column."""
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    rescued = number_or_text(f"json_extract_string({flat('_rescued')}, {literal(pointer)})")
    column = flat(name)
    match custom_column(name).kind:
        case ColumnKind.TEXT:
            value = json_text(column)
        case ColumnKind.TIME:
            value = f"'\"' || {time_text(column)} || '\"'"
        case _:
            value = f"CAST({column} AS VARCHAR)"
    return f"{literal(json_name(name) + ':')} || coalesce({value}, {rescued})"


def day(identify: Identify, parts: Iterable[tuple[int, int]]) -> Iterator[str]:
    """Yield the statements that make the table `day` and drop what it was made from.

    None of them sorts, so that joins and sort do not need memory at the same time.

    Args:
        identify: The setting.
        parts: The first and last row of the parts of the file that are read one after another.
    """
    referrers = "SELECT device, session, parts FROM sessions JOIN urls ON urls.url = sessions.referrer"
    yield f"CREATE TABLE referrers AS {referrers}"
    yield f"CREATE TABLE day AS {_events()} AND false"
    made_up = _made_up() if identify is Identify.PER_SESSION else None
    for first, last in parts:
        yield f"INSERT INTO day {_events()} AND {flat('file_row_number')} BETWEEN {first} AND {last}"
        if made_up:
            yield f"INSERT INTO day {made_up} WHERE {flat('file_row_number')} BETWEEN {first} AND {last}"
    yield from (f"DROP TABLE {name}" for name in ("sessions", "urls", "variables", "referrers"))


def group_rows(block_bytes: int) -> int:
    """Return the number of rows in a row group of the file, by the bytes of the widest block of rows.

    It must not depend on the memory limit, since equal flat files make equal bytes.
    """
    blocks = GROUP_BYTES // max(block_bytes, GROUP_BYTES // MOST_BLOCKS)
    return BLOCK_ROWS * max(blocks, 1)


def written(to: str, *, receipt: str, rows_in_group: int) -> str:
    """Return the statement that writes the rows of `day`, in order."""
    order = ", ".join(quoted(name) for name in ("device_id", "session_id", "event_time", "event_id"))
    facts = {
        RECEIPT_KEY: receipt,
        RECIPE_KEY: str(RECIPE_VERSION),
        COLUMNS_KEY: orjson.dumps({column.name: column.says for column in COLUMNS}).decode(),
    }
    metadata = ", ".join(f"{literal(name)}: {literal(text)}" for name, text in facts.items())
    return (
        f"COPY (SELECT * FROM day ORDER BY {order}) TO {literal(to)} "
        f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {rows_in_group}, KV_METADATA {{{metadata}}})"
    )


def _events() -> str:
    types = " ".join(f"WHEN {literal(name)} THEN {literal(one.name)}" for name, one in EVENT_TYPES.items())
    properties = " ".join(
        f"WHEN {literal(name)} THEN {_properties(one.properties)}"
        for name, one in EVENT_TYPES.items()
        if one.properties
    )
    empty = ", ".join(literal(name) for name, one in EVENT_TYPES.items() if not one.properties)
    type_ = flat("EventType")
    return _rows(
        event_id=flat("event_id"),
        event_time=flat("EventStart"),
        event_type=f"CASE {type_} {types} ELSE {type_} END",
        variables=f"CASE {type_} WHEN 'custom' THEN {literal(EVENT_VARIABLE)} ELSE {literal(USER_VARIABLE)} END",
        properties=f"CASE WHEN {type_} IN ({empty}) THEN NULL "
        f"ELSE CASE {type_} {properties} ELSE {_properties(OTHER_TYPES)} END END",
        rest=f"WHERE NOT {_LEFT_OUT}",
    )


def _made_up() -> str:
    """Return the query for events that the export does not have.

    The id names the day: a session that lasts past midnight gets one on each day, and no two events share an id.
    """
    numbers = (f"CAST({flat(name)} AS VARCHAR)" for name in ("UserId", "SessionId"))
    date = "strftime(make_timestamp(epoch_us(flat._bundle_start)), '%Y-%m-%d')"
    parts = " || ',' || ".join(json_text(one) for one in (*numbers, flat("UserAppKey"), date))
    return _rows(
        event_id=f"'ax1i-' || md5('[' || {parts} || ']')",
        event_time="sessions.first_time",
        event_type=literal(IDENTIFY.name),
        variables=literal(USER_VARIABLE),
        properties=_properties(IDENTIFY.properties),
        rest=f"JOIN sessions ON sessions.identified_by = {flat('event_id')}",
    )


def _rows(*, event_id: str, event_time: str, event_type: str, variables: str, properties: str, rest: str) -> str:
    app = " OR ".join(f"{flat(name)} <> ''" for name in APP_COLUMNS)
    is_app = f"lower({flat('PagePlatform')}) NOT IN ('', 'web') OR {app}"
    values = {
        "event_id": event_id,
        "event_time": event_time,
        "processed_time": flat("_exported_at"),
        "updated_time": flat("_exported_at"),
        "device_id": flat("UserId"),
        "session_id": f"nullif({flat('SessionId')}, 0)",
        "view_id": flat("PageId"),
        "event_type": event_type,
        "event_properties": f"coalesce({properties}, '{{}}')",
        "source_type": f"CASE WHEN {is_app} THEN 'mobile_app' ELSE 'web' END",
        "source_properties": f"coalesce({_properties(SOURCE)}, '{{}}')",
    }
    columns = ", ".join(f"{values[column.name]} AS {quoted(column.name)}" for column in COLUMNS)
    own = f"LEFT JOIN variables ON variables.event_id = {flat('event_id')} AND variables.prefix = {variables}"
    return f"SELECT {columns} FROM flat {_JOINS} {own} {rest}"


_REQUEST = quoted("ReqUrl")
_REFERRER = quoted("PageRefererUrl")

_JOINS = (
    f"LEFT JOIN urls AS {quoted('PageUrl')} ON {quoted('PageUrl')}.url = {flat('PageUrl')} "
    f"LEFT JOIN (SELECT * FROM urls WHERE for_request) AS {_REQUEST} ON {_REQUEST}.url = {flat('ReqUrl')} "
    f"LEFT JOIN referrers AS {_REFERRER} ON {_REFERRER}.device = {flat('UserId')} "
    f"AND {_REFERRER}.session = {flat('SessionId')}"
)
"""What holds URL parts is named by the column whose parts they are, as `mapping.url` expects."""


def _properties(properties: Sequence[Property]) -> str:
    return json_object((one.path, one.value.sql) for one in properties)
