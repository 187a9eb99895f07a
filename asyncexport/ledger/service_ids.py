"""The index of the service's ids: which bundles an operation or an export was ever recorded for.

1. Each row of `state` that contains an id (`Created`, `Ready`) has a row here: a hash of the id and the row's number.
   Several ids may have the same hash, so the row of `state` decides. If the id there has another hash, the ledger is
   damaged.
2. The head holds the sums over all rows, which reveal a missing or changed row. They are compared before the first
   query; after that the writer keeps them up to date.
"""

import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest

import orjson

from asyncexport.core.states import Created, Ready, State
from asyncexport.errors import LedgerCorruptError
from asyncexport.ledger.bulk_insert import insert_rows
from asyncexport.ledger.rows import ServiceIdSums, StateRow

IdKind = type[Created] | type[Ready]
"""The kind of an id: an operation's, in `Created`, or an export's, in `Ready`."""

STATES_WITH_ID = "SELECT seq, state, fields FROM state WHERE state IN ('created', 'ready') ORDER BY seq"


@dataclass(frozen=True, slots=True)
class ServiceIdRow:
    """A row of `service_id`."""

    hash: int
    state: int

    @classmethod
    def of(cls, kind: IdKind, service_id: str, *, seq: int) -> "ServiceIdRow":
        """Make the row for an id that is in the row `seq` of `state`."""
        return cls(hash_of(kind, service_id), seq)


def hash_of(kind: IdKind, service_id: str) -> int:
    """Return the 32-bit hash of an id."""
    return zlib.crc32(f"{kind.__name__} {service_id}".encode())


def id_of(state: State) -> tuple[IdKind, str] | None:
    """Return the id in a state; None if it has none."""
    match state:
        case Created(operation_id=operation_id):
            return Created, operation_id
        case Ready(export_id=export_id):
            return Ready, export_id
        case _:
            return None


def insert_service_ids(connection: sqlite3.Connection, rows: Iterable[ServiceIdRow], sums: ServiceIdSums) -> None:
    """Insert rows and add them to the sums."""
    new = [(row.hash, row.state) for row in rows]
    for row in new:
        sums.add(*row)
    insert_rows(connection, "INSERT INTO service_id", new)


def recorded_ids(connection: sqlite3.Connection) -> Iterator[ServiceIdRow]:
    """Yield the rows that the index should have, computed from the states and in their order."""
    for seq, kind, fields in connection.execute(STATES_WITH_ID):
        values = orjson.loads(fields)
        if kind == b"created":
            yield ServiceIdRow.of(Created, values["operation_id"], seq=seq)
        else:
            yield ServiceIdRow.of(Ready, values["export_id"], seq=seq)


def check_service_ids(connection: sqlite3.Connection, expected: ServiceIdSums) -> None:
    """Compare the rows with the sums in the head.

    Raises:
        LedgerCorruptError: they differ.
    """
    found = connection.execute(
        "SELECT count(*), coalesce(sum(hash), 0), coalesce(sum(state), 0) FROM service_id NOT INDEXED"
    ).fetchone()
    if ServiceIdSums(*found) != expected:
        raise LedgerCorruptError("the ledger is damaged: the rows of its service id index do not match their sums")


def check_every_service_id(connection: sqlite3.Connection, expected: ServiceIdSums) -> None:
    """Compare the rows with the sums and with the states.

    Raises:
        LedgerCorruptError: they differ.
    """
    check_service_ids(connection, expected)
    found = connection.execute("SELECT hash, state FROM service_id ORDER BY state, hash")
    recorded = ((row.hash, row.state) for row in recorded_ids(connection))
    if any(one != other for one, other in zip_longest(found, recorded)):
        raise LedgerCorruptError("the ledger is damaged: its service id index does not match its states")


def states_with(connection: sqlite3.Connection, kind: IdKind, service_id: str) -> Iterator[StateRow]:
    """Yield the rows of `state` that contain this id, in order.

    Raises:
        LedgerCorruptError: a row is missing or damaged.
    """
    rows = connection.execute(
        "SELECT service_id.state, state.* FROM service_id LEFT JOIN state ON state.seq = service_id.state"
        " WHERE service_id.hash = ? ORDER BY service_id.state",
        (hash_of(kind, service_id),),
    )
    for seq, *row in rows:
        if row[0] is None:
            raise LedgerCorruptError(f"the ledger is damaged: row {seq} is missing")
        found = StateRow.read(tuple(row))
        found_id = id_of(found.state)
        if found_id is None or hash_of(*found_id) != hash_of(kind, service_id):
            raise LedgerCorruptError(f"the ledger is damaged: a service id points to row {seq}, which has another id")
        if found_id == (kind, service_id):
            yield found
