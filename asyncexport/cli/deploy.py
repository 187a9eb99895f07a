"""`deploy`: print files that start nightly runs with the present configuration."""

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.invocation import PROGRAM
from asyncexport.cli.options import Directory, Names, Sets, read_asked
from asyncexport.cli.session import Session
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.errors import ConfigError, Problem, StorageError

if TYPE_CHECKING:
    from asyncexport.cli.options import Asked
    from asyncexport.config import Settings
    from asyncexport.deploy import Deployment, PrintedFile

KEY_FILE = "/etc/asyncexport/api-key"
"""Where the printed files look for the API key if `[api] api_key_file` is not set."""

IMAGE = f"{PROGRAM}:latest"

SECRET_SETTINGS = ("api.headers", "api.proxy", "load.postgres.dsn", "ping.url")
"""Settings that may be secret, and so must not be in a printed command line."""

DIRECTORY_SETTING = "output.directory"

OWN_SETTINGS = (DIRECTORY_SETTING, "api.api_key_file")
"""Settings that the printed files pass on in another way, so that a value of `--set` is left out of the command line:
it would override the scheduler's copy of the key, and cannot be combined with `-d`."""

FIRST_YEAR = 2010
"""No data of Fullstory is older."""

STOP_MARGIN_SECONDS = 60
"""How much longer than `[output] grace` and `[ping] timeout` a run may take to stop."""


class Target(StrEnum):
    """What starts the runs."""

    SYSTEMD = "systemd"
    CRON = "cron"
    KUBERNETES = "kubernetes"
    AIRFLOW = "airflow"


Into = Annotated[
    Path | None, typer.Option("--into", metavar="DIR", help="Write the files into this directory instead.")
]
Force = Annotated[bool, typer.Option("--force", help="With --into: overwrite existing files.")]
ServiceName = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the service, CronJob or DAG.")]
At = Annotated[
    str, typer.Option("--at", metavar="HH:MM", help="When runs start, in UTC; for cron, in the machine's time zone.")
]
Loads = Annotated[bool, typer.Option("--load", help="Let the runs load days into tables as well.")]
RunsFor = Annotated[str, typer.Option("--max-duration", metavar="TIME", help="How long a run may take, at most 24h.")]
Image = Annotated[
    str | None, typer.Option("--image", metavar="IMAGE", help=f"kubernetes: the image. Default: {IMAGE}.")
]
FirstDay = Annotated[
    str | None,
    typer.Option("--start", metavar="DATE", help="airflow: one task per day from this one on, instead of one a night."),
]


def deploy(
    ctx: typer.Context,
    target: Annotated[
        Target, typer.Argument(metavar="TARGET", help="systemd, cron, kubernetes or airflow.", show_default=False)
    ],
    *,
    into: Into = None,
    force: Force = False,
    name: ServiceName = PROGRAM,
    at: At = "03:10",
    load: Loads = False,
    max_duration: RunsFor = "5h",
    image: Image = None,
    start: FirstDay = None,
    export: Names = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Print the files.

    The files call this installation with the configuration that is in effect now: its file, directory and options. The
    comments at the top of each file say where it belongs and where to put the API key, which is never printed. Nothing
    is installed.
    """
    from asyncexport.deploy import airflow_files, cron_files, kubernetes_files, systemd_files
    from asyncexport.run.load_exports import check_load_settings

    session: Session = ctx.obj
    problems = [*_option_problems(target, image=image, start=start, name=name, force=force, into=into, sets=sets)]
    hour, minute = _time(at, problems)
    first = _day(start, problems)
    asked = read_asked(
        session, directory=directory, sets=sets, names=export, max_duration=max_duration, faults=problems
    )
    deployment = _deployment(session, asked, name=name, hour=hour, minute=minute, max_duration=max_duration, load=load)
    _check(deployment)
    if load and target is not Target.KUBERNETES:
        check_load_settings(asked.settings)
    match target:
        case Target.SYSTEMD:
            files = systemd_files(deployment)
        case Target.CRON:
            files = cron_files(deployment)
        case Target.KUBERNETES:
            files = kubernetes_files(deployment, image=image or IMAGE)
        case Target.AIRFLOW:
            files = airflow_files(deployment, start=first)
    _hand_over(session, files, into=into, force=force)
    _warn(session, asked.settings, deployment, target)
    return session.summary(Exit.DONE)


def _option_problems(
    target: Target,
    *,
    image: str | None,
    start: str | None,
    name: str,
    force: bool,
    into: Path | None,
    sets: list[str] | None,
) -> list[Problem]:
    from asyncexport.config.presence import is_directory

    problems = []
    if image is not None and target is not Target.KUBERNETES:
        problems.append(Problem("--image", "is for kubernetes only"))
    if image is not None and (not image.strip() or not image.isprintable()):
        problems.append(Problem("--image", "must be the name of an image"))
    if start is not None and target is not Target.AIRFLOW:
        problems.append(Problem("--start", "is for airflow only; the other files start `nightly`"))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", name):
        problems.append(Problem("--name", "must be lower-case letters, digits and hyphens, at most 42"))
    if force and into is None:
        problems.append(Problem("--force", "needs --into"))
    if into is not None and not is_directory(into):
        problems.append(Problem("--into", f"{into} is not a directory"))
    secret = [key for key in map(_key_of, sets or ()) if key in SECRET_SETTINGS]
    return problems + [Problem("--set", f"{key} may be secret: put it into the configuration file") for key in secret]


def _key_of(one: str) -> str:
    """Return the setting that a value of `--set` names."""
    return one.partition("=")[0].strip()


def _time(text: str, problems: list[Problem]) -> tuple[int, int]:
    found = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text.strip())
    if found is None:
        problems.append(Problem("--at", f"{text!r} is not a time of day, such as 03:10"))
        return 0, 0
    return int(found[1]), int(found[2])


def _day(text: str | None, problems: list[Problem]) -> str:
    """Read the first day; "" if there is none."""
    from datetime import UTC, date, datetime

    if text is None:
        return ""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        problems.append(Problem("--start", f"{text!r} is not a day, such as 2026-01-01"))
        return ""
    if day.year < FIRST_YEAR or day > datetime.now(UTC).date():
        problems.append(
            Problem("--start", f"{day} must be between {FIRST_YEAR} and today: Airflow starts a task per day")
        )
    return day.isoformat()


def _deployment(
    session: Session, asked: "Asked", *, name: str, hour: int, minute: int, max_duration: str, load: bool
) -> "Deployment":
    import math

    from asyncexport.config.layers import find_file
    from asyncexport.config.needed_variables import needed_variables
    from asyncexport.core.warehouse.worker_count import WORKER_OVERHEAD
    from asyncexport.deploy import Deployment

    settings, here = asked.settings, Path.cwd()
    invocation = session.invocation
    file, _ = find_file(invocation.config, environ=os.environ, working_directory=here, argument="-c")
    directory = here / settings.output.directory
    stop_seconds = settings.output.grace_seconds + settings.ping.timeout_seconds + STOP_MARGIN_SECONDS
    return Deployment(
        name=name,
        program=_program(),
        config=file,
        working_directory=here,
        directory=directory,
        key_file=here / (settings.api.api_key_file or KEY_FILE),
        names=tuple(export.name for export in asked.exports) if len(asked.exports) < len(settings.exports) else (),
        sets=tuple(one for one in invocation.settings if _key_of(one) not in OWN_SETTINGS),
        overrides_directory=invocation.directory is not None or DIRECTORY_SETTING in map(_key_of, invocation.settings),
        max_duration=max_duration,
        max_duration_seconds=asked.max_duration_seconds or 0.0,
        stop_seconds=math.ceil(stop_seconds),
        settle_seconds=max(export.settle_seconds for export in asked.exports),
        hour=hour,
        minute=minute,
        user=_owner(directory),
        load_bytes=settings.load.memory + WORKER_OVERHEAD if load else None,
        variables=needed_variables(settings, loads=load),
    )


def _program() -> tuple[str, ...]:
    """Return the words that start this installation."""
    from asyncexport.config.presence import is_file

    script = Path(sys.executable).with_name(PROGRAM)
    return (str(script),) if is_file(script) else (sys.executable, "-m", PROGRAM)


def _owner(directory: Path) -> str:
    """Return the name of the user who owns the output directory, or who would own it."""
    import pwd

    try:
        number = directory.stat().st_uid if directory.is_dir() else os.getuid()
        return pwd.getpwuid(number).pw_name
    except (KeyError, OSError):
        return str(os.getuid())


def _check(deployment: "Deployment") -> None:
    """Check that every text fits on one line of a file.

    Raises:
        ConfigError: one does not, or a run could take longer than the time between two nights.
    """
    problems = []
    texts = [*deployment.command(), str(deployment.working_directory), str(deployment.key_file)]
    problems += [Problem("", f"{text!r} has a character that cannot be printed") for text in texts if _is_odd(text)]
    if str(deployment.key_file).endswith((" ", "\\")):
        problems.append(Problem("api.api_key_file", "must not end with a space or a backslash"))
    if deployment.max_duration_seconds > 86_400:
        problems.append(Problem("--max-duration", "must not be longer than 24h, the time between two runs"))
    if problems:
        raise ConfigError(problems)


def _is_odd(text: str) -> bool:
    return not text.isprintable()


def _hand_over(session: Session, files: "tuple[PrintedFile, ...]", *, into: Path | None, force: bool) -> None:
    """Print the files, or write them into a directory."""
    if into is not None and not force:
        taken = [into / file.name for file in files if os.path.lexists(into / file.name)]
        if taken:
            problems = [Problem("--into", f"{path} already exists") for path in taken]
            raise ConfigError(problems, hint="`--force` overwrites it")
    for number, file in enumerate(files):
        path = None if into is None else into / file.name
        if path is not None:
            _write(path, file.text)
            session.say(f"wrote {path}")
        else:
            if len(files) > 1:
                session.say(("\n" if number else "") + f"# ---- {file.name}")
            session.say(file.text.rstrip("\n"))
        session.record("deployed", name=file.name, text=file.text, path=None if path is None else str(path))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise StorageError(f"{path} cannot be written: {reason}", hint="choose a writable location") from error


def _warn(session: Session, settings: "Settings", deployment: "Deployment", target: Target) -> None:
    """Name what this shell and this machine have, and a scheduler does not."""
    from asyncexport.config.layers import FILE_VARIABLE, PREFIX
    from asyncexport.deploy import ENVIRONMENT_FILE

    passed = (FILE_VARIABLE, *deployment.variables)
    variables = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in passed)
    if variables:
        session.lines.hint(
            f"{', '.join(variables)}: set in this shell, but not in the printed files; put the values into the "
            "configuration file"
        )
    if deployment.variables:
        place = "the environment of the workers" if target is Target.AIRFLOW else ENVIRONMENT_FILE
        session.lines.hint(f"the runs need {deployment.named_variables} in their environment: put them into {place}")
    if target is Target.KUBERNETES:
        paths = {"[api] ca_file": settings.api.ca_file, "[metrics] textfile": settings.metrics.textfile}
        if deployment.load_bytes is not None:
            paths["[load.postgres] dsn_file"] = settings.load.postgres.dsn_file
            paths["[load.snowflake] key_file"] = settings.load.snowflake.key_file
        for setting, path in paths.items():
            if path is not None:
                session.lines.hint(f"{setting} is a path on this machine: {path}; the container needs it as well")
