"""One bundle from state to state: every way there is, and what each failure costs whom."""

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
SETTLE = 86_400.0
"""The settle time of the export in `Scene`."""


async def carry(scene: Scene, record):
    """One bundle to where it rests, as the scheduler does."""
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


# Whose ids


@on_virtual_time
async def test_an_operation_of_another_range_costs_a_new_export():
    """The first range on record keeps it; the second one asks anew at once, and is told whose it was."""
    scene = Scene()
    await carry(scene, planned(0))
    scene.service.made.clear()  # the next create is answered with the same id
    done = await carry(scene, planned(1))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 3
    assert [state.attempt for state in scene.ledger.states if isinstance(state, Created)] == [1, 1, 2]
    assert "operation of everyone 1970-01-01T00:00:00Z" in scene.listener.retries[0]
    assert len(scene.downloads.used) == 2


@on_virtual_time
async def test_an_export_of_another_range_is_not_fetched_again():
    """Two operations that name one export would make two archives of one file."""
    scene = Scene()
    await carry(scene, planned(0))
    scene.watch.outcomes["op2"] = FinishedOperation("x-op1", 50.0)
    done = await carry(scene, planned(1))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 3
    assert "export of everyone 1970-01-01T00:00:00Z" in scene.listener.retries[0]
    assert len(scene.downloads.used) == 2


@on_virtual_time
async def test_an_id_that_always_belongs_to_another_range_parks_the_bundle():
    """After so many attempts, as whatever else is wrong with its exports."""
    scene = Scene(attempts=2)
    await carry(scene, planned(0))
    for operation_id in ("op2", "op3"):
        scene.watch.outcomes[operation_id] = FinishedOperation("x-op1", 50.0)
    assert isinstance((await carry(scene, planned(1))).state, Failed)


@on_virtual_time
async def test_of_two_that_are_given_one_operation_at_the_same_moment_one_keeps_it():
    """Both rows are durable before either of them waits for it."""
    scene = Scene()
    scene.service.names = ["op1", "op1", "op2"]
    done = await asyncio.gather(carry(scene, planned(0)), carry(scene, planned(1)))
    assert all(isinstance(one.state, Stored) for one in done)
    assert (scene.service.posts, len(scene.listener.retries)) == (3, 1)


@on_virtual_time
async def test_equal_creates_may_share_an_operation_and_its_file():
    """The same range of the same definition; of another definition it is another's."""
    for definition, posts in ((EXPORT.definition, 2), (Definition(segment="other"), 3)):
        scene = Scene(also=[Export("twin", definition)])
        scene.service.names = ["op1", "op1", "op2"]
        await carry(scene, planned(0))
        assert isinstance((await carry(scene, planned(0, "twin"))).state, Stored)
        assert scene.service.posts == posts


@on_virtual_time
async def test_a_new_attempt_or_revision_may_have_the_id_of_before():
    """It is the same range: what comes is what was asked for."""
    scene = Scene()
    done = await carry(scene, planned(0))
    scene.service.names = ["op1"]
    assert isinstance((await carry(scene, done.next_revision())).state, Stored)
    assert scene.service.posts == 2


# Whose rows


EMPTY = UnprovedEmptyError()
FOREIGN = ForeignRowsError(outside=3, timed=3)
UNKNOWN = UnknownRowsError(["error"])
LOOK = 60.0
"""`[download] second_look`, as it is by default."""


@on_virtual_time
async def test_a_file_without_rows_is_looked_at_again_while_other_work_goes_on():
    """A minute later, through a fresh link, with no slot held and no attempt counted; nobody is told of trouble."""
    scene = Scene(slots=1)
    scene.downloads.fetches = [EMPTY]
    empty = asyncio.create_task(carry(scene, planned(0, state=READY)))
    await settled()
    other = await carry(scene, planned(1, state=READY))
    assert isinstance(other.state, Stored)
    assert now() < LOOK
    done = await empty
    assert isinstance(done.state, Stored)
    assert now() >= LOOK
    assert len(set(scene.downloads.used)) == scene.service.links == 3
    assert (scene.listener.retries, scene.service.posts) == ([], 0)
    assert scene.runner.fetching.second_looks == SecondLooks(2, 1)


@on_virtual_time
async def test_rows_of_another_range_cost_a_new_export_at_once():
    """Another download would bring the same rows."""
    scene = Scene()
    scene.downloads.fetches = [FOREIGN]
    began = now()
    done = await carry(scene, planned(0, state=READY))
    assert isinstance(done.state, Stored)
    assert [type(state) for state in scene.ledger.states[:2]] == [Planned, Creating]
    assert (scene.service.posts, len(scene.downloads.used)) == (1, 2)
    assert now() - began < 2 * LOOK
    assert "rows are of another time" in scene.listener.retries[0]


@on_virtual_time
async def test_three_files_with_rows_of_another_range_in_a_row_switch_the_rule_off():
    """The third is fetched again, and taken; that is told once."""
    scene = Scene(attempts=3)
    scene.downloads.fetches = [FOREIGN, FOREIGN, FOREIGN]
    done = await carry(scene, planned(0, state=READY))
    assert isinstance(done.state, Stored)
    assert (scene.service.posts, len(scene.downloads.used)) == (2, 4)
    assert [message for message in scene.listener.notes if "EventStart" in message]
    scene.downloads.fetches = [FOREIGN]
    assert isinstance((await carry(scene, planned(1, state=READY))).state, Stored)
    assert (scene.service.posts, len(scene.listener.notes)) == (2, 1)


@on_virtual_time
async def test_what_some_box_sent_is_fetched_again_a_while_later():
    """It is no fault of the export's: none is made anew for it."""
    scene = Scene()
    scene.downloads.fetches = [UNKNOWN]
    done = await carry(scene, planned(0, state=READY))
    assert isinstance(done.state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 2)
    assert now() >= LOOK


@on_virtual_time
async def test_a_box_in_trouble_for_a_moment_stops_no_export():
    """However many bundles it answers at once."""
    scene = Scene(slots=9)
    scene.downloads.fetches = [UNKNOWN] * 9
    done = await asyncio.gather(*(carry(scene, planned(number, state=READY)) for number in range(9)))
    assert all(isinstance(one.state, Stored) for one in done)
    assert scene.service.posts == 0


@pytest.mark.parametrize("is_as_stored", [True, False])
def test_three_files_without_a_known_name_in_a_row_stop_the_export(is_as_stored):
    """Then it is our list of names that is wrong; no export is bought for it."""

    @on_virtual_time
    async def stop():
        scene = Scene()
        error = UnknownRowsError(["error"])
        error.is_as_stored = is_as_stored
        scene.downloads.fails = lambda _: error
        with pytest.raises(ExportHasStopped):
            await carry(scene, planned(0, state=READY))
        assert (scene.service.posts, len(scene.downloads.used)) == (0, 3)
        assert scene.listener.refusals == {EXPORT.name: error}
        with pytest.raises(ExportHasStopped):
            await carry(scene, planned(1, state=READY))

    stop()


@on_virtual_time
async def test_results_that_could_never_be_read_stop_the_export_at_the_second_a_minute_apart():
    """Its file may be fine, so no export is bought for it, and its bundles stay unfinished."""
    scene = Scene(accepted=True)
    scene.service.locates = [ReplyError("a page")] * 9
    outcomes = await asyncio.gather(
        *(carry(scene, planned(number, state=READY)) for number in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, ExportHasStopped) for outcome in outcomes)
    assert (scene.service.posts, list(scene.listener.refusals)) == (0, [EXPORT.name])
    assert now() >= 60
    assert scene.service.links <= 4  # those that were under way when the first came back


# The way through


@on_virtual_time
async def test_a_new_take_of_an_archive_needs_its_least_rows():
    """A first take needs none, and neither does what the user accepts, in whatever state it is gone on with."""
    stored = Stored("p", 1, 1000, "s", 0.0)
    for accepted in (False, True):
        scene = Scene()
        again = replace(planned(), revision=1, state=READY, stored=stored)
        if accepted:
            scene.accepted.add(again.bundle)
        await carry(scene, again)
        await carry(scene, planned(1))
        assert scene.downloads.floors == [0 if accepted else least_rows(1000), None]


@on_virtual_time
async def test_far_fewer_rows_are_parked_at_once_and_taken_up_again():
    """The file came whole: no other try is made, no attempt is counted; taken up again it begins at attempt 1."""
    scene = Scene()
    scene.downloads.fetches = [FewerRowsError(rows_before=120, rows_found=0)]
    stored = Stored("p", 1, 120, "s", 0.0)
    parked = await carry(scene, replace(planned(), revision=1, state=Ready(3, 100.0, "x1"), stored=stored))
    assert (parked.state, parked.stored) == (FewerRows(120, 0), stored)
    assert (len(scene.downloads.used), scene.listener.retries) == (1, [])
    assert (await scene.runner.resume(parked)).state == Planned(1)


@on_virtual_time
async def test_a_bundle_goes_from_planned_to_stored():
    """One create, one link, one file; each state is in the ledger in its turn, and told once it is."""
    scene = Scene()
    done = await carry(scene, planned())
    assert [type(state) for state in scene.ledger.states] == [Creating, Created, Ready, Stored]
    assert scene.listener.states == scene.ledger.states
    assert done.stored == done.state == scene.ledger.states[-1]
    assert done.stored is not None
    assert (done.stored.asked_at, done.stored.settle_seconds) == (1.0, SETTLE)
    assert (scene.service.posts, scene.service.links, len(scene.downloads.used)) == (1, 1, 1)


@on_virtual_time
async def test_the_deadline_counts_from_the_answer_and_the_data_from_the_operation():
    """`asked_at` is when the service said yes; `exported_at` is its own `createdAt`."""
    scene = Scene()
    scene.watch.outcomes["op1"] = FinishedOperation("x1", 0.75)
    done = await carry(scene, planned())
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
def test_a_bundle_goes_on_from_where_the_ledger_has_it(state, rows, posts, links):
    """Resuming is the same loop, begun further on."""

    @on_virtual_time
    async def resume():
        scene = Scene()
        done = await carry(scene, planned(state=state))
        assert isinstance(done.state, Stored)
        assert [type(row) for row in scene.ledger.states] == rows
        assert (scene.service.posts, scene.service.links) == (posts, links)
        attempts = {row.attempt for row in scene.ledger.states if isinstance(row, Creating | Created | Ready)}
        assert attempts <= {getattr(state, "attempt", 1)}

    resume()


@on_virtual_time
async def test_a_bundle_found_creating_is_counted_as_a_possible_duplicate():
    """Nobody knows whether its create arrived; it is asked again at the same attempt."""
    scene = Scene()
    await carry(scene, planned(state=Creating(2, 0.0)))
    assert scene.listener.duplicates == 1


# What was parked


@on_virtual_time
async def test_a_failed_one_is_taken_up_at_attempt_1_and_nothing_is_written_for_that():
    """The next row says it."""
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
    ids=["done", "still running", "failed", "gone", "after some trouble"],
)
def test_an_overdue_one_is_asked_once_more_first(answers, state):
    """Only where it still runs, or came to nothing, is it given up for a new one."""

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
async def test_an_overdue_one_that_nobody_can_be_asked_for_is_given_up_in_the_end():
    """After `[retry] outage`, under back-off, it is planned again."""
    scene = Scene()
    scene.watch.asked = [DOWN]
    record = await scene.runner.resume(planned(state=OVERDUE))
    assert record.state == Planned(1)
    assert OUTAGE <= now() <= OUTAGE + 300
    assert scene.watch.questions < 200


@on_virtual_time
async def test_a_refused_key_stops_the_asking():
    """What concerns all bundles is raised."""
    scene = Scene()
    scene.watch.asked = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await scene.runner.resume(planned(state=OVERDUE))


# Creating


@pytest.mark.parametrize("taken_by_an_earlier_run", [False, True])
@on_virtual_time
async def test_an_unknown_segment_costs_four_requests_and_not_fifty(taken_by_an_earlier_run):
    """Three are refused, and so is the newest: the whole export stops, and its rows are taken back.

    It may have been deleted between two runs.
    """
    scene = Scene(accepted=False)
    scene.stream.accepted = taken_by_an_earlier_run
    scene.service.refuses = lambda _: REFUSED
    outcomes = await asyncio.gather(*(carry(scene, planned(n)) for n in range(50)), return_exceptions=True)
    assert all(isinstance(outcome, ExportHasStopped) for outcome in outcomes)
    assert scene.service.posts == 4
    assert [type(state) for state in scene.ledger.states] == [Creating, Planned] * 4
    assert [row.bundle for row in scene.ledger.rows[::2]] == [planned(n).bundle for n in (0, 1, 2, 49)]
    assert scene.listener.refusals == {"everyone": REFUSED}


@on_virtual_time
async def test_data_that_is_too_old_is_parked_and_the_rest_comes():
    """After three refusals in a row the newest is tried; it is taken, so the refused ones are to blame themselves."""
    scene = Scene(accepted=False)
    scene.service.refuses = lambda span: REFUSED if span.start < 10 * 1800 else None
    done = await asyncio.gather(*(carry(scene, planned(n)) for n in range(50)))
    assert [one.state for one in done[:10]] == [Failed("400")] * 10
    assert all(isinstance(one.state, Stored) for one in done[10:])
    assert scene.service.posts == 50
    assert not scene.listener.refusals


@on_virtual_time
async def test_the_last_bundles_that_are_refused_stop_an_export_that_took_nothing():
    """Where nothing is left to try, what was taken in this run decides."""
    for taken_before, state in ((False, Planned(1)), (True, Failed("400"))):
        scene = Scene(accepted=False)
        if taken_before:
            await carry(scene, planned(9))
        scene.service.refuses = lambda _: REFUSED
        outcomes = await asyncio.gather(*(carry(scene, planned(n)) for n in range(2)), return_exceptions=True)
        assert [isinstance(outcome, ExportHasStopped) for outcome in outcomes] == [not taken_before] * 2
        assert {scene.ledger.latest(planned(n).bundle) for n in range(2)} == {state}


@on_virtual_time
async def test_a_newest_bundle_that_meets_an_outage_is_tried_until_it_is_known():
    """An outage says nothing of the export."""
    scene = Scene()
    scene.service.creates = [REFUSED, REFUSED, REFUSED, DOWN, DOWN, None]
    done = await asyncio.gather(*(carry(scene, planned(n)) for n in range(5)))
    assert [one.state for one in done[:3]] == [Failed("400")] * 3
    assert all(isinstance(one.state, Stored) for one in done[3:])
    asked = [row.bundle for row in scene.ledger.rows if isinstance(row.state, Creating)]
    assert asked[5] == planned(4).bundle


@on_virtual_time
async def test_creates_go_one_at_a_time_only_until_the_first_is_taken():
    """Then all the others go out at once."""
    scene = Scene(accepted=False)
    tasks = [asyncio.create_task(scene.runner.create(planned(n), 1)) for n in range(10)]
    await at(0.5)
    assert scene.service.posts == 1
    await at(1.5)
    assert scene.service.posts == 10
    await asyncio.wait(tasks)


@on_virtual_time
async def test_an_export_that_was_ever_taken_is_not_stopped_by_one_refusal():
    """Then it is that bundle's failure, and the others go on."""
    scene = Scene(accepted=True)
    scene.service.creates = [REFUSED]
    failed, fine = await asyncio.gather(carry(scene, planned(0)), carry(scene, planned(1)))
    assert failed.state == Failed("400")
    assert isinstance(fine.state, Stored)
    assert not scene.listener.refusals


@on_virtual_time
async def test_the_first_create_that_is_taken_counts():
    """A refusal after it is a bundle's own."""
    scene = Scene(accepted=False)
    scene.service.creates = [None, REFUSED]
    await scene.runner.create(planned(0), 1)
    assert (await scene.runner.create(planned(1), 1)).state == Failed("400")


@on_virtual_time
async def test_a_refused_key_stops_the_run_and_leaves_no_create_behind():
    """The row of the intent is taken back: the service is known to have said no."""
    scene = Scene()
    scene.service.creates = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await carry(scene, planned())
    assert scene.ledger.states[-1] == Planned(1)
    assert scene.listener.duplicates == 0


@pytest.mark.parametrize("attempt", [1, 4])
@pytest.mark.parametrize(
    ("error", "duplicates"),
    [(RateLimitedError("429", retry_after=1.0), 0), (DOWN, 0), (LOST_ANSWER, 1)],
    ids=["429", "503", "lost"],
)
def test_a_create_that_failed_by_nobodys_fault_costs_no_attempt(error, duplicates, attempt):
    """It is planned again at the same attempt; where the answer is lost, as a possible duplicate."""

    @on_virtual_time
    async def fail_once():
        scene = Scene()
        scene.service.creates = [error]
        record = await scene.runner.create(planned(state=Planned(attempt)), attempt)
        assert scene.ledger.states == [Creating(attempt, 0.0, SETTLE), Planned(attempt)]
        assert scene.listener.duplicates == duplicates
        assert isinstance((await carry(scene, record)).state, Stored)
        assert scene.service.posts == 2

    fail_once()


@on_virtual_time
async def test_an_answer_without_an_operation_counts_an_attempt():
    """It may be the request's own fault, and the service may run it all the same; the last attempt parks it."""
    scene = Scene(attempts=2)
    scene.service.creates = [ReplyError("no id"), ReplyError("no id")]
    done = await carry(scene, planned())
    assert done.state == Failed("no id")
    assert [type(state) for state in scene.ledger.states] == [Creating, Planned, Creating, Failed]
    assert scene.ledger.states[1] == Planned(2)
    assert scene.listener.duplicates == 2


@on_virtual_time
async def test_a_bundle_whose_create_never_goes_through_does_not_hold_up_the_run():
    """Where others are taken all the time, it is parked after `[retry] outage`; under back-off until then."""
    scene = Scene()
    bad = planned(0)
    scene.service.refuses = lambda span: DOWN if span == bad.bundle.range else None

    async def others() -> None:
        for number in range(1, 40):
            await carry(scene, planned(number))
            await asyncio.sleep(600)

    done, _ = await asyncio.gather(carry(scene, bad), others())
    assert done.state == Failed("503")
    assert scene.service.posts - 39 < 200
    assert all(state == Planned(1) for state in scene.ledger.states if isinstance(state, Planned))


@on_virtual_time
async def test_an_outage_of_days_parks_nobody_by_itself():
    """Where no create of anybody's goes through, it is not the bundle's own: the gate decides when to give up."""
    scene = Scene()
    scene.service.refuses = lambda _: DOWN if now() < 5 * OUTAGE else None
    done = await carry(scene, planned())
    assert isinstance(done.state, Stored)
    assert now() > 5 * OUTAGE


@on_virtual_time
async def test_a_service_that_is_gone_for_good_ends_the_run():
    """The gate's word is passed on; nothing was sent, and nothing is written."""
    scene = Scene()
    scene.gate.fails = UnavailableError("six hours", lasting=True)
    with pytest.raises(UnavailableError):
        await carry(scene, planned())
    assert not scene.ledger.rows


# Watching


@pytest.mark.parametrize("error", [OperationFailedError("too big"), GONE], ids=["failed", "gone"])
def test_an_operation_that_comes_to_nothing_counts_an_attempt(error):
    """Until the last, which parks the bundle with the service's own words."""

    @on_virtual_time
    async def fail_always():
        scene = Scene(attempts=3)
        scene.watch.outcomes = {f"op{n}": error for n in range(1, 4)}
        done = await carry(scene, planned())
        assert done.state == Failed(str(error))
        assert scene.service.posts == 3
        assert [state for state in scene.ledger.states if isinstance(state, Planned)] == [Planned(2), Planned(3)]

    fail_always()


@on_virtual_time
async def test_a_failed_operation_is_tried_again():
    """The next attempt may well succeed."""
    scene = Scene()
    scene.watch.outcomes["op1"] = OperationFailedError("once")
    assert isinstance((await carry(scene, planned())).state, Stored)
    assert scene.ledger.states[-2] == Ready(2, 62.0, "x-op2", 62.0, SETTLE)


@on_virtual_time
async def test_past_its_deadline_it_is_parked_with_its_operation():
    """So that the next run can ask for it once more."""
    scene = Scene()
    scene.watch.outcomes["op1"] = None
    done = await carry(scene, planned(state=Planned(2)))
    assert done.state == Overdue(2, 1.0, "op1", SETTLE)


# Fetching


@on_virtual_time
async def test_a_cut_download_goes_on_through_the_same_link():
    """While the link lives, no other is asked for."""
    scene = Scene()
    scene.downloads.fetches = [IncompleteError("cut"), IncompleteError("cut")]
    assert isinstance((await carry(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 1)
    assert len(set(scene.downloads.used)) == 1


@on_virtual_time
async def test_a_link_about_to_expire_is_not_used_again():
    """A fresh one is asked for instead, and no new export."""
    scene = Scene()
    scene.service.locates = [DownloadLink("https://storage.invalid/old", 16.0)]
    scene.downloads.fetches = [IncompleteError("cut")]
    assert isinstance((await carry(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 2)


@on_virtual_time
async def test_an_expired_link_asks_for_a_new_link_and_never_for_a_new_export():
    """What the storage calls expired is cured by the service in one call."""
    scene = Scene()
    scene.downloads.fetches = [GoneError("ExpiredToken"), GoneError("ExpiredToken")]
    assert isinstance((await carry(scene, planned(state=READY))).state, Stored)
    assert (scene.service.posts, scene.service.links) == (0, 3)


@on_virtual_time
async def test_a_bad_file_is_fetched_again_through_a_fresh_link_and_then_exported_again():
    """So often as `attempts` allows, for either."""
    scene = Scene(attempts=3)
    scene.downloads.fetches = [CorruptError("crc")] * 3
    done = await carry(scene, planned(state=READY))
    assert isinstance(done.state, Stored)
    assert (scene.service.posts, scene.service.links) == (1, 4)
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_a_file_that_is_always_bad_is_parked_after_the_last_attempt():
    """With what was wrong with it."""
    scene = Scene(attempts=2)
    scene.downloads.fails = lambda _: CorruptError("crc")
    done = await carry(scene, planned(state=READY))
    assert done.state == Failed("crc")
    assert scene.service.posts == 1
    assert len(scene.downloads.used) == 4


@on_virtual_time
async def test_a_download_that_gets_further_each_time_is_not_in_vain():
    """A try that brought a good piece more does not count, however often it is cut."""
    scene = Scene(attempts=2)
    cut = IncompleteError("cut")
    scene.downloads.fetches = [(PROGRESS_BYTES * n, cut) for n in range(1, 30)]
    assert isinstance((await carry(scene, planned(state=READY))).state, Stored)
    assert scene.service.posts == 0


@on_virtual_time
async def test_a_download_that_gets_no_further_is_given_up():
    """Less than a good piece counts as nothing."""
    scene = Scene(attempts=2)
    scene.downloads.fetches = [(PROGRESS_BYTES - n, IncompleteError("cut")) for n in range(1, 3)]
    await carry(scene, planned(state=READY))
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_a_lost_export_is_believed_when_it_is_said_twice():
    """One 404 is not enough; two in a row are a lost export, which counts an attempt."""
    scene = Scene()
    scene.service.locates = [GONE]
    await carry(scene, planned(0, state=READY))
    assert scene.service.posts == 0
    scene.service.locates = [GONE, None, GONE]
    scene.downloads.fetches = [CorruptError("crc")]
    await carry(scene, planned(1, state=READY))
    assert scene.service.posts == 0
    scene.service.locates = [GONE, GONE]
    done = await carry(scene, planned(2, state=READY))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 1
    assert Planned(2) in scene.ledger.states


@on_virtual_time
async def test_an_outage_of_an_hour_in_mid_download_costs_time_only():
    """Neither 5xx nor 429, of the service or of the storage, costs an attempt or a new export."""
    scene = Scene(attempts=2)
    scene.service.locates = [DOWN, RateLimitedError("429")] * 10
    scene.downloads.fails = lambda _: DOWN if now() < 3600 else None
    done = await carry(scene, planned(state=READY))
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 0
    assert 3600 < now() < 3600 + 310
    assert len(scene.downloads.used) < 60


@on_virtual_time
async def test_a_storage_that_nobody_reaches_ends_the_run_after_the_outage():
    """Links may be had all the time: what counts is that no file comes."""
    scene = Scene()
    scene.downloads.fails = lambda _: DOWN
    with pytest.raises(UnavailableError) as failure:
        await carry(scene, planned(state=READY))
    assert not failure.value.transient
    assert OUTAGE <= now() <= OUTAGE + 310


@on_virtual_time
async def test_a_file_that_alone_cannot_be_reached_is_exported_again():
    """Where others come all the time, it is the bundle's own trouble, and the run goes on."""
    scene = Scene(attempts=2)
    bad = planned(0, state=READY)
    scene.downloads.fails = lambda bundle: DOWN if bundle == bad.bundle and scene.service.posts == 0 else None

    async def others() -> None:
        for number in range(1, 40):
            await carry(scene, planned(number, state=READY))
            await asyncio.sleep(600)

    done, _ = await asyncio.gather(carry(scene, bad), others())
    assert isinstance(done.state, Stored)
    assert scene.service.posts == 1
    assert Planned(2) in scene.ledger.states


@pytest.mark.parametrize("error", [StorageError("disk full"), LedgerError("broken")])
def test_a_disk_error_ends_the_run(error):
    """It is nobody's fault among the bundles, and would come again."""

    @on_virtual_time
    async def fail():
        scene = Scene()
        scene.downloads.fetches = [error]
        with pytest.raises(type(error)):
            await carry(scene, planned(state=READY))

    fail()


@on_virtual_time
async def test_a_refused_key_ends_the_run_in_mid_download():
    """A link that is answered with 401 says that the key is gone."""
    scene = Scene()
    scene.service.locates = [UnauthorizedError("401")]
    with pytest.raises(UnauthorizedError):
        await carry(scene, planned(state=READY))


@on_virtual_time
async def test_a_link_is_asked_for_only_when_a_slot_is_free():
    """It lives for minutes: whoever has it begins at once."""
    scene = Scene(slots=2)
    scene.downloads.takes = 1000.0
    tasks = [asyncio.create_task(carry(scene, planned(n, state=READY))) for n in range(5)]
    await at(900)
    assert scene.service.links == 2
    await at(1900)
    assert scene.service.links == 4
    await asyncio.wait(tasks)
    assert scene.downloads.peak == 2


@on_virtual_time
async def test_only_what_the_service_refuses_to_all_is_shared():
    """An outage and a 429 of the service are told as nobody's own; a storage host's and a bad file are the file's."""
    for locates, fails, shared in (
        ([DOWN], None, 1),
        ([RateLimitedError("429")], None, 1),
        ([], DOWN, 0),
        ([], CorruptError("crc"), 0),
    ):
        scene = Scene()
        scene.service.locates, scene.downloads.fetches = list(locates), [fails]
        await carry(scene, planned(state=READY))
        assert (len(scene.listener.retries), scene.listener.shared) == (1, shared)
    scene = Scene()
    scene.service.creates = [DOWN]
    await carry(scene, planned())
    assert scene.listener.shared == 1


@on_virtual_time
async def test_what_a_download_takes_is_known_from_the_first_that_is_done():
    """Before that nothing is said; afterwards one that goes on and on makes all look slower."""
    scene = Scene(slots=2)
    scene.downloads.takes = 10.0
    first = asyncio.create_task(carry(scene, planned(0, state=READY)))
    await at(6)
    assert scene.runner.fetching.seconds_each is None
    assert scene.runner.fetching.ages == [pytest.approx(5)]
    await first
    assert scene.runner.fetching.seconds_each == pytest.approx(10, abs=0.1)
    scene.downloads.takes = 1000.0
    task = asyncio.create_task(carry(scene, planned(1, state=READY)))
    await at(112)
    assert scene.runner.fetching.seconds_each == pytest.approx(10 + 100, abs=1)
    task.cancel()
    await asyncio.wait({task})
    assert scene.runner.fetching.ages == []


@on_virtual_time
async def test_what_came_of_a_cut_file_counts_as_received_until_it_is_whole():
    """Whoever watches sees that a big file comes, and does not see it twice."""
    scene = Scene()
    scene.downloads.fetches = [(500, IncompleteError("cut"))]
    task = asyncio.create_task(carry(scene, planned(state=READY)))
    await at(3.2)
    assert scene.runner.fetching.received == 500
    await task
    assert scene.runner.fetching.received == 0


@on_virtual_time
async def test_a_create_is_at_the_service_from_when_it_is_sent():
    """Before that its bundle waits for leave, and after the answer there is an operation."""
    scene = Scene()
    scene.gate.is_open.clear()
    task = asyncio.create_task(scene.runner.create(planned(), 1))
    await at(5)
    assert not scene.runner.creates.asking
    scene.gate.is_open.set()
    await at(5.5)
    assert scene.runner.creates.asking == {planned().bundle}
    await task
    assert not scene.runner.creates.asking


@on_virtual_time
async def test_a_bundle_counts_as_downloading_until_its_row_is_durable():
    """Whoever stops the run politely lets it have its row."""
    scene = Scene()
    scene.ledger.takes = 5.0
    task = asyncio.create_task(carry(scene, planned(state=READY)))
    await at(0.5)
    assert not scene.runner.fetching.downloading
    for moment in (2.0, 7.5):
        await at(moment)
        assert scene.runner.fetching.downloading == {planned().bundle}
    await task
    assert not scene.runner.fetching.downloading


# Being stopped


@on_virtual_time
async def test_a_create_that_waits_for_leave_is_taken_back():
    """Nothing was sent, and nothing is written."""
    scene = Scene()
    scene.gate.is_open.clear()
    task = asyncio.create_task(carry(scene, planned()))
    await settled()
    task.cancel()
    await asyncio.wait({task})
    await scene.runner.creates.finish()
    scene.gate.is_open.set()
    await settled()
    assert (scene.service.posts, scene.ledger.rows) == (0, [])


@on_virtual_time
async def test_a_create_that_was_sent_is_waited_for():
    """Its operation is in the ledger, though the bundle was stopped in the middle."""
    scene = Scene()
    task = asyncio.create_task(carry(scene, planned()))
    await at(0.5)
    task.cancel()
    await asyncio.wait({task})
    assert scene.ledger.states == [Creating(1, 0.0, SETTLE)]
    await scene.runner.creates.finish()
    assert scene.ledger.states[-1] == Created(1, 1.0, "op1", SETTLE)


@on_virtual_time
async def test_told_to_stop_now_it_waits_for_no_answer():
    """The intent stays in the ledger, for the next run to count."""
    scene = Scene()
    scene.service.takes = 60.0
    task = asyncio.create_task(carry(scene, planned()))
    await at(0.5)
    task.cancel()
    scene.runner.creates.drop()
    await scene.runner.creates.finish()
    await asyncio.wait({task})
    assert now() < 1
    assert [type(state) for state in scene.ledger.states] == [Creating]


@on_virtual_time
async def test_an_operation_that_cannot_be_put_on_record_is_not_kept_quiet():
    """Though nobody waits for the bundle any more, the ledger's failure is told."""
    scene = Scene()
    scene.ledger.fails = lambda row: LedgerError("full") if isinstance(row.state, Created) else None
    task = asyncio.create_task(carry(scene, planned()))
    await at(0.5)
    task.cancel()
    await asyncio.wait({task})
    with pytest.raises(LedgerError):
        await scene.runner.creates.finish()
