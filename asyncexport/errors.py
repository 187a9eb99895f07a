"""Everything that can go wrong, as one tree, ordered by which side caused it.

    ExportError                     base class with .hint; .transient says whether a retry may help
    ├── ConfigError                 the user: all problems found, in one error
    ├── ServiceError                the service, or the way to it
    │   ├── UnauthorizedError       the service refused the API key (401)
    │   ├── RateLimitedError        too many requests (429); .retry_after in seconds, or None
    │   ├── UnavailableError        no route, no name, a reset, a timeout, 408, 499, 5xx: an outage
    │   ├── ReplyError              an answer, but not one that the API documents
    │   ├── RefusedError            the service, or a proxy or gateway, refused (another 4xx); .status, .from_service
    │   ├── OperationFailedError    the operation ended as FAILED or ERROR; .reason
    │   └── GoneError               the operation, export or link no longer exists
    ├── ArchiveError                the downloaded file
    │   ├── IncompleteError         it stopped early, or nothing confirms that it is complete: fetch it again
    │   │   └── UnprovedEmptyError  it has no rows, and nothing confirms that: it needs a second check
    │   ├── CorruptError            it is complete, but wrong
    │   │   ├── OtherHashError      its hash differs from the storage host's, perhaps the hash of another form; .sha256
    │   │   ├── NoExportError       it is not an export of this kind at all
    │   │   │   └── UnknownRowsError    its rows have no known field
    │   │   └── ForeignRowsError    its rows lie outside the requested range; .outside of .timed
    │   └── FewerRowsError          it is complete, but has far fewer rows than the archive it would replace
    ├── ChangedArchiveError         an archive is not the file that the ledger describes; .path
    ├── DayCountError               the rows of a day's archives are not as many as the ledger says
    ├── OverlapError                archives of a day overlap
    ├── DayError                    a day could not be made into tables
    ├── SinkError                   a destination of loaded days failed; .sink
    ├── MirrorError                 the object store of the mirror failed; .is_general
    ├── StorageError                the disk
    │   └── PlaceError              one file or folder on it
    └── LedgerError                 the ledger: of another export, or missing although archives exist
        ├── LedgerLockedError       another run holds it
        └── LedgerCorruptError      it cannot be read

    IllegalMove(RuntimeError)       a bug in asyncexport

No message contains an API key or the query of a signed URL: the code that raises an error leaves them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class ExportError(Exception):
    """The base of all errors that asyncexport raises. The message is one line, in the user's words.

    Args:
        message: What was tried and what happened.
        hint: The next thing to do, or "" if there is none.
    """

    transient: bool = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Let an error pass from one process to another with all that it holds, whatever its constructor asks for."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[ExportError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> ExportError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem in the configuration: its place (`table.key`, a variable, a flag) and what is wrong.

    `file` is the configuration file, as the user named it; "" if the problem is not in a file.
    """

    place: str
    message: str
    file: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the problem without its file."""
        return f"{self.place}: {self.message}" if self.place else self.message

    @property
    def text(self) -> str:
        """The problem as it is printed, with the file."""
        return f"{self.file}: {self}" if self.file else str(self)


class ConfigError(ExportError):
    """The configuration or the command line cannot be used. `problems` holds every problem found."""

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.text for problem in self.problems), hint=hint)


class ServiceError(ExportError):
    """The service failed, or the way to it."""


class UnauthorizedError(ServiceError):
    """The service refused the API key (401)."""


class RateLimitedError(ServiceError):
    """The service answered 429: too many requests. `retry_after` is in seconds, or None if it did not say."""

    transient = True

    def __init__(self, message: str, *, retry_after: float | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class UnavailableError(ServiceError):
    """The service cannot be reached, or fails (no route, 408, 499, 5xx).

    Args:
        message: What was tried and what happened.
        unanswered: Whether the request may have arrived and been carried out, although no answer came.
        lasting: Whether the outage has lasted longer than a run waits.
        retry_after: Seconds after which the service wants to be asked again. None if it did not say.
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
    """The service answered, but not as the API documents. `status` is the HTTP status, if there is one."""

    transient = True

    def __init__(self, message: str, *, status: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class RefusedError(ServiceError):
    """The service, or a proxy or gateway, understood the request and refused it.

    Args:
        message: What was tried and what happened.
        status: The HTTP status.
        from_service: Whether the answer is a JSON object as the service sends it, and not the page of a proxy or
            gateway.
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
    """The operation, export or link no longer exists (404, 410, or an expired link).

    Args:
        message: What was tried and what happened.
        from_service: Whether the answer is a JSON object as the service sends it, and not the page of a proxy or
            gateway.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, from_service: bool = True, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.from_service = from_service


class ArchiveError(ExportError):
    """The downloaded file is not one complete export."""


class IncompleteError(ArchiveError):
    """The file stopped early, or nothing confirms that it is complete: fetch it again."""

    transient = True


class UnprovedEmptyError(IncompleteError):
    """The file has no rows, no hash and no gzip around it. It is believed when a second check finds the same."""

    def __init__(self) -> None:
        super().__init__("the file has no rows, and nothing confirms that there are none")


class CorruptError(ArchiveError):
    """The file is complete, but wrong: a bad checksum, a broken structure."""


class OtherHashError(CorruptError):
    """The file's hash differs from the one the storage host reports, which may be that of another form of the file.

    `sha256` is the hash of the archive made of it: if the same comes again, the file is accepted.
    """

    def __init__(self, sha256: str) -> None:
        super().__init__(
            "the archive's hash differs from the one the storage host reports, which may be that of another form of it"
        )
        self.sha256 = sha256


class NoExportError(CorruptError):
    """The file is not an export of this kind from its first bytes: a proxy or gateway may have sent it.

    Attributes:
        is_as_stored: Whether its hash shows that it is the file the storage host holds.
    """

    is_as_stored = False


class UnknownRowsError(NoExportError):
    """The file has rows, but none of their fields is known or was asked for. `members` are some of the fields."""

    def __init__(self, members: Sequence[str]) -> None:
        named = ", ".join(map(repr, members))
        super().__init__(
            f"the file is not an export: none of its fields is known or was asked for ({named})",
            hint="a proxy or gateway may have sent it; if these are your rows, name their fields in the "
            "[[export]] fields of a new export",
        )
        self.members = tuple(members)


class ForeignRowsError(CorruptError):
    """The file is complete, but most of its rows lie outside the requested range: it is another bundle's.

    Args:
        outside: Sampled rows outside the range.
        timed: Sampled rows whose time could be read.
    """

    def __init__(self, *, outside: int, timed: int) -> None:
        super().__init__(
            f"its rows belong to another range: EventStart of {outside} of {timed} sampled rows lies outside the range"
        )
        self.outside = outside
        self.timed = timed


class FewerRowsError(ArchiveError):
    """The file is complete, but has far fewer rows than the intact archive it would replace. The archive stays.

    Args:
        rows_before: Rows of the archive that stays.
        rows_found: Rows of the file.
    """

    def __init__(self, *, rows_before: int, rows_found: int) -> None:
        super().__init__(f"the new export has far fewer rows: {rows_found} instead of {rows_before}")
        self.rows_before = rows_before
        self.rows_found = rows_found


class ChangedArchiveError(ExportError):
    """An archive is not the file that the ledger describes: it was replaced meanwhile, or altered.

    Args:
        message: What was tried and what happened.
        path: The archive, relative to the output directory.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, path: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class DayError(ExportError):
    """A day could not be made into tables, for a reason of its own. Other days go on."""


class OverlapError(ExportError):
    """Archives of a day overlap, so it would hold the same rows twice. The day is not published."""


class DayCountError(ExportError):
    """The rows that were read from a day's archives are not as many as the ledger says. The day is not published."""


class SinkError(ExportError):
    """A destination of loaded days failed: it cannot be reached, or refused something. Other destinations go on.

    Args:
        message: What was tried and what happened.
        sink: The destination, as in `[load] to`.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, sink: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sink = sink


class MirrorError(ExportError):
    """The object store of the mirror cannot be reached, or refused something.

    Args:
        message: What was tried and what happened.
        is_general: Whether it concerns the store as a whole: another object would fail in the same way.
        hint: The next thing to do.
    """

    def __init__(self, message: str, *, is_general: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.is_general = is_general


class CutAnswerError(MirrorError):
    """The connection to the object store broke in the middle of an answer."""


class OddNameError(MirrorError):
    """An object in the bucket has a name that the library cannot read, so the listing cannot be used."""


class StorageError(ExportError):
    """The disk is full, not writable, or failed to make data durable."""


class PlaceError(StorageError):
    """One file or folder cannot be used, and others may be."""


class LedgerError(ExportError):
    """The ledger belongs to another export definition, or is missing although archives exist."""


class LedgerLockedError(LedgerError):
    """Another run holds the output directory."""


class LedgerCorruptError(LedgerError):
    """The ledger cannot be read: its contents are not what asyncexport wrote."""


class IllegalMove(RuntimeError):  # noqa: N818 - a bug in asyncexport, not an error to handle
    """A bundle was moved to a state that does not follow from its present one."""
