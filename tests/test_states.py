"""The states of a bundle and the moves between them."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.states import (
    MOVES,
    Archive,
    BundleRecord,
    Created,
    Creating,
    Failed,
    FewerRows,
    Overdue,
    Planned,
    Ready,
    Refused,
    Split,
    State,
    Stored,
    from_row,
    moved,
    to_row,
)
from asyncexport.errors import IllegalMove, LedgerCorruptError

KINDS = (Planned, Creating, Created, Ready, Stored, Failed, Overdue, Refused, FewerRows, Split)
ATTEMPTS = st.integers(1, 9)
MOMENTS = st.floats(0, 2e9)
IDS = st.text(max_size=20)
SETTLES = st.floats(0, 1e6)
CREATED = st.builds(Created, ATTEMPTS, MOMENTS, IDS, SETTLES)
READY = st.builds(Ready, ATTEMPTS, MOMENTS, IDS, st.none() | MOMENTS, SETTLES)
STATES = st.one_of(
    st.builds(Planned, ATTEMPTS),
    st.builds(Creating, ATTEMPTS, MOMENTS, SETTLES),
    CREATED,
    READY,
    st.builds(Stored, IDS, st.integers(0), st.integers(0), IDS, MOMENTS, st.none() | MOMENTS, SETTLES),
    st.builds(Failed, IDS),
    st.builds(Overdue, ATTEMPTS, MOMENTS, IDS, SETTLES),
    st.builds(Refused, IDS, CREATED | READY),
    st.just(Split()),
    st.builds(FewerRows, st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1)),
)


def example(kind: type[State], attempt: int = 1) -> State:
    made: dict[type[State], State] = {
        Planned: Planned(attempt),
        Creating: Creating(attempt, 1.0),
        Created: Created(attempt, 1.0, "op"),
        Ready: Ready(attempt, 1.0, "x"),
        Stored: Stored("p", 1, 1, "s", 1.0),
        Failed: Failed("why"),
        Overdue: Overdue(attempt, 1.0, "op"),
        Refused: Refused("403", Ready(attempt, 1.0, "x")),
        FewerRows: FewerRows(120, 0),
        Split: Split(),
    }
    return made[kind]


@pytest.mark.parametrize(("old", "new"), [pair for pair in itertools.product(KINDS, KINDS) if pair not in MOVES])
def test_a_move_that_is_not_in_the_table_raises(old, new):
    """A move that is not in the table is illegal, whatever the attempts are."""
    for before, after in itertools.product((1, 2), (1, 2)):
        with pytest.raises(IllegalMove):
            moved(example(old, before), example(new, after))


@given(STATES, STATES)
def test_a_move_changes_neither_state(old, new):
    """A legal move returns the new state and an illegal one raises, and neither changes the states."""
    before = (repr(old), repr(new))
    try:
        assert moved(old, new) is new
    except IllegalMove:
        pass
    assert (repr(old), repr(new)) == before


def test_a_walk_from_planned_to_stored():
    """The normal path from Planned through Creating, Created and Ready to Stored is legal."""
    path: list[State] = [
        Planned(),
        Creating(1, 1.0),
        Created(1, 2.0, "op"),
        Ready(1, 3.0, "x"),
        Stored("p", 1, 1, "s", 3.0),
    ]
    for old, new in itertools.pairwise(path):
        moved(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Created(1, 0.0, "op"), Planned(3)),
        (Planned(2), Creating(1, 0.0)),
        (Ready(2, 0.0, "x"), Planned(4)),
        (Failed("why"), Planned(2)),
        (FewerRows(120, 0), Planned(2)),
        (Overdue(2, 0.0, "op"), Planned(2)),
        (Refused("403", Ready(2, 0.0, "x")), Ready(2, 0.0, "x")),
        (Refused("403", Created(2, 0.0, "op")), Planned(2)),
    ],
)
def test_wrong_attempt_numbers_are_illegal(old, new):
    """A move is illegal if its attempt is not the next one after a failure, the same one, or 1 after parking."""
    with pytest.raises(IllegalMove):
        moved(old, new)


def test_a_lost_answer_keeps_the_attempt():
    """After a create that was refused or never answered, the bundle is planned again at the same attempt."""
    assert moved(Creating(2, 0.0), Planned(2)) == Planned(2)


@pytest.mark.parametrize("kind", [Stored, Split])
def test_final_states_have_no_move(kind):
    """No move leads out of Stored or Split."""
    assert not any(old is kind for old, _ in MOVES)


@pytest.mark.parametrize("kept", [Created(3, 1.0, "op", 7200.0), Ready(3, 1.0, "x", 0.5, 7200.0)])
def test_a_refused_bundle_returns_to_its_previous_state(kept):
    """A refused bundle keeps its operation or export and resumes at attempt 1, or may be planned again."""
    refused = moved(kept, Refused("403", kept))
    assert isinstance(refused, Refused)
    assert moved(refused, refused.again) == replace(kept, attempt=1)
    assert moved(refused, Planned()) == Planned(1)


def test_only_a_failed_bundle_is_split():
    """Split is reached only from Failed, and from the states in which an operation or a file turns out to be bad."""
    assert {old for old, new in MOVES if new is Split} == {Created, Ready, Failed}


def test_the_settle_time_and_request_time_come_from_the_create():
    """A Ready state keeps the request time and settle time of its Created state."""
    created = Created(2, 5.0, "op", 7200.0)
    assert Ready.of(created, exported_at=4.0, export_id="x") == Ready(2, 4.0, "x", asked_at=5.0, settle_seconds=7200.0)


def test_every_state_is_reached():
    """The table has a move into each state."""
    assert {new for _, new in MOVES} == set(KINDS)


@given(STATES)
def test_a_row_is_read_back_unchanged(state):
    """A state survives being written to a ledger row and read back."""
    assert from_row(*to_row(state)) == state


def test_the_fields_of_a_row_keep_their_names_and_order():
    """The JSON of a row never changes, because its checksum covers every byte."""
    stored = Stored.of(Archive("p.gz", 10, 2, "abc"), exported_at=3.5)
    assert (
        json.dumps(to_row(stored)[1])
        == '{"path": "p.gz", "bytes": 10, "rows": 2, "sha256": "abc", "exported_at": 3.5, "asked_at": null,'
        ' "settle_seconds": 0.0, "written_by": null}'
    )
    assert stored == Stored("p.gz", 10, 2, "abc", exported_at=3.5)
    created = Created(2, 1.5, "operation-1")
    assert (
        json.dumps(to_row(created)[1])
        == '{"attempt": 2, "asked_at": 1.5, "operation_id": "operation-1", "settle_seconds": 0.0}'
    )


def test_a_row_of_an_earlier_version_is_read():
    """A row of an earlier version is read without a request time and with no settle time."""
    assert from_row("ready", {"attempt": 1, "exported_at": 1.5, "export_id": "x"}) == Ready(1, 1.5, "x", None, 0.0)
    fields = {"path": "p.gz", "bytes": 10, "rows": 2, "sha256": "abc", "exported_at": 3.5}
    assert from_row("stored", fields) == Stored("p.gz", 10, 2, "abc", 3.5, None, 0.0)


def test_a_kept_archive_may_be_a_failed_row_of_an_earlier_version():
    """A failed row with the old sentence about far fewer rows is read as FewerRows, which now has its own row."""
    reason = "the archive was kept, since far fewer rows came: 0 in place of 120"
    assert to_row(FewerRows(rows_before=120, rows_found=0)) == ("fewerrows", {"rows_before": 120, "rows_found": 0})
    assert from_row("failed", {"reason": reason}) == FewerRows(rows_before=120, rows_found=0)


@given(
    st.text(max_size=20)
    | st.from_regex(r"(x|the )?archive was kept, since far fewer rows came: -?0?[0-9٣]+ in place of [0-9]+\n?")
    | st.tuples(st.integers(0, 99), st.integers(0, 99)).map(
        lambda two: f"the archive was kept, since far fewer rows came: 0{two[0]} in place of {two[1]}"
    )
)
def test_another_reason_stays_a_failure(reason):
    """Only the exact sentence of version 1 is read as FewerRows; any other reason stays as it was written."""
    state = from_row("failed", {"reason": reason})
    assert isinstance(state, Failed | FewerRows)
    if isinstance(state, Failed):
        assert state.reason == reason
    else:
        counts = f"{state.rows_found} in place of {state.rows_before}"
        assert reason == f"the archive was kept, since far fewer rows came: {counts}"
    if not reason.startswith("the archive was kept"):
        assert state == Failed(reason)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gone", {}),
        ("failed", {}),
        ("failed", {"reason": "r", "more": 1}),
        ("split", {"reason": "r"}),
        ("refused", {"reason": "r", "kept": "stored"}),
        ("refused", {"reason": "r", "kept": "created", "attempt": 1}),
    ],
)
def test_an_invalid_row_means_a_damaged_ledger(name, fields):
    """A row with an unknown state, a missing field or an extra one means that the ledger is damaged."""
    with pytest.raises(LedgerCorruptError):
        from_row(name, fields)


def test_a_new_revision_keeps_the_current_archive():
    """A refresh starts at attempt 1 and keeps the archive of the previous revision."""
    stored = Stored("p", 1, 1, "s", 3.0)
    again = BundleRecord(Bundle("e", Range(0, 1800)), 0, stored, stored).next_revision()
    assert (again.revision, again.state) == (1, Planned(1))
    assert again.stored == stored
    assert again.stored
    assert again.stored.written_by == 0


def test_a_row_records_the_revision_that_wrote_the_bytes():
    """The revision that wrote the bytes is kept while refreshes bring the same file, and is None for another file."""
    first = Stored("p", 1, 1, "s", 3.0)
    second = BundleRecord(Bundle("e", Range(0, 1800)), 4, first, first).next_revision().stored
    assert second is not None
    assert second.writer_of(Archive("p", 1, 1, "s")) == 4
    assert second.writer_of(Archive("p", 1, 1, "other")) is None
    third = BundleRecord(Bundle("e", Range(0, 1800)), 5, second, second).next_revision().stored
    assert third is not None
    assert third.writer_of(Archive("p", 1, 1, "s")) == 4
