"""The settings and the API key of one call of the program."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncexport.core.masking import Mask, looks_secret, secrets_of_url
from asyncexport.errors import ConfigError, Problem, StorageError

if TYPE_CHECKING:
    from asyncexport.cli.session import Session
    from asyncexport.config import ApiKey, Settings


def read_settings(session: "Session", *, directory: Path | None, sets: list[str] | None) -> "Settings":
    """The settings: flag before environment before file. The session remembers the flags, and the output directory.

    Args:
        session: The call of the program.
        directory: What `-d` names.
        sets: What `--set` says, each time.

    Raises:
        ConfigError: with all that is wrong with them.
        StorageError: a file lies where the output directory is to be.
    """
    from asyncexport.config import load_settings

    session.invocation.directory, session.invocation.settings = directory, sets or []
    problems: list[Problem] = []
    flags: dict[str, Any] = dict(_flags(sets or [], problems))
    if directory is not None:
        if "output.directory" in flags:
            problems.append(Problem("-d", "and --set output.directory are both given: one of them is enough"))
        flags["output.directory"] = directory
    try:
        settings = load_settings(
            file=session.invocation.config, environ=os.environ, flags=flags, working_directory=Path.cwd()
        )
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems], hint=error.hint) from error
    if problems:
        raise ConfigError(problems)
    session.directory = str(settings.output.directory)
    session.streams.hide(Mask(others=_secrets(settings)))
    check_place(settings.output.directory)
    return settings


def read_key(session: "Session", settings: "Settings") -> "ApiKey":
    """The API key, which is masked in all that is said from now on.

    What the user should know about the place where it was found is logged.

    Raises:
        UnauthorizedError: there is none, or what is there cannot be one.
        ConfigError: the file it should be in cannot be read.
    """
    import logging

    from asyncexport.config import load_key

    key = load_key(os.environ, file=settings.api.api_key_file)
    session.streams.hide(Mask([key.reveal()]))
    for note in key.notes:
        logging.getLogger(__name__).warning("%s", note)
    return key


def _secrets(settings: "Settings") -> list[str]:
    """What of the settings nobody else may see."""
    proxies = [settings.api.proxy]
    if settings.api.proxy == "environment":
        from urllib.request import getproxies

        proxies = list(getproxies().values())
    headers = [value for value in settings.api.headers.values() if looks_secret(value)]
    return headers + [secret for proxy in proxies for secret in secrets_of_url(proxy)]


def check_place(directory: Path) -> None:
    """Whether a directory is there, or can be.

    Raises:
        StorageError: a file has its name, or that of a directory above it.
    """
    for path in (directory, *directory.parents):
        if os.path.lexists(path):
            if path.is_file():
                raise StorageError(
                    f"{directory} cannot be used: not a directory", hint=f"{path} is a file; choose another directory"
                )
            return


def _flags(sets: list[str], problems: list[Problem]) -> dict[str, str]:
    """`--set table.key=value`, as the settings take it."""
    flags = {}
    for one in sets:
        key, equals, value = one.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and table and name):
            problems.append(Problem("--set", "is written TABLE.KEY=VALUE, such as budget.burst=40"))
        elif table == "export":
            problems.append(Problem("--set", "exports are set by [[export]] in the file alone"))
        else:
            flags[f"{table}.{name}"] = value.strip()
    return flags
