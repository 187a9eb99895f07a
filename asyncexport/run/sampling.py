"""Chooses the stored bundles that an audit exports again (`core.auditing`).

1. Only bundles in the range of the run are chosen, so that a later run of the same kind finishes what is interrupted.
2. Bundles that have an unfinished revision, or are exported again by this run anyway, are not chosen.
3. A bundle whose archive is missing on the disk cannot be compared; it is left out. One whose archive is not the file
   that the ledger describes is damaged: its new export would say nothing about rows that came late. It is not compared
   either, but reported. Both are left to `verify --repair`.
"""

import hashlib
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from asyncexport.config.presence import is_file
from asyncexport.core.auditing import COMPARED_LATELY_SECONDS, AuditCandidate, AuditSample, choose, is_audited
from asyncexport.core.bundles import Bundle
from asyncexport.core.coverage import ExportPlan
from asyncexport.core.exports import Export
from asyncexport.core.states import BundleRecord, Stored
from asyncexport.core.text import show_duration
from asyncexport.ledger import LedgerQueries


def audit_records(
    sample: AuditSample, plans: Sequence[ExportPlan], queries: LedgerQueries, *, directory: Path, now: float
) -> tuple[BundleRecord, ...]:
    """Return the chosen bundles as recorded, ordered by export and time.

    Args:
        sample: Which bundles to choose.
        plans: The ranges to choose from, and what the run does besides.
        queries: The queries of the ledger.
        directory: The output directory.
        now: The current time, in seconds since 1970.
    """
    candidates = []
    for plan in plans:
        if is_audited(plan.export):
            candidates += _candidates(plan, queries, ended_by=now - sample.older_than_seconds, now=now)
    draw = random.Random(sample.seed).random
    chosen = choose(candidates, [draw() for _ in range(min(sample.count, len(candidates)))])
    records = (_record(queries, bundle) for bundle in sorted(chosen))
    return tuple(one for one in records if one is not None and _is_on_disk(directory, one.stored))


def _candidates(plan: ExportPlan, queries: LedgerQueries, *, ended_by: float, now: float) -> list[AuditCandidate]:
    name, span = plan.export.name, plan.span
    again = {one.bundle.range for one in plan.refresh} | {one.bundle.range for one in queries.unsettled(name, span)}
    taken = {(one.start, one.end) for one in again}
    found = queries.audit_candidates(name, span, ended_by=ended_by, lately=now - COMPARED_LATELY_SECONDS)
    return [one for one in found if (one.start, one.end) not in taken] if taken else found


def notes_on_sample(sample: AuditSample, exports: Sequence[Export], records: Sequence[BundleRecord]) -> Iterator[str]:
    """Yield messages about a sample that is smaller than was asked for."""
    skipped = [export.name for export in exports if not is_audited(export)]
    if skipped:
        yield f"{', '.join(skipped)}: not audited, because rows of individuals are totals that change all the time"
    if len(records) < sample.count:
        age = show_duration(sample.older_than_seconds)
        found = f"only {len(records):,}" if records else "none"
        yield f"{sample.count:,} bundles were to be audited, but {found} can be: stored, settled and older than {age}"


def note_on_damaged(archive: Stored) -> str:
    """Return the message about a damaged archive."""
    return f"{archive.path} is damaged: it is not the file that was stored, so it is not audited"


def _record(queries: LedgerQueries, bundle: Bundle) -> BundleRecord | None:
    return next((one for one in queries.stored(bundle.export, bundle.range) if one.bundle == bundle), None)


def _is_on_disk(directory: Path, archive: Stored | None) -> bool:
    return archive is not None and is_file(directory / archive.path)


def is_damaged(directory: Path, archive: Stored) -> bool:
    """Whether an archive that is on the disk is not the file that the ledger describes. Reads the whole file."""
    try:
        with (directory / archive.path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return size != archive.bytes or hashlib.file_digest(file, "sha256").hexdigest() != archive.sha256
    except OSError:
        return True
