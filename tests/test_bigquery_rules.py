"""The rules for BigQuery, and the words for its errors: no server is needed."""

import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.warehouse.bigquery_sql import (
    LONGEST_NAME,
    TYPES,
    DayLoad,
    Field,
    bigquery_name,
    is_expired,
    job_id,
    labels,
    missing,
    next_load,
    partition,
)
from asyncexport.core.warehouse.columns import DATE, STANDARD, Column, ColumnKind
from asyncexport.core.warehouse.table_columns import single_receipts
from asyncexport.errors import SinkError
from asyncexport.warehouse.sinks.bigquery_connection import BigQueryConnection, default_client, translated

DAY = "2026-01-31"

USER, PAGE = STANDARD["UserId"], STANDARD["PageName"]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.booleans()), max_size=20))
def test_a_job_is_repeated_only_after_a_load_that_did_not_end(steps):
    """Whatever loads came before, and wherever they ended: only the load after it has the id of an unfinished one."""
    known: DayLoad | None = None
    used: list[str] = []
    for receipt, ends in steps:
        load = next_load(known, receipt)
        id_ = job_id("p.d.t", "2026-01-01T00:00:00", day=DAY, load=load)
        is_resumed = known is not None and not known.is_over and known.receipt == receipt
        assert load.receipt == receipt
        assert id_ == used[-1] if is_resumed else id_ not in used
        used.append(id_)
        known = DayLoad(receipt, load.number, is_over=ends)


def test_the_id_of_a_job_has_the_day_and_depends_on_the_table():
    """Tables of one name in two datasets, or made at two times, have different jobs."""
    load = DayLoad("receipt", 1, is_over=False)
    ids = {
        job_id(table, made, day=DAY, load=load)
        for table in ("my-project.d.t", "my-project.e.t", f"p.d.{'é' * 900}")
        for made in ("2026-01-01", "2026-01-02")
    }
    assert len(ids) == 6
    assert all(len(one) < 1024 and one.isascii() and set(one).isdisjoint(".:$ ") for one in ids)
    assert all(one.startswith("asyncexport_") and "_20260131_" in one for one in ids)


def test_a_label_is_short_and_has_only_characters_that_labels_may_have():
    """It is shortened, and other characters are replaced."""
    assert labels("My Table", DAY, "A" * 64) == {
        "asyncexport_table": "my_table",
        "asyncexport_day": DAY,
        "asyncexport_receipt": "a" * 63,
    }


def test_the_partition_of_a_day_is_named_by_its_digits():
    """As BigQuery names it."""
    assert partition("p.d.t", DAY) == "p.d.t$20260131"


@given(st.text(min_size=1, max_size=400))
def test_a_name_has_letters_digits_and_underscores(name):
    """It is at most as long as BigQuery allows; two names stay two."""
    short = bigquery_name(name)
    assert len(short) <= LONGEST_NAME
    assert short.isascii()
    assert set(short) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
    assert bigquery_name(f"{name}.") != bigquery_name(f"{name}-")


def test_every_kind_of_column_has_a_type():
    """None was forgotten."""
    assert set(TYPES) == set(ColumnKind)


def test_columns_that_a_table_lacks_are_found_whatever_their_case():
    """Names that differ only in case are one column in BigQuery."""
    fields = [Field("userid", "INTEGER"), Field("DATE", "DATE"), Field("own", "STRING")]
    assert missing([USER, PAGE, DATE], fields) == (PAGE,)


@pytest.mark.parametrize(
    ("column", "field", "fault"),
    [
        (USER, Field("UserId", "NUMERIC"), "its column UserId is NUMERIC, not INTEGER"),
        (PAGE, Field("PageName", "STRING", is_repeated=True), "its column PageName is ARRAY of STRING, not STRING"),
        (PAGE, Field("PageName", "STRING", is_required=True), "its column PageName is REQUIRED, but the columns of a"),
        (PAGE, Field("own", "STRING", is_required=True), "its column own is REQUIRED, but the columns of a day's"),
        (PAGE, Field("own", "RECORD"), "its column own is RECORD, which asyncexport cannot leave empty"),
        (PAGE, Field("own", "STRING", is_repeated=True), "its column own is ARRAY of STRING, which asyncexport"),
    ],
)
def test_a_column_that_cannot_be_filled_is_named(column: Column, field: Field, fault: str):
    """The message says what is wrong with it."""
    with pytest.raises(ValueError, match=fault):
        missing([column], [field])


def test_a_day_has_a_receipt_if_all_its_records_agree():
    """A day that is being loaded, or that two loads recorded differently, has none."""
    found = [("a", "1"), ("b", None), ("c", "1"), ("c", "2"), ("d", "3"), ("d", "3"), ("e", "1"), ("e", None)]
    assert single_receipts(found) == {"a": "1", "d": "3"}


UPLOAD = "POST https://bigquery.example/upload?upload_id=CANARY: "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            exceptions.Forbidden(UPLOAD, errors=[{"message": "Access Denied: Dataset p:d."}]),
            "could not read in BigQuery: Access Denied: Dataset p:d (status 403)",
        ),
        (
            exceptions.BadRequest(UPLOAD, errors=[{"message": "Could not parse 'CANARY' or \"CANARY\" as INT64"}]),
            "could not read in BigQuery: Could not parse … or … as INT64 (status 400)",
        ),
        (exceptions.ServiceUnavailable(UPLOAD), "could not read in BigQuery: status 503"),
        (exceptions.RetryError("CANARY", ConnectionError()), "could not read in BigQuery: there was no answer"),
        (
            exceptions.BadRequest(UPLOAD, errors=[{"message": "Bad value: CANARY; line: 1"}]),
            "could not read in BigQuery: Bad value: …; line: 1 (status 400)",
        ),
        (ConnectionError(UPLOAD), "could not read in BigQuery: there was no answer"),
        (ConnectionError("/upload/v2/projects/p/jobs"), "could not read in BigQuery: there was no answer"),
        (OSError("Project was not passed"), "could not read in BigQuery: the credentials have no project"),
        (TimeoutError(), "could not read in BigQuery: the job is still running"),
        (RefreshError("CANARY"), "could not read in BigQuery: the credentials were not accepted"),
        (DefaultCredentialsError("CANARY"), "could not read in BigQuery: there are no credentials"),
    ],
)
def test_an_error_is_told_without_addresses_values_and_credentials(error, said):
    """Only what the service says about the request is repeated."""
    found = translated("read", error)
    assert str(found) == said
    assert "CANARY" not in found.hint


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("accessDenied", "the account needs the roles"),
        ("rateLimitExceeded", "a limit of BigQuery is reached"),
        ("quotaExceeded", "a limit of BigQuery is reached"),
        ("billingNotEnabled", "enable billing"),
    ],
)
def test_the_reason_of_a_refusal_decides_what_to_do(reason, hint):
    """The status is the same for missing rights, limits and billing."""
    error = exceptions.Forbidden(UPLOAD, errors=[{"message": "no", "reason": reason}])
    assert translated("read", error).hint.startswith(hint)


def test_a_partition_expires_some_time_after_its_day():
    """The time begins with the end of the day."""
    end = 1769904000  # of 2026-01-31
    assert [is_expired(DAY, 60, now=end + after) for after in (-(10**6), 59, 60)] == [False, False, True]


@pytest.mark.parametrize("content", [None, "CANARY", '{"type": "service_account", "private_key": "CANARY"}'])
def test_credentials_that_cannot_be_read_are_an_error_that_does_not_repeat_them(tmp_path, monkeypatch, content):
    """Without a file, or with one that is no key, the hint says where credentials come from."""
    key = tmp_path / "key.json"
    if content is not None:
        key.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    connection = BigQueryConnection(lambda: default_client("p", ""))
    with pytest.raises(SinkError) as caught, connection.client("read"):
        pass
    assert str(caught.value) in {
        "could not read in BigQuery: there are no credentials",
        "could not read in BigQuery: the credentials were not accepted",
    }
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
    connection.close()
