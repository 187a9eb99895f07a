"""`doctor`: what it finds, what it advises, and the exit code that a run would have had."""

import json
import os
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

import asyncexport
from asyncexport import Exit
from asyncexport.config import ApiKey
from asyncexport.core.bundles import DAY
from asyncexport.core.diagnosis import (
    LEAST_FREE_BYTES,
    RUN_ORDER,
    Check,
    Level,
    code_of,
    disk_level,
    failed,
    level_of_load,
    passed,
    room_for_load,
    warned,
)
from asyncexport.ledger import LedgerReader, hold, hold_load, lock_holder
from asyncexport.run.diagnosis import diagnose, settings_check
from asyncexport.run.segments import segments
from asyncexport.sandbox import Sandbox, SandboxBehaviour, SandboxFault, serving
from tests import raw_server
from tests.exporting import QUICK
from tests.ledger_rig import without_permissions
from tests.raw_server import http, sends

QUIET = SandboxBehaviour(operation_seconds=0.02, rows_per_hour=4)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serving(QUIET) as found:
        yield found


def settings_for(url: str, directory: Path, *exports: dict[str, Any], **tables: Any) -> asyncexport.Settings:
    """Return settings for a service and an output directory; `tables` are written as in the configuration file."""
    layer: dict[str, Any] = {"api": {"base_url": url}, **QUICK}
    for name, table in tables.items():
        layer[name] = {**layer.get(name, {}), **table}
    layer["output"] = {**layer["output"], "directory": str(directory / "exports")}
    return asyncexport.Settings.from_layers({**layer, **({"export": list(exports)} if exports else {})})


async def checks(
    settings: asyncexport.Settings, key: str, *, offline: bool = False, most_requests: int = 2
) -> dict[str, Check]:
    """Return the checks by name, the worst of each."""
    sent: list[str] = []
    found: dict[str, Check] = {}
    async for one in diagnose(settings, ApiKey(key), offline=offline, sent=sent.append):
        assert one.name in RUN_ORDER
        assert (one.code is Exit.DONE) is (one.level is not Level.FAIL)
        assert bool(one.advice) or one.level is Level.OK or "not checked" in one.message
        if one.name not in found or found[one.name].level is Level.OK:
            found[one.name] = one
    assert len(sent) <= most_requests
    return found


def replace_directory(settings: asyncexport.Settings, directory: Path) -> asyncexport.Settings:
    """Return the settings with another output directory."""
    return settings.model_copy(update={"output": settings.output.model_copy(update={"directory": directory})})


def faults(found: dict[str, Check]) -> list[tuple[str, Level]]:
    """Return the checks that are not fine."""
    return [(one.name, one.level) for one in found.values() if one.level is not Level.OK]


async def backfill(settings: asyncexport.Settings, key: str) -> None:
    """Store two hours of two days ago."""
    start = int(time.time()) // DAY * DAY - 3 * DAY
    summary = await asyncexport.backfill(settings, start=start, end=start + 7200, key=key)
    assert summary.exit_code is Exit.DONE


# The rules


def test_the_code_is_that_of_what_a_run_meets_first():
    """Failures are ordered as a run meets them, whatever the order of the checks."""
    order = [failed(name, "", code=Exit(code)) for name, code in (("segment", 2), ("lock", 4), ("key", 6))]
    assert code_of(order) is Exit.KEY_REFUSED
    assert code_of([passed("disk", ""), warned("key", "")]) is Exit.DONE


@given(free=st.integers(0, 10**12), month=st.integers(0, 10**12))
def test_the_disk_is_judged_by_the_last_month(free, month):
    """One and a half months fit: fine. Not even a day fits: a run would fail. Anything between is a warning."""
    level = disk_level(free=free, month=month)
    assert (level is Level.OK) is (free >= 1.5 * month and free >= LEAST_FREE_BYTES)
    assert (level is Level.FAIL) is (free < month / 30 or free < LEAST_FREE_BYTES)


# Checks against a service


async def test_nothing_is_wrong_with_a_new_directory(tmp_path, sandbox):
    """Every check is fine, one request is sent, and nothing is created."""
    found = await checks(settings_for(sandbox.url, tmp_path), sandbox.key, most_requests=1)
    assert faults(found) == []
    assert set(found) == set(RUN_ORDER) - {"configuration", "key", "mirror", "load", "destination", "listen"}
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_wrong_with_a_directory_in_use(tmp_path, sandbox):
    """The ledger counts the request of the check, and is not changed otherwise."""
    settings = settings_for(sandbox.url, tmp_path)
    await backfill(settings, sandbox.key)
    with LedgerReader(settings.output.directory) as ledger:
        before = len(ledger.requests_since(0))
    assert faults(await checks(settings, sandbox.key)) == []
    with LedgerReader(settings.output.directory) as ledger:
        assert len(ledger.requests_since(0)) == before + 1


async def test_offline_no_request_is_sent(tmp_path, sandbox):
    """Only what needs no service is checked."""
    found = await checks(settings_for(sandbox.url, tmp_path), sandbox.key, offline=True, most_requests=0)
    assert set(found) == {"lock", "ledger", "permissions", "disk"}
    assert sum(sandbox.counts.values()) == 0


FAILURES: dict[str, tuple[str, str, Exit]] = {
    "me:401": ("key", "the service refused the API key (401)", Exit.KEY_REFUSED),
    "me:403": ("key", "the service refused the request (403)", Exit.KEY_REFUSED),
    "me:503": ("host", "the service failed (503)", Exit.UNREACHABLE),
    "me:reset": ("host", "the connection to 127.0.0.1 was lost before it answered", Exit.UNREACHABLE),
    "me:404": ("host", "the service refused the request (404)", Exit.USAGE),
    "me:html": ("host", "", Exit.UNREACHABLE),
}


@pytest.mark.parametrize("fault", FAILURES)
async def test_what_the_service_answers_has_its_code(tmp_path, sandbox, fault):
    """A failed request is attributed to the key or the host, with the exit code of a run."""
    name, message, code = FAILURES[fault]
    sandbox.behave(replace(QUIET, faults=(SandboxFault.parse(fault),)))
    found = await checks(settings_for(sandbox.url, tmp_path), sandbox.key)
    assert faults(found) == [(name, Level.FAIL)]
    assert message in found[name].message
    assert code_of(found.values()) is code


async def test_a_host_that_cannot_be_reached_is_a_failure(tmp_path):
    """A closed port, a wrong name and a proxy that is not there would end a run with 5."""
    found = await checks(settings_for("http://127.0.0.1:1", tmp_path), "na1.key-of-nobody")
    assert faults(found) == [("host", Level.FAIL)]
    assert "could not be reached: Connection refused" in found["host"].message
    assert "[api] base_url" in found["host"].advice
    assert code_of(found.values()) is Exit.UNREACHABLE


async def test_too_many_requests_are_a_warning(tmp_path, sandbox):
    """A run waits after a 429, so it says nothing about the key."""
    sandbox.behave(replace(QUIET, faults=(SandboxFault.parse("me:429"),)))
    found = await checks(settings_for(sandbox.url, tmp_path), sandbox.key)
    assert faults(found) == [("key", Level.WARN)]


@pytest.mark.parametrize(
    ("hours", "trust", "level"),
    [
        (0.5, "", Level.WARN),
        (50, "", Level.FAIL),
        (-50, "", Level.FAIL),
        (50, "service", Level.WARN),
        (50, "host", Level.WARN),
        (0.5, "host", Level.WARN),
    ],
)
async def test_a_wrong_clock_is_reported_with_its_difference(tmp_path, hours, trust, level):
    """More than a day apart would end a run with 2, unless the settings say which clock counts."""
    async with serving(replace(QUIET, clock_ahead_seconds=hours * 3600)) as sandbox:
        found = await checks(settings_for(sandbox.url, tmp_path, api={"clock": trust}), sandbox.key)
    assert faults(found) == [("clock", level)]
    assert ("30 min" if hours == 0.5 else "2 d 2 h") in found["clock"].message
    assert ("behind" if hours > 0 else "ahead of") in found["clock"].message
    if level is Level.WARN:
        used = "this one, as [api] clock says" if (hours, trust) == (50, "host") else "the service's"
        assert found["clock"].advice.endswith(f"runs use {used}")
    assert code_of(found.values()) is (Exit.USAGE if level is Level.FAIL else Exit.DONE)


async def test_a_missing_segment_is_reported(tmp_path, sandbox):
    """One segment is asked for by its id; several are looked up in the first page of the list."""
    known = [one for one in await _segments(sandbox, tmp_path) if one != "everyone"]
    for exports, expected in (
        ([{"name": "a", "segment": known[0]}], []),
        ([{"name": "a", "segment": "missing"}], [("segment", Level.FAIL)]),
        ([{"name": "a", "segment": known[0]}, {"name": "b", "segment": known[1]}], []),
        ([{"name": "a", "segment": known[0]}, {"name": "b", "segment": "missing"}], [("segment", Level.WARN)]),
    ):
        found = await checks(settings_for(sandbox.url, tmp_path, *exports), sandbox.key)
        assert faults(found) == expected, exports
        assert code_of(found.values()) is (Exit.USAGE if ("segment", Level.FAIL) in expected else Exit.DONE)


async def _segments(sandbox: Sandbox, directory: Path) -> list[str]:
    settings = settings_for(sandbox.url, directory)
    return [one.id async for one in segments(settings, key=ApiKey(sandbox.key), sent=lambda _kind: None)]


async def test_a_key_of_another_organisation_is_a_failure(tmp_path, sandbox):
    """It would end a run with 7 before anything is created."""
    settings = settings_for(sandbox.url, tmp_path)
    await backfill(settings, sandbox.key)
    body = json.dumps({"email": "a@example.com", "orgId": "OTHER", "role": "ADMIN"}).encode()
    async with raw_server.serving(sends(http(body, Content_Type="application/json"))) as other:
        found = await checks(settings_for(other.url, tmp_path), sandbox.key)
    assert found["organisation"].level is Level.FAIL
    assert "OTHER" in found["organisation"].message
    assert code_of(found.values()) is Exit.LEDGER


# Checks of the directory


async def test_a_lock_that_is_held_is_a_failure(tmp_path, sandbox):
    """The run that holds it is named; a lock file that names a process of another machine is tested."""
    settings = settings_for(sandbox.url, tmp_path)
    directory = settings.output.directory
    with hold(directory, command="backfill"):
        found = await checks(settings, sandbox.key, offline=True)
        assert f"backfill, process {os.getpid()} on" in found["lock"].message
    assert code_of(found.values()) is Exit.LOCKED
    text = json.dumps({"command": "nightly", "pid": 1, "host": "elsewhere", "since": 1.7e9})
    (directory / ".asyncexport" / "lock").write_text(text)
    assert lock_holder(directory) is None
    assert faults(await checks(settings, sandbox.key, offline=True)) == []


async def test_a_damaged_or_lost_ledger_is_a_failure(tmp_path, sandbox):
    """It would end a run with 7, and so would another definition of an export."""
    settings = settings_for(sandbox.url, tmp_path)
    await backfill(settings, sandbox.key)
    other = settings_for(sandbox.url, tmp_path, {"fields": ["UserId"]})
    found = await checks(other, sandbox.key, offline=True)
    assert faults(found) == [("ledger", Level.FAIL)]
    ledger = settings.output.directory / ".asyncexport" / "ledger.sqlite3"
    ledger.write_bytes(b"SQLite format 3\0" + b"damage" * 1000)
    found = await checks(settings, sandbox.key)
    assert ("ledger", Level.FAIL) in faults(found)
    assert code_of(found.values()) is Exit.LEDGER
    for path in ledger.parent.iterdir():
        path.unlink()
    found = await checks(settings, sandbox.key, offline=True)
    assert "verify --rebuild" in found["ledger"].advice
    assert code_of(found.values()) is Exit.LEDGER


async def test_a_directory_that_cannot_be_written_is_a_failure(tmp_path, sandbox):
    """The folder that refuses is named, whether the output directory exists or not."""
    settings = settings_for(sandbox.url, tmp_path)
    place = Path(tempfile.gettempdir())
    for folder in (tmp_path, settings.output.directory):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        for one in tmp_path.parents[:-1]:
            if one not in (place, *place.parents):
                one.chmod(0o755)
        with without_permissions():
            found = await checks(settings, sandbox.key, offline=True)
        folder.chmod(0o755)
        assert faults(found) == [("permissions", Level.FAIL)]
        assert found["permissions"].message == f"{folder} cannot be written"
        assert code_of(found.values()) is Exit.DISK


async def test_a_folder_that_may_not_be_entered_is_a_failure(tmp_path, sandbox):
    """A run of another user ends as it would for that user, and not with an unexpected error."""
    settings = settings_for(sandbox.url, tmp_path, metrics={"textfile": str(tmp_path / "closed" / "in" / "x.prom")})
    place = Path(tempfile.gettempdir())
    for one in tmp_path.parents[:-1]:
        if one not in (place, *place.parents):
            one.chmod(0o755)
    tmp_path.chmod(0o755)
    settings.output.directory.mkdir()
    (tmp_path / "closed" / "in").mkdir(parents=True)
    for closed in (settings.output.directory, tmp_path / "closed"):
        closed.chmod(0o700 if os.geteuid() == 0 else 0)
    with without_permissions():
        found = await checks(settings, sandbox.key, offline=True)
        inner = await checks(
            replace_directory(settings, tmp_path / "closed" / "in" / "exports"), sandbox.key, offline=True
        )
    for closed in (settings.output.directory, tmp_path / "closed"):
        closed.chmod(0o755)
    for one, folder in ((found, settings.output.directory), (inner, tmp_path / "closed")):
        assert faults(one) == [("ledger", Level.FAIL), ("permissions", Level.FAIL)]
        assert "who owns the directory" in one["ledger"].advice
        assert one["permissions"].message == f"{folder} cannot be written"
        assert code_of(one.values()) is Exit.DISK


@pytest.mark.parametrize("name", ["", "missing/x.prom", "x.prom"])
async def test_a_text_file_that_cannot_be_replaced_is_a_warning(tmp_path, sandbox, name):
    """A run would only notice that at its end."""
    file = tmp_path / name
    found = await checks(
        settings_for(sandbox.url, tmp_path, metrics={"textfile": str(file)}), sandbox.key, offline=True
    )
    assert faults(found) == ([] if name == "x.prom" else [("permissions", Level.WARN)])
    if not name:
        assert found["permissions"].message.endswith("it is not a regular file")


# What works beside runs


async def beside(settings: asyncexport.Settings) -> list[tuple[str, Level, str]]:
    """Return the checks that are not fine, each with its message."""
    found = [one async for one in diagnose(settings, None, offline=True, sent=lambda _kind: None)]
    assert all((one.code is Exit.DONE) is (one.level is not Level.FAIL) for one in found)
    assert all(one.advice for one in found if one.level is not Level.OK)
    return [(one.name, one.level, one.message) for one in found if one.level is not Level.OK]


async def test_each_library_that_is_missing_is_named_once(tmp_path, monkeypatch):
    """It would end a run with 2; so would a missing setting. A `[load]` that nobody uses needs nothing."""
    for name in ("duckdb", "psycopg"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("asyncexport.run.mirror_place.LIBRARY", "no_such_library")
    monkeypatch.chdir(tmp_path)
    settings = settings_for("https://x", tmp_path, load={"to": ["duckdb", "postgres"]}, output={"mirror": "s3://x"})
    assert await beside(settings) == [
        ("configuration", Level.FAIL, "output.mirror: needs a library that is not installed: no_such_library"),
        ("configuration", Level.FAIL, "load.to: parquet needs a library that is not installed: duckdb"),
        ("configuration", Level.FAIL, "load.to: postgres needs a library that is not installed: psycopg"),
    ]
    assert await beside(settings_for("https://x", tmp_path, load={"directory": "warehouse"})) == []
    monkeypatch.undo()
    settings = settings_for("https://x", tmp_path, load={"to": ["duckdb", "postgres"]})
    names = [one.name async for one in diagnose(settings, None, offline=True, sent=lambda _kind: None)]
    assert names[-4:] == ["configuration", "load", "load", "destination"], "what has no fault is checked all the same"
    settings = settings_for("https://x", tmp_path, load={"to": ["postgres"], "directory": str(tmp_path / "exports")})
    assert await beside(settings) == [
        ("configuration", Level.FAIL, "load.directory: must not be the directory of the archives"),
        ("configuration", Level.FAIL, "load.postgres.dsn: is not set"),
    ]


async def test_a_load_directory_that_cannot_be_used_is_a_failure(tmp_path):
    """A file in its place, no right to write, a load in progress; nothing is created by the check."""
    directory = tmp_path / "warehouse"
    settings = settings_for("https://x", tmp_path, load={"directory": str(directory)})
    assert await beside(settings) == []
    assert not directory.exists()
    with hold_load(directory):
        ((*_, message),) = await beside(settings)
        assert message.startswith(f"another load uses {directory}: load, process {os.getpid()} on ")
    (directory / "warehouse.duckdb").write_text("no database")
    ((name, _, message),) = await beside(settings)
    assert (name, message.startswith("could not read")) == ("destination", True)
    inner = settings_for("https://x", tmp_path, load={"directory": str(directory / "warehouse.duckdb")})
    assert (await beside(inner))[0][:2] == ("load", Level.FAIL)


@given(free=st.integers(0, 10**12), month=st.integers(0, 10**11), day=st.integers(0, 10**10), workers=st.integers(1, 9))
def test_a_load_needs_room_for_its_tables_and_for_the_days_in_progress(free, month, day, workers):
    """Not even one decompressed day fits: a load would fail. Less than the month and its workers need: a warning."""
    needs = room_for_load(month, day, workers=workers)
    level = level_of_load(free=free, needs=needs, largest_day=day)
    assert (level is Level.FAIL) is (free < 10 * day or free < LEAST_FREE_BYTES)
    assert level is not Level.OK or free >= month + 10 * day * workers


async def test_an_address_in_use_is_a_warning(tmp_path):
    """A run would go ahead without the metrics or the page. Two settings with the same port are noticed as well."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = settings_for("https://x", tmp_path, metrics={"listen": address}, dashboard={"listen": "127.0.0.1:0"})
        ((name, level, message),) = await beside(settings)
        assert (name, level) == ("listen", Level.WARN)
        what = "cannot be used, so the metrics would not be served: address already in use"
        assert message == f"[metrics] listen {address} {what}"
    both = settings_for("https://x", tmp_path, metrics={"listen": address}, dashboard={"listen": address})
    ((*_, message),) = await beside(both)
    assert message.startswith(f"[dashboard] listen {address} cannot be used, so the page would not be served")
    with hold(both.output.directory, command="nightly"):
        assert [name for name, *_ in await beside(both)] == ["lock"]


def test_a_start_of_nights_in_the_future_is_a_warning():
    """A backfill can run, but every night would end with 2."""
    settings = asyncexport.Settings.from_layers({"nightly": {"since": "2026-02-01"}})
    january, february = 1_767_225_600, 1_769_904_000
    found = settings_check(settings, file="", now=january)
    assert (found.level, "`nightly` ends with 2" in found.message) == (Level.WARN, True)
    assert settings_check(settings, file="", now=february).level is Level.OK


async def test_old_archives_that_others_may_read_are_a_warning(tmp_path, sandbox):
    """They keep their mode when `[output] access` becomes private."""
    settings = settings_for(sandbox.url, tmp_path, output={"access": "umask"})
    await backfill(settings, sandbox.key)
    private = settings_for(sandbox.url, tmp_path, output={"access": "private"})
    found = await checks(private, sandbox.key, offline=True)
    assert faults(found) == [("permissions", Level.WARN)]
    assert "chmod -R go-rwx" in found["permissions"].advice


# TLS and proxies


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_a_certificate_that_is_not_trusted_is_a_failure(tmp_path, is_trusted):
    """The advice is `[api] ca_file`; with the right file, the check is fine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    api = {"ca_file": str(tmp_path / "ca.pem")} if is_trusted else {}
    async with serving(QUIET, tls=context) as sandbox:
        found = await checks(settings_for(sandbox.url, tmp_path, api=api), sandbox.key)
    if is_trusted:
        assert faults(found) == []
        return
    assert faults(found) == [("TLS and proxy", Level.FAIL)]
    assert "the certificate of 127.0.0.1 cannot be trusted" in found["TLS and proxy"].message
    assert "[api] ca_file" in found["TLS and proxy"].advice
    assert code_of(found.values()) is Exit.UNREACHABLE


async def test_a_proxy_that_wants_a_password_is_a_failure(tmp_path):
    """The advice names the setting."""
    refusal = http(b"", "407 Proxy Authentication Required", Proxy_Authenticate="Basic")
    async with raw_server.serving(sends(refusal)) as proxy:
        settings = settings_for("https://api.example.com", tmp_path, api={"proxy": proxy.url})
        found = await checks(settings, "na1.key-of-nobody")
    assert faults(found) == [("TLS and proxy", Level.FAIL)]
    assert "[api] proxy" in found["TLS and proxy"].advice
    assert code_of(found.values()) is Exit.UNREACHABLE
