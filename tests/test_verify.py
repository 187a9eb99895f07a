"""Archives against the ledger, and a ledger made anew from archives."""

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
    """An output directory with nothing in it."""
    async with Archives(tmp_path / "out") as archives:
        yield Place(tmp_path / "out", archives)


async def verified(place: Place, *exports: str) -> list[Finding]:
    """All findings of a check."""
    return [finding async for finding in verify(place.directory, exports=exports)]


async def rebuilt(place: Place, *, force: bool = True) -> list[Finding]:
    """All findings of a rebuild, by force where the ledger is sound."""
    return [finding async for finding in rebuild(place.directory, force=force)]


def all_sound(records: Iterable[BundleRecord]) -> list[Finding]:
    """What a check finds where nothing is wrong."""
    return [Intact(one.stored.path, one.stored.rows, one.stored.bytes) for one in records if one.stored]


# Checking


async def test_archives_that_are_what_the_ledger_says_are_sound(place):
    """Each is named with its rows, in order, however many are read side by side; nothing is changed."""
    records = await place.fill(3 * ARCHIVES_AT_ONCE)
    before = place.files()
    assert await verified(place) == all_sound(records)
    assert place.files() == before
    assert place.stored() == records


async def test_an_archive_that_is_not_there_is_missing(place):
    """With its standing, by which it can be exported anew."""
    records = await place.fill(3)
    place.path(half_hour(1)).unlink()
    assert (await verified(place))[1] == Missing(records[1].stored.path, records[1])


async def test_an_archive_that_is_deleted_after_it_was_checked_is_counted_by_what_was_read(place):
    """Counting reads nothing from the disk again, so a deletion at any time does not end the check."""
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
        (gzip.compress(b'{"a":1}\n{"a', mtime=0), "within a row"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "not NDJSON"),
    ],
)
async def test_an_archive_that_is_another_than_was_stored_is_broken(place, body, reason):
    """Cut, damaged, exchanged, or of another kind; and the reason is told."""
    records = await place.fill(3)
    place.path(half_hour(2)).write_bytes(body)
    *others, broken = await verified(place)
    assert others == all_sound(records[:2])
    assert isinstance(broken, Broken)
    assert (broken.path, broken.record) == (records[2].stored.path, records[2])
    assert reason in broken.reason


def happened(*numbers: int) -> bytes:
    """Rows of events in the middle of these half hours, packed."""
    stamps = [show(MIDNIGHT + number * HOUR // 2 + 900) for number in numbers]
    return gzip.compress("".join(f'{{"EventStart":"{stamp}"}}\n' for stamp in stamps).encode(), mtime=0)


async def filled(place: Place, *bodies: bytes) -> list[BundleRecord]:
    """Half hours from midnight on with these archives, stored and on record."""
    await place.archives.prepare([EVENTS])
    records = []
    for number, body in enumerate(bodies):
        stored = await place.keep(half_hour(number), body)
        records.append(BundleRecord(half_hour(number), 0, stored, stored))
    await place.record(records)
    return records


STRANGE = gzip.compress(b'{"error":"no"}\n', mtime=0)


@pytest.mark.parametrize("body", [happened(0), STRANGE])
async def test_an_archive_with_other_rows_than_were_asked_for_is_broken(place, body):
    """Those of another half hour, or of no export at all, though its bytes are those that were stored."""
    records = await filled(place, happened(0), body, happened(2))
    sound, broken, also_sound = await verified(place)
    assert [sound, also_sound] == all_sound([records[0], records[2]])
    assert isinstance(broken, Broken)
    assert broken.record == records[1]


async def test_a_few_rows_outside_are_counted(place):
    """The archive is sound all the same."""
    await filled(place, happened(0, 0, 1))
    size = place.path(half_hour(0)).stat().st_size
    assert await verified(place) == [Intact(archive_path(half_hour(0), Format.NDJSON), 3, size, 1)]


async def test_three_archives_in_a_row_with_other_rows_are_no_mistake_of_theirs(place):
    """The rule is wrong about this export, and that is told once."""
    records = await filled(place, happened(5), happened(5), happened(5), happened(5))
    *sound, told = await verified(place)
    assert [(one.path, type(one)) for one in sound] == [(one.stored.path, Intact) for one in records if one.stored]
    assert told == RulesOff("everyone-events")


async def test_a_rebuild_moves_an_archive_with_other_rows_aside(place):
    """It gets no row, and its half hour is a hole that the next run fills; where three are so, they stay."""
    records = await filled(place, happened(0), happened(0), happened(2))
    found = await rebuilt(place)
    assert [type(one) for one in found] == [Intact, Damaged, Intact]
    assert [one.bundle for one in place.stored()] == [records[0].bundle, records[2].bundle]
    assert not place.path(half_hour(1)).exists()


async def test_a_rebuild_takes_archives_whose_rows_are_all_of_other_times(place):
    """What is asked for and what the rows say differ, for whatever reason."""
    await filled(place, *[happened(9)] * 4)
    *found, told = await rebuilt(place)
    assert [type(one) for one in found] == [Intact] * 4
    assert isinstance(told, RulesOff)
    assert len(place.stored()) == 4


async def test_a_ledger_that_counted_otherwise_is_told(place):
    """The bytes are those that were stored, and have other rows than the ledger says."""
    await place.archives.prepare([EVENTS])
    stored = replace(await place.keep(half_hour(0), rows(7)), rows=8)
    await place.record([BundleRecord(half_hour(0), 0, stored, stored)])
    (finding,) = await verified(place)
    assert isinstance(finding, Broken)
    assert finding.reason == "it has 7 rows instead of 8"


async def test_a_file_that_the_ledger_does_not_know_is_named(place):
    """An archive without a row, and whatever else lies there; our own files are not."""
    records = await place.fill(1)
    await place.keep(half_hour(5), rows(5))
    (place.directory / EVENTS.name / "notes.txt").write_text("mine")
    assert await verified(place) == [
        *all_sound(records),
        Unrecorded(archive_path(half_hour(5), Format.NDJSON), is_archive=True),
        Unrecorded(f"{EVENTS.name}/notes.txt"),
    ]


async def test_only_the_exports_that_were_asked_for_are_checked(place):
    """Each by its own format; none named means all."""
    events, people = await place.fill(2), await place.fill(3, PEOPLE)
    assert await verified(place) == all_sound(events) + all_sound(people)
    assert await verified(place, "people") == all_sound(people)
    names = (name for name in ["people", EVENTS.name])
    assert len([finding async for finding in verify(place.directory, exports=names)]) == 5


async def test_an_export_that_nobody_knows_is_told(place):
    """A name that was misspelt is not a check that found nothing."""
    await place.fill(1)
    with pytest.raises(LedgerError, match="knows no export 'peolpe'"):
        await verified(place, "peolpe")


async def test_without_a_ledger_nothing_can_be_checked(place):
    """A directory that has none says so."""
    with pytest.raises(LedgerError, match="no ledger"):
        await verified(place)


async def test_a_check_that_is_left_early_leaves_nothing_behind(place):
    """What was under way is ended, with its threads."""
    await place.fill(3 * ARCHIVES_AT_ONCE)
    await place.archives.close()
    async with aclosing(verify(place.directory)) as findings:
        await anext(findings)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("storage")] == []
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("what", ["folder", "link"])
async def test_what_lies_in_an_archives_place_is_broken_and_the_check_goes_on(place, what):
    """A folder or a link is one bundle's trouble, which a repair can mend; the rest is checked."""
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
        *all_sound([first]),
        Broken(second.stored.path, second, reason),
        *all_sound([third]),
    ]


# Checking during a run


async def test_what_a_run_replaces_meanwhile_is_looked_at_once_more(place):
    """A new take's archive is compared with the new take's row; a bundle that is new is not foreign."""
    records = await place.fill(3 * ARCHIVES_AT_ONCE)
    findings = verify(place.directory)
    assert await anext(findings) == all_sound(records)[0]
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


async def test_what_a_run_stored_after_the_ledger_was_read_is_not_foreign(place):
    """A file that nobody expected is looked up once more before it is called that."""
    records = await place.fill(2 * ARCHIVES_AT_ONCE)
    findings = verify(place.directory)
    for sound in all_sound(records[:-1]):
        assert await anext(findings) == sound
    stored = await place.keep(half_hour(40), rows(40))
    await place.record([BundleRecord(half_hour(40), 0, stored, stored)])
    assert [finding async for finding in findings] == all_sound(records[-1:])


def under_way(bundle: Bundle, revision: int, stored: Stored | None) -> list[BundleRecord]:
    """The states of a take up to `Ready`."""
    states = (Creating(1, 1.0), Created(1, 1.0, "op"), Ready(1, 1.0, "ex"))
    return [BundleRecord(bundle, revision, state, stored) for state in states]


async def test_an_archive_that_has_its_name_and_not_yet_its_row_is_left_to_the_run(place):
    """Between the two, or after a crash there, it is neither broken nor foreign: the run will put it on record."""
    first, second = await place.fill(2)
    await place.record(under_way(half_hour(1), 1, second.stored) + under_way(half_hour(2), 0, None))
    newer = await place.keep(half_hour(1), rows(50))
    await place.keep(half_hour(2), rows(60))
    assert await verified(place) == [*all_sound([first]), Intact(second.stored.path, 50, newer.bytes)]


async def test_a_damaged_archive_is_broken_though_a_new_take_is_under_way(place):
    """Whole is what even a new one has to be."""
    (only,) = await place.fill(1)
    await place.record(under_way(half_hour(0), 1, only.stored))
    place.path(half_hour(0)).write_bytes(rows(50)[:-1])
    (finding,) = await verified(place)
    assert isinstance(finding, Broken)


# Made anew


async def test_a_rebuild_finds_what_a_check_finds_behind_a_link(place):
    """A day whose folder lies on another disk is read there by both."""
    records = await place.fill(3)
    day = place.path(half_hour(0)).parent
    day.rename(place.directory.with_name("moved"))
    day.symlink_to(place.directory.with_name("moved"))
    assert await verified(place) == all_sound(records)
    assert await rebuilt(place) == all_sound(records)
    assert await verified(place) == all_sound(records)


async def test_a_rebuild_moves_aside_what_lies_in_an_archives_place(place):
    """Its name is free for the next run, and what was in it is kept."""
    first, second = await place.fill(2)
    place.path(half_hour(1)).unlink()
    place.path(half_hour(1)).mkdir()
    aside = f"{second.stored.path}.damaged-1"
    assert await rebuilt(place) == [
        *all_sound([first]),
        Damaged(aside, half_hour(1), "there is a folder in place of the archive"),
    ]
    assert (place.directory / aside).is_dir()


async def test_a_lost_ledger_is_made_anew_from_the_archives(place):
    """The same bundles, paths, sizes, rows and digests, of all exports; a check finds all of them sound."""
    events, people = await place.fill(5), await place.fill(3, PEOPLE)
    (place.directory / LEDGER).unlink()
    assert await rebuilt(place) == all_sound(events) + all_sound(people)
    assert await verified(place) == all_sound(events) + all_sound(people)
    for export, records in ((EVENTS, events), (PEOPLE, people)):
        dated = [
            replace(one.stored, exported_at=(place.directory / one.stored.path).stat().st_mtime) for one in records
        ]
        found = place.stored(export)
        assert [one.stored for one in found] == dated
        assert [one.bundle for one in found] == [one.bundle for one in records]


async def test_after_a_rebuild_only_the_gaps_are_left_to_do(place):
    """Archives of any width count, side by side and one over another."""
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
    """Also the next one: each lies under a name of its own."""
    records = await place.fill(2)
    ledger = place.directory / LEDGER
    for number in (1, 2):
        ledger.write_bytes(b"damaged %d" % number)
        with pytest.raises(LedgerCorruptError):
            await verified(place)
        assert await rebuilt(place) == all_sound(records)
        aside = [ledger.with_name(f"{ledger.name}.damaged-{one}").read_bytes() for one in range(1, number + 1)]
        assert aside == [b"damaged %d" % one for one in range(1, number + 1)]
    assert await verified(place) == all_sound(records)
    assert {path.name for path in ledger.parent.iterdir()} >= {ledger.name, "lock"}
    assert not (ledger.parent / "anew").exists()


async def test_a_whole_ledger_is_moved_aside_as_well(place):
    """Whoever orders it by mistake loses nothing: it lies there with all it knew."""
    await place.fill(2)
    await place.record(under_way(half_hour(9), 0, None))
    await rebuilt(place)
    aside = place.directory.with_name("aside")
    (aside / LEDGER.parent).mkdir(parents=True)
    for path in (place.directory / LEDGER).parent.glob(f"{LEDGER.name}.damaged-1*"):
        path.rename(aside / LEDGER.parent / path.name.replace(".damaged-1", ""))
    with LedgerReader(aside) as ledger:
        assert [one.bundle for one in ledger.unfinished(EVENTS.name, ALL_TIME)] == [half_hour(9)]


async def test_an_archive_that_is_not_whole_is_moved_aside_and_exported_anew(place):
    """Its name is free for the next run, which finds a gap there; what was found before is not overwritten."""
    records = await place.fill(3)
    path = place.path(half_hour(1))
    path.write_bytes(rows(1)[:-1])
    path.with_name(f"{path.name}.damaged-1").write_bytes(b"of last year")
    first, found, foreign, third = await rebuilt(place)
    assert [first, third] == all_sound([records[0], records[2]])
    assert foreign == Unrecorded(f"{records[1].stored.path}.damaged-1")
    assert isinstance(found, Damaged)
    assert (found.path, found.bundle) == (f"{records[1].stored.path}.damaged-2", half_hour(1))
    assert "cut" in found.reason
    assert not path.exists()
    assert (place.directory / found.path).read_bytes() == rows(1)[:-1]
    assert [one.bundle for one in place.stored()] == [half_hour(0), half_hour(2)]


async def test_what_is_no_archive_of_the_export_is_named_and_left_alone(place):
    """A file of another format, in another folder, or of another name."""
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
    assert [one for one in found if isinstance(one, Intact)] == all_sound(records)
    assert {place.directory / one.path for one in found if isinstance(one, Unrecorded)} == set(strangers)
    assert all(stranger.read_bytes() == b"mine" for stranger in strangers)


async def test_a_rebuilt_ledger_waits_for_tokens(place):
    """What was spent before is not known any more: the bucket begins empty."""
    await place.fill(1)
    await rebuilt(place)
    with LedgerReader(place.directory) as ledger:
        assert [sent.status for sent in ledger.requests_since(0.0)] == [429]


async def test_a_rebuild_is_refused_while_a_run_is_going_on(place):
    """The lock decides; nothing is changed."""
    await place.fill(1)
    before = (place.directory / LEDGER).read_bytes()
    with hold(place.directory, command="backfill"), pytest.raises(LedgerLockedError):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


async def test_with_nothing_to_make_a_ledger_from_the_old_one_stays(place):
    """A directory that was mistaken for another keeps what it has."""
    await place.fill(1)
    (place.directory / LEDGER).write_bytes(b"damaged")
    before = (place.directory / LEDGER).read_bytes()
    (place.directory / EVENTS.name / ".export.json").unlink()
    with pytest.raises(LedgerError, match="no export"):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


async def test_a_definition_that_cannot_be_read_stops_a_rebuild_before_it_begins(place):
    """Archives of an export that nobody can name are not left out in silence."""
    await place.fill(1)
    await place.fill(1, PEOPLE)
    before = (place.directory / LEDGER).read_bytes()
    (place.directory / PEOPLE.name / ".export.json").write_bytes(b"?")
    with pytest.raises(StorageError, match="not a valid export definition"):
        await rebuilt(place)
    assert (place.directory / LEDGER).read_bytes() == before


@pytest.mark.parametrize("how", ["left", "failed"])
async def test_a_rebuild_that_stops_midway_leaves_the_old_ledger_in_its_place(place, how):
    """A ledger of half the archives would have the other half overwritten: it gets its place once all were read."""
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


async def test_a_rebuild_stopped_by_a_kill_can_be_done_again(place):
    """What it left half-made is not in the way, nor taken for anything."""
    records = await place.fill(2)
    (place.directory / LEDGER).unlink()
    half_made = await Ledger.open(place.directory / LEDGER.parent / "anew")
    await half_made.register([PEOPLE])
    await half_made.close()
    assert await rebuilt(place) == all_sound(records)
    with LedgerReader(place.directory) as ledger:
        assert list(ledger.exports()) == [EVENTS.name]


@pytest.mark.parametrize("what", ["file", "link"])
async def test_what_somebody_put_where_a_rebuild_works_is_left_alone(place, what):
    """A file or a link of that name is not in the way, nor removed, nor followed."""
    records = await place.fill(2)
    (place.directory / LEDGER).unlink()
    anew = place.directory / LEDGER.parent / "anew"
    if what == "file":
        anew.write_text("mine")
    else:
        (place.directory / "mine").mkdir()
        anew.symlink_to(place.directory / "mine")
    assert await rebuilt(place) == all_sound(records)
    assert anew.read_text() == "mine" if what == "file" else not list((place.directory / "mine").iterdir())
    assert not anew.with_name("anew-1").exists()


# A ledger that is sound


async def test_a_sound_ledger_is_not_replaced_unless_that_is_insisted_on(place):
    """It knows more than archives can say; whoever has archives that it does not know is told of the way."""
    await place.fill(2)
    before = (place.directory / LEDGER).read_bytes()
    with pytest.raises(ConfigError, match="is intact") as told:
        await rebuilt(place, force=False)
    assert "--adopt" in told.value.hint
    assert "--force" in told.value.hint
    assert (place.directory / LEDGER).read_bytes() == before
    assert not (place.directory / LEDGER.parent / "anew").exists()


async def test_what_only_a_sound_ledger_knows_is_carried_over(place):
    """What is under way, parked or refreshed, when each archive was exported, in which revision, and all remarks."""
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
    assert await rebuilt(place) == all_sound([first, second, third])
    assert place.stored() == [first, again, refresh]
    with LedgerReader(place.directory) as reader:
        assert reader.unfinished(EVENTS.name, ALL_TIME) == [refresh, *unfinished]
        assert reader.recall("nightly_since") == "17"


async def test_an_archive_whose_row_a_crash_prevented_is_not_fetched_again_after_a_rebuild(place):
    """Its bundle was under way, and is stored now."""
    await place.fill(1)
    await place.record(under_way(half_hour(1), 0, None))
    await place.keep(half_hour(1), rows(5))
    assert len(await rebuilt(place)) == 2
    with LedgerReader(place.directory) as reader:
        assert reader.unfinished(EVENTS.name, ALL_TIME) == []


async def test_of_an_archive_that_was_replaced_only_what_still_holds_is_carried_over(place):
    """What was known of other bytes says nothing of these."""
    await place.fill(1)
    await place.keep(half_hour(0), rows(9))
    await rebuilt(place)
    (found,) = place.stored()
    assert found.stored.rows == 9
    assert found.stored.exported_at == place.path(half_hour(0)).stat().st_mtime


# What a rebuild could not take


async def test_the_hole_that_a_rebuild_leaves_is_seen_until_it_is_filled(place):
    """The bundle is parked, a check calls it missing, and what comes for it makes all well."""
    first, second = await place.fill(2)
    place.path(half_hour(1)).write_bytes(b"cut")
    (place.directory / LEDGER).unlink()
    assert isinstance((await rebuilt(place))[1], Damaged)
    hole = BundleRecord(half_hour(1), 0, Failed(MOVED_ASIDE))
    with LedgerReader(place.directory) as ledger:
        assert ledger.unfinished(EVENTS.name, ALL_TIME) == [hole]
    found = await verified(place)
    assert found[:2] == [*all_sound([first]), Missing(second.stored.path, hole)]
    stored = await place.keep(half_hour(1), rows(1))
    await place.record([BundleRecord(half_hour(1), 0, stored, stored)])
    assert [one for one in await verified(place) if not isinstance(one, Unrecorded)] == all_sound([first, second])


async def test_archives_that_no_definition_goes_with_are_named(place):
    """By a rebuild, which cannot know what was asked for, and by every check after it."""
    events, _ = await place.fill(2), await place.fill(1, PEOPLE)
    (place.directory / PEOPLE.name / ".export.json").unlink()
    (place.directory / LEDGER).unlink()
    for findings in (await rebuilt(place), await verified(place)):
        assert findings[:-1] == all_sound(events)
        assert isinstance(findings[-1], UnknownExport)
        assert findings[-1].path == PEOPLE.name
    assert await verified(place, EVENTS.name) == all_sound(events)
