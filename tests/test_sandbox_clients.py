"""The stand-in service as the command starts it, called as three clients that exist call it, byte for byte.

What each of them sends is in the reference, sections 2, 3 and 9. All send ids as they got them, take exactly 200 for a
success, and download without the key.
"""

import asyncio
import csv
import gzip
import io
from collections import Counter
from dataclasses import replace

import orjson
import pytest

from asyncexport.cli.sandbox import command_defaults
from asyncexport.core.bundles import show
from asyncexport.core.row_names import EVENT_FIELDS
from asyncexport.sandbox import serving
from asyncexport.sandbox.formats import render, row_json, select
from tests.sandbox_client import ask

NOW = 1_780_000_000.0
"""Some time in 2026, for clocks that stand still."""

START = 1_779_913_800
HALF_HOUR = 1800

BEHAVIOUR = replace(command_defaults(), operation_seconds=0.0, burst=1_000_000, rows_per_hour=60, quiet=0)

HAUSER_FIELDS = [*EVENT_FIELDS[:58], "user_*", "evt_*", "page_*"]

FS_CLI_FIELDS = ["EventStart", "EventType", "UserId", "SessionId", "PageId", "evt_*"]


def standing_still():
    return NOW


class RawClient:
    """A client that writes ids into paths as they are; `headers` go with each call of the API, `posted` with a POST."""

    def __init__(self, box, **posted):
        self.box, self.posted = box, posted
        self.headers = {"Authorization": f"Basic {box.key}", "User-Agent": "a client/1.0"}

    async def ok(self, target, **more):
        """A reply that is exactly 200, and JSON on one line."""
        got = await ask(self.box.url, target, **more)
        assert got.status == 200, got.raw
        assert got.body.count(b"\n") <= 1
        return got.data

    async def created(self, body):
        """The id of a new operation."""
        headers = self.headers | self.posted
        made = await self.ok("/segments/v1/exports", method="POST", body=orjson.dumps(body), headers=headers)
        return made["operationId"]

    async def file(self, body):
        """The uncompressed file of an export, the whole way."""
        operation = await self.ok(f"/operations/v1/{await self.created(body)}", headers=self.headers)
        assert (operation["state"], operation["type"]) == ("COMPLETED", "SEARCH_EXPORT")
        export_id = operation["results"]["searchExportId"]
        location = (await self.ok(f"/search/v1/exports/{export_id}/results", headers=self.headers))["location"]
        got = await ask(self.box.url, location.removeprefix(self.box.url))
        assert got.status == 200
        return gzip.decompress(got.body)


def hauser(fields):
    times = {"start": show(START), "end": show(START + HALF_HOUR)}
    return {
        "segmentId": "everyone",
        "type": "TYPE_EVENT",
        "format": "FORMAT_JSON",
        "timeRange": times,
        "segmentTimeRange": {"start": "", "end": ""},
        "fields": fields,
    }


@pytest.mark.parametrize("fields", [None, HAUSER_FIELDS])
async def test_a_go_daemon_gets_its_rows(fields):
    """No Content-Type, an open segmentTimeRange, and null or 61 fields."""
    async with serving(BEHAVIOUR, clock=standing_still) as box:
        rows = orjson.loads(await RawClient(box).file(hauser(fields)))
        truth = select(box.events(START, START + HALF_HOUR), fields)
        assert Counter(map(row_json, rows)) == Counter(map(row_json, truth))
        assert rows


@pytest.mark.parametrize("container", ["csv", "ndjson"])
async def test_the_vendor_s_first_command_line_gets_its_rows(container):
    """snake_case keys and milliseconds, as CSV or NDJSON."""
    times = {"start": show(START).replace("Z", ".000Z"), "end": show(START + HALF_HOUR).replace("Z", ".000Z")}
    body = {
        "segment_id": "everyone",
        "type": "TYPE_EVENT",
        "format": f"FORMAT_{container.upper()}",
        "time_range": times,
        "segment_time_range": times,
        "timezone": "UTC",
    }
    async with serving(BEHAVIOUR, clock=standing_still) as box:
        text = await RawClient(box, **{"Content-Type": "application/json"}).file(body)
        truth = box.events(START, START + HALF_HOUR)
        if container == "ndjson":
            assert Counter(text.splitlines()) == Counter(map(row_json, truth))
        else:
            expected = b"".join(render(truth, "csv")).decode()
            assert _records(text.decode()) == _records(expected)
        assert truth


def _records(text):
    return Counter(tuple(record) for record in csv.reader(io.StringIO(text, newline=""), strict=True))


async def test_the_vendor_s_own_toolkit_gets_its_rows():
    """Both ranges, a scope, six fields, and a list to look for its operation in."""
    times = {"start": show(START), "end": show(START + HALF_HOUR)}
    body = {
        "segmentId": "everyone",
        "type": "TYPE_EVENT",
        "format": "FORMAT_NDJSON",
        "timeRange": times,
        "segmentTimeRange": times,
        "fields": FS_CLI_FIELDS,
        "eventDetails": {"scope": "SCOPE_EVENTS"},
    }
    async with serving(BEHAVIOUR, clock=standing_still) as box:
        client = RawClient(box, **{"Content-Type": "application/json", "Accept": "application/json"})
        text = await client.file(body)
        truth = select(box.events(START, START + HALF_HOUR), FS_CLI_FIELDS)
        assert Counter(text.splitlines()) == Counter(map(row_json, truth))
        assert text
        (listed,) = (await client.ok("/operations/v1?type=SEARCH_EXPORT", headers=client.headers))["operations"]
        assert (await client.ok(f"/operations/v1/{listed['id']}", headers=client.headers)) == listed


async def test_every_raw_id_is_found():
    """Also one with a slash, a plus or two slashes in a row: a quarter of them hold one, and none is a 404."""
    async with serving(BEHAVIOUR, clock=standing_still) as box:
        client = RawClient(box)
        ids = await asyncio.gather(*(client.created(hauser(None)) for _ in range(200)))
        assert any("/" in one for one in ids)
        assert any("+" in one for one in ids)
        for one in ids:
            assert (await client.ok(f"/operations/v1/{one}", headers=client.headers))["id"] == one
