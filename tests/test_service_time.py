"""The time at the service, derived from this host's clocks and the dates of answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY
from asyncexport.core.polling import operation_start
from asyncexport.core.service.requests import Kind
from asyncexport.core.service_time import ClockCheck, ClockTrust, HostReading, ServiceTime

TRUE = 1_767_225_600.0
"""The correct time when the monotonic clock is 0: 2026-01-01T00:00:00Z."""

LIST, POLL, OTHER = Kind.LIST, Kind.POLL, Kind.OTHER

FAR = [-30 * DAY, -3 * DAY, 3 * DAY, 30 * DAY, 253_402_300_799 - TRUE, -TRUE]
"""Large clock errors: some days, the year 9999, 1970."""


class Host:
    """A host whose clock is wrong by `off` seconds, and a service whose clock is correct."""

    def __init__(self, off: float = 0.0, trust: ClockTrust = ClockTrust.NEITHER) -> None:
        self.off = off
        self.monotonic = 0.0
        self.slept = 0.0
        self.time = ServiceTime(self.reading, trust=trust)

    @property
    def right(self) -> float:
        """The correct time."""
        return TRUE + self.monotonic + self.slept

    @property
    def reading(self) -> HostReading:
        """The host's clocks; the monotonic one stops while the machine sleeps."""
        return HostReading(self.right + self.off, self.monotonic, self.monotonic + self.slept, "boot")

    @property
    def error(self) -> float:
        """The error of the derived time in seconds."""
        return self.time.now(self.monotonic) - self.right

    def hear(self, kind: Kind = LIST, *, off: float = 0.0, after: float = 1.0) -> str:
        """Receive an answer after `after` seconds, with a date wrong by `off` seconds; return the log message."""
        self.monotonic += after
        return self.time.hear(kind, self.right + off, self.reading)


@pytest.mark.parametrize("off", [-3.0, -0.4, 0.0, 2.9])
def test_a_correct_clock_is_not_adjusted(off):
    """A difference of up to three seconds is not corrected, because a Date header has whole seconds."""
    host = Host()
    assert host.hear(off=off) == ""
    assert (host.error, host.time.is_known, host.time.in_doubt) == (0.0, True, False)


@pytest.mark.parametrize("off", [-300.0, -4.0, 59.0, 299.0])
def test_up_to_five_minutes_are_corrected_immediately(off):
    """A difference of up to five minutes is corrected by one answer, and reported only if over a minute."""
    host = Host(off)
    logged = host.hear()
    assert (host.error, host.time.is_known) == (0.0, True)
    assert bool(logged) == (abs(off) > 60)
    assert ("ahead of" in logged) == (off > 60)


@pytest.mark.parametrize("off", [-DAY + 60, -3600.0, 301.0, 3600.0, 20 * 3600.0])
def test_a_larger_difference_needs_three_answers_that_agree(off):
    """A difference of up to a day is corrected and reported by the third of three answers that agree."""
    host = Host(off)
    assert [host.hear(LIST), host.hear(OTHER)] == ["", ""]
    assert (host.error, host.time.is_known, host.time.in_doubt) == (off, False, True)
    assert "using the service's" in host.hear(LIST)
    assert abs(host.error) <= 60
    assert (host.time.is_known, host.time.in_doubt) == (True, False)
    assert host.hear(LIST) == ""


def test_answers_of_one_kind_must_agree_for_ten_seconds():
    """If all answers are of one kind of call, they must agree for ten seconds before they are believed."""
    host = Host(3600.0)
    for _ in range(4):
        host.hear(LIST, after=2.0)
    assert host.error == 3600.0
    host.hear(LIST, after=4.0)
    assert host.error == 0.0


@pytest.mark.parametrize("off", [*FAR, 3600.0])
def test_a_single_wrong_date_is_ignored(off):
    """One wrong date changes nothing, and the next correct one ends the doubt."""
    host = Host()
    for _ in range(3):
        assert host.hear(OTHER, off=off) == ""
        assert (host.error, host.time.in_doubt) == (0.0, True)
        assert host.hear(LIST) == ""
        assert (host.error, host.time.in_doubt, host.time.is_known) == (0.0, False, True)


def test_dates_that_contradict_each_other_change_nothing():
    """Dates that are more than a minute apart from each other are not believed."""
    host = Host()
    for off, kind in ((3600.0, LIST), (7200.0, OTHER), (-3600.0, POLL), (3670.0, LIST)):
        host.hear(kind, off=off)
    assert (host.error, host.time.is_known) == (0.0, False)


def test_a_repeated_date_is_ignored():
    """Answers that all have the same date, as from a cache, are not believed."""
    host = Host()
    for kind in (LIST, OTHER, LIST, POLL, LIST):
        host.monotonic += 5.0
        host.time.hear(kind, TRUE - 3600.0, host.reading)
    assert (host.error, host.time.is_known) == (0.0, False)


@pytest.mark.parametrize("hours", [0.2, 8, 24 * 40])
def test_a_machine_that_slept_is_corrected_silently(hours):
    """After the machine has slept, one correct date is enough, and nothing is reported."""
    for off in (0.0, 120.0, 3600.0):
        host = Host(off)
        for kind in (LIST, OTHER, LIST):
            host.hear(kind)
        host.slept += hours * 3600
        assert host.error == pytest.approx(-hours * 3600)
        assert host.hear() == ""
        assert host.error == pytest.approx(0.0)
        assert (host.time.in_doubt, host.time.conflict) == (False, None)


def test_setting_the_clock_during_a_run_does_not_matter():
    """If the wall clock is set during a run, the time stays correct, even after the machine has slept."""
    host = Host(3600.0)
    for kind in (LIST, OTHER, LIST):
        host.hear(kind)
    host.off = 0.0
    assert (host.hear(), host.error) == ("", 0.0)
    host.slept += 9000.0
    assert (host.hear(), host.error) == ("", 0.0)


@pytest.mark.parametrize("off", FAR)
def test_more_than_a_day_at_the_start_is_left_to_the_user(off):
    """A difference of more than a day is a conflict that reports both times, and the host's time is kept."""
    host = Host(off)
    for kind in (LIST, OTHER, LIST):
        assert host.time.conflict is None
        assert host.hear(kind) == ""
    assert host.time.conflict is not None
    said = str(host.time.conflict)
    assert "the service's 2026-01-01T00:00:0" in said
    assert said.count("Z") == 2
    assert host.error == pytest.approx(off)
    assert (host.time.is_known, host.time.checked) == (False, None)


@pytest.mark.parametrize("off", FAR)
def test_the_user_can_choose_the_trusted_clock(off):
    """With `[api] clock` set, the chosen clock is used, which is reported once."""
    for trust, error in ((ClockTrust.SERVICE, 0.0), (ClockTrust.HOST, off)):
        host = Host(off, trust)
        logged = [host.hear(kind) for kind in (LIST, OTHER, LIST, POLL, LIST, OTHER, POLL, LIST)]
        assert [bool(one) for one in logged] == [False, False, True, *[False] * 5]
        assert f"using {'the service' if trust is ClockTrust.SERVICE else 'this machine'}'s" in "".join(logged)
        assert host.error == pytest.approx(error)
        assert (host.time.conflict, host.time.is_known) == (None, True)


def test_less_than_a_day_is_corrected_whichever_clock_is_trusted():
    """A difference of less than a day is corrected even if the user trusts the host's clock."""
    host = Host(3600.0, ClockTrust.HOST)
    for kind in (LIST, OTHER, LIST):
        host.hear(kind)
    assert host.error == 0.0


@pytest.mark.parametrize("off", FAR)
def test_a_large_difference_during_a_run_is_corrected_and_reported_once(off):
    """Once a run is in progress, even a difference of many days is corrected, and reported once."""
    host = Host(off)
    host.time.begin()
    logged = [host.hear(kind) for kind in (Kind.CREATE, POLL, Kind.RESULTS, POLL, LIST, POLL)]
    assert [bool(one) for one in logged] == [False, False, True, False, False, False]
    assert host.error == pytest.approx(0.0)
    assert host.time.conflict is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Kind)),
            st.floats(0.1, 600.0),
            st.one_of(st.floats(-2.0, 2.0), st.floats(-1e9, 1e9)),
        ),
        max_size=40,
    )
)
def test_wrong_dates_among_correct_ones_do_not_change_the_time(answers):
    """The time stays correct if no three wrong dates arrive without a correct one between them."""
    host, wrong_dates = Host(), 0
    host.hear()
    for kind, after, off in answers:
        wrong_dates = wrong_dates + 1 if abs(off) > 2.0 else 0
        if wrong_dates > 2:
            wrong_dates = 0
            host.hear(kind)
        host.hear(kind, off=off, after=after)
        assert abs(host.error) <= 300.0 + 300.0
        assert host.time.conflict is None


@pytest.mark.parametrize("off", [-30.0 * DAY, 3600.0, 30.0 * DAY])
def test_while_in_doubt_the_earliest_possible_time_is_known(off):
    """While in doubt, `earliest` is the earlier of the two times, so that no archive counts as settled too early."""
    host = Host(off)
    assert host.time.earliest(host.monotonic) == pytest.approx(host.right + off)
    host.hear()
    assert host.time.earliest(host.monotonic) == pytest.approx(host.right + min(off, 0.0))


# What later runs remember


def checked(**changes: float | str) -> ClockCheck:
    """Return a check of clocks that were both correct, an hour after the machine was started."""
    values: dict[str, float | str] = {"service": TRUE, "wall": TRUE, "uptime": 3600.0, "boot": "b", **changes}
    return ClockCheck(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("went_on", "was_up", "boot", "holds"),
    [
        (1.0, 1.0, "b", True),
        (DAY - 1.0, DAY - 1.0, "b", True),
        (DAY, DAY, "b", False),
        (30.0 * DAY, 3600.0, "b", False),
        (0.0, 0.0, "b", False),  # the clock is stopped
        (0.0, DAY, "b", False),
        (1.0, DAY, "b", False),  # the clock was stopped for nearly a day
        (-1.0, 1.0, "b", False),
        (-30.0 * DAY, 1.0, "b", False),
        (20.0 * 3600, 60.0, "b", False),  # the clock was set
        (4000.0, 3800.0, "b", True),
        (60.0, -3500.0, "c", False),  # the machine was restarted, and it is unknown how long it was off
    ],
)
def test_a_check_holds_for_a_day_if_the_clock_kept_running(went_on, was_up, boot, holds):
    """A check holds if the wall clock has advanced by less than a day and by about as much as the uptime."""
    reading = HostReading(TRUE + went_on, 0.0, 3600.0 + was_up, boot)
    assert checked().holds(reading) == holds


def test_without_an_uptime_the_wall_clock_decides():
    """If the system does not report when it was started, only the wall clock decides whether a check holds."""
    check = checked(boot="", uptime=0.0)
    assert check.holds(HostReading(TRUE + 60.0, 0.0))
    assert not check.holds(HostReading(TRUE, 0.0))
    assert not check.holds(HostReading(TRUE + DAY, 0.0))
    assert not check.holds(HostReading(TRUE + 60.0, 0.0, 60.0, "b"))


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12), st.floats(0, 1e9), st.text())
def test_a_check_is_read_back_unchanged(service, wall, uptime, boot):
    """A check survives being written to the ledger as text and read back."""
    check = ClockCheck(service, wall, uptime, boot)
    assert ClockCheck.read(check.to_json()) == check


@pytest.mark.parametrize("text", [None, "", "{}", "1767225600.0", '{"service": "x"}', "[]", '{"service": null}'])
def test_an_invalid_check_is_ignored(text):
    """Text that is not a valid check is read as None, so the clocks are compared again."""
    assert ClockCheck.read(text) is None


@pytest.mark.parametrize("ahead", [-3600.0, 0.0, 5000.0])
def test_a_later_run_uses_the_check(ahead):
    """A later run corrects the clock by the remembered difference, and one matching date confirms it."""
    host = Host(-ahead)
    host.monotonic = 600.0
    host.time.recall(ClockCheck(TRUE, TRUE - ahead, 0.0, "boot"), host.reading)
    assert (host.error, host.time.is_known, host.time.checked is not None) == (0.0, False, True)
    host.hear()
    assert (host.error, host.time.in_doubt) == (0.0, False)


def test_a_check_of_clocks_days_apart_needs_trust_in_the_service():
    """A remembered difference of days is used only while the user trusts the service's clock."""
    for trust, error in ((ClockTrust.SERVICE, 0.0), (ClockTrust.NEITHER, 3.0 * DAY), (ClockTrust.HOST, 3.0 * DAY)):
        host = Host(3.0 * DAY, trust)
        host.monotonic = 600.0
        host.time.recall(ClockCheck(TRUE, TRUE + 3 * DAY, 0.0, "boot"), host.reading)
        assert (host.error, host.time.checked is not None) == (error, error == 0.0)


def test_the_check_has_both_clocks_as_last_compared():
    """The check to remember has the times of both clocks at the last answer that was believed."""
    host = Host(100.0)
    host.hear(off=1.0)
    host.hear(off=1.0, after=600.0)
    host.hear(off=9000.0, after=600.0)
    assert host.time.checked == ClockCheck(TRUE + 602.0, TRUE + 701.0, 601.0, "boot")


# The time of an export


@pytest.mark.parametrize(
    ("created_at", "asked_at", "now", "believed"),
    [
        (1000.0, 1000.0, 1600.0, 1000.0),
        (700.0, 1000.0, 1600.0, 700.0),
        (1600.0, 1000.0, 1600.0, 1600.0),
        (699.0, 1000.0, 1600.0, 1000.0),
        (1601.0, 1000.0, 1600.0, 1000.0),
        (None, 1000.0, 1600.0, 1000.0),
        (-62_135_596_800.0, 1000.0, 1600.0, 1000.0),  # 0001-01-01
        (253_402_300_799.0, 1000.0, 1600.0, 1000.0),  # the end of 9999
        (1590.0, 9000.0, 1600.0, 1590.0),  # asked when the clock was fast
        (None, 9000.0, 1600.0, 1600.0),
    ],
)
def test_a_plausible_start_of_an_operation_is_believed(created_at, asked_at, now, believed):
    """`createdAt` is believed if it is between five minutes before the request and now."""
    assert operation_start(created_at, asked_at=asked_at, now=now) == believed
