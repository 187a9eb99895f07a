"""Mirrors beside runs, and on the command line."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

import asyncexport
from asyncexport.cli import main
from asyncexport.core.bundles import Bundle
from asyncexport.core.diagnosis import Level
from asyncexport.core.events import BundleStored
from asyncexport.core.exits import Exit
from asyncexport.core.health.beside import BesideKind
from asyncexport.core.mirror.tally import MirrorEvent, MirrorTally, Outcome, exit_with_mirror
from asyncexport.core.summary import Summary, Tally
from asyncexport.display import closing_lines
from asyncexport.engine.scheduler import Stop
from asyncexport.errors import ConfigError, LedgerError, MirrorError
from asyncexport.run.mirror_diagnosis import mirror_check
from asyncexport.run.mirror_lane import MirrorLane
from asyncexport.sandbox import serving
from tests.exporting import QUICK
from tests.json_lines import check
from tests.load_rig import Arrival, Place, events
from tests.s3_proxy import Fault
from tests.s3_server import ACCESS_KEY, SECRET_KEY, why_not
from tests.test_secrets import CALM

needs_server = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

if not why_not():
    import obstore

    from tests.mirror_rig import MirrorRig, archive, in_environment, rig  # noqa: F401 - rig is a fixture


class Run:
    """A run that stores archives when the test says so, with a mirror beside it."""

    def __init__(self, rig: "MirrorRig") -> None:
        self.rig, self.stop = rig, Stop()
        self.seen: asyncio.Queue[MirrorEvent] = asyncio.Queue()
        self.lane = MirrorLane(rig.place.settings, on_event=self.seen.put_nowait, limits=rig.limits)

    async def store(self, arrival: Arrival) -> None:
        """Store an archive, and report it as a run does."""
        bundle = Bundle(arrival.export, arrival.range)
        before = self.rig.place.archives.get(bundle)
        await self.rig.place.stored(arrival)
        self.lane.on_event(BundleStored(bundle, self.rig.place.archives[bundle], before))

    def ended(self, code: Exit = Exit.DONE) -> Summary:
        """Return the summary of the run."""
        return Summary("backfill", code, 1.0, Tally(), {}, 0, str(self.rig.place.output))


@needs_server
async def test_an_archive_is_uploaded_while_the_run_goes_on(rig):
    """Also a new revision; what was there before the run is uploaded when it has ended, and nothing counts twice."""
    run = Run(rig)

    async def work() -> Summary:
        await run.store(Arrival((5, 6), events(50, 3)))
        assert (await run.seen.get()).path == archive(5)
        await run.store(Arrival((5, 6), events(60, 3), revision=1))
        assert (await run.seen.get()).path == archive(5)
        assert set(rig.objects()) == {archive(5)}
        return run.ended()

    summary = await run.lane.beside(work(), run.stop)
    rig.check_complete()
    counts = summary.to_dict()["mirror"]
    assert (counts["uploaded"], counts["already"], counts["failed"]) == (6, 0, 0)
    assert summary.exit_code is Exit.DONE


@needs_server
@pytest.mark.parametrize("code", [Exit.TIME_UP, Exit.PARTIAL, Exit.DISK, Exit.UNREACHABLE, Exit.KEY_REFUSED])
async def test_what_is_stored_is_mirrored_however_the_run_ended(rig, code):
    """The exit code stays that of the run."""
    run = Run(rig)

    async def work() -> Summary:
        if code is Exit.TIME_UP:
            run.stop.ask(code)
        return run.ended(code)

    summary = await run.lane.beside(work(), run.stop)
    rig.check_complete()
    assert summary.exit_code is code


@needs_server
@pytest.mark.parametrize("code", [Exit.INTERRUPTED, Exit.TERMINATED, Exit.LOCKED, Exit.LEDGER])
async def test_nothing_more_is_uploaded_after_a_signal_or_without_a_ledger(rig, code):
    """The next run does it."""
    run = Run(rig)

    async def work() -> Summary:
        return run.ended(code)

    summary = await run.lane.beside(work(), run.stop)
    assert (summary.exit_code, rig.objects()) == (code, {})


@needs_server
@pytest.mark.parametrize(
    ("first", "code"), [(None, Exit.INTERRUPTED), (Exit.TIME_UP, Exit.TIME_UP)], ids=["done", "out of time"]
)
async def test_a_signal_stops_the_mirror_after_the_run(rig, first, code):
    """Also after a maximum duration; the exit code does not say that everything is done."""
    async with rig.proxied() as proxy:
        run = Run(rig)

        async def work() -> Summary:
            if first is not None:
                run.stop.ask(first)
            return run.ended(first or Exit.DONE)

        def stall(_call):
            run.stop.ask(Exit.INTERRUPTED)
            return Fault.STALLED

        proxy.fault = stall
        summary = await run.lane.beside(work(), run.stop)
    assert summary.mirror
    assert (summary.exit_code, summary.mirror.is_stopped) == (code, True)


@needs_server
async def test_a_failing_mirror_does_not_harm_the_run(rig):
    """The archives are stored; the exit code and the summary say that the mirror failed."""
    async with rig.proxied() as proxy:
        proxy.fault = lambda _call: Fault.REFUSED
        run = Run(rig)

        async def work() -> Summary:
            for hour in range(5, 9):
                await run.store(Arrival((hour, hour + 1), events(50 * hour, 3)))
            return run.ended()

        summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.PARTIAL
    assert summary.error is None
    assert summary.mirror
    assert isinstance(summary.mirror.error, MirrorError)
    assert closing_lines(summary)[0] == "done: nothing to do", "what the mirror did has lines of its own"
    assert summary.to_dict()["mirror"] == {
        "uploaded": 0,
        "already": 0,
        "failed": 0,
        "bytes": 0,
        "foreign": 0,
        "missing": 8,
    }
    record = rig.place.last(BesideKind.MIRROR)
    assert record
    assert record.last
    assert (record.last.exit_code, record.last.is_complete, record.complete_at) == (Exit.PARTIAL, False, 0)
    assert await rig.counts() == (8, 0, 0, 0)
    record = rig.place.last(BesideKind.MIRROR)
    assert record
    assert record.last
    assert (record.last.command, record.complete_at) == ("mirror", record.last.ended)


@needs_server
async def test_a_bug_in_the_mirror_does_not_harm_the_run(rig):
    """What it raises does not come out of the run."""
    run = Run(rig)

    def fail(_event):
        raise RuntimeError("a bug")

    run.lane._on_event = fail

    async def work() -> Summary:
        await run.store(Arrival((5, 6), events(50, 3)))
        return run.ended()

    summary = await run.lane.beside(work(), run.stop)
    assert summary.exit_code is Exit.UNEXPECTED
    assert summary.mirror
    assert str(summary.mirror.error) == "unexpected RuntimeError in the mirror"


@needs_server
async def test_a_backfill_mirrors_what_it_exports(rig, tmp_path):
    """The library function, with a sandbox of the service: the bucket has what the directory has."""
    place = Place(tmp_path / "new")
    async with serving(CALM) as sandbox:
        place.changes = {**QUICK, "api": {"base_url": sandbox.url}}
        place.changes["output"] = {"directory": str(place.output), "mirror": rig.url}
        six = "2026-01-01T06:00:00Z"
        summary = await asyncexport.backfill(place.settings, start="2026-01-01", end=six, key=sandbox.key)
        assert summary.exit_code is Exit.DONE, summary
        again = await asyncexport.backfill(place.settings, start="2026-01-01", end=six, key=sandbox.key)
    rig.place = place
    rig.check_complete()
    counts = summary.to_dict()["mirror"]
    assert (counts["uploaded"], counts["already"]) == (13, 0)
    assert again.to_dict()["mirror"]["already"] == 13


@needs_server
async def test_a_program_can_mirror(rig):
    """With the settings it has; what became of each file is reported, and `Stop` ends it."""
    seen: list[MirrorEvent] = []
    stop = asyncexport.Stop()
    stop.ask(Exit.INTERRUPTED)
    assert (await asyncexport.mirror_archives(rig.place.settings, stop=stop)).exit_code is Exit.INTERRUPTED
    summary = await asyncexport.mirror_archives(rig.place.settings, on_event=seen.append)
    assert (summary.command, summary.exit_code, len(seen)) == ("mirror", Exit.DONE, 4)
    rig.check_complete()
    with pytest.raises(ConfigError, match="expected the result of load_settings"):
        await asyncexport.mirror_archives("asyncexport.toml")  # type: ignore[arg-type]


@needs_server
@pytest.mark.slow
@pytest.mark.parametrize("works", [True, False])
async def test_the_commands_of_runs_say_what_the_mirror_did(rig, tmp_path, works):
    """As text, in one line with `--quiet` if it failed, and as JSON; the archives are stored in any case."""
    output = tmp_path / "new"
    async with serving(CALM) as sandbox:
        environ = {**os.environ, "FULLSTORY_API_KEY": sandbox.key}
        if not works:
            environ["AWS_SECRET_ACCESS_KEY"] = "CANARY"
        sets = (f"api.base_url={sandbox.url}", f"output.mirror={rig.url}", "budget.burst=10000")
        words = ["backfill", "--start", "2026-01-01", "--end", "2026-01-01T02:00:00Z", "-d", str(output)]
        words += [word for one in sets for word in ("--set", one)]

        async def out(*more: str) -> tuple[int | None, str]:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "asyncexport", *words, *more), stdout=pipe, stderr=pipe, env=environ
            )
            found = [one.decode() for one in await process.communicate()]
            assert "CANARY" not in "".join(found)
            return process.returncode, found[0]

        code, text = await out()
        assert len(list(output.glob("*/date=*/*.gz"))) == 4
        if works:
            assert (code, f"mirror {rig.url}: 5 files uploaded (" in text) == (Exit.DONE, True)
            assert await out("-q") == (Exit.DONE, "")
        else:
            assert (code, f"the mirror ended early: cannot list {rig.url}: refused" in text) == (Exit.PARTIAL, True)
            code, line = await out("-q")
            assert code == Exit.PARTIAL
            assert line.startswith("backfill, exit code 3: ")
            assert "the mirror ended early" in line
        code, text = await out("--json")
        records = [check(json.loads(line)) for line in text.splitlines()]
        assert records[-1]["mirror"]["already"] == (5 if works else 0)
        assert records[-1]["exit_code"] == code == (Exit.DONE if works else Exit.PARTIAL)


def tally(*outcomes: Outcome, error: Exception | None = None) -> MirrorTally:
    """Return the tally of a mirror."""
    found = MirrorTally()
    for outcome in outcomes:
        found.record(MirrorEvent("path", outcome))
    found.error = error  # type: ignore[assignment]
    return found


@pytest.mark.parametrize(
    ("run_code", "mirror", "code"),
    [
        (Exit.DONE, tally(), Exit.DONE),
        (Exit.DONE, tally(Outcome.UPLOADED, Outcome.ALREADY), Exit.DONE),
        (Exit.DONE, tally(Outcome.FAILED), Exit.PARTIAL),
        (Exit.DONE, tally(Outcome.FOREIGN), Exit.PARTIAL),
        (Exit.TIME_UP, tally(Outcome.FOREIGN), Exit.PARTIAL),
        (Exit.TIME_UP, tally(Outcome.UPLOADED), Exit.TIME_UP),
        (Exit.DONE, tally(error=MirrorError("x")), Exit.PARTIAL),
        (Exit.DONE, tally(error=LedgerError("x")), Exit.LEDGER),
        (Exit.UNREACHABLE, tally(Outcome.FAILED), Exit.UNREACHABLE),
        (Exit.INTERRUPTED, tally(error=MirrorError("x")), Exit.INTERRUPTED),
    ],
)
def test_the_exit_code_of_the_run_comes_first(run_code, mirror, code):
    """The mirror decides only if nothing failed in the run."""
    assert exit_with_mirror(run_code, mirror) is code


def command(rig: "MirrorRig", *more: str) -> list[str]:
    """Return the arguments of `mirror` for a directory."""
    return ["mirror", "-d", str(rig.place.output), "--set", f"output.mirror={rig.url}", *more]


@needs_server
def test_the_command_says_what_it_did(rig, capsys):
    """A check before, the mirror, and a check after it."""
    assert main(command(rig, "--check")) == Exit.PARTIAL
    out = capsys.readouterr().out.splitlines()
    assert f"missing  {archive(0)}: the bucket does not have it" in out
    assert out[-1] == "4 files or objects differ from the ledger"
    assert main(command(rig)) == 0
    assert capsys.readouterr().out.startswith(f"mirror {rig.url}: 4 files uploaded (")
    assert main(command(rig, "--check")) == 0
    assert capsys.readouterr().out.splitlines() == ["the mirror is complete"]
    assert main(command(rig, "-q")) == 0
    assert capsys.readouterr().out == ""


@needs_server
def test_the_command_prints_a_line_of_json_for_each_file(rig, capsys):
    """Every line is documented, and the last one is the summary."""
    obstore.put(rig.store, archive(1), b"theirs")
    assert main(command(rig, "--check", "--json")) == Exit.PARTIAL
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [one["problem"] for one in records[:-1]] == ["missing", "missing", "foreign", "missing"]
    assert main(command(rig, "--json")) == Exit.PARTIAL
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert sorted(one["outcome"] for one in records[:-1]) == ["foreign", "uploaded", "uploaded", "uploaded"]
    assert records[-1]["mirror"]["foreign"] == 1
    assert main(command(rig, "-q")) == Exit.PARTIAL
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"mirror, exit code 3: mirror {rig.url}: 0 files uploaded (0 B), 3 there before, 1 foreign")
    assert archive(1) in line


@needs_server
@pytest.mark.parametrize(
    "variables", [{"AWS_SECRET_ACCESS_KEY": "CANARY-wrong"}, {"AWS_ACCESS_KEY_ID": "CANARY-unknown"}]
)
@pytest.mark.parametrize("more", [(), ("--check",), ("-vv",), ("--json",)])
def test_a_wrong_key_ends_with_3_and_is_never_shown(rig, capsys, variables, more):
    """The message says what to check."""
    with in_environment(variables):
        assert main(command(rig, *more)) == Exit.PARTIAL
    output = "".join(capsys.readouterr())
    assert "cannot list" in output
    assert "AWS_ACCESS_KEY_ID" in output
    for secret in ("CANARY", ACCESS_KEY, SECRET_KEY, "AWS4-HMAC", "Authorization"):
        assert secret not in output


async def doctor(rig: "MirrorRig", *, offline: bool = False) -> tuple[Level, str]:
    """Return what `doctor` finds about the mirror."""
    found = await mirror_check(rig.place.settings, offline=offline, limits=rig.limits)
    assert found is not None
    assert found.code is (Exit.PARTIAL if found.level is Level.FAIL else Exit.DONE)
    assert bool(found.advice) is (found.level is Level.FAIL)
    return found.level, found.message


@needs_server
async def test_doctor_lists_the_bucket_once(rig):
    """One request tells that the bucket is there and that the key is accepted; `--offline` sends none."""
    await rig.mirrored()
    async with rig.proxied() as proxy:
        assert await doctor(rig, offline=True) == (
            Level.OK,
            f"{rig.url}: the library is installed; not asked, because of --offline",
        )
        assert len(proxy.calls) == 0
        assert await doctor(rig) == (Level.OK, f"{rig.url} can be listed: it accepts the key")
        assert len(proxy.calls) == 1
    with in_environment({"AWS_SECRET_ACCESS_KEY": "CANARY-wrong"}):
        assert await doctor(rig) == (
            Level.FAIL,
            f"cannot list {rig.url}: refused (status 403, SignatureDoesNotMatch)",
        )
    rig.place.changes["output"]["mirror"] = "s3://no-such-bucket"
    assert await doctor(rig) == (Level.FAIL, "cannot list s3://no-such-bucket: there is no such bucket")


@needs_server
async def test_a_missing_key_is_named(rig, monkeypatch):
    """Without a key in the environment, the machine would need a role, and nothing answers that has one."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    summary = await rig.mirrored()
    assert summary.exit_code is Exit.PARTIAL
    assert str(summary.error) == f"cannot use {rig.url}: the environment has no key for the object store"


@needs_server
@pytest.mark.parametrize("library", ["obstore", ""])
def test_a_process_that_mirrored_ends_before_python_does(library):
    """The threads of the library would call Python while it ends; all output is written before."""
    program = f"""\
import atexit, sys
{library and f"import {library}"}
from asyncexport.cli import main
atexit.register(print, "Python ends")
sys.argv = ["asyncexport", "--json", "mirror", "--set", "output.mirror="]
sys.exit(main())
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, "output.mirror: is not set" in ran.stderr) == (Exit.USAGE, True)
    lines = ran.stdout.splitlines()
    assert json.loads(lines[0])["type"] == "summary"
    assert lines[1:] == ([] if library else ["Python ends"])


def test_a_mirror_needs_its_setting_and_its_library(tmp_path, capsys, monkeypatch):
    """Without one of them nothing is begun, also by a run."""
    assert main(["mirror", "-d", str(tmp_path)]) == Exit.USAGE
    assert "output.mirror: is not set" in capsys.readouterr().err
    place = Place(tmp_path)
    place.changes["output"] = {"directory": str(place.output), "mirror": "s3://bucket"}
    monkeypatch.setattr("asyncexport.run.mirror_place.LIBRARY", "no_such_library")
    with pytest.raises(ConfigError, match="needs a library") as caught:
        asyncio.run(asyncexport.backfill(place.settings, start="2026-01-01", key="na1.x/y"))
    assert caught.value.hint == "pip install 'asyncexport[mirror]'"
    assert not place.output.exists()
