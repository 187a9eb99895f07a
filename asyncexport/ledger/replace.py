"""A new ledger that takes the place of an old one in one step, once it is complete."""

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import empty_log, ledger_path, put_in_place, set_aside
from asyncexport.ledger.folder import make_folder
from asyncexport.ledger.ledger import Ledger

REPLACEMENT_FOLDER = "anew"
"""Where the new ledger is made, within the folder of the old one."""


@asynccontextmanager
async def replacement(directory: Path, *, meanwhile: Callable[[], Awaitable[None]]) -> AsyncIterator[Ledger]:
    """A new ledger for an output directory; it is put in its place when it is left without an error.

    Until then the old one, if there is one, lies where it did; then it is moved aside with all its side files, and
    never removed. A crash between the two leaves a directory without a ledger and with remains of one, which no run
    takes for a beginning; rebuilding it once more goes on from there. To be done under the lock.

    Args:
        directory: The output directory.
        meanwhile: Awaited while there is no ledger: after the old one was moved aside, before the new one is there.
            What it changes is never seen with the old ledger, and never missing with the new one.

    Raises:
        StorageError: it cannot be written.
    """
    path = ledger_path(directory)
    with translated(path):
        aside = await asyncio.to_thread(_emptied, directory)
    try:
        ledger = await Ledger.open(aside)
        try:
            yield ledger
        finally:
            await ledger.close()
        made = ledger_path(aside)
        with translated(made):
            await asyncio.to_thread(empty_log, made)
        await asyncio.to_thread(set_aside, directory)
        await meanwhile()
        with translated(path):
            await asyncio.to_thread(put_in_place, made, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _emptied(directory: Path) -> Path:
    """What a killed rebuild left is removed; what somebody else put there is left alone, and another name is taken."""
    folder = make_folder(directory)
    names = (f"{REPLACEMENT_FOLDER}-{number}" if number else REPLACEMENT_FOLDER for number in itertools.count())
    aside = next(path for path in map(folder.joinpath, names) if not os.path.lexists(path) or _is_folder(path))
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
