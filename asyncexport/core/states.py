"""A bundle's state is a value; the ledger is the list of those values; resuming is reading it.

1. A revision of a bundle is in exactly one state. Each state holds what it needs and nothing that may be absent.
2. A state changes only by a move that stands in `MOVES`; any other raises, and nothing has changed.
3. `Planned` at attempt 1 is what a bundle is in when the ledger holds no row of it. It is written only where it takes
   back a `Creating` row: the service was asked and is known to have said no (a 429, an outage), so the crash after it
   must not count a duplicate that cannot be.
4. `attempt` counts what is the bundle's own: a failed operation, a lost export, a bad file. What is the service's
   trouble keeps it, and so does a refused or unanswered call.
5. `Stored` ends a revision. A refresh or a repair is a new revision, from `Planned` at attempt 1.
6. `Failed`, `Overdue` and `Refused` are parked: taken up by a later run, at attempt 1. The operation of an `Overdue`
   one is asked for once more first; in vain, and wider than bundles are by now, it is `Failed`, to be split. One that
   was `Refused` goes back to the state it was refused in, since its operation or its file may be fine, and to `Planned`
   only when that is gone.
7. `FewerRows` is parked as well, but its bundle has a sound archive. It is taken up only if the user accepts fewer rows
   or the archive has to be repaired.
8. `Split` is final: a bundle of which nothing was ever stored has given way to narrower ones. They are `Planned` in the
   same transaction, and those rows are written: every later run goes on with the width that was begun.
9. From the create on a bundle keeps when it was asked for, and which settle time was in force then. `settle_seconds` of
   0 and an `asked_at` of None say that this is not on record: the archive was found on the disk, or the ledger is from
   a version that did not write them. Such an archive counts as settled unless it was exported before its own end.
10. An archive whose rows a new revision brings again stays as it is. The new row describes it, and names in
   `written_by` the revision that wrote its bytes; None stands for the row's own.

Moments are seconds since 1970 UTC by the service's clock.
"""

import re
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, Self, assert_never

from asyncexport.core.bundles import Bundle
from asyncexport.errors import IllegalMove, LedgerCorruptError


@dataclass(frozen=True, slots=True)
class Planned:
    """Nothing runs at the service for it."""

    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Creating:
    """The create is about to be sent, or was sent and its answer is not known."""

    attempt: int
    asked_at: float
    settle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Created:
    """The service runs an operation for it; `asked_at` is where its deadline counts from."""

    attempt: int
    asked_at: float
    operation_id: str
    settle_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ready:
    """The operation is complete: its file can be had. `exported_at` is the operation's `createdAt`."""

    attempt: int
    exported_at: float
    export_id: str
    asked_at: float | None = None
    settle_seconds: float = 0.0

    @classmethod
    def of(cls, asked: "Created | Overdue", *, exported_at: float, export_id: str) -> Self:
        """The state of a bundle whose operation is complete."""
        return cls(asked.attempt, exported_at, export_id, asked.asked_at, asked.settle_seconds)


@dataclass(frozen=True, slots=True)
class Archive:
    """What is known of a file that was read to its end and found to be one whole export.

    Args:
        path: Where it lies, relative to the output directory.
        bytes: Its size on disk.
        rows: How many rows it holds.
        sha256: Of its bytes on disk, in hex.
    """

    path: str
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored(Archive):
    """Its archive is complete, checked and durable. `exported_at` is the `createdAt` of the operation it came from."""

    exported_at: float
    asked_at: float | None = None
    settle_seconds: float = 0.0
    # Not compared: the same archive may be told with it and without.
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
        """The state of a bundle whose archive is this one; the last three as rules 9 and 10 say."""
        file = (archive.path, archive.bytes, archive.rows, archive.sha256)
        return cls(*file, exported_at, asked_at, settle_seconds, written_by)

    def written_in(self, revision: int) -> Self:
        """The same, as the row of this revision says it: which one wrote its bytes."""
        return self if self.written_by is not None else replace(self, written_by=revision)

    def writer_of(self, archive: Archive) -> int | None:
        """Which revision wrote the bytes of an archive that was found in this one's place; None: none that is known."""
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
    """Parked: what the service was asked about its operation or its file was refused, and both may be fine.

    Args:
        reason: How it was refused.
        kept: The state it was in, which says what to ask for first when it is taken up again.
    """

    reason: str
    kept: Created | Ready

    @property
    def again(self) -> Created | Ready:
        """The state that it goes back to when it is taken up: `kept`, at attempt 1."""
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
        """Why it is parked. In a ledger of version 1 `from_row` recognizes the state by this sentence."""
        return f"the archive was kept, since far fewer rows came: {self.rows_found} in place of {self.rows_before}"


@dataclass(frozen=True, slots=True)
class Split:
    """Final: nothing of it was ever stored, and narrower bundles have taken its place."""


State = Planned | Creating | Created | Ready | Stored | Failed | Overdue | Refused | FewerRows | Split

IN_PROGRESS = (Creating, Created, Ready)
"""In these a bundle claims its time: it runs to its end as it is, in its own width."""

PARKED = (Failed, Overdue, Refused, FewerRows)


class Counts(Enum):
    """What a move does to the attempt."""

    SAME = "stays"
    NEXT = "one more"
    FIRST = "back to 1"
    NONE = "the new state has none"


MOVES: dict[tuple[type[State], type[State]], tuple[Counts, ...]] = {
    (Planned, Creating): (Counts.SAME,),
    (Planned, Failed): (Counts.NONE,),  # its create was refused, or its operation failed, and that is its own trouble
    (Creating, Creating): (Counts.SAME,),  # found so after a crash: asked again, a possible duplicate
    (Creating, Created): (Counts.SAME,),
    (Creating, Planned): (
        Counts.SAME,
        Counts.NEXT,
    ),  # refused or unanswered; answered without an operation id
    (Creating, Failed): (Counts.NONE,),
    (Created, Ready): (Counts.SAME,),
    (Created, Planned): (Counts.NEXT, Counts.SAME),  # failed by its own trouble, or by the service's
    (Created, Failed): (Counts.NONE,),
    (Created, Overdue): (Counts.SAME,),
    (Created, Refused): (Counts.NONE,),
    (Ready, Stored): (Counts.NONE,),
    (Ready, Planned): (Counts.NEXT, Counts.SAME),  # its file is bad; all exports are others', the service's trouble
    (Ready, Failed): (Counts.NONE,),
    (Ready, FewerRows): (Counts.NONE,),
    (Ready, Refused): (Counts.NONE,),
    (Failed, Planned): (Counts.FIRST,),
    (Failed, Split): (Counts.NONE,),
    (FewerRows, Planned): (Counts.FIRST,),
    (Overdue, Planned): (Counts.FIRST,),
    (Overdue, Failed): (Counts.NONE,),  # asked for in vain, and too wide by now to be asked for again
    (Overdue, Ready): (Counts.SAME,),
    (Refused, Planned): (Counts.FIRST,),
    (Refused, Created): (Counts.FIRST,),
    (Refused, Ready): (Counts.FIRST,),
}
"""Every legal move within one revision, and what it may do to the attempt."""


def moved(old: State, new: State) -> State:
    """`new`, if `old` may become it.

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
    """What is known of a bundle: the state of its newest revision, and the newest archive of any revision, if any."""

    bundle: Bundle
    revision: int = 0
    state: State = Planned()
    stored: Stored | None = None

    @property
    def parked(self) -> bool:
        """Whether it was given up by an earlier run."""
        return isinstance(self.state, PARKED)

    @property
    def kept(self) -> bool:
        """Whether its archive was kept because a new export has far fewer rows."""
        return isinstance(self.state, FewerRows) and self.stored is not None

    def next_revision(self) -> "BundleRecord":
        """The same bundle with a new revision opened: for a refresh or a repair, once the present one has ended."""
        stored = self.stored
        if stored is not None and isinstance(self.state, Stored):
            stored = stored.written_in(self.revision)
        return BundleRecord(self.bundle, self.revision + 1, Planned(), stored)


_NAMES: dict[str, type[State]] = {
    kind.__name__.lower(): kind
    for kind in (Planned, Creating, Created, Ready, Stored, Failed, Overdue, FewerRows, Split)
}

_KEPT: dict[str, type[Created | Ready]] = {"created": Created, "ready": Ready}
"""What `Refused` may keep, by the name in its row."""


_FEWER_ROWS = re.compile(
    r"the archive was kept, since far fewer rows came: ([0-9]{1,18}) in place of ([0-9]{1,18})", re.ASCII
)


def to_row(state: State) -> tuple[str, dict[str, Any]]:
    """The state as the ledger writes it: its name, and its fields.

    `Refused` is written with the name and the fields of the state that it keeps.
    """
    if isinstance(state, Refused):
        kept, values = to_row(state.kept)
        return "refused", {"reason": state.reason, "kept": kept, **values}
    return type(state).__name__.lower(), {field.name: getattr(state, field.name) for field in fields(state)}


def from_row(name: str, values: dict[str, Any]) -> State:
    """Read what `to_row` wrote, or that of an earlier version: it wrote `FewerRows` as `failed`, told by its reason.

    Raises:
        LedgerCorruptError: it is no state that was ever written.
    """
    try:
        if name == "refused":
            return _refused(**values)
        state = _NAMES[name](**values)
        return _told_apart(state) if isinstance(state, Failed) else state
    except (KeyError, TypeError) as error:
        raise LedgerCorruptError(f"the ledger holds a state that cannot be read: {name[:40]!r}") from error


def _refused(*, reason: str, kept: str, **values: Any) -> Refused:
    return Refused(reason, _KEPT[kept](**values))


def _told_apart(failed: Failed) -> State:
    """`FewerRows`, where that is what was written; any other reason stays as it is."""
    found = _FEWER_ROWS.fullmatch(failed.reason)
    if found is None:
        return failed
    state = FewerRows(rows_before=int(found[2]), rows_found=int(found[1]))
    return state if state.reason == failed.reason else failed
