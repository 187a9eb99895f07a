"""Archives that the ledger does not know: detected when a run starts, and added by `verify --adopt`."""

import asyncio
import gzip
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.bundles import ALL_TIME, DAY, Bundle, Range, compact
from asyncexport.core.directory_diff import TakenTime, day_tally, overlaps, suspect_days, unrecorded
from asyncexport.core.exports import Export, Format
from asyncexport.core.states import (
    BundleRecord,
    Created,
    Creating,
    Failed,
    Overdue,
    Planned,
    Ready,
    Refused,
    State,
    Stored,
)
from asyncexport.core.summary import Exit
from asyncexport.errors import LedgerCorruptError, LedgerError
from asyncexport.ledger import LedgerReader, hold
from asyncexport.run.adopt import adopt
from asyncexport.run.findings import Adopted, Damaged, Finding, Intact, Overlapping, UnknownExport
from asyncexport.run.verify import verify
from asyncexport.sandbox import SandboxBehaviour, serving
from asyncexport.storage import Archives, archive_path
from asyncexport.storage.listing import archives_of, scan_folder
from tests.exporting import archives, rows_in, run, truth
from tests.place_rig import EVENTS, HOUR, LEDGER, MIDNIGHT, PEOPLE, Place, half_hour, half_hours, rows

FAST = SandboxBehaviour(operation_seconds=0.01, rows_per_hour=6, requests_per_minute=1e6, burst=10_000)
START, MIDDLE, END = "2026-01-06T00:00:00Z", "2026-01-06T02:00:00Z", "2026-01-06T06:00:00Z"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """An empty output directory."""
    async with Archives(tmp_path / "out") as found:
        yield Place(tmp_path / "out", found)


async def adopted(place: Place, *exports: Export) -> list[Finding]:
    """Return all findings of an adoption."""
    return [finding async for finding in adopt(place.directory, exports=exports)]


def path_of(bundle: Bundle) -> str:
    """Return the path of an archive of events."""
    return archive_path(bundle, Format.NDJSON)


def adopted_archive(place: Place, bundle: Bundle, count: int) -> Adopted:
    """Return the finding for an archive of events with this many rows."""
    return Adopted(path_of(bundle), count, place.path(bundle).stat().st_size)


# When a run starts


async def restored(sandbox, directory: Path) -> None:
    """Export two hours, back up the ledger, export four more hours, and restore the backup."""
    await run(sandbox, directory, start=START, end=MIDDLE)
    shutil.copytree(directory / ".asyncexport", directory.with_name("backup"))
    await run(sandbox, directory, start=START, end=END)
    shutil.rmtree(directory / ".asyncexport")
    shutil.copytree(directory.with_name("backup"), directory / ".asyncexport")
    sandbox.reset_counts()


@pytest.mark.parametrize("bundle", ["30m", "1h"])
async def test_a_ledger_restored_from_a_backup_is_noticed_before_any_request(tmp_path, bundle):
    """The run stops with exit code 7 and names `verify --adopt`; after the adoption no row is missing or duplicated."""
    directory, changes = tmp_path / "out", {"export": [{"bundle": bundle}]}
    async with serving(FAST) as sandbox:
        await restored(sandbox, directory)
        before = {path: path.stat().st_ino for path in archives(directory)}
        summary = await run(sandbox, directory, start=START, end=END, changes=changes)
        assert summary.exit_code is Exit.LEDGER
        assert "8 archives that the ledger does not know" in str(summary.error)
        assert str(archives(directory)[4].relative_to(directory)) in str(summary.error)
        assert summary.error is not None
        assert "verify --adopt" in summary.error.hint
        assert not any(sandbox.counts.values())
        found = [finding async for finding in adopt(directory)]
        assert len(found) == 8
        assert all(isinstance(one, Adopted) for one in found)
        summary = await run(sandbox, directory, start=START, end=END, changes=changes)
        assert summary.exit_code is Exit.DONE
        assert not any(sandbox.counts.values())
        assert {path: path.stat().st_ino for path in archives(directory)} == before
        assert rows_in(directory) == truth(sandbox, START, END)
        assert all([isinstance(one, Intact) async for one in verify(directory)])


async def test_an_archive_newer_than_the_restored_ledger_is_not_replaced(tmp_path):
    """A bundle that is `Ready` in the ledger but has a newer archive on disk keeps that archive."""
    directory, backup = tmp_path / "out", tmp_path / "backup"

    def keep_ledger(name: str) -> None:
        if name == "part.fsync:before":
            shutil.copytree(directory / ".asyncexport", backup)

    start, end = "2026-01-06T12:00:00Z", "2026-01-06T12:30:00Z"
    async with serving(replace(FAST, rows_per_hour=200, quiet=0)) as sandbox:
        await run(sandbox, directory, start=start, end=end, boundary=keep_ledger)
        (path,) = archives(directory)
        body = gzip.decompress(path.read_bytes())
        path.write_bytes(newer := gzip.compress(body + body.splitlines(keepends=True)[0]))
        shutil.rmtree(directory / ".asyncexport")
        backup.rename(directory / ".asyncexport")
        summary = await run(sandbox, directory, start=start, end=end)
    assert (summary.exit_code, summary.requests["create"]) == (Exit.DONE, 0)
    assert path.read_bytes() == newer
    assert all([isinstance(one, Intact) async for one in verify(directory)])


async def test_a_restored_ledger_next_to_a_newer_mark_gets_a_hint(tmp_path):
    """The hint says to remove the mark; without it the ledger is treated as any older one."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, start=START, end=MIDDLE)
        before = (tmp_path / LEDGER).read_bytes()
        await run(sandbox, tmp_path, start=START, end=END)
        (tmp_path / LEDGER).write_bytes(before)
        summary = await run(sandbox, tmp_path, start=START, end=END)
        mark = (tmp_path / LEDGER).with_name("ledger.sqlite3-mark")
        assert isinstance(summary.error, LedgerCorruptError)
        assert f"remove {mark}" in summary.error.hint
        mark.unlink()
        summary = await run(sandbox, tmp_path, start=START, end=END)
        assert (summary.exit_code, type(summary.error)) == (Exit.LEDGER, LedgerError)
        assert "8 archives" in str(summary.error)


async def test_deleted_archives_are_not_fetched_again_without_a_repair(tmp_path):
    """A run trusts the ledger: archives that its owner deleted are only exported again by `verify --repair`."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, start=START, end=END)
        sandbox.reset_counts()
        for path in archives(tmp_path)[2:5]:
            path.unlink()
        summary = await run(sandbox, tmp_path, start=START, end=END)
        assert summary.exit_code is Exit.DONE
        assert not any(sandbox.counts.values())
        assert len(archives(tmp_path)) == 9


async def test_archives_of_another_export_are_ignored(tmp_path):
    """A run only checks the folders of its own exports."""
    async with serving(FAST) as sandbox:
        await run(sandbox, tmp_path, start=START, end=MIDDLE)
        shutil.copytree(tmp_path / EVENTS.name, tmp_path / "other")
        assert (await run(sandbox, tmp_path, start=START, end=END)).exit_code is Exit.DONE


# Comparing the ledger with the disk


times = st.integers(min_value=MIDNIGHT, max_value=MIDNIGHT + 3 * DAY)
spans = st.builds(lambda start, width: Range(start, start + width), times, st.integers(min_value=1, max_value=DAY))


@settings(max_examples=30, deadline=None)
@given(found=st.sets(spans, max_size=12))
def test_the_ledger_and_the_disk_agree(found, tmp_path_factory):
    """The summary of each day's folder equals the one computed from the ledger's rows."""
    directory = tmp_path_factory.mktemp("out")
    place = Place(directory, Archives(directory))
    records = []
    for span in found:
        bundle = Bundle(EVENTS.name, span)
        place.path(bundle).parent.mkdir(parents=True, exist_ok=True)
        place.path(bundle).touch()
        stored = Stored(path_of(bundle), 1, 1, "0", 1.0)
        records.append(BundleRecord(bundle, 0, stored, stored))
    asyncio.run(place.record(records))
    asyncio.run(place.archives.close())
    with LedgerReader(directory) as ledger:
        known = ledger.stored_days(EVENTS.name)
        assert scan_folder(directory, EVENTS).days == known
        assert ledger.stored_ranges(EVENTS.name, ALL_TIME) == sorted(found)
        assert ledger.overlaps(EVENTS.name) == list(overlaps(sorted(found)))
    assert sorted(archives_of(directory, EVENTS, known)) == sorted(found)


@given(found=st.sets(spans, max_size=6), others=st.sets(spans, max_size=6))
def test_days_that_differ_are_suspicious(found, others):
    """A day with more, fewer or different archives is reported; a day without archives on disk is not."""

    def days(these: set[Range]) -> dict[int, set[Range]]:
        by_day: dict[int, set[Range]] = {}
        for span in these:
            by_day.setdefault(span.start // DAY * DAY, set()).add(span)
        return by_day

    def tallies(these: set[Range]) -> dict[int, object]:
        return {
            day: day_tally([f"{compact(one.start)}_{compact(one.end)}.ndjson.gz" for one in there], Format.NDJSON)
            for day, there in days(these).items()
        }

    suspect = suspect_days(tallies(found), tallies(others))  # type: ignore[arg-type]
    differ = [day for day, there in days(found).items() if there != days(others).get(day)]
    assert set(suspect) <= set(differ)
    # Sums may agree by chance; different counts are always detected.
    assert {day for day in differ if len(days(found)[day]) != len(days(others).get(day, ()))} <= set(suspect)


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "20260101T000000Z_20260101T003000Z.csv.gz",
        "20260101Tx00000Z_20260101T003000Z.ndjson.gz",
        ".ndjson.gz",
    ],
)
def test_other_files_are_not_counted(name):
    """Neither unrelated files nor archives of another format count as archives."""
    assert day_tally([name], Format.NDJSON) == (0, 0)


@pytest.mark.parametrize(
    ("state", "explained"),
    [
        (Ready(1, 1.0, "ex"), True),
        (Refused("no", Ready(1, 1.0, "ex")), True),
        (Creating(2, 1.0), True),
        (Created(2, 1.0, "op"), True),
        (Planned(2), True),
        (Creating(1, 1.0), False),
        (Created(1, 1.0, "op"), False),
        (Failed("no"), False),
        (Refused("no", Created(1, 1.0, "op")), False),
    ],
)
def test_only_a_bundle_whose_export_had_finished_explains_an_archive_without_a_row(state, explained):
    """A crash before the `Stored` row, in this attempt or an earlier one, may have left the archive."""
    span = half_hour(3).range
    record = BundleRecord(half_hour(3), 0, state)
    assert unrecorded([span], [], [record]) == ([] if explained else [span])
    assert unrecorded([span], [span], []) == []


@given(taken=st.lists(spans, max_size=20), span=spans)
def test_ranges_that_overlap_are_found(taken, span):
    """An overlap is found for ranges of any width, added in any order."""
    half = len(taken) // 2
    found = TakenTime(taken[:half])
    for one in taken[half:]:
        found.add(one)
    meeting = [one for one in taken if one.start < span.end and one.end > span.start]
    assert (found.meets(span) in meeting) if meeting else (found.meets(span) is None)
    others = [one for one in meeting if one != span]
    assert (found.meets(span, but=span) in others) if others else (found.meets(span, but=span) is None)


# Adding archives


async def test_an_intact_archive_is_added_with_its_modification_time(place):
    """It counts as stored from then on, and no file changes."""
    await place.fill(2)
    await place.keep(half_hour(5), rows(50))
    (place.directory / EVENTS.name / "notes.txt").write_text("mine")
    before = place.files()
    assert await adopted(place) == [adopted_archive(place, half_hour(5), 50)]
    assert place.files() == before
    (*_, found) = place.stored()
    assert (found.bundle, found.stored.rows) == (half_hour(5), 50)
    assert found.stored.exported_at == place.path(half_hour(5)).stat().st_mtime
    assert await adopted(place) == []


async def test_an_archive_whose_time_is_covered_is_reported_and_not_added(place):
    """The time may be covered by a stored archive, one just added, or a bundle of another width still in progress."""
    await place.fill(2)
    in_progress: tuple[State, ...] = (
        Created(1, 1.0, "op"),
        Overdue(1, 1.0, "op"),
        Refused("no", Created(1, 1.0, "op")),
        Failed("no"),
    )
    spans = [half_hours(20 + 2 * number, 22 + 2 * number) for number in range(4)]
    await place.record([BundleRecord(bundle, 0, state) for bundle, state in zip(spans, in_progress, strict=True)])
    for bundle in (half_hours(1, 3), half_hours(10, 12), half_hour(11), *map(half_hour, (20, 22, 24, 26))):
        await place.keep(bundle, rows(5))
    assert await adopted(place) == [
        Overlapping(path_of(half_hours(1, 3)), half_hours(1, 3), path_of(half_hour(1))),
        adopted_archive(place, half_hours(10, 12), 5),
        Overlapping(path_of(half_hour(11)), half_hour(11), path_of(half_hours(10, 12))),
        *(Overlapping(path_of(half_hour(n)), half_hour(n), path_of(half_hours(n, n + 2))) for n in (20, 22, 24)),
        adopted_archive(place, half_hour(26), 5),
    ]
    assert len(place.stored()) == 4


async def test_a_parked_or_requested_bundle_is_done_once_its_archive_is_added(place):
    """The older state in the ledger no longer counts."""
    await place.fill(1)
    await place.record(
        [BundleRecord(half_hour(3), 0, Failed("no")), BundleRecord(half_hour(4), 0, Created(1, 1.0, "op"))]
    )
    for number in (3, 4):
        await place.keep(half_hour(number), rows(number))
    assert len(await adopted(place)) == 2
    with LedgerReader(place.directory) as ledger:
        ledger.check()
        assert ledger.unfinished(EVENTS.name, ALL_TIME) == []


async def test_an_archive_without_its_row_after_a_crash_is_added_with_the_times_in_the_ledger(place):
    """The `Ready` row supplies the export's times, and no run fetches the file again."""
    await place.fill(1)
    await place.record([BundleRecord(half_hour(4), 0, Ready(2, 17.0, "ex", asked_at=16.0, settle_seconds=3.0))])
    await place.keep(half_hour(4), rows(4))
    assert await adopted(place) == [adopted_archive(place, half_hour(4), 4)]
    (*_, found) = place.stored()
    assert (found.bundle, found.stored.exported_at, found.stored.asked_at) == (half_hour(4), 17.0, 16.0)
    with LedgerReader(place.directory) as ledger:
        assert ledger.unfinished(EVENTS.name, ALL_TIME) == []


async def test_a_damaged_archive_is_moved_aside(place):
    """Its name becomes free for the next run."""
    await place.fill(1)
    await place.keep(half_hour(4), rows(4))
    place.path(half_hour(4)).write_bytes(b"cut")
    (finding,) = await adopted(place)
    assert isinstance(finding, Damaged)
    assert finding.path == f"{path_of(half_hour(4))}.damaged-1"
    assert (place.directory / finding.path).read_bytes() == b"cut"
    assert await adopted(place) == []


async def test_an_archive_with_rows_of_another_time_is_moved_aside(place):
    """Its half hour is a gap that the next run exports."""
    await place.fill(1)
    for number, stamp in ((2, "2026-01-01T01:15:00Z"), (3, "2026-01-01T01:15:00Z"), (4, "2026-01-01T02:15:00Z")):
        await place.keep(half_hour(number), gzip.compress(f'{{"EventStart":"{stamp}"}}\n'.encode(), mtime=0))
    found = await adopted(place)
    assert [type(one) for one in found] == [Adopted, Damaged, Adopted]
    assert [one.bundle for one in place.stored()] == [half_hour(number) for number in (0, 2, 4)]


async def test_an_export_is_added_by_the_definition_on_disk_or_in_the_settings(place):
    """If there is no definition in either place, the folder is reported."""
    await place.fill(1)
    await place.archives.prepare([PEOPLE])
    bundle = half_hour(0, PEOPLE)
    await place.keep(bundle, rows(3, PEOPLE), Format.CSV)
    (place.directory / PEOPLE.name / ".export.json").unlink()
    (finding,) = await adopted(place)
    assert isinstance(finding, UnknownExport)
    size = place.path(bundle, Format.CSV).stat().st_size
    assert await adopted(place, PEOPLE) == [Adopted(archive_path(bundle, Format.CSV), 3, size)]
    assert [one.bundle for one in place.stored(PEOPLE)] == [bundle]


async def test_nothing_is_added_to_a_lost_damaged_or_locked_ledger(place):
    """Each case is an error, and a mistyped directory is not created."""
    await place.fill(1)
    with hold(place.directory, command="backfill"), pytest.raises(LedgerError, match="another run holds"):
        await adopted(place)
    (place.directory / LEDGER).write_bytes(b"damaged")
    with pytest.raises(LedgerCorruptError):
        await adopted(place)
    (place.directory / LEDGER).unlink()
    with pytest.raises(LedgerError, match="archives but no ledger"):
        await adopted(place)
    elsewhere = place.directory.with_name("mistyped")
    with pytest.raises(LedgerError, match="no ledger"):
        [finding async for finding in adopt(elsewhere)]
    assert not elsewhere.exists()
    assert HOUR == 3600
