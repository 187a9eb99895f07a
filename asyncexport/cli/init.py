"""`init`: write a file with every setting in it."""

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
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> Summary:
    """Write the example configuration.

    Writes ./asyncexport.toml, or the file that -c names. It lists every setting with its default and an explanation;
    nothing has to be changed.
    """
    from asyncexport.config import EXAMPLE

    session: Session = ctx.obj
    path = session.invocation.config or Path(FILE_NAME)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise ConfigError([Problem("", f"{path} already exists")], hint="`--force` overwrites it") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="choose a writable location: `asyncexport -c FILE init`",
        ) from error
    session.say(f"wrote {path}: every setting with its default and an explanation")
    session.say(
        "next: set FULLSTORY_API_KEY, then run `asyncexport plan --start 30d` to see what a backfill would cost"
    )
    session.record("file", path=str(path))
    return session.summary(Exit.DONE)
