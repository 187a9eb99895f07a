"""`init`: write a file with every setting in it, with the values of hauser's configuration if there is one."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.session import Session
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.display import plain
from asyncexport.errors import ConfigError, Problem, StorageError

if TYPE_CHECKING:
    from asyncexport.config.hauser import Conversion, HauserFile
    from asyncexport.config.hauser_sync import SyncPoint

FILE_NAME = "asyncexport.toml"

FromHauser = Annotated[
    Path | None,
    typer.Option("--from-hauser", metavar="FILE", help="Take over the configuration of hauser; never its API token."),
]
SyncPointOption = Annotated[
    str | None,
    typer.Option("--sync-point", metavar="DATE", help="With --from-hauser: how far hauser has exported."),
]


def init(
    ctx: typer.Context,
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    from_hauser: FromHauser = None,
    sync_point: SyncPointOption = None,
) -> Summary:
    """Write the example configuration.

    Writes ./asyncexport.toml, or the file that -c names. It lists every setting with its default and an explanation;
    nothing has to be changed.

    With --from-hauser, the file has the values of hauser's configuration, and `nightly` starts where hauser stopped.
    With local files, that time is read from .sync.hauser; otherwise --sync-point gives it. What cannot be taken over is
    listed with the reason.
    """
    from asyncexport.config import EXAMPLE

    session: Session = ctx.obj
    path = session.invocation.config or Path(FILE_NAME)
    if from_hauser is not None:
        _take_over(session, path, from_hauser, sync_point=sync_point, force=force)
        return session.summary(Exit.DONE)
    if sync_point is not None:
        raise ConfigError([Problem("--sync-point", "needs --from-hauser")])
    _write(path, EXAMPLE, force=force)
    session.say(f"wrote {path}: every setting with its default and an explanation")
    session.say(
        "next: set FULLSTORY_API_KEY, then run `asyncexport plan --start 30d` to see what a backfill would cost"
    )
    session.record("file", path=str(path))
    return session.summary(Exit.DONE)


def _write(path: Path, text: str, *, force: bool, private: bool = False) -> None:
    """Write the file; `private`: readable by its owner only."""
    try:
        with open(
            path,
            "w" if force else "x",
            encoding="utf-8",
            opener=lambda name, flags: os.open(name, flags, 0o600 if private else 0o666),
        ) as file:
            if private:
                # An existing file keeps its mode when it is opened.
                os.fchmod(file.fileno(), 0o600)
            file.write(text)
    except FileExistsError:
        raise ConfigError([Problem("", f"{path} already exists")], hint="`--force` overwrites it") from None
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {(error.strerror or str(error)).lower()}",
            hint="choose a writable location: `asyncexport -c FILE init`",
        ) from error


def _take_over(session: Session, path: Path, source: Path, *, sync_point: str | None, force: bool) -> None:
    """Write a file with the values of hauser's, and say what became of each key."""
    from asyncexport.config import EXAMPLE
    from asyncexport.config.hauser import convert, filled_example
    from asyncexport.config.hauser_sync import SyncPoint, find_sync_point
    from asyncexport.config.presence import exists
    from asyncexport.core.masking import Mask

    file, since = _read(source, sync_point)
    session.streams.hide(Mask(file.tokens))
    if exists(path) and path.samefile(source):
        raise ConfigError([Problem("-c", f"{path} is hauser's file")], hint="choose another name: `-c FILE`")
    if since:
        found = SyncPoint(since, "--sync-point", ())
    else:
        found = find_sync_point(file, folders=(Path.cwd(), Path.cwd() / source.parent))
    done = convert(file, now=time.time(), since=found.time, since_from=found.found_in)
    text = filled_example(EXAMPLE, done.settings, head=_head(source, done, found))
    if file.has_token(text):
        problem = Problem(str(source), "has the API token in another value than FsApiToken; nothing was written")
        raise ConfigError([problem], hint="remove it there, and run the command again")
    # Headers may be secret.
    _write(path, text, force=force, private=("api", "headers") in done.settings)
    session.say(f"wrote {path}: every setting, with the values of {source}")
    for line in _report(done, found):
        session.say(line)
    for one in done.keys:
        session.record("converted", key=one.key, setting=one.setting or None, value=one.value or None, why=one.why)
    session.record("file", path=str(path))
    if not found.time:
        again = session.invocation.again("init", "--from-hauser", str(source), "--force", "--sync-point", "TIME")
        session.lines.hint(f"hauser's sync point is not known; with `{again}`, nightly starts there")
    session.say()
    session.say("next: stop hauser, set FULLSTORY_API_KEY, then run `asyncexport plan --nightly`")


def _read(source: Path, sync_point: str | None) -> "tuple[HauserFile, str]":
    """Read hauser's file and the value of `--sync-point` ("" if not given).

    Raises:
        ConfigError: one of them cannot be read.
    """
    from asyncexport.config.hauser import HauserFile
    from asyncexport.config.layers import from_file
    from asyncexport.core.bundles import read_moment, show

    problems: list[Problem] = []
    file = HauserFile(from_file(source, named_by="--from-hauser", called=str(source), problems=problems).values)
    if not problems and not file.is_hausers:
        problems.append(Problem("--from-hauser", f"{source} has none of hauser's keys"))
    since = ""
    if sync_point is not None:
        now = time.time()
        try:
            moment = read_moment(sync_point, now=now)
        except ValueError as error:
            problems.append(Problem("--sync-point", str(error)))
        else:
            since = show(moment)
            if moment > now:
                problems.append(Problem("--sync-point", f"{since} is in the future"))
    if problems:
        raise ConfigError(problems)
    return file, since


def _head(source: Path, done: "Conversion", found: "SyncPoint") -> list[str]:
    """Return the comment at the top of the new file."""
    return [plain(f"Made by `asyncexport init --from-hauser {source.name}`."), "", *_report(done, found)]


def _report(done: "Conversion", found: "SyncPoint") -> list[str]:
    """Say what became of each key."""
    taken = [f"  {one.key} -> {one.setting} = {one.value}{_because(one.why)}" for one in done.keys if one.setting]
    left = [f"  {one.key}{_because(one.why)}" for one in done.keys if not one.setting]
    notes = [f"  {note}" for note in found.notes]
    blocks = (("taken over:", taken), ("not taken over:", left), ("sync point:", notes))
    return [plain(line) for title, lines in blocks if lines for line in (title, *lines)]


def _because(why: str) -> str:
    return f": {why}" if why else ""
