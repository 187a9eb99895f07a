"""What is remembered of the newest run."""

import pytest

from asyncexport.core.summary import Exit
from asyncexport.ledger import LAST_RUN, LastRun, LedgerReader
from asyncexport.sandbox import SandboxBehaviour, serving
from tests.exporting import moment, run

FAST = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4, requests_per_minute=1e6, burst=10_000)

ENDED = LastRun("backfill", 1.0, ended=2.0, exit_code=3, error="gone")


@pytest.mark.parametrize("one", [LastRun("nightly", 1.5), ENDED])
def test_it_is_read_as_it_was_kept(one):
    """A run that has only begun, and one that has ended."""
    assert LastRun.read(one.to_json()) == one


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", '{"command": "backfill"}', '{"other": 1}'])
def test_what_cannot_be_read_is_nothing(text):
    """It is a remark: what another version wrote, or nobody, stops no `status`."""
    assert LastRun.read(text) is None


async def test_a_bug_is_remembered_by_its_kind_alone(tmp_path):
    """What the text of an exception holds that nobody foresaw is not known, so none of it is kept."""

    def fail(name: str) -> None:
        if not name.startswith("ledger."):
            raise ValueError("a secret")

    async with serving(FAST) as sandbox:
        with pytest.raises(ValueError, match="a secret"):
            await run(sandbox, tmp_path, end="2026-01-01T00:30:00Z", boundary=fail)
    with LedgerReader(tmp_path) as ledger:
        last = LastRun.read(ledger.recall(LAST_RUN))
    assert last is not None
    assert (last.command, last.exit_code, last.error) == ("backfill", Exit.UNEXPECTED, "ValueError")
    assert last.ended is not None
    assert moment("2026-01-01") < last.began <= last.ended
