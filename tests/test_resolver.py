"""Host name look-ups: one that hangs delays only the requests that wait for it."""

import asyncio
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from asyncexport.client.resolver import NameLookups, open_resolver

HANGING = """
import asyncio, socket, threading
from asyncexport.client.resolver import open_resolver

def hang(*_):
    print("asked", flush=True)
    threading.Event().wait()

socket.getaddrinfo = hang

async def ask():
    try:
        async with asyncio.timeout(0.05):
            await open_resolver().resolve("slow.example")
    except TimeoutError:
        print("given up", flush=True)

asyncio.run(ask())
print("ended", flush=True)
"""


async def test_a_name_is_looked_up():
    """A host name is resolved to the records that aiohttp expects."""
    [found, *_] = await open_resolver().resolve("localhost", 80)
    assert found["hostname"] == "localhost"
    assert found["host"] in {"127.0.0.1", "::1"}
    assert found["port"] == 80


async def test_an_unknown_name_is_an_error():
    """An unknown name raises an error in the caller."""
    with pytest.raises((socket.gaierror, UnicodeError)):
        await NameLookups().getaddrinfo("x" * 300 + ".invalid", 80)


def test_a_hanging_look_up_does_not_delay_the_exit():
    """The event loop and the program end even if a look-up hangs."""
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:-1] == ["asked", "given up", "ended"]


async def test_concurrent_look_ups_of_a_name_are_shared(monkeypatch):
    """A hundred requests for one name share one look-up, and cancelling one of them does not affect the others."""
    asked, answer = [], threading.Event()

    def slow(*arguments):
        asked.append(arguments)
        answer.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    lookups = NameLookups()
    waiting = [asyncio.create_task(lookups.getaddrinfo("slow.example", 80)) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with suppress(asyncio.CancelledError):
        await waiting[0]
    answer.set()
    answers = await asyncio.gather(*waiting[1:])
    assert len(asked) == 1
    assert {tuple(found[0][4]) for found in answers} == {("127.0.0.1", 80)}
