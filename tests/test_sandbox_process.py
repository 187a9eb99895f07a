"""The sandbox as a command: its printed settings fit, and a signal ends it."""

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from asyncexport.config import ApiKey, load_settings
from asyncexport.core.admission import BudgetScope
from asyncexport.core.bundles import DAY
from asyncexport.engine.scheduler import Stop
from asyncexport.run.run import export
from asyncexport.run.spec import Backfill
from asyncexport.sandbox import KEY, SandboxBehaviour, serving
from asyncexport.sandbox.matching import settings
from tests.exporting import canonical, rows_in
from tests.sandbox_client import ask

pytestmark = pytest.mark.slow

START = 1_779_840_000


def loaded(text, directory):
    """Load settings from a configuration file with this text."""
    file = directory / "asyncexport.toml"
    file.write_text(text)
    return load_settings(
        file=file, environ={}, flags={"output.directory": directory / "exports"}, working_directory=directory
    )


async def called(*flags):
    """Run the command to its end; return its exit code and its output."""
    process = await started(*flags)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def started(*flags):
    pipe = asyncio.subprocess.PIPE
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCEXPORT_")}
    root = Path(__file__).parent.parent
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncexport", "sandbox", *flags),
        stdout=pipe,
        stderr=pipe,
        env=environ,
        cwd=root,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )


@asynccontextmanager
async def running(*flags):
    """Run the command; yield the process and the settings that it printed, once it listens."""
    process = await started("--port", "0", *flags)
    assert process.stdout is not None
    try:
        text = (await process.stdout.readuntil(b"outage")) + await process.stdout.readline()
        yield process, text.decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_it_prints_settings_serves_and_ends(number, tmp_path):
    """Its output is a valid configuration file; a signal ends it with exit code 0, even with hanging connections."""
    async with running("--speed", "60", "--scope", "all", "--fault", "segments:stall") as (process, text):
        found = loaded(text, tmp_path)
        assert found.budget.requests_per_minute == 120
        assert found.budget.scope is BudgetScope.ALL
        assert f"export FULLSTORY_API_KEY='{KEY}'" in text
        headers = {"Authorization": f"Basic {KEY}"}
        assert (await ask(found.api.base_url, "/me", headers=headers)).status == 200
        hanging = asyncio.create_task(ask(found.api.base_url, "/segments/v1", headers=headers))
        while (await ask(found.api.base_url, "/sandbox/counts")).data["segments"] == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)
        process.send_signal(number)
        out, err = await process.communicate()
        assert process.returncode == 0
        assert out == b""
        assert re.fullmatch(rf"asyncexport: the sandbox listens on {found.api.base_url} until Ctrl-C\n", err.decode())
        assert (await hanging).raw == b""


async def test_rows_can_come_from_a_file(tmp_path):
    """The sandbox serves the rows of the file and reports them as the expected rows."""
    file = tmp_path / "rows.ndjson"
    line = b'{"IndvId":12345678901234567890,"EventStart":"2026-01-01T00:00:00.5Z","x_real":4.0}'
    file.write_bytes(line + b"\n")
    async with running("--rows", str(file)) as (_, text):
        url = loaded(text, tmp_path).api.base_url
        got = await ask(url, "/sandbox/rows?start=2026-01-01&end=2026-01-02")
        assert got.body == line + b"\n"


async def test_all_wrong_flags_are_reported_together():
    """Each comes with a suggestion, and the exit code is 2."""
    code, out, err = await called(
        *("--fault", "creat:503", "--fault", "create:rest", "--set", "speeed=2", "--scope", "both"),
        *("--rows", "/nowhere/rows.ndjson", "--set", "list_ids=perhaps"),
    )
    assert (code, out) == (2, "")
    for said in (
        "--scope: scope must be one of create, all, not 'both'",
        "--set: there is no switch 'speeed' (did you mean 'speed'?)",
        "--set: list_ids cannot be 'perhaps'",
        "--fault: there is no place 'creat' (did you mean 'create'?)",
        "--fault: there is no fault 'rest' (did you mean 'reset'?)",
        "--rows: No such file or directory",
        "hint: `asyncexport sandbox --show-switches`",
    ):
        assert said in err
    assert "Traceback" not in err


async def test_a_port_in_use_is_reported():
    """The error and its hint have one line each, and the exit code is 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out, err = await called("--port", str(taken.getsockname()[1]))
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert re.fullmatch(r"asyncexport: error: --port: cannot listen on 127\.0\.0\.1:\d+: .*address.* in use.*", first)
    assert second == "asyncexport: hint: `--port 0` takes any free port"


async def test_listening_for_other_machines_is_warned_about():
    """An address that is not loopback gets a warning; this one is reserved for documentation, so listening fails."""
    code, _, err = await called("--host", "192.0.2.1", "--port", "0")
    assert code == 2
    assert "asyncexport: warning: other machines can connect to 192.0.2.1" in err


async def test_guesses_are_marked_as_guesses():
    """Help and switches mark guesses, and faults are listed as they are written."""
    _, help_text, _ = await called("--help")
    assert "nothing was checked against a real account" in " ".join(help_text.split())
    _, switches, _ = await called("--show-switches")
    assert re.search(r"^scope +create +guess +which calls", switches, re.MULTILINE)
    assert re.search(r"^ids +lenient +inferred ", switches, re.MULTILINE)
    assert re.search(r"^burst +50 +documented ", switches, re.MULTILINE)
    _, faults, _ = await called("--show-faults")
    assert re.search(r"^lost +create +the operation is made", faults, re.MULTILINE)


def test_the_settings_keep_made_up_rows_apart(tmp_path):
    """The printed configuration has an output directory of its own, not the default one with real data."""
    file = tmp_path / "sandbox.toml"
    file.write_text(settings(SandboxBehaviour(), url="http://127.0.0.1:1", key=KEY))
    found = load_settings(file=file, environ={}, flags={}, working_directory=tmp_path)
    assert found.output.directory == Path("sandbox-exports")


@pytest.mark.parametrize("speed", [0.01, 1, 60, 3600, 1e6])
def test_settings_fit_at_any_speed(speed, tmp_path):
    """They can be loaded, and the budget is exactly that of the sandbox."""
    behaviour = SandboxBehaviour(speed=speed)
    found = loaded(settings(behaviour, url="http://127.0.0.1:1", key=KEY), tmp_path)
    assert found.budget.requests_per_minute == pytest.approx(2 * speed)
    assert found.budget.burst == 50
    assert found.polling.expected_seconds == pytest.approx(max(300 / speed, 0.01), abs=0.001)
    assert found.polling.min_interval_seconds == pytest.approx(max(10 / speed, 0.05), abs=0.001)


@pytest.mark.parametrize("scope", ["create", "all"])
async def test_with_its_settings_a_run_is_neither_refused_nor_delayed(scope, tmp_path, idling):
    """A run of two days gets no 429 and every row, and waits little longer than its requests need."""
    behaviour = SandboxBehaviour(speed=6000, scope=scope, rows_per_hour=20)
    async with serving(behaviour) as box:
        found = loaded(settings(behaviour, url=box.url, key=box.key), tmp_path)
        spec = Backfill(found.exports, start=START, end=START + 2 * DAY)
        await export(found, spec, key=ApiKey(box.key), stop=Stop())
        assert box.refused == 0
        assert rows_in(tmp_path / "exports").total() == len(box.events(START, START + 2 * DAY)) > 0
        assert set(rows_in(tmp_path / "exports")) == {canonical(row) for row in box.events(START, START + 2 * DAY)}
        counted = box.counts["create"] + (box.counts["results"] + box.counts["list"]) * (scope == "all")
        at_least = (counted - 50) / (behaviour.requests_per_minute * behaviour.speed / 60)
        assert idling.total_seconds < at_least + 10
