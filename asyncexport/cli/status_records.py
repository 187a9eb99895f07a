"""The report of `status` as JSON objects."""

from typing import TYPE_CHECKING, Any

from asyncexport.core.bundles import Range, show
from asyncexport.core.health.beside import BesideKind
from asyncexport.core.health.problems import why_parked
from asyncexport.core.summary import counts_of

if TYPE_CHECKING:
    from asyncexport.core.health.beside import Beside
    from asyncexport.core.health.export_report import ExportReport
    from asyncexport.core.health.records import RunRecord
    from asyncexport.core.states import BundleRecord

LAST_BESIDE = {BesideKind.LOAD: "last_load", BesideKind.MIRROR: "last_mirror"}
"""The types of the records of what works beside runs."""


def export_record(report: "ExportReport") -> dict[str, Any]:
    """Describe one export."""
    overview, due = report.overview, report.due
    covered, open_parked = overview.covered, {one.bundle for one in report.open_parked}
    return {
        "name": overview.name,
        "definition": overview.definition.to_dict(),
        "stored": overview.stored,
        "empty": overview.empty,
        "rows": overview.rows,
        "bytes": overview.bytes,
        "covered": [_range_record(one) for one in covered],
        "since": None if due is None or due.since is None else show(due.since),
        "gaps": [
            {**_range_record(gap.range), "reason": gap.reason.value, "command": gap.command or None}
            for gap in report.gaps
        ],
        "weeks": [
            {"start": show(week.start), "cells": week.cells, "missing_seconds": week.missing_seconds}
            for week in report.weeks
        ],
        "altered": [
            {**_range_record(one.record.bundle.range), "path": one.record.stored.path, "reason": one.reason}
            for one in report.altered
            if one.record.stored
        ],
        "overlaps": [{**_range_record(later), "with": _range_record(earlier)} for earlier, later in overview.overlaps],
        "unsettled": [
            {**_range_record(one.bundle.range), "exported_at": show(one.stored.exported_at)}
            for one in overview.unsettled
            if one.stored
        ],
        "settled_until": None if due is None else show(due.settled),
        "behind_seconds": None if due is None or not covered else max(0, due.settled - covered[-1].end),
        "under_way": overview.in_progress,
        "parked": [
            _parked_record(one, next_try=overview.next_try(one), accepted=one.bundle not in open_parked)
            for one in overview.parked
        ],
        "shortfalls": [one.to_dict() for one in report.shortfalls],
        "accepted": [
            {**_range_record(one.bundle.range), "reason": one.reason, "at": show(one.at)} for one in report.accepted
        ],
        "last_at": None if overview.last_at is None else show(overview.last_at),
    }


def run_record(run: "RunRecord") -> dict[str, Any]:
    """Describe how a run ended."""
    return {
        "command": run.command,
        "began": show(run.began),
        "ended": None if run.ended is None else show(run.ended),
        "exit_code": run.exit_code,
        "error": run.error,
        "joined": None if run.joined is None else run.joined.to_dict(),
    }


def beside_record(record: "Beside") -> dict[str, Any]:
    """Describe the last load or mirror."""
    last, begun = record.last, record.begun
    return {
        "command": None if last is None else last.command,
        "began": None if last is None else show(last.began),
        "ended": None if last is None else show(last.ended),
        "exit_code": None if last is None else last.exit_code,
        "error": "" if last is None else last.error,
        "counts": {} if last is None else dict(last.counts),
        "complete_at": show(record.complete_at) if record.complete_at else None,
        "begun": None if begun is None else {"command": begun.command, "at": show(begun.at), "running": begun.running},
    }


def _parked_record(record: "BundleRecord", *, next_try: float | None, accepted: bool) -> dict[str, Any]:
    return {
        **_range_record(record.bundle.range),
        "reason": why_parked(record),
        "accepted": accepted,
        **counts_of(record.state),
        **({} if next_try is None else {"next_try": show(next_try)}),
    }


def _range_record(span: Range) -> dict[str, str]:
    return {"start": show(span.start), "end": show(span.end)}
