"""The instructions that each kind of run stands for."""

from dataclasses import fields, replace

import pytest

from asyncexport.core.auditing import AuditSample
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.exports import Export
from asyncexport.core.old_order import OldOrder
from asyncexport.core.states import BundleRecord
from asyncexport.run.spec import (
    Audit,
    Backfill,
    Instructions,
    Nightly,
    Repair,
    Retry,
    instructions,
    nightly_sample,
    random_sample,
)

EXPORTS = (Export("everyone"),)
RECORD = BundleRecord(Bundle("everyone", Range(0, 1800)))
SAMPLE = AuditSample(20, seed=1)
NIGHT = Instructions(None, 200, fills_gaps=True, pauses_parked=True, retries_kept=True, old_order=OldOrder.NEWEST)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Backfill(EXPORTS, 100), Instructions(100, None, fills_gaps=True)),
        (Backfill(EXPORTS, 100, 200, command="demo"), Instructions(100, 200, fills_gaps=True)),
        (Nightly(EXPORTS), replace(NIGHT, end=None)),
        (Nightly(EXPORTS, 200, (60.0,)), replace(NIGHT, refresh_ages=(60.0,))),
        (Nightly(EXPORTS, 200, old_order=OldOrder.OLDEST), replace(NIGHT, old_order=OldOrder.OLDEST)),
        (Nightly(EXPORTS, 200, audit=SAMPLE), replace(NIGHT, audit=SAMPLE)),
        (Audit(EXPORTS, SAMPLE), Instructions(0, None, fills_gaps=False, audit=SAMPLE, ignores_parked=True)),
        (Retry(EXPORTS), Instructions(0, None, fills_gaps=False, reports_kept=True)),
        (
            Retry(EXPORTS, 100, 200, True),
            Instructions(100, 200, fills_gaps=False, accepts_fewer=True, retries_accepted=True),
        ),
        (Repair(EXPORTS, (RECORD,)), Instructions(0, None, fills_gaps=False, repairs=(RECORD,))),
    ],
)
def test_each_kind_of_run_has_its_instructions(spec, expected):
    """Each kind of run decides the range, whether gaps are filled, what is exported again, and what is accepted."""
    assert instructions(spec) == expected


def test_a_kind_of_run_has_its_own_name():
    """Each kind of run has the name of its command, unless the caller gives another one."""
    specs = (Backfill(EXPORTS, 0), Nightly(EXPORTS), Retry(EXPORTS), Repair(EXPORTS, ()), Audit(EXPORTS, SAMPLE))
    assert [spec.command for spec in specs] == ["backfill", "nightly", "retry", "repair", "audit"]
    assert Repair(EXPORTS, (), command="verify").command == "verify"


def test_each_audit_has_a_sample_of_its_own():
    """Two samples of the same size have different seeds, and `[nightly] audit = 0` means no sample."""
    assert random_sample(5).seed != random_sample(5).seed
    assert nightly_sample(0) is None
    found = nightly_sample(20)
    assert found is not None
    assert (found.count, found.older_than_seconds) == (20, 172_800)


def test_no_kind_of_run_has_the_fields_of_another():
    """Only nightly runs refresh, only retries accept fewer rows, only repairs have bundles, only audits a sample."""
    shared = {"exports", "start", "end", "max_duration_seconds", "command"}
    kinds = (Backfill, Nightly, Retry, Repair, Audit)
    own = {kind.__name__: {one.name for one in fields(kind)} - shared for kind in kinds}
    assert own == {
        "Backfill": {"require_end"},
        "Nightly": {"refresh_ages", "require_end", "old_order", "audit"},
        "Retry": {"accept_fewer"},
        "Repair": {"bundles"},
        "Audit": {"sample"},
    }
