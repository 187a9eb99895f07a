"""A contender in overhead.py: the shortest loop that exports bundles with aiohttp, without any guarantees."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
from contender import START, moment
from service import KEY

LIST_EVERY_SECONDS = 0.1


async def export(api: str, folder: Path, count: int, *, at_once: int, downloads: int) -> None:
    """Export `count` bundles, at most `at_once` at the same time: create, list, locate, download, write."""
    slots, streams = asyncio.Semaphore(at_once), asyncio.Semaphore(downloads)
    waiting: dict[str, asyncio.Future[str]] = {}
    headers = {"Authorization": f"Basic {KEY}"}
    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0, force_close=True)) as service,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as storage,
    ):

        async def ask(method: str, path: str, **more: Any) -> Any:
            async with service.request(method, f"{api}{path}", **more) as response:
                return await response.json()

        async def export_bundle(number: int) -> None:
            async with slots:
                span = {"start": moment(START + number * 300), "end": moment(START + (number + 1) * 300)}
                order = {"segmentId": "everyone", "type": "TYPE_EVENT", "format": "FORMAT_NDJSON"}
                body = {**order, "timeRange": span, "segmentTimeRange": span}
                operation = (await ask("POST", "/segments/v1/exports", json=body))["operationId"]
                waiting[operation] = asyncio.get_running_loop().create_future()
                export_id = await waiting[operation]
                async with streams:
                    found = await ask("GET", f"/search/v1/exports/{export_id}/results")
                    async with storage.get(found["location"]) as response:
                        (folder / f"{number}.ndjson.gz").write_bytes(await response.read())

        async def watch() -> None:
            while True:
                await asyncio.sleep(LIST_EVERY_SECONDS)
                page = await ask("GET", "/operations/v1?type=SEARCH_EXPORT&limit=100")
                for one in page["operations"]:
                    if one["state"] == "COMPLETED" and one["id"] in waiting:
                        waiting.pop(one["id"]).set_result(one["results"]["searchExportId"])

        watching = asyncio.create_task(watch())
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(export_bundle(number))
        watching.cancel()


if __name__ == "__main__":
    _, api_url, into, bundles, most, streams_at_once = sys.argv
    asyncio.run(export(api_url, Path(into), int(bundles), at_once=int(most), downloads=int(streams_at_once)))
