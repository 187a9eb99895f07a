"""Replaces a ledger by a new one in one step, once the new one is complete."""

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
"""The folder in which the new ledger is made, inside the folder of the old one."""


@asynccontextmanager
async def replacement(directory: Path, *, meanwhile: Callable[[], Awaitable[None]]) -> AsyncIterator[Ledger]:
    """Yield a new ledger for an output directory, and put it in place if the block ends without an error.

    An old ledger stays in place until then. It is moved aside with all its side files and never deleted. A crash
    between the two steps leaves a directory without a ledger but with remains of one: no run starts there, and another
    rebuild completes the replacement. Use it only under the lock.

    Args:
        directory: The output directory.
        meanwhile: Awaited while there is no ledger: after the old one was moved aside and before the new one is in
            place. So its changes are never seen together with the old ledger, nor missing with the new one.

    Raises:
        StorageError: the ledger cannot be written.
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
    """Return an unused folder for the new ledger.

    The remains of a killed rebuild are removed. If something else than a folder has the name, it is left alone and
    another name is used.
    """
    folder = make_folder(directory)
    names = (f"{REPLACEMENT_FOLDER}-{number}" if number else REPLACEMENT_FOLDER for number in itertools.count())
    aside = next(path for path in map(folder.joinpath, names) if not os.path.lexists(path) or _is_folder(path))
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
