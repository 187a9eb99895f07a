"""Archives without a ledger: a fault everywhere, and never a beginning."""

from pathlib import Path

import pytest

from asyncexport.errors import LedgerError
from asyncexport.run.directory import check_ledger_not_lost
from asyncexport.run.verify import verify

ARCHIVE = "everyone-events/date=2026-01-01/20260101T000000Z_20260101T003000Z.ndjson.gz"
DEFINITION = "everyone-events/.export.json"
LEDGER = ".asyncexport/ledger.sqlite3"


def directory_of(place: Path, *paths: str) -> Path:
    """An output directory with these files in it."""
    for path in paths:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
    return place


@pytest.mark.parametrize(
    "paths",
    [
        (),
        ("everyone-events/date=2026-01-01/other.gz",),
        (DEFINITION,),
        (f"{LEDGER}-wal",),
        (f"{LEDGER}.damaged-1",),
        (".asyncexport/lock", DEFINITION),
        (LEDGER, ARCHIVE, DEFINITION, f"{LEDGER}.damaged-1"),
    ],
)
def test_a_beginning_and_a_whole_directory_are_no_fault(tmp_path, paths):
    """Neither an empty place, nor remains that no definition goes with, nor a directory that has its ledger."""
    check_ledger_not_lost(directory_of(tmp_path / "out", *paths))


@pytest.mark.parametrize(
    ("paths", "beside"),
    [
        ((ARCHIVE,), "archives"),
        ((ARCHIVE, DEFINITION, f"{LEDGER}-wal"), "archives"),
        ((DEFINITION, f"{LEDGER}-wal"), "remains of a ledger"),
        ((DEFINITION, f"{LEDGER}.damaged-2", f"{LEDGER}.damaged-2-mark"), "remains of a ledger"),
    ],
)
async def test_a_lost_ledger_is_told_and_what_shows_it(tmp_path, paths, beside):
    """The error names what lies there and the command that helps; `verify` says the same as a run."""
    directory = directory_of(tmp_path / "out", *paths)
    with pytest.raises(LedgerError, match=f"out holds {beside} but no ledger") as told:
        check_ledger_not_lost(directory)
    assert "verify --rebuild" in told.value.hint
    with pytest.raises(LedgerError, match=f"out holds {beside} but no ledger"):
        [finding async for finding in verify(directory)]
