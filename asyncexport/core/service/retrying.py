"""What to do after a failed call: one table, for every call to the service and to the storage host.

`decide` takes the kind of call (`Call`), the kind of failure (`CameBack`), and what is known of this export and of the
others (`Facts`). It returns what to do next (`Next`). All decisions about failures are made here. The facts come from
`core.service.refusals` and `core.service.operation_failures`, which keep the moments and the counts.

1. An error of the service itself counts for more than the page of a proxy or firewall on the way. The service's own
   errors are JSON objects.
2. A refusal of several bundles in a row is not the bundle's fault. A refusal of one bundle is, while others succeed.
3. A refusal leads to no new export as long as the operation or its file may still be fine. Only two things do: the
   service's own 404 or 410, given twice a minute apart, and an export too old to be kept by the service.
4. What is refused to all exports may be the fault of the key. `/me` tells whether the key is good.
5. An outage or an overloaded service never counts against a bundle, and never parks one.
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
    """What was asked; the value is what messages call it."""

    CREATE = "creates"
    POLL = "polls"
    LIST = "lists of operations"
    RESULTS = "results calls"
    DOWNLOAD = "downloads"


class CameBack(Enum):
    """What came back."""

    TROUBLE = "no answer, or one that the service is in trouble: 408, 499, 5xx"
    GIVEN_UP = "the service was given up, or cannot be trusted: waiting is no use"
    TOO_OFTEN = "429"
    KEY_REFUSED = "401"
    FORBIDDEN = "403 in the service's own form"
    BLOCKED = "403 in another form, or 401 although the key is good"
    REFUSED = "another 4xx, or a redirect"
    GONE = "404 or 410 in the service's own form, of an operation or an export"
    NOT_FOUND = "404 or 410 in another form, of an operation or an export"
    DENIED = "the storage host said no"
    DEAD_LINK = "the link has expired, or leads nowhere"
    UNREADABLE = "an answer that cannot be read"
    OPERATION_FAILED = "the operation ended as FAILED or ERROR, or it is another bundle's, or its export is"
    CUT = "a file that stopped early"
    BAD_FILE = "a whole file that is wrong"
    FEWER_ROWS = "a whole file with far fewer rows than the archive"
    NO_ROWS = "a file without rows, for which nothing vouches"
    OTHER_ROWS = "a whole file with the rows of another range"
    NO_EXPORT = "a file that is no export of this kind, or in which no name is one of an export"


class Next(Enum):
    """What to do next."""

    AGAIN = "ask for the same again later"
    WAIT = "wait for the service; nothing is counted"
    SEE_OTHERS = "see first how other bundles of this export fare"
    TRY_NEWEST = "see first how the newest bundle of this export fares"
    ASK_SINGLY = "ask for operations singly, and for the list again later"
    NEW_LINK = "ask for a new link"
    SECOND_LOOK = "look at the file once more, `[download] second_look` later and through a new link"
    NEW_ATTEMPT = "count an attempt, and ask for a new export"
    PARK = "park the bundle"
    STOP_EXPORT = "stop this export"
    CHECK_KEY = "ask whose key it is"
    STOP_RUN = "stop the run"


class Key(Enum):
    """What `/me` said of the key."""

    UNASKED = "not asked"
    ANSWERED = "it is good"
    REFUSED = "it is refused"
    UNCLEAR = "neither"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this export and of the others when a call has failed.

    Attributes:
        key: What `/me` said of the key since the call failed.
        key_ever_good: Whether the service ever did what was asked with this key in this directory, now or before.
        ever_good: Whether such a call of this export ever went well.
        others_get_on: Whether such a call of another bundle of this export went well since this one's trouble began.
        believed: Whether the refusals have lasted long enough to be taken as final (`BELIEVED_SECONDS`).
        said_twice: Whether the same answer came before, at least `REPEATED_SECONDS` ago.
        expired: Whether the export is so old that the service may have deleted it.
        in_a_row: How many creates of this export were refused one after another.
        newest_left: Whether the newest bundle of this export can still be tried.
        tries_left: Whether this file may be tried again.
        outlasted: Whether the trouble has lasted for `[retry] outage`.
        service_fails: Whether operations of many bundles failed in a row, which is the service's trouble.
        range_is_rule: Whether files of this export are refused for rows of another range.
        never_an_export: Whether several files of it in a row were no export, so that it is no accident on the way.
        is_alone: Whether this bundle's calls alone were refused so far: others may not have been sent yet.
    """

    key: Key = Key.UNASKED
    key_ever_good: bool = True
    ever_good: bool = True
    others_get_on: bool = False
    believed: bool = False
    said_twice: bool = False
    expired: bool = False
    in_a_row: int = 1
    newest_left: bool = True
    tries_left: bool = True
    outlasted: bool = False
    service_fails: bool = False
    range_is_rule: bool = True
    never_an_export: bool = False
    is_alone: bool = False


CREATES_IN_A_ROW = 3
"""After this many refused creates in a row the newest bundle is tried: it tells whether the data of the others is too
old, or the whole export is refused."""

_API = frozenset({Call.CREATE, Call.POLL, Call.LIST, Call.RESULTS})
_KEPT = frozenset({Call.POLL, Call.RESULTS})
"""Calls about an operation or a file that may be fine, whatever is said."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table; the first that fits counts.

    Attributes:
        calls: What was asked.
        came_back: What came back.
        when: What must be known besides.
        then: What to do next.
    """

    calls: frozenset[Call]
    came_back: frozenset[CameBack]
    when: Callable[[Facts], bool]
    then: Next


def _rule(
    calls: Call | frozenset[Call],
    came_back: CameBack | tuple[CameBack, ...],
    then: Next,
    when: Callable[[Facts], bool] = lambda _: True,
) -> Rule:
    asked = calls if isinstance(calls, frozenset) else frozenset({calls})
    answers = came_back if isinstance(came_back, tuple) else (came_back,)
    return Rule(asked, frozenset(answers), when, then)


_ANY = frozenset(Call)
_NOT_THE_LIST = _ANY - {Call.LIST}
_FORBIDDEN = (CameBack.FORBIDDEN, CameBack.BLOCKED)
_NO = (*_FORBIDDEN, CameBack.REFUSED, CameBack.NOT_FOUND)
REFUSALS = frozenset({*_NO, CameBack.DENIED})
"""Calls that fail so are held back and probed: all calls of their kind may be refused."""

_NO_CREATE = (*_NO, CameBack.GONE)
_FETCHES = frozenset({Call.RESULTS, Call.DOWNLOAD})

TABLE: tuple[Rule, ...] = (
    # What concerns everybody.
    _rule(_ANY, CameBack.GIVEN_UP, Next.STOP_RUN),
    _rule(_ANY, CameBack.TOO_OFTEN, Next.WAIT),
    # The key: 401 is confirmed once; 403 of a key that never did anything here as well.
    _rule(_API, CameBack.KEY_REFUSED, Next.CHECK_KEY, lambda facts: facts.key is Key.UNASKED),
    _rule(_ANY, CameBack.KEY_REFUSED, Next.STOP_RUN, lambda facts: facts.key is not Key.ANSWERED),
    _rule(_API, CameBack.FORBIDDEN, Next.CHECK_KEY, lambda facts: not facts.key_ever_good and facts.key is Key.UNASKED),
    _rule(_API, _FORBIDDEN, Next.STOP_RUN, lambda facts: facts.key is Key.REFUSED),
    # Trouble of the service: waited out, unless it is this bundle's alone for as long as anybody waits.
    _rule(_NOT_THE_LIST, CameBack.TROUBLE, Next.WAIT, lambda facts: not facts.outlasted),
    _rule(Call.CREATE, CameBack.TROUBLE, Next.PARK, lambda facts: facts.others_get_on),
    _rule(Call.CREATE, CameBack.TROUBLE, Next.WAIT),
    _rule(_FETCHES, CameBack.TROUBLE, Next.NEW_ATTEMPT, lambda facts: facts.others_get_on),
    _rule(_FETCHES, CameBack.TROUBLE, Next.STOP_RUN),
    _rule(Call.POLL, CameBack.TROUBLE, Next.NEW_ATTEMPT),
    _rule(Call.LIST, CameBack.TROUBLE, Next.WAIT),
    # The list is a convenience: without it operations are asked for singly.
    _rule(Call.LIST, (*_NO, CameBack.GONE), Next.ASK_SINGLY),
    _rule(Call.LIST, (CameBack.KEY_REFUSED, CameBack.UNREADABLE), Next.AGAIN),
    # Creates: 403 is probed. What else is refused is the export's, if its newest bundle is refused, too.
    _rule(Call.CREATE, (*_FORBIDDEN, CameBack.KEY_REFUSED), Next.AGAIN, lambda facts: not facts.believed),
    _rule(Call.CREATE, (*_FORBIDDEN, CameBack.KEY_REFUSED), Next.PARK, lambda facts: facts.others_get_on),
    _rule(Call.CREATE, _FORBIDDEN, Next.CHECK_KEY, lambda facts: facts.key is Key.UNASKED),
    _rule(Call.CREATE, (*_FORBIDDEN, CameBack.KEY_REFUSED), Next.STOP_EXPORT),
    _rule(Call.CREATE, _NO_CREATE, Next.PARK, lambda facts: facts.others_get_on),
    _rule(Call.CREATE, _NO_CREATE, Next.STOP_EXPORT, lambda facts: not facts.newest_left),
    _rule(Call.CREATE, _NO_CREATE, Next.TRY_NEWEST, lambda facts: facts.in_a_row >= CREATES_IN_A_ROW),
    _rule(Call.CREATE, _NO_CREATE, Next.SEE_OTHERS),
    _rule(Call.CREATE, CameBack.UNREADABLE, Next.STOP_EXPORT, lambda facts: not facts.ever_good and facts.said_twice),
    _rule(Call.CREATE, CameBack.UNREADABLE, Next.STOP_EXPORT, lambda facts: facts.believed and not facts.others_get_on),
    _rule(Call.CREATE, CameBack.UNREADABLE, Next.NEW_ATTEMPT),
    # An operation, a file: both may be fine, whatever is said of them.
    _rule(_KEPT, CameBack.GONE, Next.NEW_ATTEMPT, lambda facts: facts.said_twice or facts.expired),
    _rule(_KEPT, CameBack.GONE, Next.AGAIN),
    _rule(_FETCHES, (*_NO, CameBack.DENIED, CameBack.DEAD_LINK), Next.NEW_ATTEMPT, lambda facts: facts.expired),
    _rule(_KEPT, CameBack.UNREADABLE, Next.STOP_EXPORT, lambda facts: not facts.ever_good and facts.said_twice),
    _rule(Call.POLL, CameBack.UNREADABLE, Next.AGAIN),
    _rule(
        Call.DOWNLOAD,
        (CameBack.DENIED, CameBack.DEAD_LINK, CameBack.UNREADABLE),
        Next.NEW_LINK,
        lambda facts: not facts.believed,
    ),
    _rule(_KEPT, (*_NO, CameBack.KEY_REFUSED, CameBack.UNREADABLE), Next.AGAIN, lambda facts: not facts.believed),
    _rule(
        _NOT_THE_LIST,
        (*_NO, CameBack.KEY_REFUSED, CameBack.DENIED, CameBack.DEAD_LINK, CameBack.UNREADABLE),
        Next.PARK,
        lambda facts: facts.others_get_on,
    ),
    _rule(_KEPT, _FORBIDDEN, Next.CHECK_KEY, lambda facts: facts.key is Key.UNASKED),
    # One bundle alone stops no export: the next that is asked shows whose trouble it is.
    _rule(
        _FETCHES,
        (*_NO, CameBack.DENIED, CameBack.DEAD_LINK, CameBack.UNREADABLE),
        Next.PARK,
        lambda facts: facts.is_alone,
    ),
    _rule(
        _NOT_THE_LIST,
        (*_NO, CameBack.KEY_REFUSED, CameBack.DENIED, CameBack.DEAD_LINK, CameBack.UNREADABLE),
        Next.STOP_EXPORT,
    ),
    # What is the bundle's own.
    _rule(Call.POLL, CameBack.OPERATION_FAILED, Next.WAIT, lambda facts: facts.service_fails),
    _rule(Call.POLL, CameBack.OPERATION_FAILED, Next.NEW_ATTEMPT),
    _rule(Call.DOWNLOAD, CameBack.FEWER_ROWS, Next.PARK),
    # Files that are no archive of this bundle, though they are whole.
    _rule(Call.DOWNLOAD, CameBack.NO_ROWS, Next.SECOND_LOOK),
    _rule(Call.DOWNLOAD, CameBack.OTHER_ROWS, Next.NEW_ATTEMPT, lambda facts: facts.range_is_rule),
    _rule(Call.DOWNLOAD, CameBack.OTHER_ROWS, Next.NEW_LINK),
    _rule(Call.DOWNLOAD, CameBack.NO_EXPORT, Next.STOP_EXPORT, lambda facts: facts.never_an_export),
    _rule(
        Call.DOWNLOAD,
        (CameBack.CUT, CameBack.BAD_FILE, CameBack.NO_EXPORT),
        Next.NEW_ATTEMPT,
        lambda facts: not facts.tries_left,
    ),
    _rule(Call.DOWNLOAD, CameBack.NO_EXPORT, Next.SECOND_LOOK),
    _rule(Call.DOWNLOAD, CameBack.CUT, Next.AGAIN),
    _rule(Call.DOWNLOAD, CameBack.BAD_FILE, Next.NEW_LINK),
)
"""The first row that fits counts. A failure without a row is a bug of ours."""


def decide(call: Call, came_back: CameBack, known: Facts) -> Next:
    """What to do next.

    Raises:
        LookupError: that cannot come back from such a call.
    """
    for rule in TABLE:
        if call in rule.calls and came_back in rule.came_back and rule.when(known):
            return rule.then
    raise LookupError(f"nothing is said of {came_back} to {call}")


def read(call: Call, error: ExportError) -> CameBack:
    """What came back, from the error that carries it."""
    match error:
        case UnauthorizedError():
            return CameBack.KEY_REFUSED
        case RateLimitedError():
            return CameBack.TOO_OFTEN
        case UnavailableError():
            return CameBack.TROUBLE if error.transient else CameBack.GIVEN_UP
        case ReplyError():
            return CameBack.UNREADABLE
        case OperationFailedError():
            return CameBack.OPERATION_FAILED
        case GoneError() if call is Call.DOWNLOAD:
            return CameBack.DEAD_LINK
        case GoneError(from_service=from_service):
            return CameBack.GONE if from_service else CameBack.NOT_FOUND
        case RefusedError() if call is Call.DOWNLOAD:
            return CameBack.DENIED
        case RefusedError(status=403, from_service=True):
            return CameBack.FORBIDDEN
        case RefusedError(status=401 | 403):
            return CameBack.BLOCKED
        case RefusedError():
            return CameBack.REFUSED
        case FewerRowsError():
            return CameBack.FEWER_ROWS
        case UnprovedEmptyError():
            return CameBack.NO_ROWS
        case ForeignRowsError():
            return CameBack.OTHER_ROWS
        case NoExportError():
            return CameBack.NO_EXPORT
        case CorruptError():
            return CameBack.BAD_FILE
        case ArchiveError():
            return CameBack.CUT
        case _:
            # A certificate that cannot be trusted, a proxy that wants a password: asking again is no use.
            return CameBack.GIVEN_UP
