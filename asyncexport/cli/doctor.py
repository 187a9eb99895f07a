"""`doctor`: check everything that a run needs, and say what to do."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.configuration import hide_key, read_settings
from asyncexport.cli.options import Directory, Sets
from asyncexport.cli.session import Session
from asyncexport.core.diagnosis import Check, Level, code_of, failed, passed, warned
from asyncexport.core.exits import Exit, exit_of
from asyncexport.core.summary import Summary
from asyncexport.display import plain
from asyncexport.errors import ConfigError, ExportError

if TYPE_CHECKING:
    from asyncexport.config import ApiKey, Settings

Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Send no request: leave out host, TLS and proxy, clock, organisation, segment, bucket, databases.",
    ),
]

NAME_COLUMNS = 13
"""The width of the longest names, `configuration` and `TLS and proxy`."""


def doctor(ctx: typer.Context, *, offline: Offline = False, directory: Directory = None, sets: Sets = None) -> Summary:
    """Check what a run needs.

    Checks the configuration, the key, the host, TLS and proxy, the clock, the segments, the lock, the ledger,
    permissions, and whether the disk has room for one and a half times the archives of the last 30 days. Each line is
    ok, warn or fail, with what to do below it. Sends two requests at most, as soon as the budget allows; the ledger
    counts them. Changes nothing else.

    Where [output] mirror is set, lists the bucket once. With a table [load], checks its libraries, the load directory
    and its disk, and logs in to each destination. Also checks whether the addresses in [metrics] listen and [dashboard]
    listen are free.

    The exit code is the one with which a run would have ended; with a table [load], a run with --load.
    """
    session: Session = ctx.obj
    checks: list[Check] = []

    def report(one: Check) -> None:
        checks.append(one)
        _print(session, one)

    settings = _settings(session, report, directory=directory, sets=sets)
    if settings is not None:
        _diagnose(session, settings, _key(session, settings, report), report, offline=offline)
    code = code_of(checks)
    if not session.quiet:
        session.say()
        session.say(_verdict(checks, code))
    return session.summary(code)


def _settings(
    session: Session, report: Callable[[Check], None], *, directory: Path | None, sets: list[str] | None
) -> "Settings | None":
    """Read the settings and report their check; return None if they cannot be used."""
    try:
        settings = read_settings(session, directory=directory, sets=sets)
    except ExportError as error:
        for check in _of_error("configuration" if isinstance(error, ConfigError) else "permissions", error):
            report(check)
        return None
    from asyncexport.config.layers import find_file
    from asyncexport.run.diagnosis import settings_check

    file, _ = find_file(session.invocation.config, environ=os.environ, working_directory=Path.cwd(), argument="-c")
    report(settings_check(settings, file="" if file is None else str(file), now=time.time()))
    return settings


def _key(session: Session, settings: "Settings", report: Callable[[Check], None]) -> "ApiKey | None":
    """Read the API key and report its check; return None if it cannot be used."""
    from asyncexport.config import load_key

    try:
        key = load_key(os.environ, file=settings.api.api_key_file)
    except ExportError as error:
        for check in _of_error("key", error):
            report(check)
        return None
    hide_key(session, key)
    for note in key.notes:
        text, _, advice = note.partition("; ")
        report(warned("key", text, advice))
    if not key.notes:
        report(passed("key", "found, and has the form of a key"))
    return key


def _diagnose(
    session: Session,
    settings: "Settings",
    key: "ApiKey | None",
    report: Callable[[Check], None],
    *,
    offline: bool,
) -> None:
    from asyncexport.cli.signals import run_interruptibly
    from asyncexport.run.diagnosis import diagnose

    def sent(kind: str) -> None:
        session.requests.update([kind])

    async def diagnosed() -> None:
        async for check in diagnose(settings, key, offline=offline, sent=sent):
            report(check)

    run_interruptibly(diagnosed)


def _of_error(name: str, error: ExportError) -> Iterator[Check]:
    """Yield a failed check for each problem; the advice is below the last one."""
    problems = [problem.text for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
    for number, text in enumerate(problems, 1):
        advice = error.hint if number == len(problems) else ""
        yield failed(name, text, advice, code=exit_of(error))


def _print(session: Session, check: Check) -> None:
    """Print a check; with `--quiet`, only if something is wrong."""
    session.record("check", name=check.name, result=check.level.value, message=check.message, advice=check.advice)
    if session.quiet and check.level is Level.OK:
        return
    advice = session.invocation.pasteable(check.advice)
    hanging = 6 + NAME_COLUMNS + 2
    session.say_fitted(f"{check.level.value:<4}  {check.name:<{NAME_COLUMNS}}  {plain(check.message)}", hanging=hanging)
    if advice:
        session.say_fitted(f"{'':<{hanging}}{plain(advice)}", hanging=hanging)


def _verdict(checks: list[Check], code: Exit) -> str:
    warnings = sum(one.level is Level.WARN for one in checks)
    if code is not Exit.DONE:
        return f"a run would end with exit code {int(code)}"
    return "a run can start" + (f"; warnings: {warnings}" if warnings else "")
