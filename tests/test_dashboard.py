"""The status page that runs serve: what is sent, who may read it, and that no reader harms a run."""

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncexport
from asyncexport import Exit
from asyncexport.core.bundles import Bundle, Range
from asyncexport.core.events import BundleMoved, BundleParked, BundleStored, Event, Joining, Note
from asyncexport.core.listen_address import ListenAddress
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Planned, Stored
from asyncexport.monitor.dashboard_server import DashboardServer, serving_dashboard
from asyncexport.monitor.live_changes import LiveChanges
from asyncexport.monitor.live_page import LivePages
from asyncexport.monitor.page_data import CHANGED, EMPTY, REFRESHED
from asyncexport.run.dashboard import Dashboard
from asyncexport.run.monitored import monitored
from asyncexport.sandbox import Sandbox, SandboxBehaviour, serving
from tests.page_rig import FIRST
from tests.test_monitored import QUIET, RANGE, settings_for, warnings

ANYWHERE = ListenAddress("127.0.0.1", 0)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serving(QUIET) as found:
        yield found


def bundle(number: int) -> Bundle:
    """Return the n-th bundle of an export."""
    return Bundle("events", Range(FIRST + number * 1800, FIRST + (number + 1) * 1800))


def stored(number: int, *, rows: int = 5, before: Stored | None = None) -> BundleStored:
    """Return the event that the n-th bundle is stored."""
    return BundleStored(bundle(number), Stored(f"{number}.gz", 400, rows, f"{rows:064}", FIRST), before)


def moved(number: int) -> BundleMoved:
    """Return the event that an operation for the n-th bundle is in flight."""
    return BundleMoved(BundleRecord(bundle(number), 0, Planned()), BundleRecord(bundle(number), 0, Created(1, 1, "id")))


# Changes


def test_events_become_changes():
    """Each has the kind and flags that the page draws; events that change no bundle are left out."""
    changes, archive = LiveChanges(clean=str.upper), stored(3).archive
    again = BundleRecord(bundle(9), 1, Created(1, 1, "id"), archive)
    events: list[Event] = [
        stored(1),
        stored(2, rows=0),
        stored(3, before=archive),
        stored(4, rows=6, before=archive),
        moved(5),
        BundleParked(bundle(6), Failed("no")),
        BundleParked(bundle(7), FewerRows(5, 0)),
        Note("hello"),
        BundleMoved(again, again),
    ]
    for event in events:
        changes.on_event(event)
    found = changes.after(0)
    assert found is not None
    assert [(change[0], (change[1] - FIRST) // 1800, *change[3:]) for change in found] == [
        ("EVENTS", 1, "stored", 5, 0, ""),
        ("EVENTS", 2, "stored", 0, EMPTY, ""),
        ("EVENTS", 3, "stored", 5, REFRESHED, ""),
        ("EVENTS", 4, "stored", 6, REFRESHED | CHANGED, ""),
        ("EVENTS", 5, "in progress", 0, 0, ""),
        ("EVENTS", 6, "parked", 0, 0, "NO"),
        ("EVENTS", 7, "kept", 0, 0, ""),
    ]


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 60), st.integers(1, 8))
def test_a_page_is_complete_with_the_changes_after_its_own(numbers, known, most):
    """With them it shows what a page that saw all changes shows; if that is not possible, it is told so."""
    changes, latest, as_known = LiveChanges(clean=str, most=most), {}, {}
    for at, number in enumerate(numbers, 1):
        changes.on_event(stored(number, rows=at))
        latest[bundle(number).range.start] = at
        if at == known:
            as_known = dict(latest)
    found = changes.after(known)
    if known > len(numbers):
        assert found is None
    elif found is None:
        assert len(latest) > most
    else:
        assert as_known | {change[1]: change[4] for change in found} == latest
        assert len(found) <= most


# The server


@asynccontextmanager
async def served(
    changes: LiveChanges, make: Callable[[str], tuple[str, bool]], **options: Any
) -> AsyncIterator[tuple[str, DashboardServer]]:
    """Serve a dashboard with messages every hundredth of a second."""
    pages = LivePages(changes, make, token="run")
    server = DashboardServer(changes, pages, lambda: "all is well", **{"tick_seconds": 0.01, **options})
    async with serving_dashboard(ANYWHERE, server) as url:
        yield url, server
    await pages.close()


def counted_page(name: str) -> tuple[str, bool]:
    """Return a page that is only the name of its state."""
    return name, True


async def next_message(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Read a message of a stream, with its fields."""
    lines = []
    while (line := (await answer.content.readline()).decode()) != "\n":
        assert line, "the stream has ended"
        lines.append(line.rstrip("\n"))
    return dict(line.split(": ", 1) for line in lines)


async def test_a_reader_gets_what_changed_since_its_page():
    """Not what the page has; and after a lost connection, what it missed."""
    changes = LiveChanges(clean=str)
    changes.on_event(stored(1))
    async with served(changes, counted_page) as (url, _), aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            page = await answer.text()
            assert answer.headers["Cache-Control"] == "no-store"
        changes.on_event(moved(2))
        changes.on_event(stored(2))
        async with session.get(f"{url}events", params={"after": page}) as answer:
            assert answer.content_type == "text/event-stream"
            first = await next_message(answer)
        data = json.loads(first["data"])
        assert data["progress"] == "all is well"
        assert [change[1] for change in data["bundles"]] == [bundle(2).range.start]
        changes.on_event(stored(3))
        async with session.get(f"{url}events", headers={"Last-Event-ID": first["id"]}) as answer:
            data = json.loads((await next_message(answer))["data"])
        assert [change[1] for change in data["bundles"]] == [bundle(3).range.start]
        assert "page" not in data


@pytest.mark.parametrize("known", ["", "run.1.99", "another-run.1.3", "run.1", "run.x.y", "run.0.0"])
async def test_a_reader_of_an_unknown_state_gets_a_page(known):
    """After a run on the same port, for instance."""
    changes = LiveChanges(clean=str)
    changes.on_event(stored(1))
    async with (
        served(changes, counted_page) as (url, _),
        aiohttp.ClientSession() as session,
        session.get(f"{url}events", params={"after": known}) as answer,
    ):
        data = json.loads((await next_message(answer))["data"])
    assert data.keys() == {"progress", "page"}
    assert data["page"] == ("run.2.1" if known == "run.1.99" else "run.1.1")


async def test_a_reader_that_missed_too_much_gets_a_new_page():
    """The changes in between are not kept; the new page has them."""
    changes = LiveChanges(clean=str, most=3)
    async with served(changes, counted_page) as (url, _), aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            page = await answer.text()
        for number in range(5):
            changes.on_event(stored(number))
        async with session.get(f"{url}events", params={"after": page}) as answer:
            data = json.loads((await next_message(answer))["data"])
    assert data == {"progress": "all is well", "page": "run.2.5"}


async def test_readers_share_messages_and_pages():
    """However many there are, a page is made once."""
    made: list[str] = []

    def make(name: str) -> tuple[str, bool]:
        made.append(name)
        return name, True

    changes = LiveChanges(clean=str)
    async with served(changes, make) as (url, _), aiohttp.ClientSession() as session:
        answers = [await session.get(url) for _ in range(5)]
        assert {await answer.text() for answer in answers} == {"run.1.0"}
        streams = [await session.get(f"{url}events", params={"after": "run.1.0"}) for _ in range(5)]
        changes.on_event(stored(1))
        for stream in streams:
            while "bundles" not in (await next_message(stream))["data"]:
                pass
            stream.close()
    assert made == ["run.1.0"]


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("localhost", 200), ("[::1]", 200)])
async def test_only_loopback_names_are_served(host, status):
    """A site whose name leads to this address cannot read the page."""
    async with served(LiveChanges(clean=str), counted_page) as (url, _), aiohttp.ClientSession() as session:
        port = url.rstrip("/").rpartition(":")[2]
        for path in ("", "events"):
            async with session.get(url + path, headers={"Host": f"{host}:{port}"}) as answer:
                assert answer.status == status


@pytest.mark.may_idle(1.0)
async def test_a_reader_that_stalls_is_dropped(tmp_path, sandbox, caplog):
    """It is disconnected; another reader gets everything, and the run is not harmed."""
    changes, settings = LiveChanges(clean=str), settings_for(sandbox, tmp_path)
    large = "x" * 4_000_000
    caplog.set_level(logging.DEBUG, "asyncexport.monitor")
    async with served(changes, lambda _name: (large, True), stall_seconds=0.3) as (url, _):
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])))
            await loop.sock_sendall(stalled, b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with aiohttp.ClientSession(read_bufsize=2**24) as session, session.get(f"{url}events") as answer:
                running = asyncio.create_task(
                    asyncexport.backfill(settings, **RANGE, key=sandbox.key, listeners=[changes.on_event])
                )
                seen: set[int] = set()
                while len(seen) < 4:
                    data = json.loads((await next_message(answer))["data"])
                    seen |= {change[1] for change in data.get("bundles", ()) if change[3] == "stored"}
                summary = await running
            async with asyncio.timeout(20):
                while "has stalled and is dropped" not in caplog.text:  # noqa: ASYNC110 - nothing sets an event
                    await asyncio.sleep(0.01)
            got = 0
            with contextlib.suppress(ConnectionResetError):
                while piece := await asyncio.wait_for(loop.sock_recv(stalled, 65536), 20):
                    got += len(piece)
    assert summary.exit_code is Exit.DONE
    assert summary.tally.stored == 4
    assert got < len(large)


# Runs


async def test_a_run_serves_its_page(tmp_path, sandbox, caplog):
    """The page has the verdict of `status`; a reader sees each bundle stored, the final page, and the end."""
    caplog.set_level(logging.INFO, "asyncexport")
    sandbox.behave(SandboxBehaviour(operation_seconds=3600))
    settings = settings_for(sandbox, tmp_path, dashboard__listen="127.0.0.1:0")
    stop = asyncexport.Stop()
    running = asyncio.create_task(asyncexport.backfill(settings, **RANGE, key=sandbox.key, stop=stop))
    while sandbox.counts.get("create", 0) < 4:  # noqa: ASYNC110 - nothing sets an event
        await asyncio.sleep(0.01)
    (url,) = re.findall(r"the status page is served at (http://127\.0\.0\.1:\d+/)", caplog.text)
    async with aiohttp.ClientSession(read_bufsize=2**24) as session:
        async with session.get(url) as answer:
            page = await answer.text()
        assert "connect-src 'self'" in page
        assert "asyncexport backfill" not in page, "the run fills the gaps"
        assert sandbox.key not in page
        (name,) = re.findall(r'"live":"([0-9a-f.]+)"', page)
        async with session.get(f"{url}events", params={"after": name}) as answer:
            first = json.loads((await next_message(answer))["data"])
            assert first["progress"].startswith("0 of 4 bundles stored; ")
            stop.ask(Exit.INTERRUPTED)
            message: dict[str, str] = {}
            while message.get("event") != "ended":
                last, message = message, await next_message(answer)
    end = json.loads(last["data"])
    assert end["progress"] == "the run has ended with exit code 130: stopped by SIGINT (Ctrl-C); the state is saved"
    assert '"running":false' in end["page"]
    assert (await running).exit_code is Exit.INTERRUPTED


async def test_the_page_exists_before_the_ledger(tmp_path, sandbox, caplog):
    """The first run into a directory has a page from its start."""
    caplog.set_level(logging.INFO, "asyncexport")
    settings = settings_for(sandbox, tmp_path, dashboard__listen="127.0.0.1:0")
    key = asyncexport.ApiKey(sandbox.key)
    dashboard = Dashboard(settings, key=key)
    spec = asyncexport.Backfill(settings.exports, FIRST, FIRST + 3600)

    async def work() -> asyncexport.Summary:
        (url,) = re.findall(r"served at (http://\S+)", caplog.text)
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            pages.append(await answer.text())
        dashboard.listeners[1](Joining(None, None, 1.0))
        return await asyncexport.export(settings, spec, key=key)

    pages: list[str] = []
    assert (await monitored(settings, spec, work, key=key, dashboard=dashboard)).exit_code is Exit.DONE
    assert '<p id="verdict">a run is in progress</p>' in pages[0]
    assert '"name":"everyone-events"' in pages[0]


async def test_a_port_in_use_is_one_warning(tmp_path, sandbox, caplog):
    """The run is carried out without the page."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = settings_for(sandbox, tmp_path, dashboard__listen=address)
        summary = await asyncexport.backfill(settings, **RANGE, key=sandbox.key)
    assert summary.exit_code is Exit.DONE
    assert warnings(caplog) == [
        f"the status page is not served: [dashboard] listen {address} cannot be used: address already in use"
    ]


async def test_a_page_that_cannot_be_made_harms_no_run(tmp_path, sandbox, caplog):
    """A bug in it is one warning at the end, for a reader who waits for the page."""
    caplog.set_level(logging.INFO, "asyncexport")
    settings = settings_for(sandbox, tmp_path, dashboard__listen="127.0.0.1:0")
    key = asyncexport.ApiKey(sandbox.key)

    def broken(*_words: str) -> str:
        raise ZeroDivisionError

    dashboard = Dashboard(settings, key=key, clean=lambda _text: broken())
    spec = asyncexport.Backfill(settings.exports, FIRST, FIRST + 3600)

    async def work() -> asyncexport.Summary:
        (url,) = re.findall(r"served at (http://\S+)", caplog.text)
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 500
        return await asyncexport.export(settings, spec, key=key, listeners=dashboard.listeners)

    assert (await monitored(settings, spec, work, key=key, dashboard=dashboard)).exit_code is Exit.DONE


def test_a_run_without_a_page_loads_nothing_for_it():
    """The server of aiohttp takes time and memory that only runs with a page spend."""
    probe = (
        "import sys, asyncexport, asyncexport.run.library; from asyncexport.run.dashboard import Dashboard; "
        "Dashboard(asyncexport.load_settings(environ={}), key=asyncexport.ApiKey('na1.key')).listeners; "
        "print([name for name in sys.modules if name.startswith(('aiohttp.web', 'asyncexport.monitor.live', "
        "'asyncexport.monitor.page', 'asyncexport.monitor.dashboard'))])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=Path("/"))
    assert done.stdout.strip() == "[]"
