"""The sandbox with the defaults of its command, called byte for byte as three existing clients do.

All of them send ids unencoded, accept only 200 as success, and download without the key.
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
"""A time in 2026, for clocks that stand still."""

START = 1_779_913_800
HALF_HOUR = 1800

BEHAVIOUR = replace(command_defaults(), operation_seconds=0.0, burst=1_000_000, rows_per_hour=60, quiet=0)

HAUSER_FIELDS = [*EVENT_FIELDS[:58], "user_*", "evt_*", "page_*"]

FS_CLI_FIELDS = ["EventStart", "EventType", "UserId", "SessionId", "PageId", "evt_*"]


def stopped_clock():
    return NOW


class RawClient:
    """A client that puts ids into paths unencoded. `headers` go with each API call, `posted` also with a POST."""

    def __init__(self, box, **posted):
        self.box, self.posted = box, posted
        self.headers = {"Authorization": f"Basic {box.key}", "User-Agent": "a client/1.0"}

    async def ok(self, target, **more):
        """Send a request and return the JSON of its answer, which must be a 200 on one line."""
        got = await ask(self.box.url, target, **more)
        assert got.status == 200, got.raw
        assert got.body.count(b"\n") <= 1
        return got.data

    async def created(self, body):
        """Create an export and return the operation id."""
        headers = self.headers | self.posted
        made = await self.ok("/segments/v1/exports", method="POST", body=orjson.dumps(body), headers=headers)
        return made["operationId"]

    async def file(self, body):
        """Create and download an export, and return the uncompressed file."""
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
async def test_hauser_gets_its_rows(fields):
    """It sends no Content-Type, an open segmentTimeRange, and null or 61 fields."""
    async with serving(BEHAVIOUR, clock=stopped_clock) as box:
        rows = orjson.loads(await RawClient(box).file(hauser(fields)))
        expected_rows = select(box.events(START, START + HALF_HOUR), fields)
        assert Counter(map(row_json, rows)) == Counter(map(row_json, expected_rows))
        assert rows


@pytest.mark.parametrize("container", ["csv", "ndjson"])
async def test_the_vendor_s_first_command_line_gets_its_rows(container):
    """It sends snake_case keys and milliseconds, and asks for CSV or NDJSON."""
    times = {"start": show(START).replace("Z", ".000Z"), "end": show(START + HALF_HOUR).replace("Z", ".000Z")}
    body = {
        "segment_id": "everyone",
        "type": "TYPE_EVENT",
        "format": f"FORMAT_{container.upper()}",
        "time_range": times,
        "segment_time_range": times,
        "timezone": "UTC",
    }
    async with serving(BEHAVIOUR, clock=stopped_clock) as box:
        text = await RawClient(box, **{"Content-Type": "application/json"}).file(body)
        expected_rows = box.events(START, START + HALF_HOUR)
        if container == "ndjson":
            assert Counter(text.splitlines()) == Counter(map(row_json, expected_rows))
        else:
            expected = b"".join(render(expected_rows, "csv")).decode()
            assert _records(text.decode()) == _records(expected)
        assert expected_rows


def _records(text):
    return Counter(tuple(record) for record in csv.reader(io.StringIO(text, newline=""), strict=True))


async def test_the_vendor_s_later_command_line_gets_its_rows():
    """It sends both ranges, a scope and six fields, and finds its operation in the list."""
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
    async with serving(BEHAVIOUR, clock=stopped_clock) as box:
        client = RawClient(box, **{"Content-Type": "application/json", "Accept": "application/json"})
        text = await client.file(body)
        expected_rows = select(box.events(START, START + HALF_HOUR), FS_CLI_FIELDS)
        assert Counter(text.splitlines()) == Counter(map(row_json, expected_rows))
        assert text
        (listed,) = (await client.ok("/operations/v1?type=SEARCH_EXPORT", headers=client.headers))["operations"]
        assert (await client.ok(f"/operations/v1/{listed['id']}", headers=client.headers)) == listed


async def test_every_unencoded_id_is_found():
    """Ids with a plus, a slash or two slashes in a row are found too."""
    async with serving(BEHAVIOUR, clock=stopped_clock) as box:
        client = RawClient(box)
        ids = await asyncio.gather(*(client.created(hauser(None)) for _ in range(200)))
        assert any("/" in one for one in ids)
        assert any("+" in one for one in ids)
        for one in ids:
            assert (await client.ok(f"/operations/v1/{one}", headers=client.headers))["id"] == one
