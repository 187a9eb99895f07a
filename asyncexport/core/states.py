"""The states of a bundle, as values. The ledger is the list of those values, and resuming is reading it.

1. A revision of a bundle is in exactly one state. Each state holds what it needs and nothing that may be absent.
2. A state changes only by a move in `MOVES`. Any other raises an error and changes nothing.
3. `Planned` at attempt 1 is the state of a bundle without a row in the ledger. It is written only to take back a
   `Creating` row: the service was asked and is known to have refused (a 429, an outage), so a crash after that must not
   count a possible duplicate.
4. `attempt` counts failures of the bundle itself: a failed operation, a lost export, a bad file. A failure of the
   service does not count, and neither does a refused or unanswered call.
5. `Stored` ends a revision. A refresh, a repair, or another export after `FewerRows` is a new revision, from `Planned`
   at attempt 1.
6. `Failed`, `Overdue` and `Refused` are parked: a later run retries them, at attempt 1. The operation of an `Overdue`
   one is asked for once more first; if that is in vain and the bundle is wider than the current width, it becomes
   `Failed`, to be split. A `Refused` one goes back to the state in which it was refused, since its operation or its
   file may be fine, and to `Planned` only if that is lost.
7. `FewerRows` is parked as well, but its bundle has an intact archive. Its revision continues only if the user accepts
   fewer rows: a later state of that revision proves the consent. Otherwise the bundle is exported in a new revision.
8. `Split` is final: narrower bundles have replaced a bundle of which nothing was ever stored. They become `Planned` in
   the same transaction, and those rows are written, so that every later run uses the same width. A bundle is split
   when it keeps failing (`core.splitting`), or by a later run that needs narrower ones (`core.parking`).
9. From the create on, a bundle records when it was asked for, and the settle time of that run. `settle_seconds` of 0
   and an `asked_at` of None mean that this is not recorded: the archive was found on the disk, or the ledger is from a
   version that did not write them. Such an archive counts as settled unless it was exported before its own end.
10. If a new revision brings the same rows, the archive stays as it is. The new row describes it, and `written_by` is
    the revision that wrote its bytes. None means the row's own revision.

Times are seconds since 1970 UTC by the service's clock.
"""

import re
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Self, assert_never

from asyncexport.core.bundles import Bundle
from asyncexport.errors import IllegalMove, LedgerCorruptError


@dataclass(frozen=True, slots=True)
class Planned:
    """The bundle has no operation."""

    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Creating:
    """The create is about to be sent, or was sent and its answer is not known."""

    attempt: int
    asked_at: float
    settle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Created:
    """The service runs the bundle's operation. Its deadline counts from `asked_at`."""

    attempt: int
    asked_at: float
    operation_id: str
    settle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The operation is complete and its file can be fetched. `exported_at` is the operation's `createdAt`."""

    attempt: int
    exported_at: float
    export_id: str
    asked_at: float | None = None
    settle_seconds: float = 0.0

    @classmethod
    def of(cls, asked: "Created | Overdue", *, exported_at: float, export_id: str) -> Self:
        """Return the state of a bundle whose operation is complete."""
        return cls(asked.attempt, exported_at, export_id, asked.asked_at, asked.settle_seconds)


@dataclass(frozen=True, slots=True)
class Archive:
    """A file that was read to its end and found to be one complete export.

    Args:
        path: Its path, relative to the output directory.
        bytes: Its size on disk.
        rows: The number of its rows.
        sha256: The SHA-256 of its bytes on disk, in hex.
    """

    path: str
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored(Archive):
    """Its archive is complete, checked and durable. `exported_at` is the `createdAt` of the archive's operation."""

    exported_at: float
    asked_at: float | None = None
    settle_seconds: float = 0.0
    # Not compared: the same archive may be described with it and without.
    written_by: int | None = field(default=None, compare=False)

    @classmethod
    def of(
        cls,
        archive: Archive,
        *,
        exported_at: float,
        asked_at: float | None = None,
        settle_seconds: float = 0.0,
        written_by: int | None = None,
    ) -> Self:
        """Return the state of a bundle with this archive; for the last three see rules 9 and 10."""
        file = (archive.path, archive.bytes, archive.rows, archive.sha256)
        return cls(*file, exported_at, asked_at, settle_seconds, written_by)

    def written_in(self, revision: int) -> Self:
        """Return the same with `written_by` filled in, for the row of this revision."""
        return self if self.written_by is not None else replace(self, written_by=revision)

    def writer_of(self, archive: Archive) -> int | None:
        """Return the revision that wrote an archive found in its place. None if it is not known."""
        return self.written_by if archive.sha256 == self.sha256 else None


@dataclass(frozen=True, slots=True)
class Failed:
    """Parked: the last attempt failed, or the service refuses this bundle."""

    reason: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """Parked: its operation was still running at its deadline."""

    attempt: int
    asked_at: float
    operation_id: str
    settle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Refused:
    """Parked: a call about its operation or its file was refused, and both may be fine.

    Args:
        reason: How it was refused.
        kept: The state it was in, which says what to ask for first when it is retried.
    """

    reason: str
    kept: Created | Ready

    @property
    def again(self) -> Created | Ready:
        """The state to which it returns when it is retried: `kept`, at attempt 1."""
        return replace(self.kept, attempt=1)


@dataclass(frozen=True, slots=True)
class FewerRows:
    """Parked: the new export has far fewer rows than the archive, which was kept (`core.replacement_guard`).

    Args:
        rows_before: Rows of the archive.
        rows_found: Rows of the new export.
    """

    rows_before: int
    rows_found: int

    @property
    def reason(self) -> str:
        """Why it is parked."""
        found, before = self.rows_found, self.rows_before
        return f"the archive was kept because the new export has far fewer rows: {found} instead of {before}"


@dataclass(frozen=True, slots=True)
class Split:
    """Final: nothing of it was ever stored, and narrower bundles have replaced it."""


State = Planned | Creating | Created | Ready | Stored | Failed | Overdue | Refused | FewerRows | Split

IN_PROGRESS = (Creating, Created, Ready)
"""In these states a bundle claims its time: it is finished as it is, in its own width."""

PARKED = (Failed, Overdue, Refused, FewerRows)


class Counts(Enum):
    """What a move does to the attempt."""

    SAME = "stays"
    NEXT = "one more"
    FIRST = "back to 1"
    NONE = "not part of the new state"


MOVES: dict[tuple[type[State], type[State]], tuple[Counts, ...]] = {
    (Planned, Creating): (Counts.SAME,),
    (Planned, Failed): (Counts.NONE,),  # its create was refused, or its operation failed, and the bundle is the cause
    (Creating, Creating): (Counts.SAME,),  # found after a crash: created again, a possible duplicate
    (Creating, Created): (Counts.SAME,),
    (Creating, Planned): (
        Counts.SAME,
        Counts.NEXT,
    ),  # refused or unanswered; answered without an operation id
    (Creating, Failed): (Counts.NONE,),
    (Created, Ready): (Counts.SAME,),
    (Created, Split): (Counts.NONE,),  # its operations keep failing while other bundles succeed
    (Created, Planned): (
        Counts.NEXT,
        Counts.SAME,
    ),  # the operation failed because of the bundle; because of the service
    (Created, Failed): (Counts.NONE,),
    (Created, Overdue): (Counts.SAME,),
    (Created, Refused): (Counts.NONE,),
    (Ready, Stored): (Counts.NONE,),
    (Ready, Planned): (
        Counts.NEXT,
        Counts.SAME,
    ),  # its file is bad; the export belongs to another bundle because of the service
    (Ready, Failed): (Counts.NONE,),
    (Ready, Split): (Counts.NONE,),  # its files are bad while other bundles succeed
    (Ready, FewerRows): (Counts.NONE,),
    (Ready, Refused): (Counts.NONE,),
    (Failed, Planned): (Counts.FIRST,),
    (Failed, Split): (Counts.NONE,),
    (FewerRows, Planned): (Counts.FIRST,),
    (Overdue, Planned): (Counts.FIRST,),
    (Overdue, Failed): (Counts.NONE,),  # asked for in vain, and wider than the current width, so not created again
    (Overdue, Ready): (Counts.SAME,),
    (Refused, Planned): (Counts.FIRST,),
    (Refused, Created): (Counts.FIRST,),
    (Refused, Ready): (Counts.FIRST,),
}
"""Every legal move within one revision, and what it may do to the attempt."""


def moved(old: State, new: State) -> State:
    """Return `new`, if `old` may move to it.

    Raises:
        IllegalMove: it may not.
    """
    allowed = MOVES.get((type(old), type(new)))
    if allowed is None or not any(_attempt_fits(old, new, counts) for counts in allowed):
        raise IllegalMove(f"{old} cannot become {new}")
    return new


def _attempt_fits(old: State, new: State, counts: Counts) -> bool:
    before, after = getattr(old, "attempt", None), getattr(new, "attempt", None)
    match counts:
        case Counts.SAME:
            return before == after
        case Counts.NEXT:
            return before is not None and after == before + 1
        case Counts.FIRST:
            return after == 1
        case Counts.NONE:
            return after is None
        case _ as never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """A bundle as recorded: the state of its newest revision, and the newest archive of any revision, if any."""

    bundle: Bundle
    revision: int = 0
    state: State = Planned()
    stored: Stored | None = None

    @property
    def parked(self) -> bool:
        """Whether an earlier run parked it."""
        return isinstance(self.state, PARKED)

    @property
    def kept(self) -> bool:
        """Whether its archive was kept because a new export has far fewer rows."""
        return isinstance(self.state, FewerRows) and self.stored is not None

    def next_revision(self) -> "BundleRecord":
        """Return the bundle with a new revision, for a refresh or a repair after the present one has ended."""
        stored = self.stored
        if stored is not None and isinstance(self.state, Stored):
            stored = stored.written_in(self.revision)
        return BundleRecord(self.bundle, self.revision + 1, Planned(), stored)


_NAMES: dict[str, type[State]] = {
    kind.__name__.lower(): kind
    for kind in (Planned, Creating, Created, Ready, Stored, Failed, Overdue, FewerRows, Split)
}

_KEPT: dict[str, type[Created | Ready]] = {"created": Created, "ready": Ready}
"""The states that `Refused` may keep, by the name in its row."""


_VERSION_1_FEWER_ROWS = re.compile(
    r"the archive was kept, since far fewer rows came: (0|[1-9][0-9]{0,17}) in place of (0|[1-9][0-9]{0,17})", re.ASCII
)


def to_row(state: State) -> tuple[str, dict[str, Any]]:
    """Return the state as the ledger writes it: its name, and its fields.

    `Refused` is written with the name and the fields of the state that it keeps.
    """
    if isinstance(state, Refused):
        kept, values = to_row(state.kept)
        return "refused", {"reason": state.reason, "kept": kept, **values}
    return type(state).__name__.lower(), {field.name: getattr(state, field.name) for field in fields(state)}


def from_row(name: str, values: dict[str, Any]) -> State:
    """Read what `to_row` wrote, in this version or in version 1, which wrote `FewerRows` as `failed` with a reason.

    Raises:
        LedgerCorruptError: it is not a state that was ever written.
    """
    try:
        if name == "refused":
            return _refused(**values)
        state = _NAMES[name](**values)
        return _recognized(state) if isinstance(state, Failed) else state
    except (KeyError, TypeError) as error:
        raise LedgerCorruptError(f"the ledger holds a state that cannot be read: {name[:40]!r}") from error


def _refused(*, reason: str, kept: str, **values: Any) -> Refused:
    return Refused(reason, _KEPT[kept](**values))


def _recognized(failed: Failed) -> State:
    """Return `FewerRows` if version 1 wrote that; any other reason stays as it is."""
    found = _VERSION_1_FEWER_ROWS.fullmatch(failed.reason)
    if found is None:
        return failed
    return FewerRows(rows_before=int(found[2]), rows_found=int(found[1]))
