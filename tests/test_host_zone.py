"""Times and dates are read the same in every time zone of the host."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.config import load_settings
from asyncexport.core.bundles import day, read_moment, read_timestamp, show
from asyncexport.core.service.replies import read_date
from asyncexport.core.service.statuses import retry_after

ZONES = ["America/Los_Angeles", "Asia/Kolkata", "UTC"]
NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z

LAST_OF_TWO_DIGITS = 3_124_223_999
"""The end of 2068; larger two-digit years belong to the previous century."""


@contextmanager
def host_in(zone: str) -> Iterator[None]:
    """Set the host's local time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    with host_in(request.param):
        yield request.param


@pytest.mark.skipif(not Path("/usr/share/zoneinfo").exists(), reason="this system has no time zone database")
def test_the_zones_differ() -> None:
    """Control: reading a date as local time would give different results in these zones."""
    seen = set()
    for zone in ZONES:
        with host_in(zone):
            seen.add(datetime(2026, 1, 1).timestamp())  # noqa: DTZ001 - the mistake that is looked for
    assert len(seen) == len(ZONES)


@pytest.mark.parametrize(
    "date",
    [
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "Thu, 01 Jan 2026 00:00:00 -0000",
        "Thu, 01 Jan 2026 00:00:00 +0000",
        "Thu, 01 Jan 2026 00:00:00",
        "Thursday, 01-Jan-26 00:00:00 GMT",
        "Thursday, 01-Jan-26 00:00:00",
        "Thu Jan  1 00:00:00 2026",
    ],
)
@pytest.mark.usefixtures("zone")
def test_a_date_in_any_form_is_gmt(date: str) -> None:
    """This holds for `Date` and `Retry-After`, with and without a zone."""
    assert read_date({"Date": date}) == NOW
    assert retry_after({"Retry-After": date}, now=NOW - 90) == 90.0
    assert retry_after({"Retry-After": date, "Date": "Wed Dec 31 23:59:00 2025"}, now=0.0) == 60.0


@given(seconds=st.integers(0, LAST_OF_TWO_DIGITS), zone=st.sampled_from(ZONES))
def test_all_forms_of_a_date_mean_the_same_time(seconds: int, zone: str) -> None:
    """IMF-fixdate, RFC 850 and asctime dates, as in RFC 9110, agree in summer and winter."""
    at = datetime.fromtimestamp(seconds, UTC)
    forms = (
        format_datetime(at, usegmt=True),
        f"{at:%A, %d-%b-%y %H:%M:%S} GMT",
        f"{at:%a %b} {at.day:2} {at:%H:%M:%S %Y}",
        f"{at:%a, %d %b %Y %H:%M:%S} -0000",
    )
    with host_in(zone):
        assert [read_date({"Date": form}) for form in forms] == [seconds] * len(forms)


@pytest.mark.parametrize("text", ["2026-01-01", "2026-01-01T00:00:00", "20260101T000000Z", "2026-01-01T05:30:00+05:30"])
@pytest.mark.usefixtures("zone")
def test_a_time_without_an_offset_is_utc(text: str) -> None:
    """This holds on the command line, in the config file and in archive names."""
    assert read_moment(text, now=0.0) == NOW
    assert read_moment("today", now=NOW) == read_moment("1d", now=NOW + 86_400) == NOW


@pytest.mark.parametrize("since", ["2026-01-01", "2026-01-01T00:00:00", '"2026-01-01"', "2026-01-01T05:30:00+05:30"])
@pytest.mark.usefixtures("zone")
def test_a_date_in_the_config_file_is_utc(tmp_path: Path, since: str) -> None:
    """This includes TOML's own dates, which may have no offset."""
    file = tmp_path / "asyncexport.toml"
    file.write_text(f"[nightly]\nsince = {since}\n")
    settings = load_settings(file=file, environ={}, flags={}, working_directory=tmp_path)
    assert settings.nightly.since_at(0.0) == NOW


@pytest.mark.usefixtures("zone")
def test_a_time_is_shown_in_utc() -> None:
    """Times sent to the service, used in names and shown to users are in UTC; the service's offsets are respected."""
    assert (show(NOW), day(int(NOW))) == ("2026-01-01T00:00:00Z", "2026-01-01")
    assert read_timestamp("2026-01-01T00:00:00Z") == NOW
    assert read_timestamp("2025-12-31T16:00:00-08:00") == NOW
