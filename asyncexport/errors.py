"""All that can go wrong, as one tree, by whose trouble it is.

    ExportError                     carries .hint, and says by .transient whether trying again would help
    ├── ConfigError                 the user's: every problem found, at once
    ├── ServiceError                the service's
    │   ├── UnauthorizedError       the key was refused (401)
    │   ├── RateLimitedError        asked too often (429); .retry_after in seconds, or None
    │   ├── UnavailableError        no route, no name, a reset, a time-out, 408, 499, 5xx: an outage
    │   ├── ReplyError              it answered, but not with what was agreed
    │   ├── RefusedError            it, or a box before it, said no (another 4xx); .status, .from_service
    │   ├── OperationFailedError    the operation ended as FAILED or ERROR; .reason
    │   └── GoneError               the operation, export or link asked for no longer exists
    ├── ArchiveError                the file's
    │   ├── IncompleteError         it stopped early, or its end was not proved: fetch it again
    │   │   └── UnprovedEmptyError  it has no rows, and nothing vouches for that: look once more
    │   ├── CorruptError            it is whole, and wrong
    │   │   ├── OtherHashError      it has another hash than is named, perhaps that of another form; .sha256
    │   │   ├── NoExportError       it is no export of this kind at all
    │   │   │   └── UnknownRowsError    its rows are no rows of an export
    │   │   └── ForeignRowsError    its rows lie outside of the range that was asked for; .outside of .timed
    │   └── FewerRowsError          it is whole, and has far fewer rows than the archive it would replace
    ├── StorageError                the disk's
    └── LedgerError                 the ledger's: it does not fit, or is missing beside archives
        ├── LedgerLockedError       another run holds it
        └── LedgerCorruptError      it cannot be read as what was written

    IllegalMove(RuntimeError)       ours: a bug

No message holds an API key or the query of a signed URL: those who raise leave them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


class ExportError(Exception):
    """What asyncexport raises; the message is one line, in the user's words.

    Args:
        message: What was tried and what came back.
        hint: The next thing to do, or "" where there is none.
    """

    transient: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in the configuration: where (`table.key`, a variable, a flag), and what is wrong with it.

    `file` is the file that says it, by the name the user has for it; "" where none does.
    """

    place: str
    message: str
    file: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Without the file."""
        return f"{self.place}: {self.message}" if self.place else self.message

    @property
    def told(self) -> str:
        """As it is printed."""
        return f"{self.file}: {self}" if self.file else str(self)


class ConfigError(ExportError):
    """The configuration or the command line cannot be used; `problems` holds every fault found."""

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.told for problem in self.problems), hint=hint)


class ServiceError(ExportError):
    """The service, or the way to it, is in trouble."""


class UnauthorizedError(ServiceError):
    """The service refused the API key (401)."""


class RateLimitedError(ServiceError):
    """The service was asked too often (429); `retry_after` is in seconds, None where it did not say."""

    transient = True

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class UnavailableError(ServiceError):
    """The service cannot be reached, or is in trouble of its own (no route, 408, 499, 5xx).

    Args:
        message: What was tried and what came back.
        unanswered: The request may have arrived, and no answer came: what it asked for may have been done.
        lasting: It has been so for as long as anybody is willing to wait.
        retry_after: In how many seconds it wants to be asked again; None where it did not say.
        hint: The next thing to do.
    """

    def __init__(
        self,
        message: str,
        *,
        unanswered: bool = False,
        lasting: bool = False,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.unanswered = unanswered
        self.transient = not lasting
        self.retry_after = retry_after


class ReplyError(ServiceError):
    """The service answered, but not with the reply agreed upon; `status` is the HTTP status, where there is one."""

    transient = True

    def __init__(self, message: str, *, status: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RefusedError(ServiceError):
    """The service, or a box before it, understood the request and said no.

    Args:
        message: What was tried and what came back.
        status: The HTTP status.
        from_service: It was said in the service's own form, a JSON object; no page of a box before it.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, status: int, from_service: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.from_service = from_service


class OperationFailedError(ServiceError):
    """The operation ended as FAILED or ERROR; `reason` is the service's own text."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(f"the operation failed: {reason}", hint=hint)
        self.reason = reason


class GoneError(ServiceError):
    """The operation, the export or the link asked for no longer exists (404, 410, or an expired link).

    Args:
        message: What was tried and what came back.
        from_service: It was said in the service's own form, a JSON object; no page of a box before it.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, from_service: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.from_service = from_service


class ArchiveError(ExportError):
    """The file delivered is not one whole export."""


class IncompleteError(ArchiveError):
    """The file stopped early, or nothing proved that it ended where it did: fetch it again."""

    transient = True


class UnprovedEmptyError(IncompleteError):
    """The file has no rows, no hash, and no gzip around it: it is believed when a second look says the same."""

    def __init__(self) -> None:
        super().__init__("no rows came, and nothing proves that there are none")


class CorruptError(ArchiveError):
    """The file arrived whole and is wrong: a bad checksum, a broken structure."""


class OtherHashError(CorruptError):
    """The file does not have the hash that the storage host names, which may be that of another form of it.

    `sha256` is that of the archive that was made of it: when the same comes again, it is believed.
    """

    def __init__(self, sha256: str) -> None:
        super().__init__(
            "the archive does not have the hash that the storage host names, perhaps of another form of it"
        )
        self.sha256 = sha256


class NoExportError(CorruptError):
    """The file is no export of this kind from its beginning: some box on the way may have sent it.

    Attributes:
        is_as_stored: It is the one that the storage host holds, by its hash.
    """

    is_as_stored = False


class UnknownRowsError(NoExportError):
    """The file has rows, and no name in them is one that a row of an export has; `members` are some of the names."""

    def __init__(self, members: Sequence[str]) -> None:
        named = ", ".join(map(repr, members))
        super().__init__(
            f"the file is no export: none of its names is known or was asked for ({named})",
            hint="some box on the way may have sent it; if these are your rows, name their fields in the "
            "[[export]] fields of a new export",
        )
        self.members = tuple(members)


class ForeignRowsError(CorruptError):
    """The file is whole, and most of its rows lie outside of the range that was asked for: it is another bundle's.

    Args:
        outside: Rows outside of the range, of those looked at.
        timed: Rows looked at whose time could be read.
    """

    def __init__(self, *, outside: int, timed: int) -> None:
        super().__init__(
            f"its rows are of another time: {outside} of {timed} looked at lie outside of the range by EventStart"
        )
        self.outside = outside
        self.timed = timed


class FewerRowsError(ArchiveError):
    """The file is whole, and has far fewer rows than the sound archive it would replace, which stays.

    Args:
        rows_before: Rows of the archive that stays.
        rows_found: Rows of the file.
    """

    def __init__(self, *, rows_before: int, rows_found: int) -> None:
        super().__init__(f"far fewer rows came: {rows_found} in place of {rows_before}")
        self.rows_before = rows_before
        self.rows_found = rows_found


class StorageError(ExportError):
    """The disk is full, not writable, or failed to make data durable."""


class LedgerError(ExportError):
    """The ledger does not fit this run, or is missing beside archives."""


class LedgerLockedError(LedgerError):
    """Another run holds the output directory."""


class LedgerCorruptError(LedgerError):
    """The ledger cannot be read as what was written to it."""


class IllegalMove(RuntimeError):  # noqa: N818 - a bug of ours, not an error of anybody's
    """A bundle was moved to a state that its present one does not lead to."""
