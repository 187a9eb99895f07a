"""What to do after a failed call: one table, for all calls to the service and to the storage host.

`decide` takes the kind of call (`Call`), how it failed (`Failure`), and what is known of this export and of the others
(`Facts`). It returns what to do next (`Action`). All decisions about failures are made here. The facts come from
`core.service.refusals` and `core.service.operation_failures`, which keep the times and the counts.

1. An error from the service itself counts for more than the page of a proxy or gateway. The service's own errors are
   JSON objects.
2. If several bundles in a row are refused, the cause is not a single bundle. If one bundle is refused while others
   succeed, the cause is that bundle.
3. A refusal leads to no new export as long as the operation or its file may still be fine. Only two things lead to
   one: the service's own 404 or 410, repeated a minute later, and an export so old that the service may have deleted
   it.
4. If all exports are refused, the key may be the cause. `/me` tells whether the key is good.
5. An outage or an overloaded service never counts against a bundle. The exception is a bundle that has been getting 5xx
   for `[retry] outage` while other bundles succeed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from asyncexport.errors import (
    ArchiveError,
    CorruptError,
    ExportError,
    FewerRowsError,
    ForeignRowsError,
    GoneError,
    NoExportError,
    OperationFailedError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    UnauthorizedError,
    UnavailableError,
    UnprovedEmptyError,
)


class Call(Enum):
    """The kinds of calls. The values are their names in messages."""

    CREATE = "creates"
    POLL = "polls"
    LIST = "lists of operations"
    RESULTS = "results calls"
    DOWNLOAD = "downloads"


class Failure(Enum):
    """The ways in which a call can fail."""

    UNAVAILABLE = "no answer, or 408, 499 or 5xx"
    GIVEN_UP = "an outage longer than `[retry] outage`, or a certificate or proxy that cannot be used"
    RATE_LIMITED = "429"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403 from the service itself"
    BLOCKED = "403 from a proxy or gateway, or 401 although the key is good"
    REFUSED = "another 4xx, or a redirect"
    GONE = "404 or 410 for an operation or an export, from the service itself"
    NOT_FOUND = "404 or 410 for an operation or an export, from a proxy or gateway"
    DENIED = "another 4xx from the storage host"
    DEAD_LINK = "a signed URL that has expired or leads nowhere"
    UNREADABLE = "an answer that is not what the API documents"
    OPERATION_FAILED = (
        "an operation that ended as FAILED or ERROR, or that belongs to another bundle, as may its export"
    )
    INCOMPLETE = "a file that stopped early, or whose end was not confirmed"
    CORRUPT = "a complete file that is damaged"
    FEWER_ROWS = "a complete file with far fewer rows than the archive it would replace"
    NO_ROWS = "a file without rows, whose completeness nothing confirms"
    FOREIGN_ROWS = "a complete file with the rows of another range"
    NO_EXPORT = "a file in another format, or without any field name that is known or was asked for"


class Action(Enum):
    """What to do next."""

    RETRY = "make the same call again later"
    WAIT = "wait for the service; nothing is counted"
    TRY_OTHERS = "wait until a create of another bundle of this export was answered"
    TRY_NEWEST = "wait until a create of the newest bundle of this export was answered"
    POLL_SINGLY = "poll operations one at a time, and ask for the list again later"
    NEW_LINK = "ask for a new link"
    SECOND_LOOK = "download the file again through a new link, `[download] second_look` later"
    NEW_ATTEMPT = "count an attempt, and create a new export"
    PARK = "park the bundle"
    STOP_EXPORT = "stop this export"
    CHECK_KEY = "check the key with `/me`"
    STOP_RUN = "stop the run"


class KeyStatus(Enum):
    """What `/me` said about the key."""

    UNCHECKED = "not asked yet"
    GOOD = "the key is good"
    REFUSED = "the key is refused"
    UNCLEAR = "`/me` gave neither answer"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this export and of the others when a call has failed.

    Attributes:
        key: What `/me` said about the key since the call failed.
        key_has_worked: Whether any call with this key in this directory has ever succeeded, in this run or before.
        has_worked: Whether such a call of this export has ever succeeded.
        others_succeed: Whether such a call of another bundle of this export has succeeded since this bundle's calls
            began to fail.
        lasting: Whether the refusals have lasted long enough to be taken as final (`LASTING_SECONDS`).
        repeated: Whether the same answer came before, at least `CONFIRMATION_SECONDS` ago.
        expired: Whether the export is so old that the service may have deleted it.
        in_a_row: How many creates of this export were refused one after another.
        newest_left: Whether the newest bundle of this export can still be tried.
        retries_left: Whether this file may be fetched again.
        outage_exceeded: Whether these calls have been failing for `[retry] outage`.
        service_is_failing: Whether the operations of several bundles failed in a row, so that the service is the cause.
        range_is_checked: Whether files of this export are still rejected for rows of another range.
        repeatedly_no_export: Whether several files of this export in a row were no export, or of this bundle alone, so
            that this is no accident.
        only_this_bundle: Whether only this bundle's calls have been refused so far, or only its files are no export;
            those of others may not have been asked for yet.
    """

    key: KeyStatus = KeyStatus.UNCHECKED
    key_has_worked: bool = True
    has_worked: bool = True
    others_succeed: bool = False
    lasting: bool = False
    repeated: bool = False
    expired: bool = False
    in_a_row: int = 1
    newest_left: bool = True
    retries_left: bool = True
    outage_exceeded: bool = False
    service_is_failing: bool = False
    range_is_checked: bool = True
    repeatedly_no_export: bool = False
    only_this_bundle: bool = False


CREATES_IN_A_ROW = 3
"""After this many refused creates in a row the newest bundle is tried. Its result shows whether the data of the others
is too old or the whole export is refused."""

_API = frozenset({Call.CREATE, Call.POLL, Call.LIST, Call.RESULTS})
_KEPT = frozenset({Call.POLL, Call.RESULTS})
"""Calls about an operation or a file that may be fine even though the call failed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table. The first row that matches decides.

    Attributes:
        calls: The kinds of calls it is for.
        failures: The kinds of failures it is for.
        when: The condition on the facts.
        then: What to do next.
    """

    calls: frozenset[Call]
    failures: frozenset[Failure]
    when: Callable[[Facts], bool]
    then: Action


def _rule(
    calls: Call | frozenset[Call],
    failures: Failure | tuple[Failure, ...],
    then: Action,
    when: Callable[[Facts], bool] = lambda _: True,
) -> Rule:
    asked = calls if isinstance(calls, frozenset) else frozenset({calls})
    several = failures if isinstance(failures, tuple) else (failures,)
    return Rule(asked, frozenset(several), when, then)


_ANY = frozenset(Call)
_NOT_THE_LIST = _ANY - {Call.LIST}
_FORBIDDEN = (Failure.FORBIDDEN, Failure.BLOCKED)
_NO = (*_FORBIDDEN, Failure.REFUSED, Failure.NOT_FOUND)
REFUSALS = frozenset({*_NO, Failure.DENIED})
"""After one of these failures only probes are sent: all calls of that kind may be refused."""

_NO_CREATE = (*_NO, Failure.GONE)
_FETCHES = frozenset({Call.RESULTS, Call.DOWNLOAD})

TABLE: tuple[Rule, ...] = (
    # Failures that concern all bundles.
    _rule(_ANY, Failure.GIVEN_UP, Action.STOP_RUN),
    _rule(_ANY, Failure.RATE_LIMITED, Action.WAIT),
    # The key: a 401 is confirmed with `/me`, and so is a 403 for a key that has never worked in this directory.
    _rule(_API, Failure.UNAUTHORIZED, Action.CHECK_KEY, lambda facts: facts.key is KeyStatus.UNCHECKED),
    _rule(_ANY, Failure.UNAUTHORIZED, Action.STOP_RUN, lambda facts: facts.key is not KeyStatus.GOOD),
    _rule(
        _API,
        Failure.FORBIDDEN,
        Action.CHECK_KEY,
        lambda facts: not facts.key_has_worked and facts.key is KeyStatus.UNCHECKED,
    ),
    _rule(_API, _FORBIDDEN, Action.STOP_RUN, lambda facts: facts.key is KeyStatus.REFUSED),
    # The service is unavailable: wait, up to `[retry] outage`. Then it depends on whether other bundles succeed.
    _rule(_NOT_THE_LIST, Failure.UNAVAILABLE, Action.WAIT, lambda facts: not facts.outage_exceeded),
    _rule(Call.CREATE, Failure.UNAVAILABLE, Action.PARK, lambda facts: facts.others_succeed),
    _rule(Call.CREATE, Failure.UNAVAILABLE, Action.WAIT),
    _rule(_FETCHES, Failure.UNAVAILABLE, Action.NEW_ATTEMPT, lambda facts: facts.others_succeed),
    _rule(_FETCHES, Failure.UNAVAILABLE, Action.STOP_RUN),
    _rule(Call.POLL, Failure.UNAVAILABLE, Action.NEW_ATTEMPT),
    _rule(Call.LIST, Failure.UNAVAILABLE, Action.WAIT),
    # The list saves requests; without it operations are polled one at a time.
    _rule(Call.LIST, (*_NO, Failure.GONE), Action.POLL_SINGLY),
    _rule(Call.LIST, (Failure.UNAUTHORIZED, Failure.UNREADABLE), Action.RETRY),
    # Creates: a 403 is probed. Any other refusal stops the export if its newest bundle is refused, too.
    _rule(Call.CREATE, (*_FORBIDDEN, Failure.UNAUTHORIZED), Action.RETRY, lambda facts: not facts.lasting),
    _rule(Call.CREATE, (*_FORBIDDEN, Failure.UNAUTHORIZED), Action.PARK, lambda facts: facts.others_succeed),
    _rule(Call.CREATE, _FORBIDDEN, Action.CHECK_KEY, lambda facts: facts.key is KeyStatus.UNCHECKED),
    _rule(Call.CREATE, (*_FORBIDDEN, Failure.UNAUTHORIZED), Action.STOP_EXPORT),
    _rule(Call.CREATE, _NO_CREATE, Action.PARK, lambda facts: facts.others_succeed),
    _rule(Call.CREATE, _NO_CREATE, Action.STOP_EXPORT, lambda facts: not facts.newest_left),
    _rule(Call.CREATE, _NO_CREATE, Action.TRY_NEWEST, lambda facts: facts.in_a_row >= CREATES_IN_A_ROW),
    _rule(Call.CREATE, _NO_CREATE, Action.TRY_OTHERS),
    _rule(Call.CREATE, Failure.UNREADABLE, Action.STOP_EXPORT, lambda facts: not facts.has_worked and facts.repeated),
    _rule(
        Call.CREATE, Failure.UNREADABLE, Action.STOP_EXPORT, lambda facts: facts.lasting and not facts.others_succeed
    ),
    _rule(Call.CREATE, Failure.UNREADABLE, Action.NEW_ATTEMPT),
    # Polls, results calls and downloads: the operation and its file may be fine although the call failed.
    _rule(_KEPT, Failure.GONE, Action.NEW_ATTEMPT, lambda facts: facts.repeated or facts.expired),
    _rule(_KEPT, Failure.GONE, Action.RETRY),
    _rule(_FETCHES, (*_NO, Failure.DENIED, Failure.DEAD_LINK), Action.NEW_ATTEMPT, lambda facts: facts.expired),
    _rule(_KEPT, Failure.UNREADABLE, Action.STOP_EXPORT, lambda facts: not facts.has_worked and facts.repeated),
    _rule(Call.POLL, Failure.UNREADABLE, Action.RETRY),
    _rule(
        Call.DOWNLOAD,
        (Failure.DENIED, Failure.DEAD_LINK, Failure.UNREADABLE),
        Action.NEW_LINK,
        lambda facts: not facts.lasting,
    ),
    _rule(_KEPT, (*_NO, Failure.UNAUTHORIZED, Failure.UNREADABLE), Action.RETRY, lambda facts: not facts.lasting),
    _rule(
        _NOT_THE_LIST,
        (*_NO, Failure.UNAUTHORIZED, Failure.DENIED, Failure.DEAD_LINK, Failure.UNREADABLE),
        Action.PARK,
        lambda facts: facts.others_succeed,
    ),
    _rule(_KEPT, _FORBIDDEN, Action.CHECK_KEY, lambda facts: facts.key is KeyStatus.UNCHECKED),
    # One bundle alone never stops an export: the next bundle's call shows which side caused the refusal.
    _rule(
        _FETCHES,
        (*_NO, Failure.DENIED, Failure.DEAD_LINK, Failure.UNREADABLE),
        Action.PARK,
        lambda facts: facts.only_this_bundle,
    ),
    _rule(
        _NOT_THE_LIST,
        (*_NO, Failure.UNAUTHORIZED, Failure.DENIED, Failure.DEAD_LINK, Failure.UNREADABLE),
        Action.STOP_EXPORT,
    ),
    # Failures of one operation or one file.
    _rule(Call.POLL, Failure.OPERATION_FAILED, Action.WAIT, lambda facts: facts.service_is_failing),
    _rule(Call.POLL, Failure.OPERATION_FAILED, Action.NEW_ATTEMPT),
    _rule(Call.DOWNLOAD, Failure.FEWER_ROWS, Action.PARK),
    # Complete files that are not this bundle's archive.
    _rule(Call.DOWNLOAD, Failure.NO_ROWS, Action.SECOND_LOOK),
    _rule(Call.DOWNLOAD, Failure.FOREIGN_ROWS, Action.NEW_ATTEMPT, lambda facts: facts.range_is_checked),
    _rule(Call.DOWNLOAD, Failure.FOREIGN_ROWS, Action.NEW_LINK),
    _rule(
        Call.DOWNLOAD,
        Failure.NO_EXPORT,
        Action.STOP_EXPORT,
        lambda facts: facts.repeatedly_no_export and not facts.only_this_bundle,
    ),
    # One bundle alone never stops an export. Its file may be there behind a proxy that is in trouble.
    _rule(
        Call.DOWNLOAD,
        Failure.NO_EXPORT,
        Action.PARK,
        lambda facts: facts.repeatedly_no_export and not facts.expired,
    ),
    _rule(Call.DOWNLOAD, Failure.NO_EXPORT, Action.NEW_ATTEMPT, lambda facts: facts.repeatedly_no_export),
    _rule(
        Call.DOWNLOAD,
        (Failure.INCOMPLETE, Failure.CORRUPT, Failure.NO_EXPORT),
        Action.NEW_ATTEMPT,
        lambda facts: not facts.retries_left,
    ),
    _rule(Call.DOWNLOAD, Failure.NO_EXPORT, Action.SECOND_LOOK),
    _rule(Call.DOWNLOAD, Failure.INCOMPLETE, Action.RETRY),
    _rule(Call.DOWNLOAD, Failure.CORRUPT, Action.NEW_LINK),
)
"""The first row that matches decides. A failure without a row is a bug in asyncexport."""


def decide(call: Call, failure: Failure, known: Facts) -> Action:
    """Return what to do next.

    Raises:
        LookupError: a call of this kind cannot fail in this way.
    """
    for rule in TABLE:
        if call in rule.calls and failure in rule.failures and rule.when(known):
            return rule.then
    raise LookupError(f"the table has no row for {failure} of {call}")


def failure_of(call: Call, error: ExportError) -> Failure:
    """Return how a call failed, from the error it raised."""
    match error:
        case UnauthorizedError():
            return Failure.UNAUTHORIZED
        case RateLimitedError():
            return Failure.RATE_LIMITED
        case UnavailableError():
            return Failure.UNAVAILABLE if error.transient else Failure.GIVEN_UP
        case ReplyError():
            return Failure.UNREADABLE
        case OperationFailedError():
            return Failure.OPERATION_FAILED
        case GoneError() if call is Call.DOWNLOAD:
            return Failure.DEAD_LINK
        case GoneError(from_service=from_service):
            return Failure.GONE if from_service else Failure.NOT_FOUND
        case RefusedError() if call is Call.DOWNLOAD:
            return Failure.DENIED
        case RefusedError(status=403, from_service=True):
            return Failure.FORBIDDEN
        case RefusedError(status=401 | 403):
            return Failure.BLOCKED
        case RefusedError():
            return Failure.REFUSED
        case FewerRowsError():
            return Failure.FEWER_ROWS
        case UnprovedEmptyError():
            return Failure.NO_ROWS
        case ForeignRowsError():
            return Failure.FOREIGN_ROWS
        case NoExportError():
            return Failure.NO_EXPORT
        case CorruptError():
            return Failure.CORRUPT
        case ArchiveError():
            return Failure.INCOMPLETE
        case _:
            # A certificate that cannot be trusted, or a proxy that wants a password: asking again does not help.
            return Failure.GIVEN_UP
