"""The table of commands, and the typer application made from it.

1. A command's module is imported only when that command is called; `asyncexport --help` needs only the table.
2. Global options may be given before or after the command.
3. The help of each command shows examples and the exit codes it may return, with the texts of `core.exits`.
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
"""The codes of a run without `--max-duration`."""

COMMON = (Exit.DONE, Exit.UNEXPECTED, Exit.USAGE)
"""The codes that any command may return."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Attributes:
        file: The module that has the command's function. The function has the name of the command.
        does: What the command does, for the list of commands.
        exits: The exit codes it may return.
        examples: Arguments that may follow the command's name, each with an explanation.
    """

    file: str
    does: str
    exits: tuple[Exit, ...]
    examples: tuple[tuple[str, str], ...]


COMMANDS: dict[str, Entry] = {
    "demo": Entry(
        "demo",
        "export a made-up day from a local sandbox; needs no key and no configuration",
        NO_TIME,
        (
            ("", "export a day into ./asyncexport-demo and compare every row with the sandbox"),
            ("--load", "also load it into tables, and show a query and its answer"),
        ),
    ),
    "backfill": Entry(
        "runs",
        "export a range to completion; run it again to resume; a finished range costs 0 requests",
        ANY_RUN,
        (
            ("--start 2026-01-01", "everything from that day on that is settled"),
            ("--start 12w --end 2w --export people", "ten weeks of one export"),
            (
                "--start 36h --max-duration 5h",
                "from 36 hours ago to where settled data ends, about 26 hours ago; stop after five hours",
            ),
            ("--start 90d --dashboard 127.0.0.1:8766", "show the status page at http://127.0.0.1:8766/ meanwhile"),
        ),
    ),
    "nightly": Entry(
        "runs",
        "export everything settled and not yet stored since [nightly] since; refresh and retry what is due",
        ANY_RUN,
        (
            ("--max-duration 5h", "from cron or a timer, every night"),
            ("--load", "also load each day into tables once it is complete"),
            ("--set nightly.refresh=48h,7d", "also export bundles again when they are two and seven days old"),
        ),
    ),
    "plan": Entry(
        "plan",
        "show what a run would do: bundles, requests, finish time; --simulate compares settings",
        (*COMMON, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED),
        (
            ("--start 90d", "what a backfill of the last 90 days would cost"),
            ("--nightly", "what a nightly run would cost tonight, refreshes included"),
            ("--start 90d --vary bundle=1h,6h", "compare wider bundles, without sending a request"),
        ),
    ),
    "status": Entry(
        "status",
        "show what is stored: coverage, gaps, failures, sizes; works during a run; --check says in one line "
        "whether all is well",
        (*COMMON, Exit.PARTIAL, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED),
        (
            ("", "all exports of [output] directory"),
            ("--check", "a health check for monitoring: exit code 0 only if all is well"),
            ("-d /data/exports --json", "another directory, as JSON for monitoring"),
            ("--html status.html", "also write a page for a browser"),
        ),
    ),
    "doctor": Entry(
        "doctor",
        "check what a run, its load and its mirror need, with at most 2 requests to the service; say what to do",
        NO_TIME,
        (
            ("", "before the first run, and when a run fails"),
            ("--offline", "what can be checked without a request"),
        ),
    ),
    "metrics": Entry(
        "metrics",
        "print metrics for Prometheus from the ledger, also during a run, or alert rules for them",
        (*COMMON, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED),
        (
            ("", "all exports of [output] directory"),
            ("--alert-rules", "a rule file for Prometheus"),
        ),
    ),
    "verify": Entry(
        "verify",
        "check every archive against the ledger; --repair exports broken ones again; --rebuild makes a new ledger; "
        "--adopt adds archives that the ledger does not know",
        NO_TIME,
        (
            ("", "read every archive and compare it with the ledger; changes nothing"),
            ("--repair", "export again what is missing or broken"),
            ("--rebuild", "make a new ledger if the old one is lost or damaged"),
            ("--adopt", "add archives that are newer than a ledger from a backup"),
        ),
    ),
    "retry": Entry(
        "runs",
        "retry parked bundles; --accept-fewer also replaces archives for which far fewer rows came",
        ANY_RUN,
        (
            ("", "retry all parked bundles and finish those in progress"),
            ("--start 2026-01-01 --end 2026-02-01 --accept-fewer", "after rows of January were deleted on purpose"),
        ),
    ),
    "accept": Entry(
        "accept",
        "mark parked bundles and shortfalls of rows in a range as known, with a reason",
        (*COMMON, Exit.LOCKED, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED, Exit.TERMINATED),
        (
            ('2026-01-01 2026-01-03 --why "the site was down"', "two days of the only export"),
            ("30d 28d --export checkout --why outage --wait", "of one of several exports, also during a run"),
        ),
    ),
    "audit": Entry(
        "audit",
        "export a random sample of stored bundles again, replace those whose rows differ, and say what that proves",
        ANY_RUN,
        (
            ("", "60 bundles: if none differs, fewer than 5 % of all bundles do"),
            ("--sample 300 --older-than 7d --wait", "a larger sample of older data, once no other run is active"),
        ),
    ),
    "load": Entry(
        "load",
        "load stored days into tables (Parquet, DuckDB, databases): those that have changed; --check only compares",
        (*COMMON, Exit.PARTIAL, Exit.LOCKED, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED, Exit.TERMINATED),
        (
            ("", "every day that has changed, into the destinations of [load] to"),
            ("--start 30d --to parquet", "the last 30 days, as Parquet files only"),
            ("--start 2026-01-01 --end 2026-01-02 --again", "one day again, even if it has not changed"),
            ("--check", "compare every destination with the ledger"),
        ),
    ),
    "mirror": Entry(
        "mirror",
        "upload what [output] mirror, such as an S3 bucket, lacks; --check only compares",
        (*COMMON, Exit.PARTIAL, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED, Exit.TERMINATED),
        (
            ("", "every archive that the bucket does not have"),
            ("--check", "list what is missing, and objects that have no archive"),
        ),
    ),
    "segments": Entry(
        "segments",
        "list the account's segments and their ids",
        (*COMMON, Exit.UNREACHABLE, Exit.KEY_REFUSED, Exit.LEDGER, Exit.DISK, Exit.INTERRUPTED, Exit.TERMINATED),
        (("", "ids and names, one segment per line"), ("--json", "one JSON object per line")),
    ),
    "sandbox": Entry(
        "sandbox",
        "run a local stand-in for the Fullstory API",
        COMMON,
        (
            ("--port 8080 --speed 60", "a minute at the service takes a second"),
            ("--show-faults", "list the faults that --fault can cause"),
        ),
    ),
    "init": Entry(
        "init",
        "write a commented asyncexport.toml; --from-hauser takes over the configuration of hauser",
        (*COMMON, Exit.DISK),
        (
            ("", "in the working directory"),
            ("--force -c other.toml", "overwrite another file"),
            ("--from-hauser hauser.toml", "continue where hauser, Fullstory's earlier exporter, stopped"),
        ),
    ),
    "deploy": Entry(
        "deploy",
        "print files that start nightly runs, for systemd, cron, Kubernetes or Airflow",
        (*COMMON, Exit.DISK),
        (
            ("systemd --into .", "a service and a timer in the working directory, for this configuration"),
            ("cron --at 02:30 --max-duration 4h", "a line for a crontab"),
            ("systemd --load", "runs that load days into tables as well"),
            ("kubernetes --image registry.example.com/asyncexport:0.1.0", "a CronJob and its volume"),
            ("airflow --start 2026-01-01", "a DAG with one task per day, from that day on"),
        ),
    ),
    "completion": Entry(
        "completion",
        "print a completion script for bash, zsh or fish",
        COMMON,
        (("bash", 'put eval "$(asyncexport completion bash)" into ~/.bashrc'), ("fish", "save it for fish")),
    ),
}
"""All commands, in the order in which help lists them."""


class LogFormat(StrEnum):
    """The values of `--log-format`."""

    TEXT = "text"
    JSON = "json"


class Command(TyperCommand):
    """A command that starts the session when it is called, and shows its examples and exit codes in its help."""

    def invoke(self, ctx: Any) -> Any:
        """Start the session and run the command, which a signal ends unless the command handles it."""
        from asyncexport.cli.signals import interruptible

        ctx.obj.begin()
        with interruptible(ctx.obj.signals):
            return super().invoke(ctx)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its signature
        """Write examples and exit codes in place of an epilog."""
        entry = COMMANDS[self.name or ""]
        _write_examples(formatter, [(f"{self.name} {typed}".rstrip(), does) for typed, does in entry.examples])
        _write_exits(formatter, entry.exits)


class Program(TyperGroup):
    """The program, with the commands of the table."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - its signature
        """List the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the command's module and build the command; `obj` of the context is the session."""
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
        """Find the command as typer does, and suggest the nearest one for an unknown name."""
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
        """Write the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.does) for name, entry in COMMANDS.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its signature
        """Write examples and exit codes in place of an epilog."""
        firsts = [(name, COMMANDS[name].examples[0]) for name in ("demo", "plan", "backfill", "status")]
        _write_examples(formatter, [(f"{name} {typed}".rstrip(), does) for name, (typed, does) in firsts])
        _write_exits(formatter, MEANINGS)


def call(arguments: Sequence[str], session: Session) -> "Summary | int | None":
    """Run the command and return its summary, or an exit code if typer did everything, as for `--help`.

    Raises:
        typer's usage errors, and what the command raises.
    """
    outcome: Summary | int | None = program().main(
        args=list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=session
    )
    return outcome


def program() -> Any:
    """Build the program with typer."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=SETTINGS)
    app.callback(cls=Program)(global_options)
    return get_command(app)


def show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    """Print the version, if `--version` is given."""
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def global_options(
    ctx: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            metavar="FILE",
            help="Configuration file. Default: $ASYNCEXPORT_CONFIG, else ./asyncexport.toml if it exists.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line on stdout; the last one is the summary.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing if all is well, else one line.")] = False,
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, show_default=False, help="Log more; -vv logs everything.")
    ] = 0,
    log_format: Annotated[LogFormat | None, typer.Option("--log-format", help="Format of the lines on stderr.")] = None,
    version: Annotated[  # noqa: ARG001 - its callback does everything
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Export a company's complete Fullstory history to your own disk.

    Global options may be given before or after the command. `asyncexport COMMAND --help` explains each command.
    """
    given = {"config": config, "as_json": as_json, "quiet": quiet, "verbose": verbose, "log_format": log_format}
    for name, value in given.items():
        ctx.obj.take(name, value)


def _command(name: str, function: Callable[..., Any]) -> Any:
    """Make a command from a function; its help is the text in the table and the docstring without its first line."""
    _, _, more = (function.__doc__ or "").partition("\n")
    does = COMMANDS[name].does
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=Command, context_settings=SETTINGS, help=f"{does[0].upper()}{does[1:]}.\n\n{dedent(more)}")(
        function
    )
    return get_command(app)


def _anywhere(param: Any) -> Any:
    """Copy a global option for use after a command; its value goes to the session, not to the command."""
    again = copy.copy(param)
    again.hidden, again.expose_value = True, False
    if param.name != "version":
        again.callback = lambda ctx, param, value: ctx.obj.take(param.name, value)
    return again


def _write_examples(formatter: Any, examples: Iterable[tuple[str, str]]) -> None:
    """Write each example with its explanation below it."""
    with formatter.section("Examples"):
        for typed, does in examples:
            formatter.write(f"{'':{formatter.current_indent}}{PROGRAM} {typed}\n")
            formatter.indent()
            formatter.write_text(does)
            formatter.dedent()


def _write_exits(formatter: Any, codes: Iterable[Exit]) -> None:
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(int(code)), MEANINGS[code].replace("`", "")) for code in codes])
