"""The sandbox without faults: the documented API, and switches for what the documentation leaves open."""

import asyncio
import base64
import gc
import gzip
import re
import ssl
from collections import Counter
from dataclasses import replace
from urllib.parse import quote

import orjson
import pytest
import trustme
from blockbuster import blockbuster_ctx

from asyncexport.core.bundles import DAY, show
from asyncexport.sandbox import SandboxBehaviour, SandboxFault, serving
from asyncexport.sandbox.formats import row_json
from tests.sandbox_client import Caller, ask

NOW = 1_780_000_000.0
"""A time in 2026, for clocks that stand still."""

START = 1_779_913_800
HALF_HOUR = 1800

QUICK = SandboxBehaviour(operation_seconds=0.0, requests_per_minute=1e6, burst=1_000_000, rows_per_hour=60, quiet=0)
"""Operations finish immediately, and the rate limit is never reached."""


def stopped_clock():
    return NOW


def texts(rows):
    return Counter(map(row_json, rows))


async def test_an_export_from_create_to_rows():
    """Create, poll, results call and download give exactly the rows of the range."""
    async with serving(QUICK) as box:
        call = Caller(box)
        got = gzip.decompress((await call.download(await call.located(START, START + DAY))).body)
        assert Counter(got.splitlines()) == texts(box.events(START, START + DAY))
        assert len(got.splitlines()) > 1000
        (made,) = box.operations
        assert made.range == (START, START + DAY)
        assert (made.state, made.type, made.format, made.segment) == ("COMPLETED", "event", "ndjson", "everyone")


async def test_each_reply_is_one_line_of_json_with_ampersands_escaped():
    """Ampersands are JSON escapes; the signed URL's expiry has nine fraction digits, `createdAt` six."""
    async with serving(QUICK) as box:
        call = Caller(box)
        operation_id = await call.created(START, START + HALF_HOUR)
        polled = await call.poll(operation_id)
        results = await call.results(polled.data["results"]["searchExportId"])
        for got in (polled, results, await call.get("/me"), await call.get("/segments/v1")):
            assert got.status == 200
            assert got.header("Content-Type") == "application/json"
            assert got.body.count(b"\n") == 1
            assert b"&" not in got.body
        assert b"\\u0026" in results.body
        assert re.search(rb'"expires":"[^"]+\.\d{9}Z"', results.body)
        assert re.search(rb'"createdAt":"[^"]+\.\d{6}Z"', polled.body)
        assert re.search(rb'"expires":"[^"]+\.\d{3}Z"', polled.body)
        assert (await call.get("/me")).data == {"email": "owner@example.com", "orgId": "ORG", "role": "ADMIN"}


async def test_the_key_is_sent_unencoded():
    """A missing, wrong or base64-encoded key, or a bearer token, gets a 401 and costs no token."""
    async with serving(replace(QUICK, burst=1, scope="all")) as box:
        encoded = base64.b64encode(box.key.encode()).decode()
        for value in (None, "", "Basic", f"Basic {encoded}", "Basic na1.other", f"Bearer {box.key}", box.key):
            headers = {} if value is None else {"Authorization": value}
            assert (await ask(box.url, "/me", headers=headers)).status == 401
        assert box.counts["me"] == 7
        assert (await Caller(box).get("/me")).status == 200
        box.behave(replace(QUICK, bearer=True))
        assert (await ask(box.url, "/me", headers={"Authorization": f"Bearer {box.key}"})).status == 200


async def test_a_429_has_a_retry_after():
    """A 429 has `Retry-After` in whole seconds, is counted, and ends when that time has passed."""
    async with serving(SandboxBehaviour(burst=2, scope="create"), clock=stopped_clock) as box:
        call = Caller(box)
        statuses = [(await call.create(START, START + HALF_HOUR)).status for _ in range(3)]
        refused = await call.create(START, START + HALF_HOUR)
        assert statuses == [200, 200, 429]
        assert refused.header("Retry-After") == "30"
        assert refused.data["code"] == "too_many_requests"
        assert (box.counts["create"], box.refused, len(box.operations)) == (4, 2, 2)
        assert (await call.get("/operations/v1")).status == 200
        box.skip(30)
        assert (await call.create(START, START + HALF_HOUR)).status == 200


async def test_downloads_have_no_rate_limit_and_need_no_key():
    """A download with the key is counted as a leak."""
    async with serving(replace(QUICK, burst=3, requests_per_minute=1e-3, scope="all")) as box:
        call = Caller(box)
        link = await call.located(START, START + HALF_HOUR)
        assert (await call.get("/me")).status == 429
        assert [(await call.download(link)).status for _ in range(5)] == [200] * 5
        assert box.leaked_credentials == 0
        await call.download(link, Authorization="Basic anything")
        assert box.leaked_credentials == 1


@pytest.mark.parametrize("costs", [True, False])
async def test_a_create_that_fails_may_cost_nothing(costs):
    """A switch decides whether a 400 or a 503 takes a token."""
    behaviour = SandboxBehaviour(burst=1, failure_costs=costs, faults=(SandboxFault("create", "503", nth=2),))
    async with serving(behaviour, clock=stopped_clock) as box:
        call = Caller(box)
        statuses = [(await call.create(START, START + HALF_HOUR, format="FORMAT_PARQUET")).status]
        statuses += [(await call.create(START, START + HALF_HOUR)).status for _ in range(3)]
        assert statuses == ([400, 429, 429, 429] if costs else [400, 503, 200, 429])


@pytest.mark.parametrize("form", ["json", "error", "text", "html", "empty"])
async def test_errors_have_the_form_that_is_set(form):
    """The form of version 1 is not documented, so it is a switch."""
    async with serving(replace(QUICK, error_body=form)) as box:
        got = await Caller(box).get("/operations/v1/none")
        assert got.status == 404
        said = {
            "json": b'{"code":"resource_not_found","message":"no operation has the id none"}\n',
            "error": b'{"error":"no operation has the id none"}\n',
            "text": b"no operation has the id none\n",
            "empty": b"",
        }
        assert got.body == said[form] if form in said else b"<title>404" in got.body


async def test_unknown_headers_and_paths():
    """Unknown headers are ignored; unknown paths get a 404 and are counted as other."""
    async with serving(QUICK) as box:
        call = Caller(box)
        got = await call.get("/me", headers={"Integration-Source": "x", "X-Odd": "y", "Accept": "text/weird"})
        assert got.status == 200
        assert (await call.get("/nowhere")).status == 404
        assert (await ask(box.url, "/me", method="DELETE", headers=call.headers)).status == 404
        assert box.counts["other"] == 2


async def test_segments_are_listed_in_pages():
    """A page has 20 by default and at most 100; each segment comes once; `creator` filters them."""
    async with serving(replace(QUICK, segments=250)) as box:
        call = Caller(box)
        assert len((await call.get("/segments/v1")).data["segments"]) == 20
        found, sizes, token = [], [], ""
        while True:
            data = (await call.get(f"/segments/v1?limit=500&paginationToken={token}")).data
            found += data["segments"]
            sizes.append(len(data["segments"]))
            token = data.get("nextPaginationToken")
            if not token:
                break
        assert sizes == [100, 100, 54]
        assert len({one["id"] for one in found}) == 254
        assert {one["id"] for one in found if "created" not in one} >= {"everyone", "rageClicks"}
        old = next(one for one in found if "@" in one["id"])
        encoded = old["id"].replace("@", "%40").replace(":", "%3A")
        assert (await call.get(f"/segments/v1/{encoded}")).data == old
        assert (await call.get("/segments/v1/none")).status == 404
        creator = (await call.get("/segments/v1?limit=100&creator=analyst%40example.com")).data["segments"]
        assert {one["creator"] for one in creator} == {"analyst@example.com"}


async def test_a_segment_has_some_of_the_individuals():
    """A synthetic segment always has the rows of the same individuals, fewer than everyone."""
    async with serving(QUICK) as box:
        call = Caller(box)
        listed = (await call.get("/segments/v1?limit=100")).data["segments"]
        segment = next(one["id"] for one in listed if one["creator"])
        first, second = [await call.file(START, START + DAY, segmentId=segment) for _ in range(2)]
        assert first == second
        rows, everyone = Counter(first.splitlines()), texts(box.events(START, START + DAY))
        assert 0 < rows.total() < everyone.total()
        assert not rows - everyone
        people = {orjson.loads(row)["IndvId"] for row in rows}
        assert not any(orjson.loads(row)["IndvId"] in people for row in everyone - rows)


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["NDJSON", "CSV", "JSON"])
@pytest.mark.parametrize("type_", ["EVENT", "INDIVIDUAL"])
async def test_the_same_export_has_the_same_bytes(format_, type_):
    """Two operations for the same range at the same time have equal files, in every format and for both types."""
    async with serving(QUICK, clock=stopped_clock) as box:
        call = Caller(box)
        kind = {"type": f"TYPE_{type_}", "format": f"FORMAT_{format_}"}
        links = [await call.located(START, START + DAY, **kind) for _ in range(2)]
        first, second = [(await call.download(link)).body for link in links]
        assert first == second
        assert len(gzip.decompress(first)) > 500


async def test_only_requested_fields_are_exported():
    """Exact names and wildcards select fields; others are left out."""
    async with serving(QUICK) as box:
        call = Caller(box)
        data = await call.file(START, START + DAY, fields=["EventStart", "evt_*"])
        keys = {key for line in data.splitlines() for key in orjson.loads(line)}
        assert "EventStart" in keys
        assert any(key.startswith("evt_") for key in keys)
        assert all(key == "EventStart" or key.startswith("evt_") for key in keys)


async def test_late_rows_are_in_a_later_export_of_the_same_range():
    """An export has the rows that had arrived when it was made, even if it is downloaded later."""
    behaviour = replace(QUICK, late_share=0.3, late_seconds=6 * 3600)
    async with serving(behaviour, clock=stopped_clock) as box:
        call = Caller(box)
        window = (NOW - 3600, NOW)
        early = await call.located(*window)
        box.skip(DAY)
        late = await call.file(*window)
        again = (await call.results(box.operations[0].export_id)).data["location"]
        first = Counter(gzip.decompress((await call.download(call.path(again))).body).splitlines())
        assert (await call.download(early)).status == 400
        assert Counter(late.splitlines()) == texts(box.events(*window))
        assert not first - Counter(late.splitlines())
        assert 0 < first.total() < len(late.splitlines())


async def test_requests_are_counted():
    """Requests are counted by endpoint, whatever their answer, with the maximum number in flight."""
    async with serving(QUICK) as box:
        call = Caller(box)
        link = await call.located(START, START + HALF_HOUR)
        await asyncio.gather(*(call.download(link) for _ in range(4)))
        await call.get("/operations/v1")
        await call.get("/segments/v1")
        await call.get("/segments/v1/everyone")
        await ask(box.url, "/me")
        counts = {"create": 1, "poll": 1, "results": 1, "download": 4, "list": 1, "segments": 1, "segment": 1, "me": 1}
        assert box.counts == {**counts, "other": 0}
        assert 1 <= box.peaks["download"] <= 4
        assert [one.endpoint for one in box.calls][:3] == ["create", "poll", "results"]
        assert box.calls[-1].status == 401
        box.reset_counts()
        assert set(box.counts.values()) == {0}


async def test_its_state_is_available_without_a_key():
    """Counters, expected rows and operations are served over HTTP, and switches can be changed."""
    async with serving(QUICK) as box:
        call = Caller(box)
        await call.created(START, START + HALF_HOUR)
        counts = (await ask(box.url, "/sandbox/counts")).data
        assert (counts["create"], counts["refused"], counts["peak_running"]) == (1, 0, 1)
        (made,) = (await ask(box.url, "/sandbox/operations")).data
        assert (made["start"], made["segment"]) == (START, "everyone")
        span = f"start={show(START)}&end={show(START + DAY)}"
        rows = await ask(box.url, f"/sandbox/rows?{span}", wait_seconds=5)
        assert Counter(rows.body.splitlines()) == texts(box.events(START, START + DAY))
        people = await ask(box.url, f"/sandbox/rows?{span}&type=individual", wait_seconds=5)
        assert len(people.body.splitlines()) == len(box.individuals(START, START + DAY)) > 0
        body = orjson.dumps({"retry_after": "date", "faults": ["me:503"]})
        assert (await ask(box.url, "/sandbox/behave", method="POST", body=body)).status == 200
        assert box.behaviour == replace(QUICK, retry_after="date", faults=(SandboxFault("me", "503"),))
        assert (await ask(box.url, "/sandbox/behave", method="POST", body=b'{"speeed":1}')).status == 400
        assert (await ask(box.url, "/sandbox/rows?start=x&end=y")).status == 400
        assert (await ask(box.url, "/sandbox/nothing")).status == 404


async def test_a_reset_forgets_the_operations():
    """Earlier operations are neither found nor listed, and new ones work."""
    async with serving(QUICK) as box:
        call = Caller(box)
        operation_id = await call.created(START, START + HALF_HOUR)
        link = await call.located(START, START + HALF_HOUR)
        assert (await ask(box.url, "/sandbox/reset", method="POST")).data == {}
        assert set((await ask(box.url, "/sandbox/counts")).data.values()) == {0}
        assert (await ask(box.url, "/sandbox/operations")).data == []
        assert (await call.get("/operations/v1")).data == {"operations": []}
        assert (await call.poll(operation_id)).status == (await call.download(link)).status == 404
        rows = Counter((await call.file(START, START + HALF_HOUR)).splitlines())
        assert rows == texts(box.events(START, START + HALF_HOUR))


async def test_a_404_says_what_is_wrong_with_an_id():
    """Unknown, expired and wrongly encoded ids get different messages."""
    async with serving(QUICK) as box:
        call = Caller(box)
        operation_id = await call.created(START, START + HALF_HOUR)
        raw = await call.get(f"/operations/v1/{operation_id}")
        assert raw.status == 404
        assert f"the id {operation_id} is not percent-encoded" in raw.data["message"]
        twice = await call.poll(quote(operation_id, safe=""))
        assert (twice.status, twice.data["message"].endswith("; it is percent-encoded twice")) == (404, True)
        assert (await call.results("100%")).data["message"] == "no export has the id 100%"
        assert (await call.poll("b\n\u00fc\U0001f375")).data[
            "message"
        ] == "no operation has the id b\\n\\xfc\\U0001f375"
        box.skip(40 * DAY)
        assert (await call.poll(operation_id)).data["message"] == "the operation has expired"


async def test_half_hours_add_up_to_their_day():
    """The files of all half-hours of a day have together the rows of the day."""
    async with serving(QUICK) as box:
        call = Caller(box)
        starts = range(START, START + DAY, HALF_HOUR)
        pieces = await asyncio.gather(*(call.file(start, start + HALF_HOUR) for start in starts))
        assert Counter(line for piece in pieces for line in piece.splitlines()) == texts(box.events(START, START + DAY))


async def test_nothing_blocks_the_loop():
    """No endpoint makes a blocking call, which would delay an exporter in the same process."""
    with blockbuster_ctx("asyncexport"):
        async with serving(QUICK) as box:
            call = Caller(box)
            for kind in ("EVENT", "INDIVIDUAL"):
                await call.download(await call.located(START, START + HALF_HOUR, type=f"TYPE_{kind}"))
            for target in ("/me", "/segments/v1", "/segments/v1/everyone", "/operations/v1"):
                assert (await call.get(target)).status == 200
            for target in ("counts", "operations", f"rows?start={show(START)}&end={show(START + HALF_HOUR)}"):
                assert (await ask(box.url, f"/sandbox/{target}")).status == 200
            box.behave(replace(QUICK, filler_bytes=3_000_000, faults=(SandboxFault("me", "huge"),)))
            await call.download(await call.located(START, START + HALF_HOUR))
            await call.get("/me")


async def test_a_key_or_signature_that_is_not_text_is_refused():
    """It is refused like any other wrong one."""
    async with serving(QUICK) as box:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(box.url.rpartition(":")[2]))
        writer.write(b"GET /me HTTP/1.1\r\nHost: x\r\nAuthorization: Basic \xff\xfe\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
        writer.transport.abort()
        await asyncio.sleep(0)
        assert (await ask(box.url, "/storage/x?until=1&X-Goog-Signature=%ff")).status == 403


async def test_it_can_refuse_connections():
    """New connections are refused within `unreachable`, and existing ones are ended."""
    async with serving(replace(QUICK, faults=(SandboxFault("me", "stall"),))) as box:
        call = Caller(box)
        hanging = asyncio.create_task(call.get("/me", wait_seconds=10))
        await box.arrival("me")
        async with box.unreachable():
            assert (await hanging).ended in ("eof", "reset")
            with pytest.raises(ConnectionRefusedError):
                await ask(box.url, "/me")
        assert (await call.get("/operations/v1")).status == 200


async def test_it_speaks_tls():
    """With a TLS context, the base URL is https, and the server closes cleanly."""
    authority = trustme.CA()
    context = authority_context(authority)
    async with serving(QUICK, tls=context) as box:
        assert box.url.startswith("https://127.0.0.1:")
        trusting = trusting_context(authority)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(box.url.rpartition(":")[2]), ssl=trusting)
        writer.write(f"GET /me HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {box.key}\r\n\r\n".encode())
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.transport.abort()
        await asyncio.sleep(0)


def authority_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def trusting_context(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.slow
async def test_nothing_is_left_behind():
    """Stopping ends idle, hanging and half-read connections and leaves no transport to the garbage collector."""
    faults = (SandboxFault("me", "stall"), SandboxFault("segments", "stall-body"), SandboxFault("list", "drip"))
    async with serving(replace(QUICK, filler_bytes=40_000_000, faults=faults)) as box:
        call = Caller(box)
        link = await call.located(START, START + HALF_HOUR)
        port = int(box.url.rpartition(":")[2])
        connections = []
        for target in ("/me", "/segments/v1", "/operations/v1", link, None):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            if target:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {box.key}\r\n\r\n".encode())
            connections.append((reader, writer))
        for endpoint in ("me", "segments", "list", "download"):
            await box.arrival(endpoint)
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not others
    for _, writer in connections:
        writer.transport.abort()
    await asyncio.sleep(0)
    del connections, reader, writer
    gc.collect()
