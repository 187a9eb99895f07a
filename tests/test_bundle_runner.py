"""One bundle from state to state: every path, and what each failure costs."""

import asyncio
from dataclasses import replace

import pytest

from asyncexport.core.exports import Definition, Export
from asyncexport.core.polling import FinishedOperation
from asyncexport.core.replacement_guard import least_rows
from asyncexport.core.second_looks import SecondLooks
from asyncexport.core.service.fetch_attempts import PROGRESS_BYTES
from asyncexport.core.service.resources import DownloadLink
from asyncexport.core.states import (
    Created,
    Creating,
    Failed,
    FewerRows,
    Overdue,
    Planned,
    Ready,
    Refused,
    State,
    Stored,
)
from asyncexport.engine.export_state import ExportHasStopped
from asyncexport.errors import (
    CorruptError,
    FewerRowsError,
    ForeignRowsError,
    GoneError,
    IncompleteError,
    LedgerError,
    OperationFailedError,
    RateLimitedError,
    RefusedError,
    ReplyError,
    StorageError,
    UnauthorizedError,
    UnavailableError,
    UnknownRowsError,
    UnprovedEmptyError,
)
from tests.stand_ins import EXPORT, LOST_ANSWER, OUTAGE, Scene, now, planned
from tests.virtual_time import at, on_virtual_time, settled

DOWN = UnavailableError("503")
GONE = GoneError("404")
REFUSED = RefusedError("400", status=400)
READY = Ready(1, 100.0, "x1")
SETTLE = EXPORT.settle_seconds
"""The settle time of the export in `Scene`."""


async def run_to_end(scene: Scene, record):
    """Run one bundle until it is final or parked, as the scheduler does."""
    record = await scene.runner.resume(record)
    while True:
        match record.state:
            case Planned(attempt) | Creating(attempt):
                record = await scene.runner.create(record, attempt)
            case Created() as created:
                record = await scene.runner.watch(record, created)
            case Ready() as ready:
                record = await scene.runner.fetch(record, ready)
            case _:
                return record


# Ids that belong to another range


@on_virtual_time
async def test_an_operation_of_another_range_costs_a_new_export():
    """The id stays with the first range that got it, and a second range is created again immediately."""
    scene = Scene()
    await run_to_end(scene, planned(0))
    scene.service.made.clear()  # the next create is answered with the same id
    done = await run_to_end(scene, planned(1))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 3
    assert [state.attempt for state in scene.ledger.states if isinstance(state, Created)] == [1, 1, 2]
    assert "operation that belongs to everyone 1970-01-01T00:00:00Z" in scene.listener.retries[0]
    assert len(scene.downloads.used) == 2


@on_virtual_time
async def test_an_export_of_another_range_is_not_fetched():
    """If two operations name the same export, the second bundle is exported again instead of storing the file twice."""
    scene = Scene()
    await run_to_end(scene, planned(0))
    scene.watch.outcomes["op2"] = FinishedOperation("x-op1", 50.0)
    done = await run_to_end(scene, planned(1))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 3
    assert "export that belongs to everyone 1970-01-01T00:00:00Z" in scene.listener.retries[0]
    assert len(scene.downloads.used) == 2


@on_virtual_time
async def test_an_id_that_always_belongs_to_another_range_parks_the_bundle():
    """This counts attempts like any other fault of an export."""
    scene = Scene(attempts=2)
    await run_to_end(scene, planned(0))
    for operation_id in ("op2", "op3"):
        scene.watch.outcomes[operation_id] = FinishedOperation("x-op1", 50.0)
    assert isinstance((await run_to_end(scene, planned(1))).state, Failed)


@on_virtual_time
async def test_of_two_bundles_given_the_same_operation_at_the_same_time_one_keeps_it():
    """Both rows are durable before either bundle waits for the operation."""
    scene = Scene()
    scene.service.names = ["op1", "op1", "op2"]
    done = await asyncio.gather(run_to_end(scene, planned(0)), run_to_end(scene, planned(1)))
    assert all(isinstance(one.state, Stored) for one in done)
    assert (scene.service.posts, len(scene.listener.retries)) == (3, 1)


@on_virtual_time
async def test_equal_creates_may_share_an_operation_and_its_file():
    """Two exports with the same definition may share an operation; with different definitions they may not."""
    for definition, posts in ((EXPORT.definition, 2), (Definition(segment="other"), 3)):
        scene = Scene(also=[Export("twin", definition)])
        scene.service.names = ["op1", "op1", "op2"]
        await run_to_end(scene, planned(0))
        assert isinstance((await run_to_end(scene, planned(0, "twin"))).state, Stored)
        assert scene.service.posts == posts


@on_virtual_time
async def test_a_new_attempt_or_revision_may_get_the_same_id():
    """The id belongs to the same range, so the file is stored."""
    scene = Scene()
    done = await run_to_end(scene, planned(0))
    scene.service.names = ["op1"]
    assert isinstance((await run_to_end(scene, done.next_revision())).state, Stored)
    assert scene.service.posts == 2


# Rows that belong to another range


EMPTY = UnprovedEmptyError()
FOREIGN = ForeignRowsError(outside=3, timed=3)
UNKNOWN = UnknownRowsError(["error"])
SECOND_LOOK = 60.0
"""The default of `[download] second_look`."""


@on_virtual_time
async def test_a_file_without_rows_is_checked_again_while_other_bundles_go_on():
    """The second check comes a minute later through a new link, holds no slot and counts as no attempt or retry."""
    scene = Scene(slots=1)
    scene.downloads.fetches = [EMPTY]
    empty = asyncio.create_task(run_to_end(scene, planned(0, state=READY)))
    await settled()
    other = await run_to_end(scene, planned(1, state=READY))
    assert isinstance(other.state, Stored)
    assert now() < SECOND_LOOK
    done = await empty
    assert isinstance(done.state, Stored)
    assert now() >= SECOND_LOOK
    assert len(set(scene.downloads.used)) == scene.service.links == 3
    assert (scene.listener.retries, scene.service.posts) == ([], 0)
    assert scene.runner.fetching.second_looks == SecondLooks(2, 1)


@on_virtual_time
async def test_rows_of_another_range_cost_a_new_export_immediately():
    """The file is not downloaded again, since it would contain the same rows."""
    scene = Scene()
    scene.downloads.fetches = [FOREIGN]
    began = now()
    done = await run_to_end(scene, planned(0, state=READY))
    assert isinstance(done.state, Stored)
    assert [type(state) for state in scene.ledger.states[:2]] == [Planned, Creating]
    assert (scene.service.posts, len(scene.downloads.used)) == (1, 2)
    assert now() - began < 2 * SECOND_LOOK
    assert "rows belong to another range" in scene.listener.retries[0]


@on_virtual_time
async def test_three_files_in_a_row_with_rows_of_another_range_disable_the_check():
    """If they are of several bundles: the last file is fetched again and stored, and this is logged once.

    One bundle alone is parked, since its rows may indeed be those of another one.
    """
    scene = Scene(attempts=3)
    scene.downloads.fetches = [FOREIGN, FOREIGN, FOREIGN]
    alone = await run_to_end(scene, planned(0, state=READY))
    assert isinstance(alone.state, Failed)
    assert (scene.service.posts, len(scene.downloads.used), scene.listener.notes) == (2, 3, [])
    scene.downloads.fetches = [FOREIGN]
    assert isinstance((await run_to_end(scene, planned(1, state=READY))).state, Stored)
    assert (scene.service.posts, len(scene.downloads.used)) == (2, 5)
    assert [message for message in scene.listener.notes if "EventStart" in message]
    scene.downloads.fetches = [FOREIGN]
    assert isinstance((await run_to_end(scene, planned(2, state=READY))).state, Stored)
    assert (scene.service.posts, len(scene.listener.notes)) == (2, 1)


@on_virtual_time
async def test_a_page_of_a_proxy_is_fetched_again_later():
    """An answer that is no export costs no new export."""
    scene = Scene()
    scene.downloads.fetches = [UNKNOWN]
    done = await run_to_end(scene, planned(0, state=READY))
    assert isinstance(done.state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 2)
    assert now() >= SECOND_LOOK


@on_virtual_time
async def test_a_proxy_in_trouble_for_a_short_time_stops_no_export():
    """This holds for any number of bundles that get its answers at the same time."""
    scene = Scene(slots=9)
    scene.downloads.fetches = [UNKNOWN] * 9
    done = await asyncio.gather(*(run_to_end(scene, planned(number, state=READY)) for number in range(9)))
    assert all(isinstance(one.state, Stored) for one in done)
    assert scene.service.posts == 0


@pytest.mark.parametrize("is_as_stored", [True, False])
def test_three_files_in_a_row_without_a_known_field_stop_the_export(is_as_stored):
    """If they are of several bundles, the list of known fields must be wrong, and no further export is created.

    One bundle alone is parked with its file, since the trouble may be its own.
    """

    @on_virtual_time
    async def stop():
        scene = Scene()
        error = UnknownRowsError(["error"])
        error.is_as_stored = is_as_stored
        scene.downloads.fails = lambda _: error
        alone = await run_to_end(scene, planned(0, state=READY))
        assert alone.state == Refused(str(error), READY)
        assert (scene.service.posts, len(scene.downloads.used), scene.listener.refusals) == (0, 3, {})
        with pytest.raises(ExportHasStopped):
            await run_to_end(scene, planned(1, state=READY))
        assert scene.listener.refusals == {EXPORT.name: error}
        assert (scene.service.posts, len(scene.downloads.used)) == (0, 4)
        with pytest.raises(ExportHasStopped):
            await run_to_end(scene, planned(2, state=READY))

    stop()


@on_virtual_time
async def test_unreadable_results_stop_an_export_after_a_minute():
    """Its file may be fine, so no new export is created and its bundles stay unfinished."""
    scene = Scene(accepted=True)
    scene.service.locates = [ReplyError("a page")] * 9
    outcomes = await asyncio.gather(
        *(run_to_end(scene, planned(number, state=READY)) for number in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, ExportHasStopped) for outcome in outcomes)
    assert (scene.service.posts, list(scene.listener.refusals)) == (0, [EXPORT.name])
    assert now() >= 60
    assert scene.service.links <= 4  # those in flight when the first answer came


# The normal path


@on_virtual_time
async def test_a_new_revision_of_an_archive_needs_a_minimum_of_rows():
    """The first revision needs none, and neither does one for which the user accepts fewer rows."""
    stored = Stored("p", 1, 1000, "s", 0.0)
    for accepted in (False, True):
        scene = Scene()
        again = replace(planned(), revision=1, state=READY, stored=stored)
        if accepted:
            scene.accepted.add(again.bundle)
        await run_to_end(scene, again)
        await run_to_end(scene, planned(1))
        assert scene.downloads.floors == [0 if accepted else least_rows(1000), None]


@on_virtual_time
async def test_far_fewer_rows_are_parked_immediately_and_retried_by_a_later_run():
    """The file is complete, so there is no retry and no attempt is counted; a later run starts at attempt 1."""
    scene = Scene()
    scene.downloads.fetches = [FewerRowsError(rows_before=120, rows_found=0)]
    stored = Stored("p", 1, 120, "s", 0.0)
    parked = await run_to_end(scene, replace(planned(), revision=1, state=Ready(3, 100.0, "x1"), stored=stored))
    assert (parked.state, parked.stored) == (FewerRows(120, 0), stored)
    assert (len(scene.downloads.used), scene.listener.retries) == (1, [])
    assert (await scene.runner.resume(parked)).state == Planned(1)


@on_virtual_time
async def test_a_bundle_goes_from_planned_to_stored():
    """One create, one link and one file; each state is reported after it is in the ledger."""
    scene = Scene()
    done = await run_to_end(scene, planned())
    assert [type(state) for state in scene.ledger.states] == [Creating, Created, Ready, Stored]
    assert scene.listener.states == scene.ledger.states
    assert done.stored == done.state == scene.ledger.states[-1]
    assert done.stored is not None
    assert (done.stored.asked_at, done.stored.settle_seconds) == (1.0, SETTLE)
    assert (scene.service.posts, scene.service.links, len(scene.downloads.used)) == (1, 1, 1)


@on_virtual_time
async def test_the_deadline_counts_from_the_answer_and_the_age_of_the_data_from_the_operation():
    """`asked_at` is the time of the create's answer; `exported_at` is the operation's own `createdAt`."""
    scene = Scene()
    scene.watch.outcomes["op1"] = FinishedOperation("x1", 0.75)
    done = await run_to_end(scene, planned())
    created = scene.ledger.states[1]
    assert isinstance(created, Created)
    assert created.asked_at == 1.0
    assert isinstance(done.state, Stored)
    assert done.state.exported_at == 0.75


@pytest.mark.parametrize(
    ("state", "rows", "posts", "links"),
    [
        (Planned(1), [Creating, Created, Ready, Stored], 1, 1),
        (Planned(3), [Creating, Created, Ready, Stored], 1, 1),
        (Creating(2, 0.0), [Creating, Created, Ready, Stored], 1, 1),
        (Created(2, 0.0, "op9"), [Ready, Stored], 0, 1),
        (READY, [Stored], 0, 1),
        (Failed("why"), [Creating, Created, Ready, Stored], 1, 1),
        (Refused("403", Created(2, 0.0, "op9")), [Ready, Stored], 0, 1),
        (Refused("403", READY), [Stored], 0, 1),
        (Stored("a", 1, 1, "s", 1.0), [], 0, 0),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, State) else None,
)
def test_a_bundle_resumes_from_its_state_in_the_ledger(state, rows, posts, links):
    """Only the steps that are missing are done, at the same attempt."""

    @on_virtual_time
    async def resume():
        scene = Scene()
        done = await run_to_end(scene, planned(state=state))
        assert isinstance(done.state, Stored)
        assert [type(row) for row in scene.ledger.states] == rows
        assert (scene.service.posts, scene.service.links) == (posts, links)
        attempts = {row.attempt for row in scene.ledger.states if isinstance(row, Creating | Created | Ready)}
        assert attempts <= {getattr(state, "attempt", 1)}

    resume()


@on_virtual_time
async def test_a_bundle_found_creating_is_counted_as_a_possible_duplicate():
    """The create may have arrived; it is sent again at the same attempt."""
    scene = Scene()
    await run_to_end(scene, planned(state=Creating(2, 0.0)))
    assert scene.listener.duplicates == 1


# Parked bundles


@on_virtual_time
async def test_a_failed_bundle_is_retried_at_attempt_1_without_a_row():
    """The next state is the first row that is written."""
    scene = Scene()
    record = await scene.runner.resume(planned(state=Failed("why")))
    assert record.state == Planned(1)
    assert not scene.ledger.rows
    assert scene.listener.moves == [(Failed("why"), Planned(1))]


OVERDUE = Overdue(3, -9.0, "op9")


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ([FinishedOperation("x9", -6.0)], Ready(3, -6.0, "x9", -9.0)),
        ([None], Planned(1)),
        ([OperationFailedError("no")], Planned(1)),
        ([GONE], Planned(1)),
        ([DOWN, RateLimitedError("429"), ReplyError("?"), FinishedOperation("x9", -6.0)], Ready(3, -6.0, "x9", -9.0)),
    ],
    ids=["done", "still running", "failed", "gone", "after errors"],
)
def test_an_overdue_operation_is_polled_once_more_first(answers, state):
    """A new operation is only created if the old one is still running, failed or is gone."""

    @on_virtual_time
    async def ask():
        scene = Scene()
        scene.watch.asked = answers
        record = await scene.runner.resume(planned(state=OVERDUE))
        assert record.state == state
        assert scene.ledger.states == ([state] if isinstance(state, Ready) else [])
        assert scene.service.posts == 0

    ask()


@on_virtual_time
async def test_an_overdue_operation_that_cannot_be_polled_is_given_up_after_the_outage():
    """Polls are retried under back-off for `[retry] outage`, then the bundle is planned again."""
    scene = Scene()
    scene.watch.asked = [DOWN]
    record = await scene.runner.resume(planned(state=OVERDUE))
    assert record.state == Planned(1)
    assert OUTAGE <= now() <= OUTAGE + 300
    assert scene.watch.questions < 200


@on_virtual_time
async def test_a_refused_key_stops_the_polling():
    """The error is raised, since it concerns all bundles."""
    scene = Scene()
    scene.watch.asked = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await scene.runner.resume(planned(state=OVERDUE))


# Creates


@pytest.mark.parametrize("accepted_by_an_earlier_run", [False, True])
@on_virtual_time
async def test_an_unknown_segment_costs_four_requests_and_not_fifty(accepted_by_an_earlier_run):
    """The first three creates and the newest one are refused: the export stops, and each create is taken back.

    This also holds if an earlier run had creates accepted, since the segment may have been deleted since.
    """
    scene = Scene(accepted=False)
    scene.stream.accepted = accepted_by_an_earlier_run
    scene.service.refuses = lambda _: REFUSED
    outcomes = await asyncio.gather(*(run_to_end(scene, planned(n)) for n in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, ExportHasStopped) for outcome in outcomes)
    assert scene.service.posts == 4
    assert [type(state) for state in scene.ledger.states] == [Creating, Planned] * 4
    assert [row.bundle for row in scene.ledger.rows[::2]] == [planned(n).bundle for n in (0, 1, 2, 49)]
    assert scene.listener.refusals == {"everyone": REFUSED}


@on_virtual_time
async def test_bundles_that_are_too_old_are_parked_and_the_others_stored():
    """After three refusals in a row the newest bundle is tried; if it is accepted, the refused bundles are parked."""
    scene = Scene(accepted=False)
    scene.service.refuses = lambda span: REFUSED if span.start < 10 * 1800 else None
    done = await asyncio.gather(*(run_to_end(scene, planned(n)) for n in range(50)))
    assert [one.state for one in done[:10]] == [Failed("400")] * 10
    assert all(isinstance(one.state, Stored) for one in done[10:])
    assert scene.service.posts == 50
    assert not scene.listener.refusals


@on_virtual_time
async def test_an_export_without_an_accepted_create_stops_when_its_last_bundles_are_refused():
    """With no other bundle to try, the refusals stop the export unless this run had a create accepted."""
    for accepted_before, state in ((False, Planned(1)), (True, Failed("400"))):
        scene = Scene(accepted=False)
        if accepted_before:
            await run_to_end(scene, planned(9))
        scene.service.refuses = lambda _: REFUSED
        outcomes = await asyncio.gather(*(run_to_end(scene, planned(n)) for n in range(2)), return_exceptions=True)
        assert [isinstance(outcome, ExportHasStopped) for outcome in outcomes] == [not accepted_before] * 2
        assert {scene.ledger.latest(planned(n).bundle) for n in range(2)} == {state}


@on_virtual_time
async def test_the_newest_bundle_is_retried_through_an_outage():
    """An outage does not decide whether the export is refused."""
    scene = Scene()
    scene.service.creates = [REFUSED, REFUSED, REFUSED, DOWN, DOWN, None]
    done = await asyncio.gather(*(run_to_end(scene, planned(n)) for n in range(5)))
    assert [one.state for one in done[:3]] == [Failed("400")] * 3
    assert all(isinstance(one.state, Stored) for one in done[3:])
    asked = [row.bundle for row in scene.ledger.rows if isinstance(row.state, Creating)]
    assert asked[5] == planned(4).bundle


@on_virtual_time
async def test_creates_go_out_one_at_a_time_until_the_first_is_accepted():
    """After that all the others go out at the same time."""
    scene = Scene(accepted=False)
    tasks = [asyncio.create_task(scene.runner.create(planned(n), 1)) for n in range(10)]
    await at(0.5)
    assert scene.service.posts == 1
    await at(1.5)
    assert scene.service.posts == 10
    await asyncio.wait(tasks)


@on_virtual_time
async def test_one_refusal_does_not_stop_an_export_that_was_ever_accepted():
    """Only the refused bundle is parked."""
    scene = Scene(accepted=True)
    scene.service.creates = [REFUSED]
    failed, fine = await asyncio.gather(run_to_end(scene, planned(0)), run_to_end(scene, planned(1)))
    assert failed.state == Failed("400")
    assert isinstance(fine.state, Stored)
    assert not scene.listener.refusals


@on_virtual_time
async def test_a_refusal_after_an_accepted_create_parks_only_its_bundle():
    """The first accepted create of a run counts as proof that the export is valid."""
    scene = Scene(accepted=False)
    scene.service.creates = [None, REFUSED]
    await scene.runner.create(planned(0), 1)
    assert (await scene.runner.create(planned(1), 1)).state == Failed("400")


@on_virtual_time
async def test_a_refused_key_stops_the_run_and_leaves_no_create_behind():
    """The bundle is planned again, since the service is known to have refused the create."""
    scene = Scene()
    scene.service.creates = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await run_to_end(scene, planned())
    assert scene.ledger.states[-1] == Planned(1)
    assert scene.listener.duplicates == 0


@pytest.mark.parametrize("attempt", [1, 4])
@pytest.mark.parametrize(
    ("error", "duplicates"),
    [(RateLimitedError("429", retry_after=1.0), 0), (DOWN, 0), (LOST_ANSWER, 1)],
    ids=["429", "503", "lost"],
)
def test_a_create_that_failed_in_an_outage_costs_no_attempt(error, duplicates, attempt):
    """The bundle is planned again at the same attempt; a lost answer counts as a possible duplicate."""

    @on_virtual_time
    async def fail_once():
        scene = Scene()
        scene.service.creates = [error]
        record = await scene.runner.create(planned(state=Planned(attempt)), attempt)
        assert scene.ledger.states == [Creating(attempt, 0.0, SETTLE), Planned(attempt)]
        assert scene.listener.duplicates == duplicates
        assert isinstance((await run_to_end(scene, record)).state, Stored)
        assert scene.service.posts == 2

    fail_once()


@on_virtual_time
async def test_an_answer_without_an_operation_id_counts_an_attempt():
    """The operation may exist, so it counts as a possible duplicate; the last attempt parks the bundle."""
    scene = Scene(attempts=2)
    scene.service.creates = [ReplyError("no id"), ReplyError("no id")]
    done = await run_to_end(scene, planned())
    assert done.state == Failed("no id")
    assert [type(state) for state in scene.ledger.states] == [Creating, Planned, Creating, Failed]
    assert scene.ledger.states[1] == Planned(2)
    assert scene.listener.duplicates == 2


@on_virtual_time
async def test_a_bundle_whose_create_always_fails_does_not_block_the_run():
    """While other creates are accepted, it is retried under back-off and parked after `[retry] outage`."""
    scene = Scene()
    bad = planned(0)
    scene.service.refuses = lambda span: DOWN if span == bad.bundle.range else None

    async def others() -> None:
        for number in range(1, 40):
            await run_to_end(scene, planned(number))
            await asyncio.sleep(600)

    done, _ = await asyncio.gather(run_to_end(scene, bad), others())
    assert done.state == Failed("503")
    assert scene.service.posts - 39 < 200
    assert all(state == Planned(1) for state in scene.ledger.states if isinstance(state, Planned))


@on_virtual_time
async def test_a_long_outage_parks_no_bundle():
    """If no create is accepted at all, only the budget decides when to give up."""
    scene = Scene()
    scene.service.refuses = lambda _: DOWN if now() < 5 * OUTAGE else None
    done = await run_to_end(scene, planned())
    assert isinstance(done.state, Stored)
    assert now() > 5 * OUTAGE


@on_virtual_time
async def test_a_service_that_was_given_up_ends_the_run():
    """The budget's error is raised; nothing was sent and no row is written."""
    scene = Scene()
    scene.gate.fails = UnavailableError("six hours", lasting=True)
    with pytest.raises(UnavailableError):
        await run_to_end(scene, planned())
    assert not scene.ledger.rows


# Waiting for operations


@pytest.mark.parametrize("error", [OperationFailedError("too big"), GONE], ids=["failed", "gone"])
def test_a_failed_or_lost_operation_counts_an_attempt(error):
    """The last attempt parks the bundle with the service's reason."""

    @on_virtual_time
    async def fail_always():
        scene = Scene(attempts=3)
        scene.watch.outcomes = {f"op{n}": error for n in range(1, 4)}
        done = await run_to_end(scene, planned())
        assert done.state == Failed(str(error))
        assert scene.service.posts == 3
        assert [state for state in scene.ledger.states if isinstance(state, Planned)] == [Planned(2), Planned(3)]

    fail_always()


@on_virtual_time
async def test_a_failed_operation_is_retried():
    """The second attempt is stored."""
    scene = Scene()
    scene.watch.outcomes["op1"] = OperationFailedError("once")
    assert isinstance((await run_to_end(scene, planned())).state, Stored)
    assert scene.ledger.states[-2] == Ready(2, 62.0, "x-op2", 62.0, SETTLE)


@on_virtual_time
async def test_an_operation_past_its_deadline_is_parked_with_its_id():
    """The next run can poll it once more."""
    scene = Scene()
    scene.watch.outcomes["op1"] = None
    done = await run_to_end(scene, planned(state=Planned(2)))
    assert done.state == Overdue(2, 1.0, "op1", SETTLE)


# Downloads


@on_virtual_time
async def test_a_cut_download_resumes_through_the_same_link():
    """No new link is requested while the old one is valid."""
    scene = Scene()
    scene.downloads.fetches = [IncompleteError("cut"), IncompleteError("cut")]
    assert isinstance((await run_to_end(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 1)
    assert len(set(scene.downloads.used)) == 1


@on_virtual_time
async def test_a_link_about_to_expire_is_not_used_again():
    """A new link is requested, but no new export."""
    scene = Scene()
    scene.service.locates = [DownloadLink("https://storage.invalid/old", 16.0)]
    scene.downloads.fetches = [IncompleteError("cut")]
    assert isinstance((await run_to_end(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 2)


@on_virtual_time
async def test_an_expired_link_costs_a_new_link_and_never_a_new_export():
    """When the storage host reports an expired link, one results call is enough."""
    scene = Scene()
    scene.downloads.fetches = [GoneError("ExpiredToken"), GoneError("ExpiredToken")]
    assert isinstance((await run_to_end(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 3)


@on_virtual_time
async def test_a_bad_file_is_fetched_again_through_a_new_link_and_then_exported_again():
    """`attempts` limits both the downloads and the exports."""
    scene = Scene(attempts=3)
    scene.downloads.fetches = [CorruptError("crc")] * 3
    done = await run_to_end(scene, planned(state=READY))
    assert isinstance(done.state, Stored)
    assert (scene.service.posts, scene.service.links) == (1, 4)
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_a_file_that_is_always_bad_is_parked_after_the_last_attempt():
    """The reason is what was wrong with the file."""
    scene = Scene(attempts=2)
    scene.downloads.fails = lambda _: CorruptError("crc")
    done = await run_to_end(scene, planned(state=READY))
    assert done.state == Failed("crc")
    assert scene.service.posts == 1
    assert len(scene.downloads.used) == 4


@on_virtual_time
async def test_a_download_that_makes_progress_is_not_given_up():
    """A download that got `PROGRESS_BYTES` further counts as no failure, however often it is cut."""
    scene = Scene(attempts=2)
    cut = IncompleteError("cut")
    scene.downloads.fetches = [(PROGRESS_BYTES * n, cut) for n in range(1, 30)]
    assert isinstance((await run_to_end(scene, planned(state=READY))).state, Stored)
    assert scene.service.posts == 0


@on_virtual_time
async def test_a_download_without_progress_is_given_up():
    """Fewer new bytes than `PROGRESS_BYTES` count as no progress."""
    scene = Scene(attempts=2)
    scene.downloads.fetches = [(PROGRESS_BYTES - n, IncompleteError("cut")) for n in range(1, 3)]
    await run_to_end(scene, planned(state=READY))
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_a_lost_export_is_only_believed_after_two_404s_in_a_row():
    """One 404 is not enough; two in a row count an attempt and create a new export."""
    scene = Scene()
    scene.service.locates = [GONE]
    await run_to_end(scene, planned(0, state=READY))
    assert scene.service.posts == 0
    scene.service.locates = [GONE, None, GONE]
    scene.downloads.fetches = [CorruptError("crc")]
    await run_to_end(scene, planned(1, state=READY))
    assert scene.service.posts == 0
    scene.service.locates = [GONE, GONE]
    done = await run_to_end(scene, planned(2, state=READY))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 1
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_an_outage_of_an_hour_during_a_download_only_costs_time():
    """A 5xx or 429 of the service or the storage host costs neither an attempt nor a new export."""
    scene = Scene(attempts=2)
    scene.service.locates = [DOWN, RateLimitedError("429")] * 10
    scene.downloads.fails = lambda _: DOWN if now() < 3600 else None
    done = await run_to_end(scene, planned(state=READY))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 0
    assert 3600 < now() < 3600 + 310
    assert len(scene.downloads.used) < 60


@on_virtual_time
async def test_an_unreachable_storage_host_ends_the_run_after_the_outage():
    """The run ends because no file arrives, although the service still returns links."""
    scene = Scene()
    scene.downloads.fails = lambda _: DOWN
    with pytest.raises(UnavailableError) as failure:
        await run_to_end(scene, planned(state=READY))
    assert not failure.value.transient
    assert OUTAGE <= now() <= OUTAGE + 310


@on_virtual_time
async def test_a_single_file_that_cannot_be_downloaded_is_exported_again():
    """While other files arrive, only this bundle is affected and the run goes on."""
    scene = Scene(attempts=2)
    bad = planned(0, state=READY)
    scene.downloads.fails = lambda bundle: DOWN if bundle == bad.bundle and scene.service.posts == 0 else None

    async def others() -> None:
        for number in range(1, 40):
            await run_to_end(scene, planned(number, state=READY))
            await asyncio.sleep(600)

    done, _ = await asyncio.gather(run_to_end(scene, bad), others())
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 1
    assert Planned(2) in scene.ledger.states


@pytest.mark.parametrize("error", [StorageError("disk full"), LedgerError("broken")])
def test_a_disk_or_ledger_error_ends_the_run(error):
    """The error is raised, since it concerns all bundles."""

    @on_virtual_time
    async def fail():
        scene = Scene()
        scene.downloads.fetches = [error]
        with pytest.raises(type(error)):
            await run_to_end(scene, planned(state=READY))

    fail()


@on_virtual_time
async def test_a_refused_key_ends_the_run_during_a_download():
    """A 401 on a results call is raised."""
    scene = Scene()
    scene.service.locates = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await run_to_end(scene, planned(state=READY))


@on_virtual_time
async def test_a_link_is_requested_only_when_a_slot_is_free():
    """A link expires within minutes, so the download starts immediately."""
    scene = Scene(slots=2)
    scene.downloads.takes = 1000.0
    tasks = [asyncio.create_task(run_to_end(scene, planned(n, state=READY))) for n in range(5)]
    await at(900)
    assert scene.service.links == 2
    await at(1900)
    assert scene.service.links == 4
    await asyncio.wait(tasks)
    assert scene.downloads.peak == 2


@on_virtual_time
async def test_only_failures_of_the_service_are_reported_as_shared():
    """An outage or a 429 of the service concerns all bundles; a failure of the storage host or a bad file only one."""
    for locates, fails, shared in (
        ([DOWN], None, 1),
        ([RateLimitedError("429")], None, 1),
        ([], DOWN, 0),
        ([], CorruptError("crc"), 0),
    ):
        scene = Scene()
        scene.service.locates, scene.downloads.fetches = list(locates), [fails]
        await run_to_end(scene, planned(state=READY))
        assert (len(scene.listener.retries), scene.listener.shared) == (1, shared)
    scene = Scene()
    scene.service.creates = [DOWN]
    await run_to_end(scene, planned())
    assert scene.listener.shared == 1


@on_virtual_time
async def test_the_duration_of_a_download_is_known_once_the_first_has_finished():
    """A later download that takes very long raises the estimate while it is still running."""
    scene = Scene(slots=2)
    scene.downloads.takes = 10.0
    first = asyncio.create_task(run_to_end(scene, planned(0, state=READY)))
    await at(6)
    assert scene.runner.fetching.seconds_each is None
    assert scene.runner.fetching.ages == [pytest.approx(5)]
    await first
    assert scene.runner.fetching.seconds_each == pytest.approx(10, abs=0.1)
    scene.downloads.takes = 1000.0
    task = asyncio.create_task(run_to_end(scene, planned(1, state=READY)))
    await at(112)
    assert scene.runner.fetching.seconds_each == pytest.approx(10 + 100, abs=1)
    task.cancel()
    await asyncio.wait({task})
    assert scene.runner.fetching.ages == []


@on_virtual_time
async def test_bytes_of_a_cut_download_count_as_received_until_it_is_complete():
    """The live view shows the progress of a big file and counts no byte twice."""
    scene = Scene()
    scene.downloads.fetches = [(500, IncompleteError("cut"))]
    task = asyncio.create_task(run_to_end(scene, planned(state=READY)))
    await at(3.2)
    assert scene.runner.fetching.received == 500
    await task
    assert scene.runner.fetching.received == 0


@on_virtual_time
async def test_a_create_is_in_flight_from_its_sending_to_its_answer():
    """A bundle that waits for a permit does not count as in flight."""
    scene = Scene()
    scene.gate.is_open.clear()
    task = asyncio.create_task(scene.runner.create(planned(), 1))
    await at(5)
    assert not scene.runner.creates.sending
    scene.gate.is_open.set()
    await at(5.5)
    assert scene.runner.creates.sending == {planned().bundle}
    await task
    assert not scene.runner.creates.sending


@on_virtual_time
async def test_a_bundle_counts_as_downloading_until_its_row_is_durable():
    """A graceful stop can therefore wait for the row."""
    scene = Scene()
    scene.ledger.takes = 5.0
    task = asyncio.create_task(run_to_end(scene, planned(state=READY)))
    await at(0.5)
    assert not scene.runner.fetching.downloading
    for time in (2.0, 7.5):
        await at(time)
        assert scene.runner.fetching.downloading == {planned().bundle}
    await task
    assert not scene.runner.fetching.downloading


# Stopping


@on_virtual_time
async def test_a_create_that_waits_for_a_permit_is_cancelled():
    """No request is sent and no row is written."""
    scene = Scene()
    scene.gate.is_open.clear()
    task = asyncio.create_task(run_to_end(scene, planned()))
    await settled()
    task.cancel()
    await asyncio.wait({task})
    await scene.runner.creates.finish()
    scene.gate.is_open.set()
    await settled()
    assert (scene.service.posts, scene.ledger.rows) == (0, [])


@on_virtual_time
async def test_a_create_in_flight_is_finished():
    """Its operation is recorded in the ledger although its bundle was cancelled."""
    scene = Scene()
    task = asyncio.create_task(run_to_end(scene, planned()))
    await at(0.5)
    task.cancel()
    await asyncio.wait({task})
    assert scene.ledger.states == [Creating(1, 0.0, SETTLE)]
    await scene.runner.creates.finish()
    assert scene.ledger.states[-1] == Created(1, 1.0, "op1", SETTLE)


@on_virtual_time
async def test_an_immediate_stop_does_not_wait_for_answers():
    """The `Creating` row stays in the ledger, so that the next run counts a possible duplicate."""
    scene = Scene()
    scene.service.takes = 60.0
    task = asyncio.create_task(run_to_end(scene, planned()))
    await at(0.5)
    task.cancel()
    scene.runner.creates.drop()
    await scene.runner.creates.finish()
    await asyncio.wait({task})
    assert now() < 1
    assert [type(state) for state in scene.ledger.states] == [Creating]


@on_virtual_time
async def test_a_ledger_failure_after_a_cancel_is_raised():
    """The operation could not be recorded, which is reported although its bundle was cancelled."""
    scene = Scene()
    scene.ledger.fails = lambda row: LedgerError("full") if isinstance(row.state, Created) else None
    task = asyncio.create_task(run_to_end(scene, planned()))
    await at(0.5)
    task.cancel()
    await asyncio.wait({task})
    with pytest.raises(LedgerError):
        await scene.runner.creates.finish()
