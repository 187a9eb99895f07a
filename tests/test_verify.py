"""Archives are checked against the ledger, and a ledger is rebuilt from archives."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from asyncexport.core.bundles import ALL_TIME, Bundle, Range, show
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.exports import Format
from asyncexport.core.parking import MOVED_ASIDE
from asyncexport.core.states import BundleRecord, Created, Creating, Failed, Overdue, Ready, Stored
from asyncexport.errors import ConfigError, LedgerCorruptError, LedgerError, LedgerLockedError, StorageError
from asyncexport.ledger import Ledger, LedgerReader, hold
from asyncexport.run.check_result import CheckResult
from asyncexport.run.findings import (
    Broken,
    Damaged,
    Finding,
    Intact,
    Missing,
    Overlapping,
    RulesOff,
    UnknownExport,
    Unrecorded,
)
from asyncexport.run.parallel_inspection import ARCHIVES_AT_ONCE
from asyncexport.run.rebuild import rebuild
from asyncexport.run.verify import verify
from asyncexport.storage import Archives, archive_path
from tests.place_rig import EVENTS, HOUR, LEDGER, MIDNIGHT, PEOPLE, Place, half_hour, half_hours, rows


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Create an empty output directory."""
    async with Archives(tmp_path / "out") as archives:
        yield Place(tmp_path / "out", archives)


async def verified(place: Place, *exports: str) -> list[Finding]:
    """Return all findings of a check."""
    return [finding async for finding in verify(place.directory, exports=exports)]


async def rebuilt(place: Place, *, force: bool = True) -> list[Finding]:
    """Return all findings of a rebuild, forced if the ledger is intact."""
    return [finding async for finding in rebuild(place.directory, force=force)]


def all_intact(records: Iterable[BundleRecord]) -> list[Finding]:
    """Return the findings of a check in which everything is intact."""
    return [Intact(one.stored.path, one.stored.rows, one.stored.bytes) for one in records if one.stored]


# Checking


async def test_archives_that_match_the_ledger_are_intact(place):
    """Each archive is reported with its rows, in order, and nothing is changed."""
    records = await place.fill(3 * ARCHIVES_AT_ONCE)
    before = place.files()
    assert await verified(place) == all_intact(records)
    assert place.files() == before
    assert place.stored() == records


async def test_a_deleted_archive_is_missing(place):
    """A deleted archive is reported with its ledger record, so that it can be exported again."""
    records = await place.fill(3)
    place.path(half_hour(1)).unlink()
    assert (await verified(place))[1] == Missing(records[1].stored.path, records[1])


async def test_an_archive_deleted_after_it_was_checked_is_still_counted(place):
    """Counting reads nothing from the disk again, so deleting an archive after its check does not end the check."""
    records = await place.fill(3)
    result = CheckResult()
    async for finding in verify(place.directory):
        (place.directory / finding.path).unlink()
        result.count(finding)
    assert (result.tally.rows, result.tally.bytes) == (3, sum(record.stored.bytes for record in records))
    assert result.is_well


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (rows(2)[:-1], "cut"),
        (rows(2)[:-8] + b"wrong!!!", "checksum"),
        (rows(2) + b"more", "after its end"),
        (rows(2, text="y"), "differ from those that were stored"),
        (gzip.compress(rows(2), mtime=0), "one layer"),
        (b"", "one layer"),
        (gzip.compress(b'{"a":1}\n{"a', mtime=0), "in the middle of a row"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "not NDJSON"),
    ],
)
async def test_an_archive_that_differs_from_what_was_stored_is_broken(place, body, reason):
    """An archive that is cut, damaged, exchanged or of another format is broken, and the reason is reported."""
    records = await place.fill(3)
    place.path(half_hour(2)).write_bytes(body)
    *others, broken = await verified(place)
    assert others == all_intact(records[:2])
    assert isinstance(broken, Broken)
    assert (broken.path, broken.record) == (records[2].stored.path, records[2])
    assert reason in broken.reason


def happened(*numbers: int) -> bytes:
    """Return compressed rows of events in the middle of these half hours."""
    stamps = [show(MIDNIGHT + number * HOUR // 2 + 900) for number in numbers]
    return gzip.compress("".join(f'{{"EventStart":"{stamp}"}}\n' for stamp in stamps).encode(), mtime=0)


async def filled(place: Place, *bodies: bytes) -> list[BundleRecord]:
    """Store these archives for the half hours from midnight on, and record them in the ledger."""
    await place.archives.prepare([EVENTS])
    records = []
    for number, body in enumerate(bodies):
        stored = await place.keep(half_hour(number), body)
        records.append(BundleRecord(half_hour(number), 0, stored, stored))
    await place.record(records)
    return records


STRANGE = gzip.compress(b'{"error":"no"}\n', mtime=0)


@pytest.mark.parametrize("body", [happened(0), STRANGE])
async def test_an_archive_with_the_wrong_rows_is_broken(place, body):
    """An archive with rows of another range or of no export is broken, even if its bytes are as stored."""
    records = await filled(place, happened(0), body, happened(2))
    intact, broken, also_intact = await verified(place)
    assert [intact, also_intact] == all_intact([records[0], records[2]])
    assert isinstance(broken, Broken)
    assert broken.record == records[1]


async def test_a_few_rows_outside_the_range_are_counted(place):
    """An archive with a few rows outside its range is intact, and those rows are counted."""
    await filled(place, happened(0, 0, 1))
    size = place.path(half_hour(0)).stat().st_size
    assert await verified(place) == [Intact(archive_path(half_hour(0), Format.NDJSON), 3, size, 1)]


async def test_three_archives_in_a_row_with_wrong_rows_turn_the_rule_off(place):
    """If three archives in a row break the rule about rows, it is turned off for the export and reported once."""
    records = await filled(place, happened(5), happened(5), happened(5), happened(5))
    *intact, last = await verified(place)
    assert [(one.path, type(one)) for one in intact] == [(one.stored.path, Intact) for one in records if one.stored]
    assert last == RulesOff("everyone-events")


async def test_a_rebuild_moves_an_archive_with_wrong_rows_aside(place):
    """An archive with wrong rows is moved aside and gets no ledger row, so that the next run exports it again."""
    records = await filled(place, happened(0), happened(0), happened(2))
    found = await rebuilt(place)
    assert [type(one) for one in found] == [Intact, Damaged, Intact]
    assert [one.bundle for one in place.stored()] == [records[0].bundle, records[2].bundle]
    assert not place.path(half_hour(1)).exists()


async def test_a_rebuild_accepts_archives_if_all_have_rows_of_other_times(place):
    """If all archives of an export break the rule about rows, a rebuild accepts them and reports the rule as off."""
    await filled(place, *[happened(9)] * 4)
    *found, last = await rebuilt(place)
    assert [type(one) for one in found] == [Intact] * 4
    assert isinstance(last, RulesOff)
    assert len(place.stored()) == 4


async def test_a_wrong_row_count_in_the_ledger_is_reported(place):
    """An archive whose bytes are as stored, but whose row count differs from the ledger, is broken."""
    await place.archives.prepare([EVENTS])
    stored = replace(await place.keep(half_hour(0), rows(7)), rows=8)
    await place.record([BundleRecord(half_hour(0), 0, stored, stored)])
    (finding,) = await verified(place)
    assert isinstance(finding, Broken)
    assert finding.reason == "it has 7 rows instead of 8"


async def test_a_file_that_is_not_in_the_ledger_is_reported(place):
    """Archives without a ledger row and foreign files are reported, but not our internal files."""
    records = await place.fill(1)
    await place.keep(half_hour(5), rows(5))
    (place.directory / EVENTS.name / "notes.txt").write_text("mine")
    assert await verified(place) == [
        *all_intact(records),
        Unrecorded(archive_path(half_hour(5), Format.NDJSON), is_archive=True),
        Unrecorded(f"{EVENTS.name}/notes.txt"),
    ]


async def test_only_the_requested_exports_are_checked(place):
    """Only the named exports are checked, or all if none is named."""
    events, people = await place.fill(2), await place.fill(3, PEOPLE)
    assert await verified(place) == all_intact(events) + all_intact(people)
    assert await verified(place, "people") == all_intact(people)
    names = (name for name in ["people", EVENTS.name])
    assert len([finding async for finding in verify(place.directory, exports=names)]) == 5


async def test_an_unknown_export_is_an_error(place):
    """A misspelt export name is an error, and not a check without findings."""
    await place.fill(1)
    with pytest.raises(LedgerError, match="knows no export 'peolpe'"):
        await verified(place, "peolpe")


async def test_without_a_ledger_nothing_can_be_checked(place):
    """A check of a directory without a ledger is an error."""
    with pytest.raises(LedgerError, match="no ledger"):
        await verified(place)


async def test_a_check_that_is_left_early_leaves_nothing_behind(place):
    """A check that is left early ends its tasks and threads."""
    await place.fill(3 * ARCHIVES_AT_ONCE)
    await place.archives.close()
    async with aclosing(verify(place.directory)) as findings:
        await anext(findings)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("storage")] == []
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("what", ["folder", "link"])
async def test_a_folder_or_link_in_place_of_an_archive_is_broken(place, what):
    """A folder or link in place of an archive is broken, and the check continues with the others."""
    first, second, third = await place.fill(3)
    path = place.path(half_hour(1))
    path.rename(place.directory / "elsewhere")
    if what == "folder":
        path.mkdir()
        (path / "mine").write_bytes(b"mine")
    else:
        path.symlink_to(place.directory / "elsewhere")
    reason = f"there is a {what} in place of the archive"
    assert await verified(place) == [
        *all_intact([first]),
        Broken(second.stored.path, second, reason),
        *all_intact([third]),
    ]


# Checking during a run


async def test_an_archive_replaced_during_the_check_is_checked_again(place):
    """An archive replaced meanwhile is compared with its new ledger row, and a new bundle is not reported."""
    records = await place.fill(3 * ARCHIVES_AT_ONCE)
    findings = verify(place.directory)
    assert await anext(findings) == all_intact(records)[0]
    number = 2 * ARCHIVES_AT_ONCE
    with hold(place.directory, command="nightly"):
        again = await place.keep(half_hour(number), rows(99))
        stored = await place.keep(half_hour(40), rows(40))
        await place.record(
            [BundleRecord(half_hour(number), 1, again, again), BundleRecord(half_hour(40), 0, stored, stored)],
        )
    rest = [finding async for finding in findings]
    assert rest[number - 1] == Intact(again.path, 99, again.bytes)
    assert [finding for finding in rest if not isinstance(finding, Intact)] == []


async def test_an_archive_stored_after_the_ledger_was_read_is_not_reported(place):
    """An unexpected file is looked up in the ledger again before it is reported."""
    records = await place.fill(2 * ARCHIVES_AT_ONCE)
    findings = verify(place.directory)
    for expected in all_intact(records[:-1]):
        assert await anext(findings) == expected
    stored = await place.keep(half_hour(40), rows(40))
    await place.record([BundleRecord(half_hour(40), 0, stored, stored)])
    assert [finding async for finding in findings] == all_intact(records[-1:])


def in_progress(bundle: Bundle, revision: int, stored: Stored | None) -> list[BundleRecord]:
    """Return the states of a revision up to `Ready`."""
    states = (Creating(1, 1.0), Created(1, 1.0, "op"), Ready(1, 1.0, "ex"))
    return [BundleRecord(bundle, revision, state, stored) for state in states]


async def test_an_archive_without_its_ledger_row_yet_is_left_to_the_run(place):
    """An archive between its rename and its ledger row is neither broken nor reported, because the run records it."""
    first, second = await place.fill(2)
    await place.record(in_progress(half_hour(1), 1, second.stored) + in_progress(half_hour(2), 0, None))
    newer = await place.keep(half_hour(1), rows(50))
    await place.keep(half_hour(2), rows(60))
    assert await verified(place) == [*all_intact([first]), Intact(second.stored.path, 50, newer.bytes)]


async def test_a_damaged_archive_is_broken_even_during_a_refresh(place):
    """A damaged archive is broken even if a new revision of its bundle is in progress."""
    (only,) = await place.fill(1)
    await place.record(in_progress(half_hour(0), 1, only.stored))
    place.path(half_hour(0)).write_bytes(rows(50)[:-1])
    (finding,) = await verified(place)
    assert isinstance(finding, Broken)


# Rebuilding


async def test_a_rebuild_finds_what_a_check_finds_behind_a_link(place):
    """A day folder that is a link to another disk is read by checks and rebuilds."""
    records = await place.fill(3)
    day = place.path(half_hour(0)).parent
    day.rename(place.directory.with_name("moved"))
    day.symlink_to(place.directory.with_name("moved"))
    assert await verified(place) == all_intact(records)
    assert await rebuilt(place) == all_intact(records)
    assert await verified(place) == all_intact(records)


async def test_a_rebuild_moves_aside_a_folder_in_place_of_an_archive(place):
    """A folder in place of an archive is moved aside with its contents, and its name is free for the next run."""
    first, second = await place.fill(2)
    place.path(half_hour(1)).unlink()
    place.path(half_hour(1)).mkdir()
    aside = f"{second.stored.path}.damaged-1"
    assert await rebuilt(place) == [
        *all_intact([first]),
        Damaged(aside, half_hour(1), "there is a folder in place of the archive"),
    ]
    assert (place.directory / aside).is_dir()


async def test_a_lost_ledger_is_rebuilt_from_the_archives(place):
    """A rebuilt ledger has the same bundles, paths, sizes, rows and hashes, and a check finds all archives intact."""
    events, people = await place.fill(5), await place.fill(3, PEOPLE)
    (place.directory / LEDGER).unlink()
    assert await rebuilt(place) == all_intact(events) + all_intact(people)
    assert await verified(place) == all_intact(events) + all_intact(people)
    for export, records in ((EVENTS, events), (PEOPLE, people)):
        dated = [
            replace(one.stored, exported_at=(place.directory / one.stored.path).stat().st_mtime) for one in records
        ]
        found = place.stored(export)
        assert [one.stored for one in found] == dated
        assert [one.bundle for one in found] == [one.bundle for one in records]


async def test_after_a_rebuild_only_gaps_are_exported(place):
    """Archives of any width count as covered, including overlapping ones, and only the gaps are exported."""
    await place.archives.prepare([EVENTS])
    spans = [(0, 1), (1, 2), (1, 4), (3, 5), (8, 32), (10, 12), (40, 41)]
    for start, end in spans:
        span = Range(MIDNIGHT + start * HOUR // 2, MIDNIGHT + end * HOUR // 2)
        await place.keep(Bundle(EVENTS.name, span), rows(end))
    found = await rebuilt(place)
    assert sum(isinstance(one, Intact) for one in found) == len(spans)
    pairs = [((1, 2), (1, 4)), ((1, 4), (3, 5)), ((8, 32), (10, 12))]
    assert [one for one in found if not isinstance(one, Intact)] == [
        Overlapping(
            archive_path(half_hours(*later), Format.NDJSON),
            half_hours(*later),
            archive_path(half_hours(*earlier), Format.NDJSON),
        )
        for earlier, later in pairs
    ]
    assert [one for one in await verified(place) if not isinstance(one, Intact)] == found[len(spans) :]
    day = Range(MIDNIGHT, MIDNIGHT + 24 * HOUR)
    with LedgerReader(place.directory) as ledger:
        work = ExportPlan(EVENTS, day, ledger.recorded_range(EVENTS.name, day))
    gaps = [5, 6, 7, *range(32, 40), *range(41, 48)]
    assert [one.bundle for one in work.unclaimed()] == [half_hour(number) for number in gaps]


async def test_a_damaged_ledger_is_moved_aside_and_never_removed(place):
    """Each damaged ledger is moved aside under its own name."""
    records = await place.fill(2)
    ledger = place.directory / LEDGER
    for number in (1, 2):
        ledger.write_bytes(b"damaged %d" % number)
        with pytest.raises(LedgerCorruptError):
            await verified(place)
        assert await rebuilt(place) == all_intact(records)
        aside = [ledger.with_name(f"{ledger.name}.damaged-{one}").read_bytes() for one in range(1, number + 1)]
        assert aside == [b"damaged %d" % one for one in range(1, number + 1)]
    assert await verified(place) == all_intact(records)
    assert {path.name for path in ledger.parent.iterdir()} >= {ledger.name, "lock"}
    assert not (ledger.parent / "anew").exists()


async def test_an_intact_ledger_is_moved_aside_as_well(place):
    """A forced rebuild keeps the intact old ledger aside with all its contents."""
    await place.fill(2)
    await place.record(in_progress(half_hour(9), 0, None))
    await rebuilt(place)
    aside = place.directory.with_name("aside")
    (aside / LEDGER.parent).mkdir(parents=True)
    for path in (place.directory / LEDGER).parent.glob(f"{LEDGER.name}.damaged-1*"):
        path.rename(aside / LEDGER.parent / path.name.replace(".damaged-1", ""))
    with LedgerReader(aside) as ledger:
        assert [one.bundle for one in ledger.unfinished(EVENTS.name, ALL_TIME)] == [half_hour(9)]


async def test_an_incomplete_archive_is_moved_aside_for_the_next_run(place):
    """An incomplete archive is moved aside without overwriting an earlier one, and leaves a gap for the next run."""
    records = await place.fill(3)
    path = place.path(half_hour(1))
    path.write_bytes(rows(1)[:-1])
    path.with_name(f"{path.name}.damaged-1").write_bytes(b"of last year")
    first, found, foreign, third = await rebuilt(place)
    assert [first, third] == all_intact([records[0], records[2]])
    assert foreign == Unrecorded(f"{records[1].stored.path}.damaged-1")
    assert isinstance(found, Damaged)
    assert (found.path, found.bundle) == (f"{records[1].stored.path}.damaged-2", half_hour(1))
    assert "cut" in found.reason
    assert not path.exists()
    assert (place.directory / found.path).read_bytes() == rows(1)[:-1]
    assert [one.bundle for one in place.stored()] == [half_hour(0), half_hour(2)]


async def test_foreign_files_are_reported_and_left_alone(place):
    """A file of another format, in another folder or with another name is reported and not changed."""
    records = await place.fill(1)
    folder = place.directory / EVENTS.name
    day = folder / "date=2026-01-01"
    archive = place.path(half_hour(0))
    strangers = [
        day / archive.name.replace("ndjson", "csv"),
        day / "copy" / "date=2026-01-01" / archive.name,
        folder / "date=2026-01-02" / archive.name,
        folder / archive.name,
        folder / "notes.txt",
    ]
    for stranger in strangers:
        stranger.parent.mkdir(parents=True, exist_ok=True)
        stranger.write_bytes(b"mine")
    found = await rebuilt(place)
    assert [one for one in found if isinstance(one, Intact)] == all_intact(records)
    assert {place.directory / one.path for one in found if isinstance(one, Unrecorded)} == set(strangers)
    assert all(stranger.read_bytes() == b"mine" for stranger in strangers)


async def test_a_rebuilt_ledger_waits_for_tokens(place):
    """After a rebuild the bucket starts empty, because earlier requests are unknown."""
    await place.fill(1)
    await rebuilt(place)
    with LedgerReader(place.directory) as ledger:
        assert [sent.status for sent in ledger.requests_since(0.0)] == [429]


async def test_a_rebuild_is_refused_during_a_run(place):
    """A rebuild is refused while a run holds the lock, and nothing is changed."""
    await place.fill(1)
    before = (place.directory / LEDGER).read_bytes()
    with hold(place.directory, command="backfill"), pytest.raises(LedgerLockedError):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


async def test_without_definitions_the_old_ledger_stays(place):
    """A rebuild of a directory without export definitions is refused, and the old ledger stays."""
    await place.fill(1)
    (place.directory / LEDGER).write_bytes(b"damaged")
    before = (place.directory / LEDGER).read_bytes()
    (place.directory / EVENTS.name / ".export.json").unlink()
    with pytest.raises(LedgerError, match="no export"):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


async def test_an_unreadable_definition_stops_a_rebuild_before_it_starts(place):
    """An unreadable definition ends the rebuild, so that the archives of its export are not silently left out."""
    await place.fill(1)
    await place.fill(1, PEOPLE)
    before = (place.directory / LEDGER).read_bytes()
    (place.directory / PEOPLE.name / ".export.json").write_bytes(b"?")
    with pytest.raises(StorageError, match="not a valid export definition"):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


@pytest.mark.parametrize("how", ["left", "failed"])
async def test_an_interrupted_rebuild_leaves_the_old_ledger_in_place(place, how):
    """The new ledger takes the place of the old one only after all archives were read."""
    records = await place.fill(3 * ARCHIVES_AT_ONCE)
    before = (place.directory / LEDGER).read_bytes()
    if how == "left":
        async with aclosing(rebuild(place.directory, force=True)) as findings:
            await anext(findings)
    else:
        async with aclosing(rebuild(place.directory, force=True)) as findings:
            await anext(findings)
            place.path(half_hour(3 * ARCHIVES_AT_ONCE - 1)).unlink()
            with pytest.raises(StorageError, match="disappeared"):
                [finding async for finding in findings]
    assert (place.directory / LEDGER).read_bytes() == before
    assert place.stored() == records
    assert not (place.directory / LEDGER.parent / "anew").exists()


async def test_a_killed_rebuild_can_be_repeated(place):
    """The unfinished ledger of a killed rebuild is ignored by the next one."""
    records = await place.fill(2)
    (place.directory / LEDGER).unlink()
    half_made = await Ledger.open(place.directory / LEDGER.parent / "anew")
    await half_made.register([PEOPLE])
    await half_made.close()
    assert await rebuilt(place) == all_intact(records)
    with LedgerReader(place.directory) as ledger:
        assert list(ledger.exports()) == [EVENTS.name]


@pytest.mark.parametrize("what", ["file", "link"])
async def test_a_foreign_file_at_the_working_path_of_a_rebuild_is_left_alone(place, what):
    """A file or link with the name of the rebuild's working folder is neither removed nor followed."""
    records = await place.fill(2)
    (place.directory / LEDGER).unlink()
    anew = place.directory / LEDGER.parent / "anew"
    if what == "file":
        anew.write_text("mine")
    else:
        (place.directory / "mine").mkdir()
        anew.symlink_to(place.directory / "mine")
    assert await rebuilt(place) == all_intact(records)
    assert anew.read_text() == "mine" if what == "file" else not list((place.directory / "mine").iterdir())
    assert not anew.with_name("anew-1").exists()


# An intact ledger


async def test_an_intact_ledger_is_replaced_only_by_force(place):
    """A rebuild of an intact ledger is refused, and the hint names `--adopt` and `--force`."""
    await place.fill(2)
    before = (place.directory / LEDGER).read_bytes()
    with pytest.raises(ConfigError, match="is intact") as raised:
        await rebuilt(place, force=False)
    assert "--adopt" in raised.value.hint
    assert "--force" in raised.value.hint
    assert (place.directory / LEDGER).read_bytes() == before
    assert not (place.directory / LEDGER.parent / "anew").exists()


async def test_the_other_contents_of_an_intact_ledger_are_carried_over(place):
    """A forced rebuild keeps unfinished and parked bundles, refreshes, export times, revisions and notes."""
    first, second, third = await place.fill(3)
    again = BundleRecord(second.bundle, 4, second.stored, second.stored)
    refresh = BundleRecord(third.bundle, 1, Ready(2, 5.0, "ex"), third.stored)
    unfinished = [
        BundleRecord(half_hour(7), 0, Created(2, 3.0, "op"), None),
        BundleRecord(half_hour(8), 0, Creating(1, 3.0), None),
        BundleRecord(half_hour(9), 0, Overdue(1, 3.0, "op-9"), None),
        BundleRecord(half_hour(10), 0, Failed("no"), None),
    ]
    await place.record([again, refresh, *unfinished])
    ledger = await Ledger.open(place.directory)
    ledger.remember("nightly_since", "17")
    await ledger.close()
    assert await rebuilt(place) == all_intact([first, second, third])
    assert place.stored() == [first, again, refresh]
    with LedgerReader(place.directory) as reader:
        assert reader.unfinished(EVENTS.name, ALL_TIME) == [refresh, *unfinished]
        assert reader.recall("nightly_since") == "17"


async def test_a_rebuild_records_an_archive_whose_row_a_crash_prevented(place):
    """An archive stored just before a crash counts as stored after a rebuild, so it is not fetched again."""
    await place.fill(1)
    await place.record(in_progress(half_hour(1), 0, None))
    await place.keep(half_hour(1), rows(5))
    assert len(await rebuilt(place)) == 2
    with LedgerReader(place.directory) as reader:
        assert reader.unfinished(EVENTS.name, ALL_TIME) == []


async def test_the_record_of_a_replaced_archive_is_not_carried_over(place):
    """An archive that was replaced gets a new record with its own rows and the date of the file."""
    await place.fill(1)
    await place.keep(half_hour(0), rows(9))
    await rebuilt(place)
    (found,) = place.stored()
    assert found.stored.rows == 9
    assert found.stored.exported_at == place.path(half_hour(0)).stat().st_mtime


# What a rebuild cannot restore


async def test_a_gap_left_by_a_rebuild_is_reported_until_it_is_filled(place):
    """A bundle whose archive was moved aside is parked, and checks report it as missing until it is stored again."""
    first, second = await place.fill(2)
    place.path(half_hour(1)).write_bytes(b"cut")
    (place.directory / LEDGER).unlink()
    assert isinstance((await rebuilt(place))[1], Damaged)
    hole = BundleRecord(half_hour(1), 0, Failed(MOVED_ASIDE))
    with LedgerReader(place.directory) as ledger:
        assert ledger.unfinished(EVENTS.name, ALL_TIME) == [hole]
    found = await verified(place)
    assert found[:2] == [*all_intact([first]), Missing(second.stored.path, hole)]
    stored = await place.keep(half_hour(1), rows(1))
    await place.record([BundleRecord(half_hour(1), 0, stored, stored)])
    assert [one for one in await verified(place) if not isinstance(one, Unrecorded)] == all_intact([first, second])


async def test_archives_without_a_definition_are_reported(place):
    """An export folder without a definition is reported by a rebuild and by every later check."""
    events, _ = await place.fill(2), await place.fill(1, PEOPLE)
    (place.directory / PEOPLE.name / ".export.json").unlink()
    (place.directory / LEDGER).unlink()
    for findings in (await rebuilt(place), await verified(place)):
        assert findings[:-1] == all_intact(events)
        assert isinstance(findings[-1], UnknownExport)
        assert findings[-1].path == PEOPLE.name
    assert await verified(place, EVENTS.name) == all_intact(events)
