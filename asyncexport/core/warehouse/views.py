"""The views beside each table: sessions, pages, users, and what is covered. One text for DuckDB and PostgreSQL.

1. A view only reads its table and two small tables of the same database: `_asyncexport_tables` (what is known about
   each table) and `_asyncexport_loads` (the days). So a view is made once; what changes from load to load is data.
2. Columns of a row's own field keep the field's name; columns that a view computes are in lower case.
3. A later event's value counts, empty ones aside: the service gives a row the identity that was known when it was
   exported, so rows of one user may differ.
4. Rows without a session (`SessionId` absent or 0) are in no session and on no page.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import STANDARD, ColumnKind
from asyncexport.core.warehouse.identifiers import literal, postgres_name, quoted

TABLES = "_asyncexport_tables"
"""One row per table: `table_name`, `organisation`, `complete_until`, and `views`, a digest of their definitions."""

LOADS = "_asyncexport_loads"
"""One row per table and day: `table_name`, `day`, `receipt`, `rows`, `loaded_at`."""

REPLAY = "https://app.fullstory.com/ui/"
"""Where replays are, as the vendor documents it. The organisation and `/session/<UserId>:<SessionId>` follow."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What is known about a table, apart from its rows.

    Attributes:
        type: What its rows are; None if they are not those of an export, as in the Data Direct table.
        organisation: The organisation's id; "" if unknown.
        complete_until: The time up to which the table has all days without a gap, in seconds since 1970; None if not
            even its first day is complete.
    """

    type: Type | None
    organisation: str = ""
    complete_until: float | None = None


class Dialect(Enum):
    """Where the statements run."""

    DUCKDB = "duckdb"
    POSTGRES = "postgres"

    def fitting(self, name: str) -> str:
        """Return the name that something has there, unquoted."""
        return postgres_name(name) if self is Dialect.POSTGRES else name


@dataclass(frozen=True, slots=True)
class View:
    """A view: its name, its query and the comment on it."""

    name: str
    query: str
    says: str


@dataclass(frozen=True, slots=True)
class ViewPlace:
    """Where a table is whose views are made.

    Attributes:
        table: The table's name.
        dialect: Where the statements run.
        schema: The schema of the table and of the views.
        counts_rows: Whether days and rows are counted in the table itself, since there is no record of them: so it is
            where the table is a view over Parquet files.
    """

    table: str
    dialect: Dialect
    schema: str
    counts_rows: bool = False

    def of(self, name: str) -> str:
        """Return a table or a view as it stands in a statement."""
        return f"{quoted(self.schema)}.{quoted(self.dialect.fitting(name))}"

    def fact(self, column: str) -> str:
        """Return what is known about the table, as a subquery."""
        return f"(SELECT {column} FROM {self.of(TABLES)} WHERE table_name = {literal(self.table)})"

    def latest(self, name: str) -> str:
        """Return the value of a field in the latest event that has one (rule 3), with the field's name."""
        column = quoted(name)
        has_one = f"{column} <> ''" if STANDARD[name].kind is ColumnKind.TEXT else f"{column} IS NOT NULL"
        if self.dialect is Dialect.DUCKDB:
            return f'arg_max({column}, "EventStart") FILTER (WHERE {has_one}) AS {column}'
        values = f'array_agg({column} ORDER BY "EventStart" DESC NULLS LAST) FILTER (WHERE {has_one})'
        return f"({values})[1] AS {column}"


def views(place: ViewPlace, type_: Type | None) -> tuple[View, ...]:
    """Return the views of a table whose rows are of a type."""
    match type_:
        case Type.EVENT:
            return (_sessions(place), _pages(place), _users(place), _coverage(place))
        case Type.INDIVIDUAL:
            return (_individuals(place), _coverage(place))
        case None:
            return (_coverage(place),)


def digest(made: tuple[View, ...]) -> str:
    """Return a digest of the definitions of views."""
    return sha256(repr(made).encode()).hexdigest()


IN_A_SESSION = '"UserId" IS NOT NULL AND "SessionId" <> 0'

EVENTS = 'min("EventStart") AS first_event, max("EventStart") AS last_event, count(*) AS events'


def _select(columns: Iterator[str] | tuple[str, ...], rest: str) -> str:
    return f"SELECT {', '.join(columns)} {rest}"


def _sessions(place: ViewPlace) -> View:
    path = """'/session/' || "UserId" || ':' || "SessionId\""""
    columns = (
        *('"UserId"', '"SessionId"', EVENTS, 'count(DISTINCT "PageId") AS page_views'),
        *map(place.latest, ("UserAppKey", "UserEmail")),
        f"{literal(REPLAY)} || {place.fact('organisation')} || {path} AS replay",
    )
    query = _select(columns, f'FROM {place.of(place.table)} WHERE {IN_A_SESSION} GROUP BY "UserId", "SessionId"')
    says = "One row per session. replay is the address of its replay; NULL if the organisation is unknown."
    return View(f"{place.table}__sessions", query, says)


def _pages(place: ViewPlace) -> View:
    texts = ("PageUrl", "PageRefererUrl", "PageName", "PageBrowser", "PageDevice", "PagePlatform")
    numbers = ("PageDuration", "PageActiveDuration", "PageMaxScrollDepthPercent")
    columns = (
        *('"UserId"', '"SessionId"', '"PageId"', 'min("PageStart") AS "PageStart"', EVENTS),
        *map(place.latest, texts),
        *(f"max({quoted(name)}) AS {quoted(name)}" for name in numbers),
    )
    rest = f'WHERE {IN_A_SESSION} AND "PageId" IS NOT NULL GROUP BY "UserId", "SessionId", "PageId"'
    return View(f"{place.table}__pages", _select(columns, f"FROM {place.of(place.table)} {rest}"), "One row per page.")


def _users(place: ViewPlace) -> View:
    identity = ("IndvId", "UserAppKey", "UserEmail", "UserDisplayName", "UserCreated")
    sessions = 'count(DISTINCT "SessionId") FILTER (WHERE "SessionId" <> 0) AS sessions'
    columns = ('"UserId"', *map(place.latest, identity), EVENTS, sessions)
    query = _select(columns, f'FROM {place.of(place.table)} WHERE "UserId" IS NOT NULL GROUP BY "UserId"')
    return View(f"{place.table}__users", query, "One row per device or browser, with its latest identity.")


def _individuals(place: ViewPlace) -> View:
    names = ("IndvId", "Uid", "DisplayName", "Email", "Created", "NumSessions", "NumPages", "NumEvents")
    newest = '"IndvId", "_exported_at" DESC NULLS LAST, "_bundle_start" DESC NULLS LAST'
    rest = f'FROM {place.of(place.table)} WHERE "IndvId" IS NOT NULL ORDER BY {newest}'
    query = (
        f'SELECT DISTINCT ON ("IndvId") {", ".join(map(quoted, (*names, "LastSessionStart", "_exported_at")))} {rest}'
    )
    return View(f"{place.table}__users", query, "One row per individual, from its latest export.")


def _coverage(place: ViewPlace) -> View:
    if place.counts_rows:
        days = f'SELECT "date" AS "day", count(*) AS "rows" FROM {place.of(place.table)} GROUP BY "date"'
    else:
        of = f'table_name = {literal(place.table)} AND "rows" > 0'
        days = f'SELECT "day", "rows" FROM {place.of(LOADS)} WHERE {of}'
    columns = (
        f"{place.fact('complete_until')} AS complete_until",
        'min(days."day") AS first_day, max(days."day") AS last_day, count(*) AS days',
        'CAST(coalesce(sum(days."rows"), 0) AS BIGINT) AS "rows"',
    )
    says = "What is in the table. complete_until: from its first day up to there, it has everything."
    return View(f"{place.table}__coverage", _select(columns, f"FROM ({days}) AS days"), says)
