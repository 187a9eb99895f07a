"""Names of hosts that are looked up: a look-up that hangs holds up nobody but who asked."""

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
    """As aiohttp has it."""
    [found, *_] = await open_resolver().resolve("localhost", 80)
    assert found["hostname"] == "localhost"
    assert found["host"] in {"127.0.0.1", "::1"}
    assert found["port"] == 80


async def test_an_unknown_name_is_an_error():
    """It is raised to whoever asked."""
    with pytest.raises((socket.gaierror, UnicodeError)):
        await NameLookups().getaddrinfo("x" * 300 + ".invalid", 80)


def test_a_look_up_that_hangs_does_not_hold_up_the_end():
    """The event loop ends, and the program with it."""
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split("\n")[:-1] == ["asked", "given up", "ended"]


async def test_one_question_is_asked_once(monkeypatch):
    """A hundred requests that wait for one name are one thread; who gives up leaves the others their answer."""
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
