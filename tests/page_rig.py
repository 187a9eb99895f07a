"""Status pages for tests: reports of made-up directories, a page as a file, and Chromium that shows it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, merged
from asyncexport.core.exports import Definition, Export
from asyncexport.core.health.export_report import ExportFacts
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AcceptedGap, AlteredArchive, HourCount, RunRecord
from asyncexport.core.health.report import DirectoryFacts, StatusReport, status_report
from asyncexport.core.sentinel.shortfalls import Shortfall, ShortfallRule
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Stored
from asyncexport.display import plain
from asyncexport.monitor.page import Page, page_html

FIRST = 1_767_225_600
"""2026-01-01T00:00:00Z, a Thursday."""

HALF_HOUR = 1800


def again(command: str, *arguments: str) -> str:
    """Make a command line as the program does."""
    return " ".join(["asyncexport", "-c", "my.toml", command, *arguments])


@dataclass(slots=True)
class MadeUpExport:
    """An export of half hours that are stored, but for those that a method spoils.

    Args:
        name: Its name.
        days: How many days are stored, from `FIRST` on.
        width: The width of its bundles, in seconds.
    """

    name: str = "events"
    days: int = 3
    width: int = HALF_HOUR
    records: dict[int, BundleRecord | None] = field(default_factory=dict)
    accepted: list[AcceptedGap] = field(default_factory=list)
    altered: list[BundleRecord] = field(default_factory=list)
    unsettled: list[BundleRecord] = field(default_factory=list)
    shortfalls: list[Shortfall] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = random.Random(1)
        for number in range(self.days * DAY // self.width):
            start = FIRST + number * self.width
            busy = 7 * HOUR <= start % DAY < 20 * HOUR
            rows = chance.randrange(100, 900) if busy else chance.choice((0, 3, 8))
            self.records[number] = self.stored(number, rows=rows)

    def bundle(self, number: int) -> Bundle:
        """Return the n-th bundle."""
        start = FIRST + number * self.width
        return Bundle(self.name, Range(start, start + self.width))

    def stored(self, number: int, *, rows: int = 5, revision: int = 0) -> BundleRecord:
        """Return the n-th bundle as stored."""
        archive = Stored(f"{self.name}/{number}.gz", 400 + rows, rows, "0" * 64, FIRST + number * self.width + 2 * DAY)
        return BundleRecord(self.bundle(number), revision, archive, archive)

    def spoil(self, number: int, state: Any = None) -> None:
        """Let the n-th bundle have this state and no archive; without a state, no run has asked for it."""
        self.records[number] = None if state is None else BundleRecord(self.bundle(number), 0, state)

    def keep(self, number: int) -> None:
        """Let the n-th bundle keep its archive because far fewer rows came."""
        stored = self.stored(number).stored
        self.records[number] = BundleRecord(self.bundle(number), 1, FewerRows(5, 0), stored)

    @property
    def archives(self) -> list[BundleRecord]:
        """The bundles that have an archive."""
        return [one for one in self.records.values() if one is not None and one.stored is not None]

    def facts(self, *, configured: bool = True) -> ExportFacts:
        """Return what is known of it."""
        archives = self.archives
        unfinished = [one for one in self.records.values() if one and not isinstance(one.state, Stored)]
        overview = Overview(
            self.name,
            Definition(),
            stored=len(archives),
            empty=sum(one.stored.rows == 0 for one in archives if one.stored),
            rows=sum(one.stored.rows for one in archives if one.stored),
            bytes=sum(one.stored.bytes for one in archives if one.stored),
            unfinished=tuple(unfinished),
            covered=tuple(merged((one.bundle.range.start, one.bundle.range.end) for one in archives)),
            last_at=None,
            unsettled=tuple(self.unsettled),
        )
        altered = tuple(AlteredArchive(one, "the file does not exist") for one in self.altered)
        export = Export(self.name, bundle_seconds=self.width) if configured else None
        return ExportFacts(
            overview, export, altered=altered, accepted=tuple(self.accepted), shortfalls=tuple(self.shortfalls)
        )


def one_of_each(days: int = 6) -> MadeUpExport:
    """Return an export that has every state."""
    made = MadeUpExport(days=days)
    end = days * 48
    for number in (end - 100, end - 99, end - 98, end - 50):
        made.spoil(number)
    made.spoil(end - 120, Failed("the service refused this bundle: 400 <b>bad</b>"))
    made.spoil(end - 121, Failed("the operation failed three times"))
    made.spoil(end - 20, Created(1, FIRST, "operation"))
    made.spoil(end - 150)
    made.accepted.append(AcceptedGap(made.bundle(end - 150), "the site was down", FIRST))
    made.keep(end - 70)
    for number in range(end - 200, end - 190):
        made.records[number] = made.stored(number, rows=7, revision=1)
    made.altered.append(made.stored(end - 30))
    made.accepted.append(AcceptedGap(made.bundle(end - 160), "a holiday", FIRST))
    few = Range(made.bundle(end - 170).range.start, made.bundle(end - 169).range.end)
    made.shortfalls.append(Shortfall(Bundle(made.name, few), ShortfallRule.EMPTY, 900, 0))
    made.unsettled += [made.stored(number) for number in range(end - 4, end)]
    return made


def some_runs(count: int = 75) -> tuple[RunRecord, ...]:
    """Return runs, one a day, that ended in all ways."""
    chance = random.Random(2)
    runs = []
    for number in range(count):
        began = FIRST + number * DAY + 4 * HOUR
        code = 9 if number % 11 == 5 else 3 if number % 13 == 7 else 5 if number % 29 == 20 else 0
        counts = {"bundles": {"stored": 48, "failed": int(code == 3)}, "requests": {"create": 48, "results": 48}}
        error = "the service could not be reached" if code == 5 else ""
        ended = began + chance.randrange(600, 9000)
        runs.append(RunRecord("nightly", began, "host", ended, code, error, counts))
    runs[-10] = RunRecord("nightly", runs[-10].began, "host")
    return tuple(runs)


def some_hours(days: int) -> tuple[HourCount, ...]:
    """Return requests in four hours of each day, some of them refused."""
    chance = random.Random(3)
    return tuple(
        HourCount(FIRST + number * DAY + hour * HOUR, kind, status, chance.randrange(1, 40 if status == 200 else 6))
        for number in range(days)
        for hour in range(4, 8)
        for kind, status in (("create", 200), ("create", 429), ("list", 200), ("results", 200))
        if status == 200 or number % 5 == 0
    )


def report_on(
    *exports: MadeUpExport,
    runs: Sequence[RunRecord] = (),
    hours: Sequence[HourCount] = (),
    now: float | None = None,
    since: int | None = FIRST,
    configured: bool = True,
    in_progress: bool = False,
) -> StatusReport:
    """Return the report on these exports; the default time is when their last bundle settles."""
    if now is None:
        now = FIRST + max((one.days for one in exports), default=0) * DAY + 26 * HOUR
    facts = tuple(one.facts(configured=configured) for one in exports)
    found = DirectoryFacts(facts, since, tuple(runs), tuple(hours), in_progress)
    return status_report(found, now=now, again=again)


def html_of(
    *exports: MadeUpExport, directory: str = "/data/exports", clean: Callable[[str], str] = plain, **facts: Any
) -> str:
    """Return the page of these exports."""
    archives = {one.name: one.archives for one in exports}
    page = Page(report_on(*exports, **facts), archives, directory, "0.1.0")
    return page_html(page, again=again, clean=clean)


def written(html: str, directory: Path) -> str:
    """Write a page, and return its address."""
    path = directory / "page.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()
