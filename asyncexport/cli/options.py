"""Options that several commands share, and how they are read: all faults are reported together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.configuration import read_settings
from asyncexport.core.exits import Exit
from asyncexport.errors import ConfigError, Problem

if TYPE_CHECKING:
    from asyncexport.cli.session import Session
    from asyncexport.config import Settings
    from asyncexport.core.bundles import When
    from asyncexport.core.exports import Export

NEVER_SUCCESS = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE)
"""Codes that `--success-exit` refuses. A bug or a mistyped setting that looked like success would never be noticed."""

DATES = "2026-01-01, RFC 3339, today, yesterday, or an age such as 90d, 12w or 36h; UTC"

Start = Annotated[
    str, typer.Option("--start", metavar="DATE", help=f"Start of the range: {DATES}.", show_default=False)
]
End = Annotated[
    str | None,
    typer.Option(
        "--end", metavar="DATE", help="End of the range, exclusive. Default: everything old enough to be settled."
    ),
]
MaybeStart = Annotated[
    str | None,
    typer.Option("--start", metavar="DATE", help=f"Only bundles from this time on: {DATES}.", show_default=False),
]
MaybeEnd = Annotated[
    str | None, typer.Option("--end", metavar="DATE", help="Only bundles before this time.", show_default=False)
]
Names = Annotated[
    list[str] | None,
    typer.Option("--export", metavar="NAME", help="Only the export of this name; may be repeated. Default: all."),
]
MaxDuration = Annotated[
    str | None,
    typer.Option("--max-duration", metavar="TIME", help="Stop cleanly after this long, such as 5h or 90m."),
]


def named(text: str | Path) -> Path:
    """Return the path that `-d` gives; typer passes a default as a path already.

    Raises:
        typer's usage error: the text is empty, which as a path would mean the working directory.
    """
    if not str(text).strip():
        raise typer.BadParameter("must not be empty")
    return Path(text)


RequireEnd = Annotated[
    bool,
    typer.Option(
        "--require-end", help="Exit with 9 if the end is not settled yet, after exporting what is settled. Needs --end."
    ),
]


def read_success_exit(text: str) -> int:
    """Read a value of `--success-exit`.

    Raises:
        typer's usage error: it is not an exit code, or one that must never look like success.
    """
    codes = [str(int(code)) for code in Exit if code not in NEVER_SUCCESS]
    if text not in codes:
        raise typer.BadParameter(f"must be one of {', '.join(codes[:-1])} and {codes[-1]}")
    return int(text)


Dashboard = Annotated[
    str | None,
    typer.Option(
        "--dashboard",
        metavar="HOST:PORT",
        help="During the run, serve the status page at this address, such as 127.0.0.1:8766, and keep it up to date.",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="If another run uses the directory, wait until it has ended; else exit code 4.")
]
SuccessExits = Annotated[
    list[int] | None,
    typer.Option(
        "--success-exit",
        metavar="N",
        parser=read_success_exit,
        help="End with exit code 0 instead of N; may be repeated. The summary keeps N.",
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        "-d",
        "--directory",
        metavar="DIR",
        parser=named,
        help="Directory of the archives. Default: [output] directory.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="TABLE.KEY=VALUE", help="Override a setting, such as budget.burst=40; may be repeated."
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options and the settings ask a command to do.

    Attributes:
        settings: The settings.
        exports: The exports to work on.
        start: The start of the range: seconds since 1970, or a relative date. 0 if not given.
        end: The end of the range, exclusive. None if not given.
        max_duration_seconds: Seconds after which to stop. None if not given.
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
    require_end: bool = False,
    success_exits: Sequence[int] | None = None,
    dashboard: str | None = None,
    faults: Sequence[Problem] = (),
) -> Asked:
    """Read the options and the settings; `faults` are problems that the command itself found in them.

    Raises:
        ConfigError: some are wrong; it holds every problem.
    """
    from asyncexport.core.bundles import is_always_empty
    from asyncexport.core.exports import unknown_names

    session.success_exits = frozenset(success_exits or ())
    problems = list(faults)
    if require_end and end is None:
        problems.append(Problem("--require-end", "needs --end"))
    hint = ""
    settings = None
    try:
        settings = read_settings(session, directory=directory, sets=sets, dashboard=dashboard)
    except ConfigError as error:
        problems += error.problems
        hint = error.hint
    first, last = read_when_option("--start", start, problems), read_when_option("--end", end, problems)
    if first is not None and last is not None and is_always_empty(first, last):
        problems.append(Problem("--end", f"{end} is not after the start, {start}"))
    seconds = read_duration_option("--max-duration", max_duration, problems)
    exports: tuple[Export, ...] = ()
    if settings is not None:
        problems += unknown_names(names or (), [export.name for export in settings.exports], place="--export")
        exports = tuple(export for export in settings.exports if not names or export.name in names)
    if problems or settings is None:
        raise ConfigError(problems, hint=hint)
    return Asked(settings, exports, first or 0, last, seconds)


def read_when_option(option: str, text: str | None, problems: list[Problem]) -> "When | None":
    """Read a date; None if it was not given or cannot be read, which is added to the problems."""
    from asyncexport.core.bundles import read_when

    if text is None:
        return None
    try:
        return read_when(text)
    except ValueError as error:
        problems.append(Problem(option, str(error)))
        return None


def read_duration_option(option: str, text: str | None, problems: list[Problem]) -> float | None:
    """Read a duration; None if it was not given or cannot be read, which is added to the problems."""
    from asyncexport.config import read_duration

    if text is None:
        return None
    try:
        seconds = read_duration(text)
    except ValueError as error:
        problems.append(Problem(option, str(error)))
        return None
    if not seconds:
        problems.append(Problem(option, "must be longer than 0s"))
    return seconds


def check_names(names: list[str] | None, known: Sequence[str]) -> None:
    """Check that all named exports exist.

    Raises:
        ConfigError: one does not.
    """
    from asyncexport.core.exports import unknown_names

    problems = list(unknown_names(names or (), list(dict.fromkeys(known)), place="--export"))
    if problems:
        raise ConfigError(problems)
