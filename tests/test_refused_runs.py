"""What refusals cost a run: limits on requests and time, checked in complete runs on a virtual clock."""

import pytest

from asyncexport.core.bundles import Range
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.exports import Definition, Export
from asyncexport.core.service.requests import Kind
from asyncexport.core.service.retrying import Call
from asyncexport.core.states import Created, Planned, Ready, Refused, Stored
from asyncexport.errors import ExportError, GoneError, RefusedError, ReplyError, UnauthorizedError
from asyncexport.simulate.run import Scenario
from tests.refusals_rig import Asked, Refuses, RefusingService, denied, run_scenario

MINUTE = 60.0

THREE = tuple(Export(name, Definition(segment=name)) for name in ("a", "b", "c"))


def from_the(nth: int, error: ExportError) -> Refuses:
    """Refuse every call from the nth on, counted from 1."""
    return lambda asked: error if asked.number >= nth - 1 else None


def for_minutes(minutes: float, error: ExportError, *, since: float = 20 * MINUTE) -> Refuses:
    """Refuse calls for that many minutes."""
    return lambda asked: error if since <= asked.at < since + minutes * MINUTE else None


# The key


@pytest.mark.parametrize("counts_all", [False, True])
@pytest.mark.parametrize(("call", "nth"), [(Call.CREATE, 20), (Call.RESULTS, 20), (Call.RESULTS, 1)])
def test_a_key_refused_during_a_run_ends_it_immediately(call, nth, counts_all):
    """A 401 is confirmed by one request to `/me`, and at most 5 requests are granted after it was read."""
    error = UnauthorizedError("401")
    service = RefusingService(refuses={call: from_the(nth, error)}, key_fails=lambda _: error)
    result = run_scenario(Scenario(142, counts_all=counts_all), service)
    assert isinstance(result.error, UnauthorizedError)
    assert exit_of(result.error) is Exit.KEY_REFUSED
    assert service.granted_after_first_refusal() <= 5
    assert sum(kind is Kind.OTHER for _, kind in service.sent) == 1


@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("call", [Call.CREATE, Call.RESULTS])
def test_a_403_of_the_service_ends_the_run_after_a_quarter_of_an_hour(call, lists):
    """If the service answers 403 and refuses `/me`, the run ends after 15 minutes and at most 8 more requests."""
    error = denied(from_service=True)
    service = RefusingService(refuses={call: from_the(20, error)}, key_fails=lambda _: error)
    result = run_scenario(Scenario(142, counts_all=False, lists=lists), service)
    assert result.error is not None
    assert exit_of(result.error) is Exit.KEY_REFUSED
    assert 15 * MINUTE <= result.seconds - service.read[0][0] < 17 * MINUTE
    assert service.granted_after_first_refusal() <= 8


@pytest.mark.parametrize("exports", [1, 3])
@pytest.mark.parametrize("counts_all", [False, True])
def test_a_key_forbidden_everything_is_probed_once_for_all_calls(counts_all, exports):
    """If the service suddenly answers every call with 403, only calls of the kind refused first are sent as probes."""
    error = denied(from_service=True)
    block = for_minutes(1e9, error)
    service = RefusingService(
        refuses={Call.CREATE: block, Call.RESULTS: block, Call.POLL: block, Call.LIST: block}, key_fails=lambda _: error
    )
    result = run_scenario(Scenario(142, counts_all=counts_all), service, exports=THREE[:exports])
    assert result.error is not None
    assert exit_of(result.error) is Exit.KEY_REFUSED
    assert service.granted_after_first_refusal() <= 8 + (exports - 1) + 4 * counts_all


def test_a_403_for_a_key_that_never_worked_ends_the_run_immediately():
    """If a key that never worked gets a 403 of the service and `/me` refuses it, too, the run ends within seconds."""
    error = denied(from_service=True)
    refuses = {Call.CREATE: from_the(1, error), Call.LIST: from_the(1, error)}
    service = RefusingService(refuses=refuses, key_fails=lambda _: error)
    result = run_scenario(Scenario(142, counts_all=False), service, key_has_worked=False)
    assert result.error is not None
    assert exit_of(result.error) is Exit.KEY_REFUSED
    assert result.seconds < 5
    assert service.counts[Call.CREATE] == 1


def test_a_401_of_a_proxy_is_waited_out():
    """If `/me` confirms the key, a 401 is waited out like any other refusal."""
    service = RefusingService(refuses={Call.CREATE: for_minutes(5, UnauthorizedError("401"))})
    result = run_scenario(Scenario(100, counts_all=False), service)
    assert result.error is None
    assert result.stored == {"simulated": 100}
    assert service.made == 100


# A proxy or firewall that blocks calls


@pytest.mark.parametrize("counts_all", [False, True])
@pytest.mark.parametrize("lists", [True, False])
@pytest.mark.parametrize("call", list(Call))
def test_a_block_of_five_minutes_costs_only_time(call, lists, counts_all):
    """If a proxy blocks one kind of call for five minutes, every bundle is stored and none is exported twice."""
    block = for_minutes(5, denied())
    service = RefusingService(refuses={} if call is Call.DOWNLOAD else {call: block})
    storage = block if call is Call.DOWNLOAD else None
    result = run_scenario(Scenario(80, counts_all=counts_all, lists=lists), service, storage=storage)
    assert result.error is None
    assert result.stored == {"simulated": 80}
    assert (service.made, result.attempts, result.stopped) == (80, 1, {})


@pytest.mark.parametrize("call", [Call.CREATE, Call.RESULTS, Call.DOWNLOAD, Call.POLL])
def test_a_lasting_block_stops_the_export(call):
    """If `/me` confirms the key, a block that lasts stops the export, and operations in flight stay in the ledger."""
    block = for_minutes(1e9, denied())
    service = RefusingService(refuses={} if call is Call.DOWNLOAD else {call: block})
    storage = block if call is Call.DOWNLOAD else None
    result = run_scenario(Scenario(300, counts_all=False, lists=call is not Call.POLL), service, storage=storage)
    assert result.error is None
    assert list(result.stopped) == ["simulated"]
    assert service.made < 140
    assert result.seconds < 2 * 3600
    assert result.attempts == 1
    unfinished = [state for state in result.states.values() if isinstance(state, Created | Ready)]
    assert bool(unfinished) == (call is not Call.CREATE)


@pytest.mark.parametrize("call", [Call.RESULTS, Call.DOWNLOAD])
def test_one_file_that_is_refused_is_parked_with_its_export(call):
    """A bundle whose file is refused while others succeed is parked with its export id, and not exported again."""
    refused: Refuses = lambda asked: denied() if asked.number % 5 == 3 else None  # noqa: E731
    service = RefusingService(refuses={call: refused} if call is Call.RESULTS else {})
    result = run_scenario(Scenario(60, counts_all=False), service, storage=refused if call is Call.DOWNLOAD else None)
    assert result.error is None
    assert service.made == 60
    parked = [state for state in result.states.values() if isinstance(state, Refused)]
    assert result.stored["simulated"] + len(parked) == 60
    assert result.attempts == 1


@pytest.mark.parametrize("from_service", [True, False])
@pytest.mark.parametrize("bundles", [1, 60])
def test_a_refused_first_file_alone_does_not_stop_the_export(bundles, from_service):
    """If only the first file of a run is refused, that bundle is parked and the export goes on."""
    first: list[str] = []

    def refused(asked: Asked) -> ExportError | None:
        first.append(asked.export_id)
        return denied(from_service=from_service) if asked.export_id == first[0] else None

    service = RefusingService(refuses={Call.RESULTS: refused})
    result = run_scenario(Scenario(bundles, counts_all=False), service)
    assert result.error is None
    assert result.stopped == {}
    assert service.made == bundles
    assert [type(state) for state in result.states.values() if not isinstance(state, Stored)] == [Refused]
    assert result.stored.get("simulated", 0) == bundles - 1


# One export of several


@pytest.mark.parametrize("error", [RefusedError("404", status=404, from_service=True), GoneError("404")])
def test_a_segment_deleted_during_a_run_stops_only_its_export(error):
    """When a segment is deleted, at most 5 of its creates are refused, and the other two exports complete."""
    refuses: Refuses = lambda asked: error if asked.segment == "b" and asked.at > 3600 else None  # noqa: E731
    service = RefusingService(refuses={Call.CREATE: refuses})
    result = run_scenario(Scenario(142, counts_all=False), service, exports=THREE)
    assert result.error is None
    assert list(result.stopped) == ["b"]
    assert len(service.read) <= 5
    assert result.stored["a"] == result.stored["c"] == 142
    left = {state for bundle, state in result.states.items() if bundle.export == "b" and isinstance(state, Planned)}
    assert left == {Planned(1)}


@pytest.mark.parametrize("call", [Call.CREATE, Call.RESULTS])
def test_an_undecided_refusal_ends_with_its_export(call):
    """If the export stops for another reason, a bundle whose 400 is still undecided does not keep the run waiting."""
    first: list[int] = []

    def refuses(asked: Asked) -> ExportError | None:
        if asked.at < 600:
            return None
        first.append(asked.number)
        return RefusedError("400", status=400) if asked.number == first[0] else denied()

    service = RefusingService(refuses={Call.CREATE: refuses})
    if call is Call.RESULTS:
        service.refuses[call] = for_minutes(1e9, denied(), since=600)
    result = run_scenario(Scenario(400, counts_all=False), service)
    assert result.error is None
    assert list(result.stopped) == ["simulated"]
    assert result.seconds < 2 * 3600


def test_a_newest_bundle_parked_for_another_reason_delays_no_other():
    """If the newest bundle is parked because its creates are unreadable, another bundle is tried in its place."""
    late: list[Range | None] = []

    def refuses(asked: Asked) -> ExportError | None:
        if asked.at < 600:
            return None
        late.append(asked.span)
        if len(late) <= 3:
            return RefusedError("400", status=400)
        return ReplyError("no JSON") if asked.span == late[3] else None

    result = run_scenario(Scenario(400, counts_all=False), RefusingService(refuses={Call.CREATE: refuses}))
    assert result.error is None
    assert not result.stopped
    assert result.stored == {"simulated": 396}


def test_a_finished_export_delays_no_other():
    """If one of two exports has parked its last unreadable bundle, the other one still finishes soon."""
    last, two = Range(141 * 1800, 142 * 1800), THREE[:2]
    refuses: Refuses = lambda asked: ReplyError("no JSON") if asked.span == last else None  # noqa: E731
    result = run_scenario(Scenario(142, counts_all=False), RefusingService(refuses={Call.CREATE: refuses}), exports=two)
    assert result.error is None
    assert result.stored == {"a": 141, "b": 141}
    assert result.seconds < 4 * 3600


def test_a_refusal_of_all_exports_is_probed_by_one():
    """If creates of all three exports are refused, only one export sends probes."""
    service = RefusingService(refuses={Call.CREATE: for_minutes(1e9, denied(from_service=True))})
    service.key_fails = lambda _: denied(from_service=True)
    result = run_scenario(Scenario(142, counts_all=False), service, exports=THREE)
    assert result.error is not None
    assert service.granted_after_first_refusal() <= 8 + sum(
        kind is not Kind.CREATE and at > service.read[0][0] for at, kind in service.sent
    )
    assert len(service.read) <= 3 + 5


def test_bundles_whose_data_is_too_old_do_not_stop_the_export():
    """After three refused creates the newest bundle is tried, and since it is accepted the export goes on."""
    refuses: Refuses = lambda asked: RefusedError("400", status=400) if _is_old(asked) else None  # noqa: E731
    service = RefusingService(refuses={Call.CREATE: refuses})
    result = run_scenario(Scenario(100, counts_all=False), service)
    assert result.error is None
    assert not result.stopped
    assert result.stored == {"simulated": 88}
    assert service.made == 88


def _is_old(asked: Asked) -> bool:
    return asked.span is not None and asked.span.start < 12 * 1800


# Operations that fail


@pytest.mark.parametrize("median", [60.0, 300.0, 3000.0])
@pytest.mark.parametrize("counts_all", [False, True])
def test_a_night_in_which_every_operation_fails_costs_few_creates(median, counts_all):
    """If every operation fails, 60 bundles cost at most 75 creates, and all of them stay at attempt 1."""
    service = RefusingService(fails=lambda _: True)
    result = run_scenario(Scenario(60, median_seconds=median, counts_all=counts_all), service)
    assert result.error is None
    assert service.made <= 75
    assert result.attempts == 1
    assert not result.stored


def test_a_service_that_fails_for_some_hours_costs_no_attempt():
    """A service whose operations all fail is probed until one completes, and every bundle resumes at its attempt."""
    service = RefusingService()
    service.fails = lambda number: service.ended_before(number, 1500.0)
    result = run_scenario(Scenario(100, counts_all=False), service)
    assert result.stored == {"simulated": 100}
    assert result.attempts == 1
    assert service.made < 170


def test_occasional_failures_count_against_the_bundle():
    """An operation that fails while others complete costs its bundle an attempt, and everything is stored."""
    service = RefusingService(fails=lambda number: number % 7 == 3)
    result = run_scenario(Scenario(100, counts_all=False), service)
    stored = [bundle.range.seconds for bundle, state in result.states.items() if isinstance(state, Stored)]
    assert sum(stored) == 100 * 1800
    # The few bundles that fail twice are split.
    assert 100 <= len(stored) <= 105
    assert result.attempts == 2
    assert service.made < 130


def test_an_export_whose_operations_all_fail_does_not_waste_the_budget():
    """If all operations of a year of bundles fail, few creates are sent, and the export stops within eight hours."""
    service = RefusingService(fails=lambda _: True)
    result = run_scenario(Scenario(8760, counts_all=False), service)
    assert result.error is None
    assert service.made <= 130
    assert result.attempts == 1
    assert list(result.stopped) == ["simulated"]
    assert result.seconds < 8 * 3600


def test_creates_that_become_unreadable_stop_the_export(caplog):
    """If creates become unreadable only probes are sent, and after a quarter of an hour the export stops."""
    service = RefusingService(refuses={Call.CREATE: from_the(20, ReplyError("no JSON"))})
    result = run_scenario(Scenario(142, counts_all=False), service)
    assert result.error is None
    assert list(result.stopped) == ["simulated"]
    assert len(service.read) < 30 + 10
    assert result.stored == {"simulated": 19}
    assert "creates are paused because an answer could not be read" in caplog.text
    assert "refused" not in caplog.text


@pytest.mark.parametrize("scope", [False, True])
def test_creates_that_were_never_readable_stop_the_export_at_the_second(scope):
    """If no create was ever readable, the export stops at the second unreadable answer, a minute after the first."""
    service = RefusingService(refuses={Call.CREATE: from_the(1, ReplyError("no JSON"))})
    result = run_scenario(Scenario(142, counts_all=scope), service)
    assert len(service.read) == 2
    assert 60 <= service.read[1][0] - service.read[0][0] < 70
    assert list(result.stopped) == ["simulated"]
