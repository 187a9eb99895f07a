"""What follows from what came back: the table, as literals."""

import itertools

import pytest

from asyncexport.core.service.retrying import (
    CREATES_IN_A_ROW,
    TABLE,
    Call,
    CameBack,
    Facts,
    Key,
    Next,
    decide,
    read,
)
from asyncexport.errors import (
    CorruptError,
    ExportError,
    FewerRowsError,
    ForeignRowsError,
    GoneError,
    IncompleteError,
    NoExportError,
    OperationFailedError,
    OtherHashError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    ServiceError,
    UnauthorizedError,
    UnavailableError,
    UnknownRowsError,
    UnprovedEmptyError,
)

CREATE, POLL, LIST, RESULTS, DOWNLOAD = Call

KEEPS = (POLL, RESULTS, DOWNLOAD)
"""Calls about an operation or a file that may be fine."""

ROWS: list[tuple[Call, CameBack, Facts, Next]] = [
    # The key.
    (CREATE, CameBack.KEY_REFUSED, Facts(), Next.CHECK_KEY),
    (RESULTS, CameBack.KEY_REFUSED, Facts(), Next.CHECK_KEY),
    (LIST, CameBack.KEY_REFUSED, Facts(), Next.CHECK_KEY),
    (POLL, CameBack.KEY_REFUSED, Facts(key=Key.REFUSED), Next.STOP_RUN),
    (CREATE, CameBack.KEY_REFUSED, Facts(key=Key.UNCLEAR), Next.STOP_RUN),
    (CREATE, CameBack.KEY_REFUSED, Facts(key=Key.ANSWERED), Next.AGAIN),
    (CREATE, CameBack.FORBIDDEN, Facts(key_ever_good=False), Next.CHECK_KEY),
    (CREATE, CameBack.FORBIDDEN, Facts(key_ever_good=False, key=Key.REFUSED), Next.STOP_RUN),
    (CREATE, CameBack.FORBIDDEN, Facts(key_ever_good=False, key=Key.ANSWERED), Next.AGAIN),
    (CREATE, CameBack.BLOCKED, Facts(key_ever_good=False), Next.AGAIN),
    (CREATE, CameBack.FORBIDDEN, Facts(), Next.AGAIN),
    # A 403 that lasts.
    *(
        (call, came_back, facts, then)
        for call in (CREATE, POLL, RESULTS)
        for came_back in (CameBack.FORBIDDEN, CameBack.BLOCKED)
        for facts, then in (
            (Facts(believed=True), Next.CHECK_KEY),
            (Facts(believed=True, key=Key.REFUSED), Next.STOP_RUN),
            (Facts(believed=True, key=Key.ANSWERED), Next.STOP_EXPORT),
            (Facts(believed=True, key=Key.UNCLEAR), Next.STOP_EXPORT),
            (Facts(believed=True, others_get_on=True), Next.PARK),
            (Facts(others_get_on=True), Next.AGAIN),
        )
    ),
    # What is refused otherwise.
    (CREATE, CameBack.REFUSED, Facts(in_a_row=1), Next.SEE_OTHERS),
    (CREATE, CameBack.REFUSED, Facts(in_a_row=CREATES_IN_A_ROW), Next.TRY_NEWEST),
    (CREATE, CameBack.REFUSED, Facts(in_a_row=4, newest_left=False), Next.STOP_EXPORT),
    (CREATE, CameBack.REFUSED, Facts(in_a_row=4, newest_left=False, others_get_on=True), Next.PARK),
    (CREATE, CameBack.NOT_FOUND, Facts(in_a_row=3), Next.TRY_NEWEST),
    (POLL, CameBack.REFUSED, Facts(), Next.AGAIN),
    (RESULTS, CameBack.REFUSED, Facts(believed=True, others_get_on=True), Next.PARK),
    (RESULTS, CameBack.REFUSED, Facts(believed=True), Next.STOP_EXPORT),
    (RESULTS, CameBack.REFUSED, Facts(believed=True, is_alone=True), Next.PARK),
    (RESULTS, CameBack.FORBIDDEN, Facts(believed=True, is_alone=True), Next.CHECK_KEY),
    (RESULTS, CameBack.FORBIDDEN, Facts(believed=True, is_alone=True, key=Key.ANSWERED), Next.PARK),
    (RESULTS, CameBack.FORBIDDEN, Facts(believed=True, is_alone=True, key=Key.REFUSED), Next.STOP_RUN),
    # An operation or a file that is gone.
    (POLL, CameBack.GONE, Facts(), Next.AGAIN),
    (POLL, CameBack.GONE, Facts(said_twice=True), Next.NEW_ATTEMPT),
    (RESULTS, CameBack.GONE, Facts(), Next.AGAIN),
    (RESULTS, CameBack.GONE, Facts(said_twice=True), Next.NEW_ATTEMPT),
    (RESULTS, CameBack.GONE, Facts(expired=True), Next.NEW_ATTEMPT),
    (RESULTS, CameBack.NOT_FOUND, Facts(said_twice=True), Next.AGAIN),
    (RESULTS, CameBack.NOT_FOUND, Facts(expired=True), Next.NEW_ATTEMPT),
    # The storage host.
    (DOWNLOAD, CameBack.DEAD_LINK, Facts(), Next.NEW_LINK),
    (DOWNLOAD, CameBack.DENIED, Facts(), Next.NEW_LINK),
    (DOWNLOAD, CameBack.DENIED, Facts(tries_left=False), Next.NEW_LINK),
    (DOWNLOAD, CameBack.DENIED, Facts(believed=True), Next.STOP_EXPORT),
    (DOWNLOAD, CameBack.DENIED, Facts(believed=True, is_alone=True), Next.PARK),
    (DOWNLOAD, CameBack.DENIED, Facts(believed=True, others_get_on=True), Next.PARK),
    (DOWNLOAD, CameBack.DENIED, Facts(expired=True), Next.NEW_ATTEMPT),
    (DOWNLOAD, CameBack.UNREADABLE, Facts(), Next.NEW_LINK),
    (DOWNLOAD, CameBack.CUT, Facts(), Next.AGAIN),
    (DOWNLOAD, CameBack.CUT, Facts(tries_left=False), Next.NEW_ATTEMPT),
    (DOWNLOAD, CameBack.BAD_FILE, Facts(), Next.NEW_LINK),
    (DOWNLOAD, CameBack.BAD_FILE, Facts(tries_left=False), Next.NEW_ATTEMPT),
    (DOWNLOAD, CameBack.FEWER_ROWS, Facts(), Next.PARK),
    # Whole files that are no archive of this bundle.
    (DOWNLOAD, CameBack.NO_ROWS, Facts(), Next.SECOND_LOOK),
    (DOWNLOAD, CameBack.NO_ROWS, Facts(tries_left=False), Next.SECOND_LOOK),
    (DOWNLOAD, CameBack.OTHER_ROWS, Facts(), Next.NEW_ATTEMPT),
    (DOWNLOAD, CameBack.OTHER_ROWS, Facts(range_is_rule=False), Next.NEW_LINK),
    (DOWNLOAD, CameBack.NO_EXPORT, Facts(), Next.SECOND_LOOK),
    (DOWNLOAD, CameBack.NO_EXPORT, Facts(tries_left=False), Next.NEW_ATTEMPT),
    (DOWNLOAD, CameBack.NO_EXPORT, Facts(never_an_export=True), Next.STOP_EXPORT),
    # The list.
    (LIST, CameBack.FORBIDDEN, Facts(), Next.ASK_SINGLY),
    (LIST, CameBack.BLOCKED, Facts(), Next.ASK_SINGLY),
    (LIST, CameBack.GONE, Facts(), Next.ASK_SINGLY),
    (LIST, CameBack.UNREADABLE, Facts(), Next.AGAIN),
    (LIST, CameBack.TROUBLE, Facts(), Next.WAIT),
    # Trouble of the service.
    *((call, CameBack.TROUBLE, Facts(others_get_on=True), Next.WAIT) for call in Call),
    *((call, CameBack.TOO_OFTEN, Facts(outlasted=True), Next.WAIT) for call in Call),
    *((call, CameBack.GIVEN_UP, Facts(), Next.STOP_RUN) for call in Call),
    (CREATE, CameBack.TROUBLE, Facts(outlasted=True), Next.WAIT),
    (CREATE, CameBack.TROUBLE, Facts(outlasted=True, others_get_on=True), Next.PARK),
    (RESULTS, CameBack.TROUBLE, Facts(outlasted=True), Next.STOP_RUN),
    (DOWNLOAD, CameBack.TROUBLE, Facts(outlasted=True, others_get_on=True), Next.NEW_ATTEMPT),
    # What cannot be read.
    (CREATE, CameBack.UNREADABLE, Facts(), Next.NEW_ATTEMPT),
    (CREATE, CameBack.UNREADABLE, Facts(said_twice=True), Next.NEW_ATTEMPT),
    (CREATE, CameBack.UNREADABLE, Facts(ever_good=False), Next.NEW_ATTEMPT),
    (CREATE, CameBack.UNREADABLE, Facts(ever_good=False, said_twice=True), Next.STOP_EXPORT),
    (CREATE, CameBack.UNREADABLE, Facts(believed=True), Next.STOP_EXPORT),
    (CREATE, CameBack.UNREADABLE, Facts(believed=True, others_get_on=True), Next.NEW_ATTEMPT),
    (RESULTS, CameBack.UNREADABLE, Facts(), Next.AGAIN),
    (RESULTS, CameBack.UNREADABLE, Facts(ever_good=False, said_twice=True), Next.STOP_EXPORT),
    (POLL, CameBack.UNREADABLE, Facts(said_twice=True), Next.AGAIN),
    (POLL, CameBack.UNREADABLE, Facts(ever_good=False), Next.AGAIN),
    (POLL, CameBack.UNREADABLE, Facts(ever_good=False, said_twice=True), Next.STOP_EXPORT),
    # Operations.
    (POLL, CameBack.OPERATION_FAILED, Facts(), Next.NEW_ATTEMPT),
    (POLL, CameBack.OPERATION_FAILED, Facts(service_fails=True), Next.WAIT),
]


@pytest.mark.parametrize(("call", "came_back", "facts", "then"), ROWS)
def test_what_follows(call, came_back, facts, then):
    """Each literal of the table."""
    assert decide(call, came_back, facts) is then


REFUSED = (
    CameBack.KEY_REFUSED,
    CameBack.FORBIDDEN,
    CameBack.BLOCKED,
    CameBack.REFUSED,
    CameBack.NOT_FOUND,
    CameBack.DENIED,
    CameBack.DEAD_LINK,
    CameBack.UNREADABLE,
)

FACTS = [
    Facts(key, a, b, c, d, e, False, 1, f, g, h, is_alone=i)
    for key in Key
    for a, b, c, d, e, f, g, h, i in itertools.product((False, True), repeat=9)
]


@pytest.mark.parametrize("call", KEEPS)
def test_a_refusal_makes_no_new_export(call):
    """Whatever is known besides, while the operation or its file may be fine."""
    for came_back, facts in itertools.product(REFUSED, FACTS):
        try:
            then = decide(call, came_back, facts)
        except LookupError:
            continue
        assert then is not Next.NEW_ATTEMPT


def test_nothing_is_said_of_what_cannot_be():
    """A bug of ours is not waited out."""
    with pytest.raises(LookupError):
        decide(Call.LIST, CameBack.FEWER_ROWS, Facts())


def test_every_row_counts_for_something():
    """None is hidden behind those before it."""
    for number, rule in enumerate(TABLE):
        assert any(
            call in rule.calls
            and came_back in rule.came_back
            and rule.when(facts)
            and _first(call, came_back, facts) == number
            for call in rule.calls
            for came_back in rule.came_back
            for facts in WIDE
        ), rule


WIDE = [
    *(
        Facts(key, a, b, c, d, e, f, row, g, h, i, j)
        for key in Key
        for row in (1, 3)
        for a, b, c, d, e, f, g, h, i, j in itertools.product((False, True), repeat=10)
    ),
    Facts(range_is_rule=False),
    Facts(never_an_export=True),
    Facts(key=Key.ANSWERED, believed=True, is_alone=True),
]


def _first(call: Call, came_back: CameBack, facts: Facts) -> int:
    return next(
        number
        for number, rule in enumerate(TABLE)
        if call in rule.calls and came_back in rule.came_back and rule.when(facts)
    )


@pytest.mark.parametrize(
    ("call", "error", "came_back"),
    [
        (CREATE, UnauthorizedError("401"), CameBack.KEY_REFUSED),
        (CREATE, RateLimitedError("429"), CameBack.TOO_OFTEN),
        (CREATE, UnavailableError("503"), CameBack.TROUBLE),
        (CREATE, UnavailableError("six hours", lasting=True), CameBack.GIVEN_UP),
        (CREATE, ServiceError("certificate"), CameBack.GIVEN_UP),
        (CREATE, ReplyError("?"), CameBack.UNREADABLE),
        (CREATE, RefusedError("403", status=403, from_service=True), CameBack.FORBIDDEN),
        (CREATE, RefusedError("403", status=403), CameBack.BLOCKED),
        (RESULTS, RefusedError("401", status=401), CameBack.BLOCKED),
        (CREATE, RefusedError("404", status=404, from_service=True), CameBack.REFUSED),
        (CREATE, RefusedError("302", status=302), CameBack.REFUSED),
        (DOWNLOAD, RefusedError("403", status=403), CameBack.DENIED),
        (POLL, GoneError("404"), CameBack.GONE),
        (RESULTS, GoneError("404", from_service=False), CameBack.NOT_FOUND),
        (DOWNLOAD, GoneError("expired"), CameBack.DEAD_LINK),
        (POLL, OperationFailedError("no"), CameBack.OPERATION_FAILED),
        (DOWNLOAD, IncompleteError("cut"), CameBack.CUT),
        (DOWNLOAD, CorruptError("crc"), CameBack.BAD_FILE),
        (DOWNLOAD, FewerRowsError(rows_before=9, rows_found=0), CameBack.FEWER_ROWS),
        (DOWNLOAD, UnprovedEmptyError(), CameBack.NO_ROWS),
        (DOWNLOAD, ForeignRowsError(outside=1, timed=1), CameBack.OTHER_ROWS),
        (DOWNLOAD, UnknownRowsError(["error"]), CameBack.NO_EXPORT),
        (DOWNLOAD, NoExportError("not NDJSON"), CameBack.NO_EXPORT),
        (DOWNLOAD, OtherHashError("sha"), CameBack.BAD_FILE),
    ],
)
def test_what_an_error_carries(call: Call, error: ExportError, came_back: CameBack) -> None:
    """Every error says what came back, and nothing more."""
    assert read(call, error) is came_back
