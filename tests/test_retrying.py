"""What is done after each kind of failed call: the table, as literals."""

import itertools

import pytest

from asyncexport.core.service.retrying import (
    CREATES_IN_A_ROW,
    TABLE,
    Action,
    Call,
    Facts,
    Failure,
    KeyStatus,
    decide,
    failure_of,
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
"""Calls about an operation or file that may still be fine."""

ROWS: list[tuple[Call, Failure, Facts, Action]] = [
    # The API key.
    (CREATE, Failure.UNAUTHORIZED, Facts(), Action.CHECK_KEY),
    (RESULTS, Failure.UNAUTHORIZED, Facts(), Action.CHECK_KEY),
    (LIST, Failure.UNAUTHORIZED, Facts(), Action.CHECK_KEY),
    (POLL, Failure.UNAUTHORIZED, Facts(key=KeyStatus.REFUSED), Action.STOP_RUN),
    (CREATE, Failure.UNAUTHORIZED, Facts(key=KeyStatus.UNCLEAR), Action.STOP_RUN),
    (CREATE, Failure.UNAUTHORIZED, Facts(key=KeyStatus.GOOD), Action.RETRY),
    (CREATE, Failure.FORBIDDEN, Facts(key_has_worked=False), Action.CHECK_KEY),
    (CREATE, Failure.FORBIDDEN, Facts(key_has_worked=False, key=KeyStatus.REFUSED), Action.STOP_RUN),
    (CREATE, Failure.FORBIDDEN, Facts(key_has_worked=False, key=KeyStatus.GOOD), Action.RETRY),
    (CREATE, Failure.BLOCKED, Facts(key_has_worked=False), Action.RETRY),
    (CREATE, Failure.FORBIDDEN, Facts(), Action.RETRY),
    # A 403 that lasts.
    *(
        (call, failure, facts, then)
        for call in (CREATE, POLL, RESULTS)
        for failure in (Failure.FORBIDDEN, Failure.BLOCKED)
        for facts, then in (
            (Facts(lasting=True), Action.CHECK_KEY),
            (Facts(lasting=True, key=KeyStatus.REFUSED), Action.STOP_RUN),
            (Facts(lasting=True, key=KeyStatus.GOOD), Action.STOP_EXPORT),
            (Facts(lasting=True, key=KeyStatus.UNCLEAR), Action.STOP_EXPORT),
            (Facts(lasting=True, others_succeed=True), Action.PARK),
            (Facts(others_succeed=True), Action.RETRY),
        )
    ),
    # Other refusals.
    (CREATE, Failure.REFUSED, Facts(in_a_row=1), Action.TRY_OTHERS),
    (CREATE, Failure.REFUSED, Facts(in_a_row=CREATES_IN_A_ROW), Action.TRY_NEWEST),
    (CREATE, Failure.REFUSED, Facts(in_a_row=4, newest_left=False), Action.STOP_EXPORT),
    (CREATE, Failure.REFUSED, Facts(in_a_row=4, newest_left=False, others_succeed=True), Action.PARK),
    (CREATE, Failure.NOT_FOUND, Facts(in_a_row=3), Action.TRY_NEWEST),
    (POLL, Failure.REFUSED, Facts(), Action.RETRY),
    (RESULTS, Failure.REFUSED, Facts(lasting=True, others_succeed=True), Action.PARK),
    (RESULTS, Failure.REFUSED, Facts(lasting=True), Action.STOP_EXPORT),
    (RESULTS, Failure.REFUSED, Facts(lasting=True, only_this_bundle=True), Action.PARK),
    (RESULTS, Failure.FORBIDDEN, Facts(lasting=True, only_this_bundle=True), Action.CHECK_KEY),
    (RESULTS, Failure.FORBIDDEN, Facts(lasting=True, only_this_bundle=True, key=KeyStatus.GOOD), Action.PARK),
    (RESULTS, Failure.FORBIDDEN, Facts(lasting=True, only_this_bundle=True, key=KeyStatus.REFUSED), Action.STOP_RUN),
    # An operation or a file that is gone.
    (POLL, Failure.GONE, Facts(), Action.RETRY),
    (POLL, Failure.GONE, Facts(repeated=True), Action.NEW_ATTEMPT),
    (RESULTS, Failure.GONE, Facts(), Action.RETRY),
    (RESULTS, Failure.GONE, Facts(repeated=True), Action.NEW_ATTEMPT),
    (RESULTS, Failure.GONE, Facts(expired=True), Action.NEW_ATTEMPT),
    (RESULTS, Failure.NOT_FOUND, Facts(repeated=True), Action.RETRY),
    (RESULTS, Failure.NOT_FOUND, Facts(expired=True), Action.NEW_ATTEMPT),
    # The storage host.
    (DOWNLOAD, Failure.DEAD_LINK, Facts(), Action.NEW_LINK),
    (DOWNLOAD, Failure.DENIED, Facts(), Action.NEW_LINK),
    (DOWNLOAD, Failure.DENIED, Facts(retries_left=False), Action.NEW_LINK),
    (DOWNLOAD, Failure.DENIED, Facts(lasting=True), Action.STOP_EXPORT),
    (DOWNLOAD, Failure.DENIED, Facts(lasting=True, only_this_bundle=True), Action.PARK),
    (DOWNLOAD, Failure.DENIED, Facts(lasting=True, others_succeed=True), Action.PARK),
    (DOWNLOAD, Failure.DENIED, Facts(expired=True), Action.NEW_ATTEMPT),
    (DOWNLOAD, Failure.UNREADABLE, Facts(), Action.NEW_LINK),
    (DOWNLOAD, Failure.INCOMPLETE, Facts(), Action.RETRY),
    (DOWNLOAD, Failure.INCOMPLETE, Facts(retries_left=False), Action.NEW_ATTEMPT),
    (DOWNLOAD, Failure.CORRUPT, Facts(), Action.NEW_LINK),
    (DOWNLOAD, Failure.CORRUPT, Facts(retries_left=False), Action.NEW_ATTEMPT),
    (DOWNLOAD, Failure.FEWER_ROWS, Facts(), Action.PARK),
    # Complete files that are not an archive of this bundle.
    (DOWNLOAD, Failure.NO_ROWS, Facts(), Action.SECOND_LOOK),
    (DOWNLOAD, Failure.NO_ROWS, Facts(retries_left=False), Action.SECOND_LOOK),
    (DOWNLOAD, Failure.FOREIGN_ROWS, Facts(), Action.NEW_ATTEMPT),
    (DOWNLOAD, Failure.FOREIGN_ROWS, Facts(range_is_checked=False), Action.NEW_LINK),
    (DOWNLOAD, Failure.NO_EXPORT, Facts(), Action.SECOND_LOOK),
    (DOWNLOAD, Failure.NO_EXPORT, Facts(retries_left=False), Action.NEW_ATTEMPT),
    (DOWNLOAD, Failure.NO_EXPORT, Facts(repeatedly_no_export=True), Action.STOP_EXPORT),
    (DOWNLOAD, Failure.NO_EXPORT, Facts(repeatedly_no_export=True, only_this_bundle=True), Action.PARK),
    (
        DOWNLOAD,
        Failure.NO_EXPORT,
        Facts(repeatedly_no_export=True, only_this_bundle=True, expired=True),
        Action.NEW_ATTEMPT,
    ),
    # The list.
    (LIST, Failure.FORBIDDEN, Facts(), Action.POLL_SINGLY),
    (LIST, Failure.BLOCKED, Facts(), Action.POLL_SINGLY),
    (LIST, Failure.GONE, Facts(), Action.POLL_SINGLY),
    (LIST, Failure.UNREADABLE, Facts(), Action.RETRY),
    (LIST, Failure.UNAVAILABLE, Facts(), Action.WAIT),
    # Outages of the service.
    *((call, Failure.UNAVAILABLE, Facts(others_succeed=True), Action.WAIT) for call in Call),
    *((call, Failure.RATE_LIMITED, Facts(outage_exceeded=True), Action.WAIT) for call in Call),
    *((call, Failure.GIVEN_UP, Facts(), Action.STOP_RUN) for call in Call),
    (CREATE, Failure.UNAVAILABLE, Facts(outage_exceeded=True), Action.WAIT),
    (CREATE, Failure.UNAVAILABLE, Facts(outage_exceeded=True, others_succeed=True), Action.PARK),
    (RESULTS, Failure.UNAVAILABLE, Facts(outage_exceeded=True), Action.STOP_RUN),
    (DOWNLOAD, Failure.UNAVAILABLE, Facts(outage_exceeded=True, others_succeed=True), Action.NEW_ATTEMPT),
    # Unreadable answers.
    (CREATE, Failure.UNREADABLE, Facts(), Action.NEW_ATTEMPT),
    (CREATE, Failure.UNREADABLE, Facts(repeated=True), Action.NEW_ATTEMPT),
    (CREATE, Failure.UNREADABLE, Facts(has_worked=False), Action.NEW_ATTEMPT),
    (CREATE, Failure.UNREADABLE, Facts(has_worked=False, repeated=True), Action.STOP_EXPORT),
    (CREATE, Failure.UNREADABLE, Facts(lasting=True), Action.STOP_EXPORT),
    (CREATE, Failure.UNREADABLE, Facts(lasting=True, others_succeed=True), Action.NEW_ATTEMPT),
    (RESULTS, Failure.UNREADABLE, Facts(), Action.RETRY),
    (RESULTS, Failure.UNREADABLE, Facts(has_worked=False, repeated=True), Action.STOP_EXPORT),
    (POLL, Failure.UNREADABLE, Facts(repeated=True), Action.RETRY),
    (POLL, Failure.UNREADABLE, Facts(has_worked=False), Action.RETRY),
    (POLL, Failure.UNREADABLE, Facts(has_worked=False, repeated=True), Action.STOP_EXPORT),
    # Operations.
    (POLL, Failure.OPERATION_FAILED, Facts(), Action.NEW_ATTEMPT),
    (POLL, Failure.OPERATION_FAILED, Facts(service_is_failing=True), Action.WAIT),
]


@pytest.mark.parametrize(("call", "failure", "facts", "then"), ROWS)
def test_each_failure_leads_to_its_action(call, failure, facts, then):
    """Each kind of failed call leads to the action that the table gives."""
    assert decide(call, failure, facts) is then


REFUSED = (
    Failure.UNAUTHORIZED,
    Failure.FORBIDDEN,
    Failure.BLOCKED,
    Failure.REFUSED,
    Failure.NOT_FOUND,
    Failure.DENIED,
    Failure.DEAD_LINK,
    Failure.UNREADABLE,
)

FACTS = [
    Facts(key, a, b, c, d, e, False, 1, f, g, h, only_this_bundle=i)
    for key in KeyStatus
    for a, b, c, d, e, f, g, h, i in itertools.product((False, True), repeat=9)
]


@pytest.mark.parametrize("call", KEEPS)
def test_a_refusal_leads_to_no_new_export(call):
    """No refusal leads to a new export while the operation or its file may still be fine, whatever the other facts."""
    for failure, facts in itertools.product(REFUSED, FACTS):
        try:
            then = decide(call, failure, facts)
        except LookupError:
            continue
        assert then is not Action.NEW_ATTEMPT


def test_an_impossible_combination_raises():
    """A combination of call and failure that cannot occur is a bug and raises LookupError."""
    with pytest.raises(LookupError):
        decide(Call.LIST, Failure.FEWER_ROWS, Facts())


def test_every_row_of_the_table_is_reachable():
    """No row of the table is completely hidden by the rows before it."""
    for number, rule in enumerate(TABLE):
        assert any(
            call in rule.calls
            and failure in rule.failures
            and rule.when(facts)
            and _first(call, failure, facts) == number
            for call in rule.calls
            for failure in rule.failures
            for facts in WIDE
        ), rule


WIDE = [
    *(
        Facts(key, a, b, c, d, e, f, row, g, h, i, j)
        for key in KeyStatus
        for row in (1, 3)
        for a, b, c, d, e, f, g, h, i, j in itertools.product((False, True), repeat=10)
    ),
    Facts(range_is_checked=False),
    Facts(repeatedly_no_export=True),
    Facts(repeatedly_no_export=True, only_this_bundle=True),
    Facts(repeatedly_no_export=True, only_this_bundle=True, expired=True),
    Facts(key=KeyStatus.GOOD, lasting=True, only_this_bundle=True),
]


def _first(call: Call, failure: Failure, facts: Facts) -> int:
    return next(
        number
        for number, rule in enumerate(TABLE)
        if call in rule.calls and failure in rule.failures and rule.when(facts)
    )


@pytest.mark.parametrize(
    ("call", "error", "failure"),
    [
        (CREATE, UnauthorizedError("401"), Failure.UNAUTHORIZED),
        (CREATE, RateLimitedError("429"), Failure.RATE_LIMITED),
        (CREATE, UnavailableError("503"), Failure.UNAVAILABLE),
        (CREATE, UnavailableError("six hours", lasting=True), Failure.GIVEN_UP),
        (CREATE, ServiceError("certificate"), Failure.GIVEN_UP),
        (CREATE, ReplyError("?"), Failure.UNREADABLE),
        (CREATE, RefusedError("403", status=403, from_service=True), Failure.FORBIDDEN),
        (CREATE, RefusedError("403", status=403), Failure.BLOCKED),
        (RESULTS, RefusedError("401", status=401), Failure.BLOCKED),
        (CREATE, RefusedError("404", status=404, from_service=True), Failure.REFUSED),
        (CREATE, RefusedError("302", status=302), Failure.REFUSED),
        (DOWNLOAD, RefusedError("403", status=403), Failure.DENIED),
        (POLL, GoneError("404"), Failure.GONE),
        (RESULTS, GoneError("404", from_service=False), Failure.NOT_FOUND),
        (DOWNLOAD, GoneError("expired"), Failure.DEAD_LINK),
        (POLL, OperationFailedError("no"), Failure.OPERATION_FAILED),
        (DOWNLOAD, IncompleteError("cut"), Failure.INCOMPLETE),
        (DOWNLOAD, CorruptError("crc"), Failure.CORRUPT),
        (DOWNLOAD, FewerRowsError(rows_before=9, rows_found=0), Failure.FEWER_ROWS),
        (DOWNLOAD, UnprovedEmptyError(), Failure.NO_ROWS),
        (DOWNLOAD, ForeignRowsError(outside=1, timed=1), Failure.FOREIGN_ROWS),
        (DOWNLOAD, UnknownRowsError(["error"]), Failure.NO_EXPORT),
        (DOWNLOAD, NoExportError("not NDJSON"), Failure.NO_EXPORT),
        (DOWNLOAD, OtherHashError("sha"), Failure.CORRUPT),
    ],
)
def test_each_error_is_classified(call: Call, error: ExportError, failure: Failure) -> None:
    """Each error of a call is mapped to its kind of failure."""
    assert failure_of(call, error) is failure
