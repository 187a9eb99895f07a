"""The sandbox without a server: the rate limit, the reading of requests, and the states of operations over time."""

import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.bundles import DAY, read_timestamp, show
from asyncexport.core.exports import Format, Type
from asyncexport.sandbox import SandboxBehaviour, SandboxCertainty, SandboxFault, SandboxSyntheticRows
from asyncexport.sandbox.answers import stamp
from asyncexport.sandbox.behaviour import changed, describe, switches
from asyncexport.sandbox.limit import SandboxRateLimit, retry_after_header
from asyncexport.sandbox.reading import SandboxRefusal, SandboxTimeSpan, read_export_request
from asyncexport.sandbox.routes import route, routing_error
from asyncexport.sandbox.service import SandboxService

NOW = 1_780_000_000.0
"""A time in 2026."""

START = 1_779_913_800
HALF_HOUR = 1800

QUICK = SandboxBehaviour(operation_seconds=0.0, requests_per_minute=1e6, burst=1_000_000, rows_per_hour=60, quiet=0)
"""Operations finish immediately, and the rate limit is never reached."""

SLOW = replace(QUICK, operation_seconds=1000.0, operation_sigma=0.0)

HAUSER_FIELDS = [f"Field{number}" for number in range(58)] + ["user_*", "evt_*", "page_*"]


def stopped_clock():
    return NOW


def export_body(**changes):
    times = {"start": show(START), "end": show(START + HALF_HOUR)}
    body = {"segmentId": "everyone", "type": "TYPE_EVENT", "format": "FORMAT_CSV", "timeRange": times}
    return {**body, "segmentTimeRange": times, **changes}


def read(body):
    return read_export_request(orjson.dumps(body))


class TestLimit:
    """The rate limit; no server, no waiting."""

    def test_a_burst_and_then_two_a_minute(self):
        """Fifty creates pass immediately, the next after half a minute, and another after half a minute more."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour()
        assert [limit.take_token("create", behaviour, now=NOW) for _ in range(50)] == [None] * 50
        assert limit.take_token("create", behaviour, now=NOW) == pytest.approx(30)
        assert limit.take_token("create", behaviour, now=NOW + 29) == pytest.approx(1)
        assert limit.take_token("create", behaviour, now=NOW + 30) is None
        assert limit.take_token("create", behaviour, now=NOW + 30) == pytest.approx(30)

    def test_an_idle_day_fills_the_bucket(self):
        """After a day the bucket is full, but not fuller."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=3)
        for _ in range(3):
            assert limit.take_token("create", behaviour, now=NOW) is None
        later = [limit.take_token("create", behaviour, now=NOW + DAY) is None for _ in range(5)]
        assert later == [True, True, True, False, False]

    def test_only_creates_count_with_scope_create(self):
        """Polls never take a token."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=1, scope="create")
        assert all(limit.take_token("poll", behaviour, now=NOW) is None for _ in range(9))
        assert limit.take_token("create", behaviour, now=NOW) is None

    def test_every_call_counts_with_scope_all(self):
        """A poll takes a token that a create then lacks."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=1, scope="all")
        assert limit.take_token("poll", behaviour, now=NOW) is None
        assert limit.take_token("create", behaviour, now=NOW) is not None

    def test_each_endpoint_may_have_its_own_bucket(self):
        """Polls then take no token from creates."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=1, scope="all", bucket_each=True)
        assert limit.take_token("poll", behaviour, now=NOW) is None
        assert limit.take_token("create", behaviour, now=NOW) is None
        assert limit.take_token("create", behaviour, now=NOW) is not None

    def test_a_refused_call_may_cost_a_token(self):
        """With refusal_costs, each early retry makes the wait longer."""
        for costs, waits in ((False, [30.0, 30.0, 30.0]), (True, [60.0, 90.0, 90.0])):
            limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=2, refusal_costs=costs)
            for _ in range(2):
                assert limit.take_token("create", behaviour, now=NOW) is None
            assert [limit.take_token("create", behaviour, now=NOW) for _ in range(3)] == pytest.approx(waits)

    def test_a_token_can_be_given_back(self):
        """It returns to the bucket from which it came."""
        for behaviour in (SandboxBehaviour(burst=1), SandboxBehaviour(burst=1, scope="all", bucket_each=True)):
            limit = SandboxRateLimit()
            assert limit.take_token("create", behaviour, now=NOW) is None
            limit.give_back("poll", behaviour)
            assert limit.take_token("create", behaviour, now=NOW) is not None
            limit.give_back("create", behaviour)
            assert limit.take_token("create", behaviour, now=NOW) is None

    def test_speed_refills_the_bucket_faster(self):
        """At speed 60 a token is back after half a second."""
        limit, behaviour = SandboxRateLimit(), SandboxBehaviour(burst=1, speed=60)
        assert limit.take_token("create", behaviour, now=NOW) is None
        assert limit.take_token("create", behaviour, now=NOW) == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            ("seconds", "30"),
            ("missing", None),
            ("zero", "0"),
            ("negative", "-30"),
            ("short", "1"),
            ("huge", "99999999999"),
            ("garbage", "soon"),
        ],
    )
    def test_retry_after_has_many_forms(self, kind, value):
        """The header is a number of whole seconds, rounded up, or a form that clients must tolerate."""
        assert dict(retry_after_header(kind, 29.2, now=NOW)).get("Retry-After") == value

    def test_retry_after_may_be_a_date(self):
        """The date is not before the time at which a token is available."""
        ((_, value),) = retry_after_header("date", 29.2, now=NOW + 0.5)
        assert parsedate_to_datetime(value) == datetime.fromtimestamp(NOW + 30, UTC)


class TestReading:
    """Bodies of creates: those that existing clients send, and invalid ones."""

    def test_hauser_s_body(self):
        """Empty times for the segment leave its range open, and wildcards among 61 fields are accepted."""
        order = read(export_body(segmentTimeRange={"start": "", "end": ""}, fields=HAUSER_FIELDS))
        assert order.segment_span == SandboxTimeSpan(None, None)
        assert order.fields == tuple(HAUSER_FIELDS)
        assert order.span == SandboxTimeSpan(START, START + HALF_HOUR)

    def test_null_fields_mean_the_default_ones(self):
        """`"fields":null` is the same as no fields."""
        assert read(export_body(fields=None)).fields == ()

    def test_segex_s_body(self):
        """snake_case keys and milliseconds are accepted."""
        times = {"start": "2026-01-01T00:00:00.000Z", "end": "2026-01-01T00:15:00.000Z"}
        order = read({"segment_id": "everyone", "type": "TYPE_EVENT", "format": "FORMAT_NDJSON", "time_range": times})
        assert order.format is Format.NDJSON
        assert order.segment_span is None
        assert order.span == SandboxTimeSpan(1_767_225_600, 1_767_226_500)

    def test_fs_cli_s_body(self):
        """Both ranges, a scope and an unknown key are accepted."""
        order = read(export_body(eventDetails={"scope": "SCOPE_INDIVIDUAL"}, type="TYPE_EVENT", unheardOf={"a": 1}))
        assert order.scope == "SCOPE_INDIVIDUAL"
        assert order.type is Type.EVENT

    def test_times_may_have_nine_fraction_digits(self):
        """Fractions of a second are kept."""
        order = read(
            export_body(timeRange={"start": "2026-01-01T00:00:00.25Z", "end": "2026-01-01T00:00:00.500000000Z"})
        )
        assert order.span == SandboxTimeSpan(1_767_225_600.25, 1_767_225_600.5)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"segmentId": None}, "segmentId is required"),
            ({"type": None}, "type is required"),
            ({"format": ""}, "format is required"),
            ({"timeRange": None}, "timeRange is required"),
            ({"type": "EVENT"}, "type is not one of TYPE_EVENT, TYPE_INDIVIDUAL"),
            ({"format": "FORMAT_PARQUET"}, "format is not one of"),
            ({"fields": ["a", "b", "a"]}, "fields has a twice"),
            ({"fields": [*map(str, range(200_000)), "0"]}, "fields has 0 twice"),
            ({"fields": "a"}, "fields is not a list"),
            (
                {"timeRange": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}},
                "must end after its start",
            ),
            ({"timeRange": {"start": "yesterday", "end": ""}}, "timeRange.start is not a time stamp"),
            ({"timeRange": {"start": 7, "end": ""}}, "timeRange.start is not a time stamp"),
            ({"timeRange": "2026"}, "timeRange is not an object"),
            ({"segmentId": 7}, "segmentId is not a string"),
            ({"eventDetails": {"scope": "SCOPE_ALL"}}, "eventDetails.scope is not a known scope"),
            ({"eventDetails": []}, "eventDetails is not an object"),
        ],
    )
    def test_an_invalid_export_is_refused(self, changes, said):
        """The status is 400, and the message says what is wrong."""
        with pytest.raises(SandboxRefusal, match=re.escape(said)) as caught:
            read(export_body(**changes))
        assert caught.value.status == 400

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
    def test_a_body_that_is_not_a_json_object_is_refused(self, body):
        """The status is 400."""
        with pytest.raises(SandboxRefusal) as caught:
            read_export_request(body)
        assert caught.value.status == 400


class TestRoutes:
    """The endpoint of a path."""

    @pytest.mark.parametrize(
        ("method", "path", "endpoint", "identifier"),
        [
            ("POST", "/segments/v1/exports", "create", ""),
            ("GET", "/operations/v1?limit=5", "list", ""),
            ("GET", "/operations/v1/ab%2Fcd%3D%3D", "poll", "ab/cd=="),
            ("GET", "/search/v1/exports/a_b-c/results", "results", "a_b-c"),
            ("GET", "/segments/v1", "segments", ""),
            ("GET", "/segments/v1/user%40example.com%3A41", "segment", "user@example.com:41"),
            ("GET", "/me", "me", ""),
            ("GET", "/storage/x/y?z", "download", ""),
        ],
    )
    def test_each_call_has_its_path(self, method, path, endpoint, identifier):
        """Ids are decoded."""
        found = route(method, path, strict_ids=True)
        assert found is not None
        assert (found.endpoint, found.id) == (endpoint, identifier)

    @pytest.mark.parametrize(
        "path", ["/operations/v1/ab/cd==", "/operations/v1/abcd==", "/operations/v1/ab%2", "/operations/v1/", "/", ""]
    )
    def test_an_id_that_is_not_encoded_is_not_found(self, path):
        """With strict ids, an id that is not percent-encoded is not found."""
        assert route("GET", path, strict_ids=True) is None

    @given(st.text("AZaz09+/=_-@:.", min_size=1))
    def test_lenient_ids_may_be_unencoded(self, identifier):
        """Any id is found at its place, encoded or not."""
        for before, after, endpoint in (
            ("/operations/v1/", "", "poll"),
            ("/search/v1/exports/", "/results", "results"),
            ("/segments/v1/", "", "segment"),
        ):
            for sent in (identifier, quote(identifier), quote(identifier, safe="")):
                found = route("GET", f"{before}{sent}{after}?x=y", strict_ids=False)
                assert found is not None
                assert (found.endpoint, found.id) == (endpoint, identifier)
        encoded = route("GET", f"/operations/v1/{quote(identifier, safe='')}", strict_ids=True)
        assert encoded is not None
        assert encoded.id == identifier

    @pytest.mark.parametrize(
        ("method", "path", "said"),
        [
            (
                "GET",
                "/operations/v1/ab/cd==",
                "the id ab/cd== is not percent-encoded in the path: send ab%2Fcd%3D%3D, ",
            ),
            ("GET", "/search/v1/exports/a/b/results", "the id a/b is not percent-encoded in the path: send a%2Fb, or"),
            ("POST", "/operations/v1?x", "/operations/v1 accepts GET, not POST"),
            ("POST", "/segments/v1/exports/", "there is no /segments/v1/exports/: remove the slash at its end"),
            ("DELETE", "/segments/v1/exports", "/segments/v1/exports accepts POST, not DELETE"),
            ("GET", "/operations/v1/", "there is no /operations/v1/: remove the slash at its end"),
            (
                "PUT",
                "/nowhere",
                "there is no /nowhere; known paths: POST /segments/v1/exports, GET /operations/v1, GET",
            ),
            ("GET", "/\udcff\n\u00fc", "there is no /\\udcff\\n\\xfc; known paths: POST"),
            ("GET", "/" + "x" * 9000, f"there is no /{'x' * 199}...; known paths: POST"),
        ],
        ids=lambda text: ascii(text)[:30],
    )
    def test_a_404_says_what_is_wrong(self, method, path, said):
        """It says what to send instead, if that is clear; an id in two path segments is taken as unencoded."""
        assert route(method, path, strict_ids=True) is None
        assert routing_error(method, path).startswith(said)

    def test_methods_matter(self):
        """A GET creates nothing, and a POST lists nothing."""
        assert route("POST", "/operations/v1", strict_ids=True) is None
        found = route("GET", "/segments/v1/exports", strict_ids=True)
        assert found is None or found.endpoint == "segment"


class TestOperations:
    """The states of operations over time; the clock is a number."""

    def _made(self, service, count=1, now=NOW):
        order = read(export_body())
        return [orjson.loads(service.create(order, now=now).body)["operationId"] for _ in range(count)]

    def _shown(self, service, identifier, now):
        return orjson.loads(service.poll(identifier, now=now).body)

    def _page(self, service, now=NOW, **query):
        return orjson.loads(service.list(query, now=now).body)

    def _listed(self, service, now=NOW, **query):
        """Return every item of every page, and the number of items on each page."""
        items, sizes, token = [], [], ""
        while True:
            data = self._page(service, now, **query, paginationToken=token)
            items += data["operations"]
            sizes.append(len(data["operations"]))
            token = data.get("nextPaginationToken", "")
            if not token:
                return items, sizes

    def test_an_operation_from_beginning_to_end(self):
        """It is PENDING without results, then COMPLETED with an export id of 43 characters and an expiry time."""
        service = SandboxService(SLOW)
        (identifier,) = self._made(service)
        before, after = (self._shown(service, identifier, NOW + seconds) for seconds in (999, 1000))
        assert (before["state"], before["results"], before["finishedAt"]) == ("PENDING", None, None)
        assert (before["type"], before["details"], before["errorDetails"]) == ("SEARCH_EXPORT", None, "")
        assert (after["state"], after["estimatePctComplete"]) == ("COMPLETED", 100)
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", after["results"]["searchExportId"])
        assert after["results"]["expires"] == stamp(NOW + 6.5 * DAY, digits=3)
        assert after["createdAt"] == stamp(NOW, digits=6)
        assert after["finishedAt"] == stamp(NOW + 1000, digits=6)

    def test_the_estimate_is_not_reliable(self):
        """It sometimes goes down, and 100 alone does not mean that the operation is complete."""
        service = SandboxService(SLOW)
        (identifier,) = self._made(service)
        seen = [self._shown(service, identifier, NOW + second)["estimatePctComplete"] for second in range(0, 1000, 10)]
        assert any(later < earlier for earlier, later in zip(seen, seen[1:], strict=False))
        assert all(0 <= value <= 100 for value in seen)
        assert seen[0] == 0
        assert seen[-1] > 50

    def test_some_pending_operations_have_a_finished_at(self):
        """Some PENDING operations have `finishedAt`, unless that is switched off; some lack `step`."""
        for early in (True, False):
            service = SandboxService(replace(SLOW, finished_at_early=early))
            shown = [self._shown(service, identifier, NOW + 1) for identifier in self._made(service, 20)]
            assert any(one["finishedAt"] for one in shown) == early
            assert {one.get("step") for one in shown} == {"", None}

    @pytest.mark.parametrize(
        ("switch", "shown_start"),
        [("year-1", "0001-01-01"), ("year-9999", "9999-12-31"), ("missing", ""), ("right", "2026-")],
    )
    def test_created_at_may_be_nonsense(self, switch, shown_start):
        """Only `createdAt` is affected."""
        service = SandboxService(replace(SLOW, created_at=switch))
        (identifier,) = self._made(service, 1)
        assert (self._shown(service, identifier, NOW + 1)["createdAt"] or "").startswith(shown_start)

    def test_durations_vary_around_their_median_and_repeat_with_the_seed(self):
        """About half of the durations are longer than the median; the same seed gives the same durations."""

        def durations(seed):
            service = SandboxService(replace(SLOW, operation_sigma=0.5, seed=seed))
            self._made(service, 400)
            return [one.ends_at - NOW for one in service.operations]

        assert durations(1) == durations(1) != durations(2)
        longer = sum(seconds > 1000 for seconds in durations(1))
        assert 150 < longer < 250

    def test_speed_shortens_durations_and_expiries(self):
        """At speed 100 an operation of 1000 s takes 10 s, and its export expires after a hundredth of its lifetime."""
        service = SandboxService(replace(SLOW, speed=100))
        (identifier,) = self._made(service)
        assert self._shown(service, identifier, NOW + 9.9)["state"] == "PENDING"
        done = self._shown(service, identifier, NOW + 10)
        assert done["results"]["expires"] == stamp(NOW + 0.065 * DAY, digits=3)

    def test_slots_make_operations_queue(self):
        """With two slots, five operations of 1000 s end in pairs."""
        service = SandboxService(replace(SLOW, slots=2))
        self._made(service, 5)
        assert [one.ends_at - NOW for one in service.operations] == [1000, 1000, 2000, 2000, 3000]
        assert service.operations[4].percent(NOW + 1500) == 0

    def test_too_many_operations_may_be_refused(self):
        """With a limit, one create too many gets a 429 until an operation has ended."""
        service = SandboxService(replace(SLOW, most_running=2))
        self._made(service, 2)
        with pytest.raises(SandboxRefusal) as caught:
            self._made(service)
        assert caught.value.status == 429
        assert self._made(service, now=NOW + 1000)

    def test_equal_creates_may_share_an_operation(self):
        """With merge_equal, the second create gets the operation of the first while that is running."""
        service = SandboxService(replace(SLOW, merge_equal=True))
        assert len(set(self._made(service, 3))) == 1
        assert len(service.operations) == 1
        self._made(service, now=NOW + 1000)
        assert len(service.operations) == 2

    def test_an_idempotency_key_is_ignored_by_default(self):
        """By default a repeated create makes another operation."""
        for honoured, count in ((False, 2), (True, 1)):
            service = SandboxService(replace(SLOW, honour_idempotency_key=honoured))
            for _ in range(2):
                service.create(read(export_body()), now=NOW, idempotency_key="once")
            assert len(service.operations) == count

    def test_ids_are_never_those_of_another_process(self):
        """A new sandbox with the same seed does not know the operations of the previous one."""
        (first,), (second,) = self._made(SandboxService(SLOW)), self._made(SandboxService(SLOW))
        assert first != second

    def test_ids_need_encoding(self):
        """All ids end in `=`, and some contain a slash; plain ids have neither."""
        ids = self._made(SandboxService(SLOW), 60)
        assert all(identifier.endswith("=") for identifier in ids)
        assert any("/" in identifier for identifier in ids)
        assert all(re.fullmatch("[0-9a-f]+", one) for one in self._made(SandboxService(replace(SLOW, ids="plain")), 5))

    @pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
    def test_the_list_has_each_operation_once(self, order):
        """Pages have at most 100 operations in any order, and the last page has no token."""
        service = SandboxService(replace(SLOW, list_order=order))
        ids = self._made(service, 250)
        items, sizes = self._listed(service, limit="1000")
        assert sizes == [100, 100, 50]
        found = [item["id"] for item in items]
        assert sorted(found) == sorted(ids)
        assert (found == ids) == (order == "oldest")
        assert (found == ids[::-1]) == (order == "newest")

    def test_the_list_stays_complete_while_operations_are_made(self):
        """A new operation moves no item, unless pages are counted from the top."""
        for moves in (False, True):
            service = SandboxService(replace(SLOW, list_moves=moves))
            ids = self._made(service, 150)
            first = self._page(service)
            self._made(service, 10)
            second = self._page(service, paginationToken=first["nextPaginationToken"])
            found = Counter(item["id"] for item in first["operations"] + second["operations"])
            assert set(ids) <= set(found)
            assert (max(found.values()) == 2) == moves

    def test_the_list_can_be_filtered(self):
        """State and type are filters; a finished operation disappears from the pending ones."""
        service = SandboxService(replace(SLOW, foreign_per_operation=3))
        early = self._made(service, 3)
        late = self._made(service, 2, now=NOW + 500)
        pending, _ = self._listed(service, now=NOW + 1200, type="SEARCH_EXPORT", state="PENDING")
        done, _ = self._listed(service, now=NOW + 1200, type="SEARCH_EXPORT", state="COMPLETED")
        assert {item["id"] for item in pending} >= set(late)
        assert {item["id"] for item in done} >= set(early)
        assert not {item["id"] for item in pending} & set(early)
        deleted, _ = self._listed(service, now=NOW + 1200, type="DELETE_USER")
        assert {item["type"] for item in deleted} == {"DELETE_USER"}

    def test_operations_of_other_clients_are_listed_too(self):
        """There are some from the week before and some made along with each own operation; they can be polled."""
        service = SandboxService(replace(SLOW, old_operations=30, foreign_per_operation=2))
        ids = self._made(service, 5)
        items, _ = self._listed(service)
        assert len(items) == 30 + 5 * 3
        assert [item["id"] for item in items if item["id"] in ids] == ids[::-1]
        oldest = read_timestamp(items[-1]["createdAt"])
        assert NOW - 7 * DAY <= oldest < NOW
        assert {item["state"] for item in items} == {"PENDING", "COMPLETED", "FAILED"}
        assert self._shown(service, items[-1]["id"], NOW)["id"] == items[-1]["id"]

    def test_the_list_may_lack_ids_and_old_operations(self):
        """Switches control both."""
        service = SandboxService(replace(SLOW, list_ids=False, list_reaches=10))
        self._made(service, 25)
        items, _ = self._listed(service)
        assert len(items) == 10
        assert not any("id" in item for item in items)

    @pytest.mark.parametrize(
        "query", [{"limit": "x"}, {"limit": "0"}, {"paginationToken": "p-1"}, {"paginationToken": "?"}]
    )
    def test_an_invalid_query_is_refused(self, query):
        """The status is 400."""
        with pytest.raises(SandboxRefusal) as caught:
            SandboxService(SLOW).list(query, now=NOW)
        assert caught.value.status == 400

    def test_an_operation_expires(self):
        """After its lifetime it gets a 404 and is no longer listed."""
        service = SandboxService(SLOW)
        (identifier,) = self._made(service)
        with pytest.raises(SandboxRefusal) as caught:
            service.poll(identifier, now=NOW + 31 * DAY)
        assert caught.value.status == 404
        assert self._listed(service, now=NOW + 31 * DAY) == ([], [0])

    def test_an_export_expires(self):
        """It expires before its operation, which still reports its id."""
        service = SandboxService(QUICK)
        (identifier,) = self._made(service)
        export_id = service.operations[0].export_id
        assert service.exported(export_id, now=NOW + 6 * DAY)
        with pytest.raises(SandboxRefusal) as caught:
            service.exported(export_id, now=NOW + 7 * DAY)
        assert caught.value.status == 404
        assert self._shown(service, identifier, NOW + 7 * DAY)["results"]["searchExportId"] == export_id

    def test_an_export_that_is_not_ready_is_refused(self):
        """A switch sets the status."""
        service = SandboxService(replace(SLOW, not_ready=409))
        self._made(service)
        with pytest.raises(SandboxRefusal) as caught:
            service.exported(service.operations[0].export_id, now=NOW + 1)
        assert caught.value.status == 409

    @pytest.mark.parametrize("status", [400, 404])
    def test_an_unknown_segment_is_refused(self, status):
        """A switch sets the status."""
        service = SandboxService(replace(SLOW, unknown_segment=status))
        with pytest.raises(SandboxRefusal) as caught:
            service.create(read(export_body(segmentId="unknown")), now=NOW)
        assert caught.value.status == status

    def test_unknown_fields_may_be_refused(self):
        """They are ignored by default; if they are refused, the prefixes of custom fields are still accepted."""
        order = read(export_body(fields=["EventStart", "evt_*", "user_plan_str", "Nonsense"]))
        SandboxService(SLOW).create(order, now=NOW)
        with pytest.raises(SandboxRefusal, match="there is no field Nonsense"):
            SandboxService(replace(SLOW, unknown_field="refused")).create(order, now=NOW)

    def test_a_range_may_be_too_wide(self):
        """A switch sets the widest range."""
        with pytest.raises(SandboxRefusal, match="too wide"):
            SandboxService(replace(SLOW, longest_range_seconds=900)).create(read(export_body()), now=NOW)


class TestRanges:
    """The range of rows of an export; times are days before now."""

    def _span(self, behaviour=QUICK, **changes):
        start, end = SandboxService(behaviour).span(read(export_body(**changes)), NOW)
        return (NOW - start) / DAY, (NOW - end) / DAY

    def _days_ago(self, start, end):
        return {"start": show(NOW - start * DAY) if start else "", "end": show(NOW - end * DAY) if end else ""}

    def test_the_segment_s_range_is_applied(self):
        """Rows lie in both ranges."""
        found = self._span(timeRange=self._days_ago(60, 40), segmentTimeRange=self._days_ago(50, 30))
        assert found == pytest.approx((50, 40))

    def test_without_a_segment_range_thirty_days_are_covered(self):
        """Older rows are missing without any notice."""
        assert self._span(timeRange=self._days_ago(60, 10), segmentTimeRange=None) == pytest.approx((30, 10))
        first, last = self._span(timeRange=self._days_ago(60, 40), segmentTimeRange=None)
        assert first == last

    def test_open_ends(self):
        """An empty end means now, an empty start the oldest data."""
        times = self._days_ago(0, 0)
        assert self._span(timeRange=times, segmentTimeRange=times) == pytest.approx((365, 0))
        kept = replace(QUICK, retention_seconds=90 * DAY)
        assert self._span(kept, timeRange=times, segmentTimeRange=times) == pytest.approx((90, 0))

    def test_data_beyond_retention_is_deleted(self):
        """A range before it is empty."""
        kept = replace(QUICK, retention_seconds=90 * DAY)
        times = self._days_ago(120, 100)
        first, last = self._span(kept, timeRange=times, segmentTimeRange=times)
        assert first == last


class TestBehaviour:
    """The switches."""

    def test_every_switch_has_a_description_and_a_certainty(self):
        """The list distinguishes guesses from facts."""
        for one in switches():
            assert one.metadata["basis"] in SandboxCertainty
            assert len(one.metadata["says"]) > 10
            assert one.name in describe()
        guesses = [one.name for one in switches() if one.metadata["basis"] is SandboxCertainty.GUESS]
        assert "scope" in guesses
        assert "list_order" in guesses

    def test_an_impossible_value_is_refused(self):
        """A misspelt value is not replaced by the default."""
        for odd in ({"scope": "both"}, {"retry_after": "later"}, {"unknown_segment": 500}, {"speed": 0}, {"burst": 0}):
            with pytest.raises(ValueError, match=r"must be one of|must be more than zero"):
                replace(SandboxBehaviour(), **odd)

    def test_switches_can_be_set_by_name(self):
        """Values may be text, as on a command line, including lists and None."""
        given = {
            "speed": "60",
            "slots": "3",
            "list_ids": "false",
            "retention_seconds": "none",
            "unknown_segment": "404",
            "delivery": "nested",
            "faults": "create:503,nth=2 me:reset",
        }
        found = changed(SandboxBehaviour(retention_seconds=1.0), given)
        assert found == SandboxBehaviour(
            speed=60.0,
            slots=3,
            list_ids=False,
            unknown_segment=404,
            delivery="nested",
            faults=(SandboxFault("create", "503", nth=2), SandboxFault("me", "reset")),
        )
        for odd in ({"speeed": "1"}, {"slots": "many"}, {"list_ids": "yes"}, {"rows": "x"}):
            with pytest.raises(ValueError, match=r"there is no switch|cannot be"):
                changed(SandboxBehaviour(), odd)

    def test_rows_can_come_from_any_source(self):
        """Any object with the interface of `SandboxRows` can be used."""
        rows = SandboxSyntheticRows(seed=7, rows_per_hour=30)
        order, behaviour = read(export_body()), replace(QUICK, rows=rows)
        assert SandboxService(behaviour).create(order, now=NOW).status == 200
