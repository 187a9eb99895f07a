"""`sandbox`: the stand-in service as a process of its own."""

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

HINT = "`asyncexport sandbox --show-switches` and `--show-faults` list what there is"


Faults = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        help="What goes wrong: WHERE:WHAT[,NAME=VALUE...], as create:503,nth=3; repeatable. See --show-faults.",
    ),
]


def sandbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to listen; 0: any port that is free.")] = 8765,
    host: Annotated[str, typer.Option(help="The address to listen on; most others let other machines in.")] = LOOPBACK,
    seed: Annotated[int | None, typer.Option(help="Another seed: other rows, other durations.")] = None,
    speed: Annotated[
        float | None,
        typer.Option(help="Divides how long operations, refills and expiries take; 60: a second a minute."),
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Event rows to serve (NDJSON or JSON) in place of made-up ones.")
    ] = None,
    rows_per_hour: Annotated[float | None, typer.Option(help="How many rows are made up, on average.")] = None,
    operation_seconds: Annotated[
        float | None, typer.Option(help="How long an operation takes at speed 1, as a median.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="Which calls the rate limit counts: create or all.")] = None,
    list_ids: Annotated[bool | None, typer.Option(help="Whether listed operations have their ids.")] = None,
    list_order: Annotated[str | None, typer.Option(help="Their order: newest, oldest or shuffled.")] = None,
    fault: Faults = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other switch; repeatable.")
    ] = None,
    show_switches: Annotated[bool, typer.Option("--show-switches", help="List all switches, and end.")] = False,
    show_faults: Annotated[bool, typer.Option("--show-faults", help="List all faults, and end.")] = False,
) -> None:
    """Run a stand-in for Fullstory's Segment Export API.

    On stdout it prints the settings that fit it, with the key to use in a comment: put them into a file for -c. It runs
    until Ctrl-C or SIGTERM, which end it with 0.

    It does what the vendor documents. Where --show-switches says inferred or guess, nobody has documented it: the real
    service may do otherwise. Nothing of it was observed on a real account.
    Ids in paths may be raw or percent-encoded; with --set ids=strict they have to be encoded.
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
    """The switches as the command has them: any client can talk to it, also one that sends ids raw."""
    from asyncexport.sandbox import SandboxBehaviour

    return SandboxBehaviour(ids="lenient")


Change = Callable[["SandboxBehaviour"], "SandboxBehaviour"]


def _changes(
    given: dict[str, Any], sets: list[str], faults: list[str], rows: Path | None
) -> Iterator[tuple[str, Change]]:
    """What each flag changes, by its name."""
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
    """All changes made, or all that is wrong with them said at once."""
    from asyncexport.errors import ConfigError, Problem

    behaviour, problems = command_defaults(), []
    for place, change in changes:
        try:
            behaviour = change(behaviour)
        except (ValueError, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(Problem(place, said or "no reason given"))
    if problems:
        raise ConfigError(problems, hint=HINT)
    return behaviour


async def _serve(behaviour: "SandboxBehaviour", *, host: str, port: int) -> None:
    import asyncio
    import signal

    from asyncexport.core.service.urls import is_loopback
    from asyncexport.errors import ConfigError, Problem
    from asyncexport.sandbox import serving
    from asyncexport.sandbox.matching import settings

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if not is_loopback(host):
        typer.echo(f"asyncexport: warning: {host} lets other machines in, and its key is no secret", err=True)
    try:
        async with serving(behaviour, host=host, port=port) as running:
            typer.echo(settings(behaviour, url=running.url, key=running.key), nl=False)
            typer.echo(f"asyncexport: the sandbox listens on {running.url} until Ctrl-C", err=True)
            await stopped.wait()
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise ConfigError([Problem("--port", f"cannot listen on {host}:{port}: {reason}")]) from None
