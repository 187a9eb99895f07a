"""`sandbox`: run the local stand-in service as a process of its own."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncexport.client.key_log import check_key_log

if TYPE_CHECKING:
    from asyncexport.sandbox import SandboxBehaviour

LOOPBACK = "127.0.0.1"

HINT = "`asyncexport sandbox --show-switches` and `--show-faults` list what exists"

PORT_HINT = "`--port 0` takes any free port"


Faults = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="Cause a fault: WHERE:WHAT[,NAME=VALUE...], such as create:503,nth=3; may be repeated. See --show-faults.",
    ),
]


def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any free port.")] = 8765,
    host: Annotated[str, typer.Option(help="Address to listen on; most others let other machines connect.")] = LOOPBACK,
    seed: Annotated[int | None, typer.Option(help="Seed of the random rows and durations.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Divide the durations of operations, refills and expiries by this; 60: a second a minute."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Event rows to serve (NDJSON or JSON) instead of made-up ones.")
    ] = None,
    rows_per_hour: Annotated[float | None, typer.Option(help="Average number of made-up rows per hour.")] = None,
    operation_seconds: Annotated[float | None, typer.Option(help="Median duration of an operation at speed 1.")] = None,
    scope: Annotated[str | None, typer.Option(help="Requests that the rate limit counts: create or all.")] = None,
    list_ids: Annotated[bool | None, typer.Option(help="Whether listed operations include their ids.")] = None,
    list_order: Annotated[
        str | None, typer.Option(help="Order of listed operations: newest, oldest or shuffled.")
    ] = None,
    fault: Faults = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set any other switch; may be repeated.")
    ] = None,
    show_switches: Annotated[bool, typer.Option("--show-switches", help="List all switches and exit.")] = False,
    show_faults: Annotated[bool, typer.Option("--show-faults", help="List all faults and exit.")] = False,
) -> None:
    """Run a stand-in for Fullstory's Segment Export API.

    Prints matching settings on stdout, with the API key in a comment: save them to a file and pass it with -c. They
    set [output] directory to sandbox-exports. Runs until Ctrl-C or SIGTERM and then exits with 0.

    The sandbox does what Fullstory documents. Where --show-switches says inferred or guess, there is no documentation
    and the real service may differ; nothing was checked against a real account. Ids in paths may be raw or
    percent-encoded; with --set ids=strict they must be encoded.
    """
    if show_switches or show_faults:
        _show(switches=show_switches, faults=show_faults)
        return
    check_key_log(os.environ)
    given: dict[str, Any] = {
        "seed": seed,
        "speed": speed,
        "rows_per_hour": rows_per_hour,
        "operation_seconds": operation_seconds,
    }
    given |= {"scope": scope, "list_ids": list_ids, "list_order": list_order}
    behaviour = _behaviour(_changes(given, sets or [], fault or [], rows))
    import asyncio

    asyncio.run(_serve(behaviour, host=host, port=port))


def _show(*, switches: bool, faults: bool) -> None:
    from asyncexport.sandbox.behaviour import describe
    from asyncexport.sandbox.faults import table

    texts = [describe(command_defaults())] if switches else []
    texts += [table()] if faults else []
    typer.echo("\n\n".join(texts))


def command_defaults() -> "SandboxBehaviour":
    """Return the defaults of the command, which also accepts clients that send ids unencoded."""
    from asyncexport.sandbox import SandboxBehaviour

    return SandboxBehaviour(ids="lenient")


Change = Callable[["SandboxBehaviour"], "SandboxBehaviour"]


def _changes(
    given: dict[str, Any], sets: list[str], faults: list[str], rows: Path | None
) -> Iterator[tuple[str, Change]]:
    """Yield the change that each flag makes, with the flag's name."""
    for name, value in given.items():
        if value is not None:
            yield f"--{name.replace('_', '-')}", _set(name, value)
    for text in sets:
        name, _, word = text.partition("=")
        yield "--set", _set(name, word)
    for text in faults:
        yield "--fault", _add_fault(text)
    if rows is not None:
        yield "--rows", _serve_file(rows)


def _set(name: str, value: Any) -> Change:
    from asyncexport.sandbox.behaviour import changed

    return lambda behaviour: changed(behaviour, {name: value})


def _add_fault(text: str) -> Change:
    from asyncexport.sandbox import SandboxFault

    return lambda behaviour: replace(behaviour, faults=(*behaviour.faults, SandboxFault.parse(text)))


def _serve_file(path: Path) -> Change:
    from asyncexport.sandbox import SandboxFileRows

    return lambda behaviour: replace(behaviour, rows=SandboxFileRows(path))


def _behaviour(changes: Iterator[tuple[str, Change]]) -> "SandboxBehaviour":
    """Apply all changes.

    Raises:
        ConfigError: some are wrong; it holds every problem.
    """
    from asyncexport.errors import ConfigError, Problem

    behaviour, problems = command_defaults(), []
    for place, change in changes:
        try:
            behaviour = change(behaviour)
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(Problem(place, reason or "no reason given"))
    if problems:
        raise ConfigError(problems, hint=HINT)
    return behaviour


async def _serve(behaviour: "SandboxBehaviour", *, host: str, port: int) -> None:
    import asyncio

    from asyncexport.cli.early_signals import handled
    from asyncexport.core.service.urls import is_loopback
    from asyncexport.errors import ConfigError, Problem
    from asyncexport.sandbox import serving
    from asyncexport.sandbox.matching import settings

    stopped = asyncio.Event()
    for number in handled():
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if not is_loopback(host):
        typer.echo(
            f"asyncexport: warning: other machines can connect to {host}, and the sandbox's key is not secret", err=True
        )
    try:
        async with serving(behaviour, host=host, port=port) as running:
            typer.echo(settings(behaviour, url=running.url, key=running.key), nl=False)
            typer.echo(f"asyncexport: the sandbox listens on {running.url} until Ctrl-C", err=True)
            await stopped.wait()
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        hint = PORT_HINT if error.errno == errno.EADDRINUSE else ""
        raise ConfigError([Problem("--port", f"cannot listen on {host}:{port}: {reason}")], hint=hint) from None
