"""`init`: a file with every setting in it."""

from pathlib import Path
from typing import Annotated

import typer

from asyncexport.cli.session import Session
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.errors import ConfigError, Problem, StorageError

FILE_NAME = "asyncexport.toml"


def init(
    ctx: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there already.")] = False,
) -> Summary:
    """Write the example.

    It is written into the working directory, or to what -c names. Every setting stands in it with its default and its
    reason; nothing needs to be changed.
    """
    from asyncexport.config import EXAMPLE

    session: Session = ctx.obj
    path = session.invocation.config or Path(FILE_NAME)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise ConfigError([Problem("", f"{path} is there already")], hint="`--force` writes over it") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="name a place that can be written to: `asyncexport -c FILE init`",
        ) from error
    session.say(f"{path} is written: every setting with its default and its reason")
    session.say("next: set FULLSTORY_API_KEY, then `asyncexport plan --start 30d` shows what a backfill would cost")
    session.record("file", path=str(path))
    return session.summary(Exit.DONE)
