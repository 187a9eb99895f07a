"""The settings and the API key for one command."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncexport.core.masking import Mask, looks_secret, secrets_of_dsn, secrets_of_ping_url, secrets_of_url
from asyncexport.errors import ConfigError, Problem, StorageError

FROM_DASHBOARD = "dashboard.listen (on the command line)"
"""The place of a problem with the value of `--dashboard`."""

if TYPE_CHECKING:
    from asyncexport.cli.session import Session
    from asyncexport.config import ApiKey, Settings


def read_settings(
    session: "Session", *, directory: Path | None, sets: list[str] | None, dashboard: str | None = None
) -> "Settings":
    """Read the settings: flags before environment before file. The session keeps the flags and the output directory.

    Args:
        session: The command's session.
        directory: The value of `-d`.
        sets: The values of `--set`.
        dashboard: The value of `--dashboard`.

    Raises:
        ConfigError: some settings are wrong; it holds every problem.
        StorageError: there is a file in place of the output directory.
    """
    from asyncexport.config import load_settings

    session.invocation.directory, session.invocation.settings = directory, sets or []
    problems: list[Problem] = []
    flags: dict[str, Any] = dict(_flags(sets or [], problems))
    if directory is not None:
        if "output.directory" in flags:
            problems.append(Problem("-d", "cannot be combined with --set output.directory"))
        flags["output.directory"] = directory
    if dashboard is not None:
        if "dashboard.listen" in flags:
            problems.append(Problem("--dashboard", "cannot be combined with --set dashboard.listen"))
        flags["dashboard.listen"] = dashboard
    try:
        settings = load_settings(
            file=session.invocation.config, environ=os.environ, flags=flags, working_directory=Path.cwd()
        )
    except ConfigError as error:
        named = (_as_option(one) if dashboard is not None else one for one in error.problems)
        raise ConfigError([*problems, *named], hint=error.hint) from error
    if problems:
        raise ConfigError(problems)
    session.directory = str(settings.output.directory)
    session.streams.hide(Mask(others=_secrets(settings)))
    check_place(settings.output.directory)
    return settings


def read_key(session: "Session", settings: "Settings") -> "ApiKey":
    """Read the API key, and mask it in all output from now on.

    Warnings about the place where the key was found are logged.

    Raises:
        UnauthorizedError: there is no key, or the text found cannot be one.
        ConfigError: the key file cannot be read.
    """
    import logging

    from asyncexport.config import load_key

    key = load_key(os.environ, file=settings.api.api_key_file)
    hide_key(session, key)
    for note in key.notes:
        logging.getLogger(__name__).warning("%s", note)
    return key


def hide_key(session: "Session", key: "ApiKey") -> None:
    """Mask the API key in all output from now on."""
    session.streams.hide(Mask([key.reveal()]))


def _secrets(settings: "Settings") -> list[str]:
    """Return the secrets in the settings."""
    proxies = [settings.api.proxy]
    if settings.api.proxy == "environment":
        from urllib.request import getproxies

        proxies = list(getproxies().values())
    headers = [value for value in settings.api.headers.values() if looks_secret(value)]
    ping = secrets_of_ping_url(settings.ping.url)
    return [
        *headers,
        *ping,
        *secrets_of_dsn(settings.load.postgres.dsn),
        *(secret for proxy in proxies for secret in secrets_of_url(proxy)),
    ]


def _as_option(problem: Problem) -> Problem:
    """Name the option `--dashboard` instead of its setting."""
    return replace(problem, place="--dashboard") if problem.place == FROM_DASHBOARD else problem


def check_place(directory: Path) -> None:
    """Check that a directory exists or can be created.

    Raises:
        StorageError: the path, or one of its parents, is a file.
    """
    from asyncexport.config.presence import is_file

    for path in (directory, *directory.parents):
        if os.path.lexists(path):
            if is_file(path):
                raise StorageError(
                    f"{directory} cannot be used: not a directory", hint=f"{path} is a file; choose another directory"
                )
            return


def _flags(sets: list[str], problems: list[Problem]) -> dict[str, str]:
    """Read the values of `--set TABLE.KEY=VALUE`."""
    flags = {}
    for one in sets:
        key, equals, value = one.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and table and name):
            problems.append(Problem("--set", "expected TABLE.KEY=VALUE, such as budget.burst=40"))
        elif table == "export":
            problems.append(Problem("--set", "exports can only be set by [[export]] in the file"))
        else:
            flags[f"{table}.{name}"] = value.strip()
    return flags
