"""What is stored, what is missing and whether all is well, from facts and the time alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, show
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Definition, Export
from asyncexport.core.health.export_report import ExportFacts
from asyncexport.core.health.gap_list import listed_gaps
from asyncexport.core.health.last_run import fault_of_last_run
from asyncexport.core.health.layers import layered
from asyncexport.core.health.missing import MISSING, Coverage, Piece
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AcceptedGap, AlteredArchive, RunRecord
from asyncexport.core.health.report import DirectoryFacts, StatusReport, Verdict, status_report
from asyncexport.core.health.weeks import MARKS, OUTSIDE, WEEK_SECONDS, weeks_of
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Planned, State, Stored

NAME = "events"

MONDAY = 1_767_571_200
"""2026-01-05T00:00:00Z."""

HALF_HOUR = 1_800

EXPORT = Export(NAME, settle_seconds=26 * HOUR)

WELL = RunRecord("nightly", 1.0, ended=2.0, exit_code=0)

ARCHIVE = Stored("path", 10, 5, "0" * 64, exported_at=9e9)


def span(start: int, end: int) -> Range:
    """Return a range in half hours since the Monday."""
    return Range(MONDAY + start * HALF_HOUR, MONDAY + end * HALF_HOUR)


def record(start: int, end: int, state: State, stored: Stored | None = None) -> BundleRecord:
    """Return a bundle in a state."""
    return BundleRecord(Bundle(NAME, span(start, end)), 0, state, stored)


def overview(*covered: Range, unfinished: tuple[BundleRecord, ...] = ()) -> Overview:
    """Return what the ledger knows of an export."""
    return Overview(NAME, Definition(), len(covered), 0, 0, 0, tuple(sorted(unfinished, key=_by_range)), covered, None)


def _by_range(one: BundleRecord) -> Range:
    return one.bundle.range


def report(
    known: Overview,
    *,
    settled: int,
    since: int | None = 0,
    runs: tuple[RunRecord, ...] = (WELL,),
    accepted: tuple[Range, ...] = (),
    export: Export | None = EXPORT,
    in_progress: bool = False,
    altered: tuple[BundleRecord, ...] = (),
) -> StatusReport:
    """Return the report at a time at which data is settled up to `settled`; in half hours, like `since`."""
    facts = ExportFacts(
        known,
        export,
        altered=tuple(AlteredArchive(one, "the file does not exist") for one in altered),
        accepted=tuple(AcceptedGap(Bundle(NAME, one), "the tag was off", 9e9) for one in accepted),
    )
    return status_report(
        DirectoryFacts(
            (facts,),
            since=None if since is None else MONDAY + since * HALF_HOUR,
            runs=runs,
            in_progress=in_progress,
        ),
        now=MONDAY + settled * HALF_HOUR + EXPORT.settle_seconds,
        again=lambda *words: " ".join(words),
    )


def gaps(found: StatusReport) -> list[tuple[int, int, str, str]]:
    """Return the gaps in half hours since the Monday, with their reasons and commands."""
    return [
        (
            (gap.range.start - MONDAY) // HALF_HOUR,
            (gap.range.end - MONDAY) // HALF_HOUR,
            gap.reason.value,
            gap.command,
        )
        for gap in found.exports[0].gaps
    ]


# Layers


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 15)).map(lambda one: Range(one[0], one[0] + one[1])))


@given(st.lists(SPANS, max_size=4))
def test_each_second_belongs_to_the_first_layer_that_covers_it(layers):
    """The ranges tile the span, neighbours differ, and each second has the number of its first layer."""
    whole = Range(5, 45)
    found = list(layered(whole, layers))
    assert [one.start for one, _ in found] == [whole.start, *(one.end for one, _ in found[:-1])]
    assert found[-1][0].end == whole.end
    numbers = [number for _, number in found]
    assert all(one != other for one, other in zip(numbers, numbers[1:], strict=False))
    for one, number in found:
        for second in range(one.start, one.end):
            covering = [at for at, ranges in enumerate(layers) if any(r.start <= second < r.end for r in ranges)]
            assert number == min(covering, default=len(layers))


# Gaps


def test_each_gap_has_its_reason_and_the_command_that_fills_it():
    """Parked, unfinished and never requested time is told apart, and what comes after the last bundle is behind."""
    known = overview(
        span(2, 10), span(20, 48), unfinished=(record(10, 12, Failed("no")), record(12, 14, Created(1, 0.0, "id")))
    )
    assert gaps(report(known, settled=400)) == [
        (0, 2, "never asked", "backfill --start 2026-01-05 --end 2026-01-05T01:00:00Z"),
        (10, 12, "parked", "retry --start 2026-01-05T05:00:00Z --end 2026-01-05T06:00:00Z"),
        (12, 14, "in progress", "retry --start 2026-01-05T06:00:00Z --end 2026-01-05T07:00:00Z"),
        (14, 20, "never asked", "backfill --start 2026-01-05T07:00:00Z --end 2026-01-05T10:00:00Z"),
        (48, 400, "behind", "nightly"),
    ]


def test_a_run_in_progress_finishes_what_it_began():
    """No command is suggested for bundles that the run in progress has begun."""
    known = overview(span(0, 10), unfinished=(record(10, 12, Created(1, 0.0, "id")),))
    assert gaps(report(known, settled=20, in_progress=True)) == [(10, 12, "in progress", "")]
    assert gaps(report(known, settled=20))[0][3].startswith("retry ")


@pytest.mark.parametrize(("settled", "listed"), [(48 + 60, False), (48 + 61, True)])
def test_what_the_next_night_exports_is_no_gap(settled, listed):
    """Time after the last bundle is a gap once it has been settled for more than 30 hours."""
    found = report(overview(span(0, 48)), settled=settled)
    assert bool(found.exports[0].gaps) == listed
    assert found.verdict.healthy != listed


def test_an_export_that_nothing_was_ever_stored_of_is_one_gap():
    """Everything since the start of nights was never asked for, and nothing is stored yet."""
    found = report(overview(), settled=96)
    assert gaps(found) == [(0, 96, "never asked", "backfill --start 2026-01-05 --end 2026-01-07")]
    assert found.verdict.reason == "events: nothing is stored yet"


def test_a_new_directory_has_no_gap():
    """If nights begin within the allowed delay, nothing is missing yet."""
    found = report(overview(), settled=40)
    assert (gaps(found), found.verdict.healthy, found.verdict.reason) == (
        [],
        True,
        "the last run (nightly) ended well at 1970-01-01T00:00:02Z; nothing is due",
    )


def test_without_nights_only_time_between_archives_is_a_gap():
    """A range that was exported once is behind, and the time between two ranges is listed and no problem."""
    found = report(overview(span(0, 4), span(6, 8)), settled=400, since=None)
    assert [one[:3] for one in gaps(found)] == [(4, 6, "never asked")]
    assert found.verdict.reason == (
        "events: stored up to 2026-01-05T04:00:00Z, 8 d 4 h behind the settled data (allowed: 30 h)"
    )
    recent = report(overview(span(0, 4), span(6, 400)), settled=400, since=None)
    assert recent.verdict.healthy
    assert recent.verdict.reason.endswith(
        "; everything requested is stored up to 2026-01-13T08:00:00Z; 1 gap never asked for"
    )
    unfinished = (record(4, 5, Planned(2)),)
    found = report(overview(span(0, 4), span(6, 400), unfinished=unfinished), settled=400, since=None)
    assert found.verdict.reason.startswith("events: 30 min missing, ")


def test_gaps_of_an_export_that_is_not_configured_have_no_command():
    """No run exports it any more, so nothing about it is unhealthy."""
    known = overview(span(0, 4), span(6, 8), unfinished=(record(4, 5, Failed("no")),))
    found = report(known, settled=400, export=None)
    assert gaps(found) == [(4, 5, "parked", ""), (5, 6, "never asked", "")]
    assert found.verdict.healthy


def test_commands_name_the_export_if_there_are_several():
    """With two configured exports, each command says which one it fills."""
    both = [ExportFacts(replace(overview(span(0, 2), span(4, 60)), name=name), Export(name)) for name in ("one", "two")]
    found = status_report(DirectoryFacts(tuple(both)), now=MONDAY + 3 * DAY, again=lambda *words: " ".join(words))
    assert [one.gaps[0].command.split()[-2:] for one in found.exports] == [["--export", "one"], ["--export", "two"]]


BUNDLES = st.lists(
    st.tuples(st.integers(0, 500), st.integers(1, 30), st.sampled_from(["stored", "parked", "begun", "kept", "ok"]))
)


@given(BUNDLES, st.integers(-50, 600), st.integers(0, 700))
def test_all_time_that_was_asked_for_is_reported_once(bundles, since, settled):
    """The timeline has no hole and no overlap, and gaps are what neither archives nor the user's word covers."""
    covered: set[int] = set()
    accepted, unfinished = [], []
    for start, width, kind in bundles:
        match kind:
            case "stored":
                covered.update(range(start, start + width))
            case "ok":
                accepted.append(span(start, start + width))
            case "kept":
                covered.update(range(start, start + width))
                unfinished.append(record(start, start + width, FewerRows(9, 1), ARCHIVE))
            case _:
                state = Failed("no") if kind == "parked" else Planned(2)
                unfinished.append(record(start, start + width, state))
    known = overview(*(span(at, at + 1) for at in sorted(covered)), unfinished=tuple(unfinished))
    (found,) = report(known, settled=settled, since=since, accepted=tuple(accepted)).exports
    pieces = found.pieces
    assert all(one.range.end == other.range.start for one, other in zip(pieces, pieces[1:], strict=False))
    missing = sorted(
        at
        for one, coverage in pieces
        if coverage in MISSING
        for at in range((one.start - MONDAY) // HALF_HOUR, (one.end - MONDAY) // HALF_HOUR)
    )
    excused = {at for one in accepted for at in range((one.start - MONDAY) // 1800, (one.end - MONDAY) // 1800)}
    ends = [(one.bundle.range.end - MONDAY) // 1800 for one in unfinished] + [at + 1 for at in covered]
    starts = [(one.bundle.range.start - MONDAY) // 1800 for one in unfinished] + list(covered)
    asks = since < settled
    asked = range(
        min([*starts, *([since] if asks else [])], default=0), max([*ends, *([settled] if asks else [])], default=0)
    )
    wanted = [at for at in asked if at not in covered and at not in excused]
    # Only time at the end that is not due yet may be left out.
    assert missing == wanted[: len(missing)]
    assert all(at >= settled - 60 for at in wanted[len(missing) :])
    assert sum(week.missing_seconds for week in found.weeks) == len(missing) * HALF_HOUR
    late = [at for at in wanted if since <= at < settled - 60]
    if any(isinstance(one.state, Failed) for one in found.open_parked):
        assert found.problems
    else:
        assert bool(found.problems) == bool(late)
    if pieces:
        assert found.weeks[0].start <= pieces[0].range.start < found.weeks[0].start + WEEK_SECONDS
        assert {len(week.cells) for week in found.weeks} == {28}
        assert "".join(week.cells for week in found.weeks).strip(OUTSIDE).count(OUTSIDE) == 0


def test_nights_ask_for_nothing_before_they_begin():
    """What comes after old bundles and before the start of nights is a gap of its own, and not late."""
    known = overview(span(0, 10))
    assert gaps(report(known, settled=400, since=200)) == [
        (10, 200, "never asked", "backfill --start 2026-01-05T05:00:00Z --end 2026-01-09T04:00:00Z"),
        (200, 400, "behind", "nightly"),
    ]
    fresh = report(known, settled=400, since=350)
    assert [one[:3] for one in gaps(fresh)] == [(10, 350, "never asked")]
    assert fresh.verdict.healthy


WIDTHS = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["stored", "parked", "begun", "nothing"])), max_size=60)


@given(WIDTHS, st.integers(0, 12))
def test_started_time_is_one_entry_and_only_the_smallest_other_gaps_are_left_out(widths, most):
    """Every started bundle in a gap is counted once, and no gap that is left out is larger than one that is listed."""
    covered, unfinished, at = [], [], 0
    for width, kind in widths:
        if kind == "stored":
            covered.append(span(at, at + width))
        elif kind != "nothing":
            state = Failed("no") if kind == "parked" else Planned(2)
            unfinished += [record(one, one + 1, state) for one in range(at, at + width)]
        at += width
    (found,) = report(overview(*covered, unfinished=tuple(unfinished)), settled=at).exports
    begun = [one for one in unfinished if not one.parked]
    started, others = found.started, [gap for gap in found.gaps if gap.reason is not Coverage.IN_PROGRESS]
    if started is None:
        assert not begun
    else:
        assert (started.bundles, started.seconds) == (len(begun), len(begun) * HALF_HOUR)
        assert (started.gaps, started.command) == (len(found.gaps) - len(others), "retry")
    listed = listed_gaps(found.gaps, most=most)
    left = [gap.range.seconds for gap in others if gap not in listed]
    assert len(listed) == min(most, len(others)) == len(others) - len(left)
    assert not left or not listed or max(left) <= min(gap.range.seconds for gap in listed)
    assert left or listed == others


# Weeks


def test_a_cell_shows_the_worst_of_its_six_hours():
    """Half an hour that is parked or altered is seen in a day that is otherwise stored."""
    known = overview(
        span(0, 13), span(14, 336), unfinished=(record(13, 14, Failed("no")), record(352, 364, Created(1, 0.0, "id")))
    )
    altered = (record(40, 41, ARCHIVE, ARCHIVE),)
    (found,) = report(known, settled=366, accepted=(span(336, 350),), altered=altered).exports
    assert [(week.start, week.cells) for week in found.weeks] == [
        (MONDAY, "#x#!########################"),
        (MONDAY + WEEK_SECONDS, "a-~...." + " " * 21),
    ]
    assert found.weeks[0].missing_seconds == HALF_HOUR


def test_a_cell_that_is_stored_as_far_as_it_is_due_looks_stored():
    """Six hours that are stored for 1.5 h and not due for the rest have one mark, with nightly runs or without."""
    known = overview(span(0, 15))
    weeks = [report(known, settled=15, since=since).exports[0].weeks[0].cells for since in (0, None)]
    assert [cells.rstrip() for cells in weeks] == ["##....", "##"]


KIND_RUNS = st.lists(st.tuples(st.integers(1, 20), st.sampled_from(Coverage)), min_size=1)


@given(st.integers(-30, 30), KIND_RUNS)
def test_a_cell_shows_the_worst_of_its_due_part(start, runs):
    """It is `#` if all that is due in it is stored, and `.` only if nothing in it is due."""
    pieces, kinds, at = [], {}, start
    for width, coverage in runs:
        pieces.append(Piece(span(at, at + width), coverage))
        kinds.update(dict.fromkeys(range(at, at + width), coverage))
        at += width
    worst_first = [mark for mark in reversed(MARKS.values()) if mark not in "#."]
    cells = "".join(week.cells for week in weeks_of(pieces))
    first = -336 if start < 0 else 0
    for number, cell in enumerate(cells):
        there = {kinds[one] for one in range(first + number * 12, first + number * 12 + 12) if one in kinds}
        due = {MARKS[coverage] for coverage in there - {Coverage.NOT_DUE}}
        if not due:
            assert cell == ("." if there else OUTSIDE)
        elif due == {"#"}:
            assert cell == "#"
        else:
            assert cell == next(mark for mark in worst_first if mark in due)


def test_each_kind_of_time_has_a_mark():
    """No kind is drawn as time that was not asked for."""
    assert set(MARKS) == set(Coverage)
    assert OUTSIDE not in MARKS.values()


# The verdict


def test_started_time_that_is_late_is_a_problem():
    """The verdict uses the same word as the list of gaps."""
    known = overview(span(0, 10), span(12, 400), unfinished=(record(10, 12, Created(1, 0.0, "id")),))
    assert report(known, settled=400).verdict.reason == (
        "events: 1 h missing, the first from 2026-01-05T05:00:00Z to 2026-01-05T06:00:00Z (started)"
    )


def test_a_parked_bundle_is_unhealthy_until_it_is_accepted():
    """A parked bundle is a problem at any age; one that the user has accepted is not."""
    known = overview(span(0, 40), span(41, 60), unfinished=(record(40, 41, Failed("the search failed")),))
    bad = RunRecord("nightly", 1.0, ended=2.0, exit_code=3, counts={"bundles": {"failed": 1, "unfinished": 0}})
    found = report(known, settled=61, runs=(bad,))
    assert found.verdict.reason == (
        "the last run (nightly) ended with exit code 3 at 1970-01-01T00:00:02Z; "
        "events: 1 bundle parked, the first at 2026-01-05T20:00:00Z: the search failed"
    )
    accepted = report(known, settled=61, runs=(bad,), accepted=(span(40, 41),))
    assert accepted.verdict.healthy
    assert accepted.verdict.reason.endswith(
        f"; everything since 2026-01-05 is stored up to {show(MONDAY + 60 * HALF_HOUR)}"
    )


def test_an_archive_that_was_kept_does_not_stay_unhealthy():
    """The run that kept it is bad; a later run that ends well is not."""
    known = overview(span(0, 60), unfinished=(record(40, 41, FewerRows(9, 0), ARCHIVE),))
    bad = RunRecord("nightly", 1.0, ended=2.0, exit_code=3, counts={"bundles": {"failed": 1, "unfinished": 0}})
    assert not report(known, settled=61, runs=(bad,)).verdict.healthy
    assert report(known, settled=61, runs=(bad, WELL)).verdict.healthy


def test_archives_that_were_deleted_or_overlap_are_unhealthy():
    """What is wrong on the disk counts as missing."""
    known = replace(overview(span(0, 60)), overlaps=((span(0, 4), span(2, 4)),))
    found = report(known, settled=61, altered=(record(40, 41, ARCHIVE, ARCHIVE),))
    assert found.verdict.reason == (
        "events: 1 archive deleted or changed, the first at 2026-01-05T20:00:00Z: the file does not exist; "
        "events: 1 overlap of archives, the first from 2026-01-05T01:00:00Z to 2026-01-05T02:00:00Z"
    )


def test_a_gap_before_the_start_of_nights_is_healthy_unless_it_is_parked():
    """Perhaps nobody wanted that data, so `status` lists the gap and the verdict ignores it."""
    known = overview(span(0, 10), span(20, 60))
    found = report(known, settled=61, since=30)
    assert [one[:3] for one in gaps(found)] == [(10, 20, "never asked")]
    assert found.verdict.healthy
    assert found.verdict.reason.endswith(
        "; everything since 2026-01-05T15:00:00Z is stored up to 2026-01-06T06:00:00Z; 1 older gap"
    )
    parked = overview(span(0, 10), span(20, 60), unfinished=(record(12, 14, Failed("no")),))
    assert not report(parked, settled=61, since=30).verdict.healthy


def test_an_archive_that_was_exported_too_early_must_be_exported_again_in_time():
    """It is unhealthy once its data has been settled for longer than the allowed delay."""
    early = replace(ARCHIVE, exported_at=MONDAY + 10 * HALF_HOUR, settle_seconds=26 * HOUR)
    known = replace(overview(span(0, 140)), unsettled=(record(8, 10, early, early),))
    assert report(known, settled=69).verdict.healthy
    found = report(known, settled=71)
    assert found.verdict.reason == (
        "events: 1 archive exported before the data was settled, and not again since, the first at 2026-01-05T04:00:00Z"
    )


def test_a_verdict_is_one_short_line():
    """Only the first three problems are spelt out."""
    known = replace(
        overview(span(0, 10), span(20, 60), unfinished=(record(12, 14, Failed("no")),)),
        overlaps=((span(0, 4), span(2, 4)),),
    )
    reason = report(known, settled=400, runs=()).verdict.reason
    assert reason.startswith("no run is on record; events: stored up to ")
    assert reason.endswith("; 2 more problems")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("code", "error", "failed", "unfinished", "healthy"),
    [
        (0, "", 0, 0, True),
        (9, "", 0, 5, True),
        (3, "", 2, 0, True),
        (3, "", 2, 1, False),
        (3, "", 0, 0, False),
        (3, "the service could not be reached", 2, 0, False),
        (1, "", 0, 0, False),
        (5, "", 0, 0, False),
        (130, "", 0, 5, False),
    ],
)
def test_a_run_ends_well_if_nothing_of_it_is_left(code, error, failed, unfinished, healthy):
    """Codes 0 and 9 are good; 3 is, if only bundles were parked and none of them is any more."""
    counts = {"bundles": {"failed": failed, "unfinished": unfinished}}
    run = RunRecord("nightly", 1.0, ended=2.0, exit_code=code, error=error, counts=counts)
    fault = fault_of_last_run((run,), in_progress=False, has_parked=False, accepted=())
    assert (fault == "") == healthy
    if fault and code != Exit.INTERRUPTED:
        assert fault == f"the last run (nightly) ended with exit code {code} at 1970-01-01T00:00:02Z" + (
            f": {error}" if error else ""
        )


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        (130, "was stopped by SIGINT (Ctrl-C) at 1970-01-01T00:00:02Z, exit code 130; run the same command again"),
        (143, "was stopped by SIGTERM or SIGHUP at 1970-01-01T00:00:02Z, exit code 143; run the same command again"),
        (9, "ended with exit code 9 at 1970-01-01T00:00:02Z; work is left: run the same command again"),
    ],
)
def test_the_verdict_says_how_to_resume_a_run_that_left_work(code, ended):
    """The ledger has no arguments of runs, so the verdict asks for the same command; code 9 stays healthy."""
    stopped = replace(WELL, command="backfill", exit_code=code)
    verdict = report(overview(span(0, 60)), settled=61, runs=(stopped,)).verdict
    assert verdict.healthy == (code == Exit.TIME_UP)
    assert verdict.reason.startswith(f"the last run (backfill) {ended} to resume")


def test_a_run_that_reported_a_shortfall_is_settled_by_accepting_it():
    """Exit code 3 counts until the user has accepted something since; what is still missing is reported anyway."""
    run = RunRecord("nightly", 1.0, ended=20.0, exit_code=3, error="the operation failed")
    early, late = (AcceptedGap(Bundle(NAME, span(0, 1)), "why", at) for at in (19.0, 21.0))
    assert fault_of_last_run((run,), in_progress=False, has_parked=False, accepted=(early,))
    assert not fault_of_last_run((run,), in_progress=False, has_parked=False, accepted=(early, late))


def test_a_killed_run_is_unhealthy_and_a_running_one_is_not():
    """A run in progress does not count yet: the one before it does."""
    killed = RunRecord("nightly", 5.0)
    assert fault_of_last_run((WELL, killed), in_progress=False, has_parked=False, accepted=()) == (
        "the last run (nightly) started at 1970-01-01T00:00:05Z and did not finish: it was killed or it crashed; "
        "run the same command again to resume"
    )
    running = replace(killed, running=True)
    assert not fault_of_last_run((WELL, running), in_progress=True, has_parked=False, accepted=())
    assert fault_of_last_run((killed, running), in_progress=True, has_parked=False, accepted=())
    assert not fault_of_last_run((running,), in_progress=True, has_parked=False, accepted=())


def test_nothing_is_late_during_a_backfill_without_nights():
    """A first backfill may take weeks, and nothing is wrong with it unless it has recorded nothing for a day or two."""
    started = record(20, 21, Created(1, 0.0, "id"))
    known = overview(span(0, 20), unfinished=(started,))
    running: dict[str, Any] = {"settled": 400, "runs": (RunRecord("backfill", 5.0, running=True),), "in_progress": True}
    fresh = replace(known, last_at=MONDAY + 400 * HALF_HOUR + EXPORT.settle_seconds - 60.0)
    found = report(fresh, since=None, **running)
    assert found.verdict == Verdict(
        healthy=True, reason=f"a run is in progress; everything requested is stored up to {show(span(0, 20).end)}"
    )
    assert report(overview(), since=None, **running).verdict.reason == "a run is in progress"
    assert not report(replace(known, last_at=MONDAY + 0.0), since=None, **running).verdict.healthy
    assert not report(fresh, since=0, **running).verdict.healthy
    assert not report(fresh, since=None, settled=400).verdict.healthy
    parked = overview(span(0, 20), unfinished=(record(20, 21, Failed("no")),))
    assert "1 bundle parked" in report(parked, since=None, **running).verdict.reason


def test_a_first_run_in_progress_is_reported():
    """While the first run is in progress, the verdict is about what is stored."""
    found = report(
        overview(span(0, 60)), settled=61, runs=(RunRecord("backfill", 5.0, running=True),), in_progress=True
    )
    stored_up_to = show(MONDAY + 60 * HALF_HOUR)
    assert found.verdict.reason == f"a run is in progress; everything since 2026-01-05 is stored up to {stored_up_to}"
