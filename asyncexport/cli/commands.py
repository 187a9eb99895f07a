"""The table of the commands, and the program as typer sees it.

1. A command's file is imported when the command is asked for, and not before: help lists the table.
2. Global options may stand before the command or after it.
3. Each command's help has examples and the exit codes it may end with, in the words of `core.exits`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from asyncexport import __version__
from asyncexport.cli.invocation import PROGRAM
from asyncexport.cli.session import Session
from asyncexport.core.exits import MEANINGS, Exit

if TYPE_CHECKING:
    from asyncexport.core.summary import Summary

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

ANY_RUN = tuple(Exit)

NO_TIME = tuple(code for code in Exit if code is not Exit.TIME_UP)
"""Of a run that has no `--max-duration`."""

LOOKS = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A command: the file it is in, what it does, and how it may end. The function has the command's name.

    `examples` are what may be typed after the command's name, each with what that does.
    """

    file: str
    does: str
    exits: tuple[Exit, ...]
    examples: tuple[tuple[str, str], ...]


COMMANDS: dict[str, Entry] = {
    "demo": Entry(
        "demo",
        "the whole main job against a sandbox on this machine",
        NO_TIME,
        (("", "export a made-up day into ./asyncexport-demo, and compare it with the truth"),),
    ),
    "backfill": Entry(
        "runs",
        "export a range to completion; run again to resume; a finished range costs 0 requests",
        ANY_RUN,
        (
            ("--start 2026-01-01", "everything from that day up to what is settled"),
            ("--start 12w --end 2w --export people", "ten weeks of one export"),
            ("--start 36h --max-duration 5h", "stop cleanly after five hours; the same command resumes"),
        ),
    ),
    "nightly": Entry(
        "runs",
        "everything settled and not yet stored since [nightly] since, refreshes and parked bundles",
        ANY_RUN,
        (
            ("--max-duration 5h", "from cron or a timer, every night"),
            ("--set nightly.refresh=48h,7d", "also export bundles once more at two and at seven days of age"),
        ),
    ),
    "plan": Entry(
        "plan",
        "what a run would do: bundles, requests, finish time; --simulate: the same for other settings, tried out",
        (*LOOKS, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED),
        (
            ("--start 90d", "what a backfill of the last 90 days would cost"),
            ("--nightly", "what tonight will cost, refreshes included"),
            ("--start 90d --vary bundle=1h,6h", "try out wider bundles, without a request"),
        ),
    ),
    "status": Entry(
        "status",
        "what the ledger says: coverage, gaps, failures, sizes; works during a run",
        (*LOOKS, Exit.PARTIAL, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED),
        (
            ("", "all exports of [output] directory"),
            ("-d /data/exports --json", "another directory, as JSON for a monitor"),
        ),
    ),
    "verify": Entry(
        "verify",
        "re-check every archive against the ledger; --repair exports broken ones anew; --rebuild makes a lost ledger; "
        "--adopt takes in archives that it does not know",
        NO_TIME,
        (
            ("", "read every archive and compare it with the ledger; changes nothing"),
            ("--repair", "export again what is missing or broken"),
            ("--rebuild", "make a new ledger where the old one is lost or damaged"),
            ("--adopt", "take in what is newer than a ledger from a backup"),
        ),
    ),
    "retry": Entry(
        "runs",
        "take parked bundles up again; --accept-fewer: also those that kept their archive, as far fewer rows came",
        ANY_RUN,
        (
            ("", "all parked and unfinished bundles"),
            ("--start 2026-01-01 --end 2026-02-01 --accept-fewer", "rows of January were deleted on purpose"),
        ),
    ),
    "segments": Entry(
        "segments",
        "list segments to put in the configuration",
        (*LOOKS, Exit.UNREACHABLE, Exit.KEY_REFUSED, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED, Exit.TERMINATED),
        (("", "ids and names of the account's segments"), ("--json", "one JSON object a line")),
    ),
    "sandbox": Entry(
        "sandbox",
        "run the stand-in service",
        LOOKS,
        (
            ("--port 8080 --speed 60", "a minute of the service takes a second"),
            ("--show-faults", "list the faults that --fault can cause"),
        ),
    ),
    "init": Entry(
        "init",
        "write a commented asyncexport.toml",
        (*LOOKS, Exit.DISK),
        (("", "into the working directory"), ("--force -c other.toml", "write over another file")),
    ),
    "completion": Entry(
        "completion",
        "print a script that completes commands and options in bash, zsh or fish",
        LOOKS,
        (("bash", 'put eval "$(asyncexport completion bash)" into ~/.bashrc'), ("fish", "for a file of fish's own")),
    ),
}
"""Each command; the one place that knows how a command may end."""


class LogFormat(StrEnum):
    """`--log-format`."""

    TEXT = "text"
    JSON = "json"


class Command(TyperCommand):
    """One command: it begins the session when it runs, and has its exit codes in its help."""

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        ctx.obj.begin()
        return super().invoke(ctx)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its signature
        """Examples and exit codes, in place of an epilog."""
        entry = COMMANDS[self.name or ""]
        _write_examples(formatter, [(f"{self.name} {typed}".rstrip(), does) for typed, does in entry.examples])
        _write_exits(formatter, entry.exits)


class Program(TyperGroup):
    """The program: its commands come from the table."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - its signature
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the command's file and make the command; `obj` of the context is the session."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        function = getattr(import_module(f"asyncexport.cli.{entry.file}"), cmd_name)
        command = _command(cmd_name, function)
        taken = {name for param in command.params for name in param.opts}
        command.params += [_anywhere(param) for param in self.params if not taken.intersection(param.opts)]
        if isinstance(ctx.obj, Session):
            ctx.obj.command = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does it, but for one that is not known."""
        if args[0] == "help":
            if not args[1:]:
                typer.echo(ctx.get_help())
                ctx.exit()
            return self.resolve_command(ctx, [args[1], "--help"])
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            nearest = get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"there is no command {args[0]!r}" + (f" (did you mean {nearest[0]}?)" if nearest else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its signature
        """The table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.does) for name, entry in COMMANDS.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its signature
        """Examples and exit codes, in place of an epilog."""
        firsts = [(name, COMMANDS[name].examples[0]) for name in ("demo", "plan", "backfill", "status")]
        _write_examples(formatter, [(f"{name} {typed}".rstrip(), does) for name, (typed, does) in firsts])
        _write_exits(formatter, MEANINGS)


def call(arguments: Sequence[str], session: Session) -> "Summary | int | None":
    """Run the command: the summary it returns, or the exit code where typer itself had all there was to do.

    Raises:
        typer's usage errors, and whatever the command raises.
    """
    outcome: Summary | int | None = program().main(
        args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=session
    )
    return outcome


def program() -> Any:
    """The program, as typer makes it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
    app.callback(cls=Program)(global_options)
    return get_command(app)


def show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    """`--version`."""
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def global_options(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c", "--config", metavar="FILE", help="Settings; else $ASYNCEXPORT_CONFIG or ./asyncexport.toml."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on stdout; the last is the summary.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors, and what is not done.")] = False,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Say more; -vv says all.")
    ] = 0,
    log_format: Annotated[LogFormat | None, typer.Option("--log-format", help="How stderr is written.")] = None,
    version: Annotated[  # noqa: ARG001 - its callback has done all
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Get a company's whole Fullstory history onto its own disk, complete.

    Global options may stand before the command or after it. `asyncexport COMMAND --help` says more of each command.
    """
    given = {"config": config, "as_json": as_json, "quiet": quiet, "verbose": verbose, "log_format": log_format}
    for name, value in given.items():
        ctx.obj.take(name, value)


def _command(name: str, function: Callable[..., Any]) -> Any:
    """A function as a command: its help is what the table says, and its docstring but for the first line."""
    _, _, more = (function.__doc__ or "").partition("\n")
    does = COMMANDS[name].does
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command, context_settings=SETTINGS, help=f"{does[0].upper()}{does[1:]}.\n\n{dedent(more)}")(
        function
    )
    return get_command(app)


def _anywhere(param: Any) -> Any:
    """A global option as it may stand after a command: it goes to the session, and not to the command."""
    again = copy.copy(param)
    again.hidden, again.expose_value = True, False
    if param.name != "version":
        again.callback = lambda ctx, param, value: ctx.obj.take(param.name, value)
    return again


def _write_examples(formatter: Any, examples: Iterable[tuple[str, str]]) -> None:
    """Each with what it does below it."""
    with formatter.section("Examples"):
        for typed, does in examples:
            formatter.write(f"{'':{formatter.current_indent}}{PROGRAM} {typed}\n")
            formatter.indent()
            formatter.write_text(does)
            formatter.dedent()


def _write_exits(formatter: Any, codes: Iterable[Exit]) -> None:
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(int(code)), MEANINGS[code].replace("`", "")) for code in codes])
