"""Options that several commands have, and what they ask for: all faults in them are told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.configuration import read_settings
from asyncexport.errors import ConfigError, Problem

if TYPE_CHECKING:
    from asyncexport.cli.session import Session
    from asyncexport.config import Settings
    from asyncexport.core.bundles import When
    from asyncexport.core.exports import Export

DATES = "2026-01-01, RFC 3339, today, yesterday, or 90d, 12w or 36h ago; UTC"

Start = Annotated[str, typer.Option("--start", metavar="DATE", help=f"From when: {DATES}.", show_default=False)]
End = Annotated[
    str | None,
    typer.Option("--end", metavar="DATE", help="Up to when, exclusive; as a rule, all that is settled."),
]
MaybeStart = Annotated[
    str | None,
    typer.Option("--start", metavar="DATE", help=f"Only from when on: {DATES}.", show_default=False),
]
MaybeEnd = Annotated[
    str | None, typer.Option("--end", metavar="DATE", help="Only up to when, exclusive.", show_default=False)
]
Names = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="NAME", help="Only this one of the exports configured; may be repeated."),
]
MaxDuration = Annotated[
    str | None,
    typer.Option("--max-duration", metavar="TIME", help="Stop cleanly after so long, such as 5h or 90m."),
]


def named(text: str | Path) -> Path:
    """What `-d` names; a default comes as the path that it is.

    Raises:
        typer's usage error: it is empty, which for a path would be the working directory.
    """
    if not str(text).strip():
        raise typer.BadParameter("it is empty")
    return Path(text)


Directory = Annotated[
    Path | None,
    typer.Option(
        "-d",
        "--directory",
        metavar="DIR",
        parser=named,
        help="Where the archives are, in place of [output] directory.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Any setting, such as budget.burst=40; may be repeated."),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command is asked for; moments in seconds since 1970, or in words that wait for a clock.

    Where nothing was said, `start` is 0, and `end` and `max_duration_seconds` are None.
    """

    settings: "Settings"
    exports: "tuple[Export, ...]"
    start: "When"
    end: "When | None"
    max_duration_seconds: float | None


def read_asked(
    session: "Session",
    *,
    directory: Path | None,
    sets: list[str] | None,
    names: list[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    max_duration: str | None = None,
    faults: Sequence[Problem] = (),
) -> Asked:
    """What the options and the settings ask for; `faults`: what the command itself found wrong with them.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    from asyncexport.core.bundles import is_always_empty
    from asyncexport.core.exports import unknown_names

    problems = list(faults)
    hint = ""
    settings = None
    try:
        settings = read_settings(session, directory=directory, sets=sets)
    except ConfigError as error:
        problems += error.problems
        hint = error.hint
    first, last = _read_when_option("--start", start, problems), _read_when_option("--end", end, problems)
    if first is not None and last is not None and is_always_empty(first, last):
        problems.append(Problem("--end", f"{end} is not after the start, {start}"))
    seconds = _read_duration_option(max_duration, problems)
    exports: tuple[Export, ...] = ()
    if settings is not None:
        problems += unknown_names(names or (), [export.name for export in settings.exports], place="--export")
        exports = tuple(export for export in settings.exports if not names or export.name in names)
    if problems or settings is None:
        raise ConfigError(problems, hint=hint)
    return Asked(settings, exports, first or 0, last, seconds)


def _read_when_option(option: str, text: str | None, problems: list[Problem]) -> "When | None":
    from asyncexport.core.bundles import read_when

    if text is None:
        return None
    try:
        return read_when(text)
    except ValueError as error:
        problems.append(Problem(option, str(error)))
        return None


def _read_duration_option(text: str | None, problems: list[Problem]) -> float | None:
    from asyncexport.config import read_duration

    if text is None:
        return None
    try:
        seconds = read_duration(text)
    except ValueError as error:
        problems.append(Problem("--max-duration", str(error)))
        return None
    if not seconds:
        problems.append(Problem("--max-duration", "must be longer than 0s"))
    return seconds


def check_names(names: list[str] | None, known: Sequence[str]) -> None:
    """Whether all exports that were named exist.

    Raises:
        ConfigError: one does not.
    """
    from asyncexport.core.exports import unknown_names

    problems = list(unknown_names(names or (), list(dict.fromkeys(known)), place="--export"))
    if problems:
        raise ConfigError(problems)
