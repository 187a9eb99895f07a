"""The look-up of the service's ids: which bundles an operation or an export was ever recorded for.

1. Each row of `state` that brings an id (`Created`, `Ready`) has a row here: a hash of the id, and the row's number.
   Several ids may have the same hash: the row of `state` decides, and an id with another hash there is damage.
2. The head holds the sums over all rows, so that one that is missing or changed shows. They are compared before the
   first answer; after that whoever writes keeps them.
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
"""Whose id: an operation's, which `Created` brings, or an export's, which `Ready` brings."""

STATES_WITH_ID = "SELECT seq, state, fields FROM state WHERE state IN ('created', 'ready') ORDER BY seq"


@dataclass(frozen=True, slots=True)
class ServiceIdRow:
    """A row of `service_id`."""

    hash: int
    state: int

    @classmethod
    def of(cls, kind: IdKind, service_id: str, *, seq: int) -> "ServiceIdRow":
        """The row for an id that stands in the row `seq` of `state`."""
        return cls(hash_of(kind, service_id), seq)


def hash_of(kind: IdKind, service_id: str) -> int:
    """Of an id, in 32 bits."""
    return zlib.crc32(f"{kind.__name__} {service_id}".encode())


def id_of(state: State) -> tuple[IdKind, str] | None:
    """The id that a state brings; None: it brings none."""
    match state:
        case Created(operation_id=operation_id):
            return Created, operation_id
        case Ready(export_id=export_id):
            return Ready, export_id
        case _:
            return None


def insert_service_ids(connection: sqlite3.Connection, rows: Iterable[ServiceIdRow], sums: ServiceIdSums) -> None:
    """Add rows, and count them in."""
    new = [(row.hash, row.state) for row in rows]
    for row in new:
        sums.add(*row)
    insert_rows(connection, "INSERT INTO service_id", new)


def recorded_ids(connection: sqlite3.Connection) -> Iterator[ServiceIdRow]:
    """The rows that there should be, from the list of states and in its order."""
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
        raise LedgerCorruptError("the ledger is damaged: its look-up of ids does not add up")


def check_every_service_id(connection: sqlite3.Connection, expected: ServiceIdSums) -> None:
    """Compare the rows with the list of states as well.

    Raises:
        LedgerCorruptError: they differ.
    """
    check_service_ids(connection, expected)
    found = connection.execute("SELECT hash, state FROM service_id ORDER BY state, hash")
    recorded = ((row.hash, row.state) for row in recorded_ids(connection))
    if any(one != other for one, other in zip_longest(found, recorded)):
        raise LedgerCorruptError("the ledger is damaged: its look-up of ids does not fit its states")


def states_with(connection: sqlite3.Connection, kind: IdKind, service_id: str) -> Iterator[StateRow]:
    """The rows of `state` that brought this id, in order.

    Raises:
        LedgerCorruptError: one is missing, or not as it was written.
    """
    rows = connection.execute(
        "SELECT service_id.state, state.* FROM service_id LEFT JOIN state ON state.seq = service_id.state"
        " WHERE service_id.hash = ? ORDER BY service_id.state",
        (hash_of(kind, service_id),),
    )
    for leads_to, *row in rows:
        if row[0] is None:
            raise LedgerCorruptError(f"the ledger is damaged: row {leads_to} is missing")
        found = StateRow.read(tuple(row))
        brought = id_of(found.state)
        if brought is None or hash_of(*brought) != hash_of(kind, service_id):
            raise LedgerCorruptError(f"the ledger is damaged: an id leads to row {leads_to}, which has another")
        if brought == (kind, service_id):
            yield found
