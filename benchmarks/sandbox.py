"""The sandbox: its peak memory and response time while it makes two CSV exports of ten days at the same time.

The sandbox runs as a command in a process of its own. While both big exports are requested and downloaded, half-hours
are exported one after the other, each all the way from create to file. The line reports the sandbox's peak memory, the
longest time that a half-hour took, and how long the big exports took.
"""

import gzip
import json
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring

KEY = "na1.sandbox/KEY+for=tests"
END = 1_779_913_800
BIG = 2
DAYS, DAYS_QUICK = 10, 1
HALF_HOUR = 1800


@contextmanager
def sandbox() -> Iterator[tuple[str, int]]:
    """Run a sandbox whose operations finish immediately; gives its URL and its process id."""
    flags = ("--operation-seconds", "0", "--set", "burst=1000000", "--port", "0")
    command = [sys.executable, "-m", "asyncexport", "sandbox", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = next(line.split('"')[1] for line in process.stdout if line.startswith("base_url"))
            yield url, process.pid
        finally:
            process.terminate()


def main() -> None:
    """Run the benchmark."""
    asked = measuring.options(__doc__, rounds=3)
    seconds = (DAYS_QUICK if asked.quick else DAYS) * 86_400
    peaks, half_hours, big = [], [], []
    for number in range(asked.rounds):
        with sandbox() as (url, process):
            longest, took = _round(url, seconds)
            peaks.append(_peak_mib(process))
        half_hours.append(longest)
        big.append(took)
        measuring.note(f"round {number + 1} of {asked.rounds}: {peaks[-1]:.1f} MiB, {longest:.2f} s, {took:.1f} s")
    measuring.report(
        "sandbox",
        asked,
        packages=("aiohttp",),
        exports={"at_once": BIG, "days": seconds // 86_400},
        peak_mib=measuring.spread(peaks, digits=1),
        half_hour_seconds=measuring.spread(half_hours),
        big_seconds=measuring.spread(big, digits=1),
    )


def _round(url: str, seconds: int) -> tuple[float, float]:
    """Return the longest time that a half-hour took during the big exports, and how long these took."""
    sizes: list[int] = []

    def fetch(number: int) -> None:
        sizes.append(_export(url, END - seconds - number, END - number))

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(BIG)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    longest, number = 0.0, 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        before = time.monotonic()
        _export(url, END - number * HALF_HOUR, END - (number - 1) * HALF_HOUR)
        longest = max(longest, time.monotonic() - before)
    took = time.monotonic() - began
    if len(sizes) < BIG:
        measuring.fail("a big export failed")
    return longest, took


def _export(url: str, start: int, end: int) -> int:
    """Export a range from create to file; return the size of the file, which is read but not stored."""
    times = {"start": _moment(start), "end": _moment(end)}
    body = {"segmentId": "everyone", "type": "TYPE_EVENT", "format": "FORMAT_CSV", "timeRange": times}
    operation_id = _call(f"{url}/segments/v1/exports", body | {"segmentTimeRange": times})["operationId"]
    operation = _call(f"{url}/operations/v1/{urllib.parse.quote(operation_id, safe='')}")
    location = _call(f"{url}/search/v1/exports/{operation['results']['searchExportId']}/results")["location"]
    size = 0
    with urllib.request.urlopen(location) as answer, gzip.open(answer) as file:
        while piece := file.read(1 << 20):
            size += len(piece)
    return size


def _call(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Authorization": f"Basic {KEY}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def _moment(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _peak_mib(process: int) -> float:
    """Return the peak resident memory of a process, from `/proc`."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


if __name__ == "__main__":
    main()
