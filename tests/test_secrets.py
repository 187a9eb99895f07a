"""No secret appears anywhere: the key and the signature of a link are canaries in every run here.

The command runs in its own process at its highest log level, with asyncio's debug mode, under one kind of fault after
the other. Everything it prints and writes is searched byte for byte.
"""

import asyncio
import base64
import gzip
import json
import os
import re
import ssl
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import trustme

from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests.raw_server import http, sends
from tests.raw_server import serving as echoing
from tests.spellings import SPELLINGS
from tests.tunnel import tunnelling

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

CALM = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=60, requests_per_minute=1e6, burst=10_000)

LINKS = re.compile(rb"X-Goog-|goog4_request|[?&]until=|Signature=")
"""Matches text that occurs only in the query of a signed URL."""

FAULTS = {
    "nothing": (),
    "refused key": ("create:401",),
    "no answer": ("any:reset,chance=0.2", "any:cut-head,chance=0.1,seed=1"),
    "cut bodies": ("any:cut-length,chance=0.3", "download:reset-body,chance=0.3,seed=2"),
    "bad bodies": ("download:corrupt,chance=0.5", "api:broken-json,chance=0.2", "api:html,chance=0.1,seed=1"),
    "dead links": ("download:expired,chance=0.5", "download:403,chance=0.3,seed=1"),
    "unsafe links": ("results:unsafe-location,chance=0.5", "results:dead-link,chance=0.3,seed=1"),
    "redirects": ("download:redirect,chance=0.5", "results:redirect,nth=3"),
    "garbage": ("any:garbage,chance=0.2", "any:bad-chunk,chance=0.1,seed=1"),
    "stalls": ("any:stall,chance=0.1", "download:stall-body,chance=0.3,seed=1"),
    "bad operations": ("operation:FAILED,chance=0.5", "operation:no-export-id,chance=0.3,seed=1"),
}


BACKFILL = ("backfill", "--start", "2026-01-01T20:00:00Z", "--end", "2026-01-01T22:00:00Z")

BUNDLES = 4
"""The number of bundles in `BACKFILL`."""

FORMS = ("text", "json")

RUNS = [(FAULTS["nothing"], "json"), *((faults, FORMS[at % 2]) for at, faults in enumerate(FAULTS.values()))]


@pytest.mark.parametrize(("faults", "form"), RUNS, ids=["nothing, json", *FAULTS])
async def test_no_secret_is_printed_or_written(tmp_path, faults, form):
    """Neither the key in any spelling nor the query of a signed URL is in a log, summary, traceback, ledger or file."""
    async with serving(replace(CALM, faults=tuple(map(SandboxFault.parse, faults)))) as sandbox:
        for command in (
            BACKFILL,
            ("segments",),
            ("status",),
        ):
            output = await _run(sandbox, tmp_path, form, command)
            assert command[0] != "backfill" or b"POST /segments/v1/exports" in output, "-vv logs each call"
            _search(output, sandbox.key, where=f"{command[0]} prints")
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.name != "config.toml":
                _search(path.read_bytes(), sandbox.key, where=str(path))
        assert sandbox.leaked_credentials == sandbox.redirected_with_key == 0


@pytest.mark.parametrize("form", FORMS)
async def test_no_echoed_secret_is_repeated(tmp_path, form):
    """If the service echoes the key or a header in any spelling, neither the output nor the ledger contains it."""
    key, token = "na1.CANARYkey/CANARY+key==", "CANARY-token+/="
    spelt = [spelling(secret) for spelling in SPELLINGS.values() for secret in (key, token)]
    answers = [
        sends(http(json.dumps({"message": f"bad {one}"}).encode(), "503 Busy"))
        if number % 2
        else sends(http(gzip.compress(f"bad {one}".encode()), "503 Busy", Content_Encoding="gzip"))
        for number, one in enumerate(spelt)
    ]
    end = sends(http(json.dumps({"message": f"no such key: bad {key}"}).encode(), "401 Unauthorized"))
    async with echoing(*answers, end) as server:
        service = Echo(server.url, key)
        more = f'api.headers = {{ "X-Token" = "{token}" }}\n'
        output = await _run(service, tmp_path, form, BACKFILL, more=more, outage="60s")
        assert len(server.requests) > len(spelt)
        output += await _run(service, tmp_path, form, ("status",), more=more)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "config.toml"]
    assert any(path.name == "ledger.sqlite3" for path in files)
    for text in (output, *(path.read_bytes() for path in files)):
        assert b"CANARY" not in text
        assert [one for one in spelt if one.encode() in text] == []
    assert output.count(b"bad ***") > len(spelt)


async def test_a_password_on_the_command_line_is_not_repeated(tmp_path):
    """The command suggested by a hint contains neither a proxy password nor a header value."""
    sets = ("--set", "api.proxy=http://user:CANARYpass@127.0.0.1:9", "--set", 'api.headers={"X-Token":"CANARY"}')
    async with serving(replace(CALM, faults=(SandboxFault.parse("operation:FAILED"),))) as sandbox:
        output = await _run(sandbox, tmp_path, "text", BACKFILL, more="")
        output = await _run(sandbox, tmp_path, "text", ("status", *sets), more="")
    assert b"asyncexport: hint: `asyncexport -c" in output
    assert b"api.proxy=http://***@127.0.0.1:9" in output
    assert b"CANARY" not in output


@pytest.mark.parametrize("form", FORMS)
async def test_the_url_of_pings_is_not_printed_or_written(tmp_path, form):
    """Whether pings arrive or fail, no log, traceback, ledger or text file has a part of the URL that looks secret."""
    async with serving(CALM) as sandbox, echoing(sends(http(b"OK")), sends(reset=True)) as server:
        more = (
            f'ping.url = "{server.url}/CANARY-5c1d/x?token=CANARY9"\nping.timeout = "1s"\n'
            f'metrics.textfile = "{tmp_path / "metrics.prom"}"\n'
        )
        output = await _run(sandbox, tmp_path, form, BACKFILL, more=more)
        output += await _run(sandbox, tmp_path, form, ("doctor",), more=more)
        output += await _run(sandbox, tmp_path, form, ("backfill", "--start", "x"), more=more)
    assert server.requests[0].startswith(b"POST /CANARY-5c1d/x/start?token=CANARY9 ")
    assert len(server.requests) > 2
    assert (tmp_path / "metrics.prom").exists()
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "config.toml"]
    for text in (output, *(path.read_bytes() for path in files)):
        assert b"CANARY" not in text


@dataclass(frozen=True)
class Echo:
    """The URL and key of a server that is not a sandbox."""

    url: str
    key: str


HEADERS = {"X-Team": "CANARYteam", "User-Agent": "CANARYagent"}
"""`[api] headers` of the runs through a proxy."""


@pytest.mark.parametrize("spelling", ["url", "environment"])
@pytest.mark.parametrize("user", ["", "proxyuser:proxypassword"])
async def test_a_proxy_is_sent_no_secret(tmp_path, monkeypatch, user, spelling):
    """A proxy receives neither the key nor a value of `[api] headers` in a complete run.

    It receives a Proxy-Authorization header only if its URL has a user, and then that user's.
    """
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example").configure_cert(tls)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(CALM, tls=tls) as sandbox, tunnelling(urlsplit(sandbox.url).port or 0) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url(user))
        sandbox.url = "https://api.example"
        chosen = proxy.url(user) if spelling == "url" else spelling
        headers = ", ".join(f'"{name}" = "{value}"' for name, value in HEADERS.items())
        api = f'api.proxy = "{chosen}"\napi.ca_file = "{ca_file}"\napi.headers = {{ {headers} }}\n'
        output = await _run(sandbox, tmp_path, "json", BACKFILL, more=api)
        assert len(sandbox.operations) == BUNDLES, output
        assert len(list(tmp_path.rglob("*.gz"))) == BUNDLES, output
    # API requests do not share connections; each bundle has a create, a results call and a download.
    assert len(proxy.heads) > 2 * BUNDLES
    received = b"".join(proxy.received)
    _search(received, sandbox.key, where="a proxy is sent")
    for value in HEADERS.values():
        assert value.encode() not in received
    asked = f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}".encode() if user else None
    for head in proxy.heads:
        assert head.startswith(b"CONNECT api.example:443 ")
        lines = head.split(b"\r\n")
        assert [line for line in lines if b"authorization" in line.lower()] == ([asked] if asked else [])


async def test_only_the_owner_can_read_ledger_and_lock(tmp_path):
    """Only the owner can read the ledger and the lock, whatever the umask."""
    async with serving(CALM) as sandbox:
        await _run(sandbox, tmp_path, "text", ("backfill", "--start", "2026-01-01", "--end", "2026-01-01T01:00:00Z"))
    folder = tmp_path / "exports" / ".asyncexport"
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert {"ledger.sqlite3", "lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}


async def _run(
    sandbox: Sandbox | Echo, folder: Path, form: str, command: tuple[str, ...], *, more: str = "", outage: str = "1s"
) -> bytes:
    """Return everything a command prints on stdout and stderr; `more` is appended to its configuration."""
    config = folder / "config.toml"
    config.write_text(
        f'api.base_url = "{sandbox.url}"\napi.read_timeout = "200ms"\napi.connect_timeout = "200ms"\n'
        f'output.directory = "{folder / "exports"}"\noutput.grace = "1s"\n'
        "budget.requests_per_minute = 1000000\nbudget.burst = 10000\n"
        'polling.min_interval = "10ms"\npolling.expected = "50ms"\n'
        'retry.attempts = 3\nretry.backoff_initial = "1ms"\nretry.backoff_max = "20ms"\n'
        f'retry.outage = "{outage}"\n' + more
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-X", "dev", "-W", "ignore::ResourceWarning"),
        *("-m", "asyncexport", "-vv", "--log-format", form, "--json", "-c", str(config), *command),
        env={**os.environ, "FULLSTORY_API_KEY": sandbox.key, "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "1"},
        umask=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return (await process.communicate())[0]


def _search(text: bytes, key: str, *, where: str) -> None:
    bare = key.partition(".")[2]
    spellings = {key, bare, quote(key, safe=""), quote(bare, safe=""), bare.replace("/", "\\/")}
    encoded = {base64.b64encode(one.encode()).decode().rstrip("=")[:-2] for one in (key, bare, f"{key}:")}
    for one in spellings | encoded:
        assert one.encode() not in text, f"{where} the key"
    found = LINKS.search(text)
    assert found is None, f"{where} a link's query: {text[max(0, found.start() - 200) : found.end() + 50]!r}"
