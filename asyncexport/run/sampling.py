"""Chooses the stored bundles that an audit exports again (`core.auditing`).

1. Bundles that have an unfinished revision, or are exported again by this run anyway, are not chosen.
2. A bundle whose archive is missing on the disk or has another size cannot be compared. It is left to
   `verify --repair`.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asyncexport.core.auditing import COMPARED_LATELY_SECONDS, AuditSample, choose, is_audited
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.text import show_duration
from asyncexport.ledger import LedgerQueries


def audit_records(
    sample: AuditSample,
    exports: Iterable[Export],
    plans: Sequence[ExportPlan],
    queries: LedgerQueries,
    *,
    directory: Path,
    now: float,
) -> tuple[BundleRecord, ...]:
    """Return the chosen bundles as recorded, ordered by export and time.

    Args:
        sample: Which bundles to choose.
        exports: The exports of the run.
        plans: What the run does besides.
        queries: The queries of the ledger.
        directory: The output directory.
        now: The current time, in seconds since 1970.
    """
    candidates = []
    for export in filter(is_audited, exports):
        again = {one.bundle.range for plan in plans if plan.export.name == export.name for one in plan.refresh}
        ended_by = now - sample.older_than_seconds
        found = queries.audit_candidates(export.name, ended_by=ended_by, lately=now - COMPARED_LATELY_SECONDS)
        if found:
            again |= {one.bundle.range for one in queries.unsettled(export.name, Range(found[0].start, found[-1].end))}
        taken = {(one.start, one.end) for one in again}
        candidates += [one for one in found if (one.start, one.end) not in taken] if taken else found
    draw = random.Random(sample.seed).random
    chosen = choose(candidates, [draw() for _ in range(min(sample.count, len(candidates)))])
    records = (_record(queries, bundle) for bundle in sorted(chosen))
    return tuple(one for one in records if one is not None and _is_on_disk(directory, one.stored))


def notes_on_sample(sample: AuditSample, exports: Sequence[Export], records: Sequence[BundleRecord]) -> Iterator[str]:
    """Yield messages about a sample that is smaller than was asked for."""
    skipped = [export.name for export in exports if not is_audited(export)]
    if skipped:
        yield f"{', '.join(skipped)}: not audited, because rows of individuals are totals that change all the time"
    if len(records) < sample.count:
        age = show_duration(sample.older_than_seconds)
        found = f"only {len(records):,}" if records else "none"
        yield f"{sample.count:,} bundles were to be audited, but {found} can be: stored, settled and older than {age}"


def _record(queries: LedgerQueries, bundle: Bundle) -> BundleRecord | None:
    return next((one for one in queries.stored(bundle.export, bundle.range) if one.bundle == bundle), None)


def _is_on_disk(directory: Path, archive: Stored | None) -> bool:
    try:
        return archive is not None and (directory / archive.path).stat().st_size == archive.bytes
    except OSError:
        return False
