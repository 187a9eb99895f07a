"""A ledger that takes the place of another in one step, once it is whole."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from asyncexport.ledger.faults import translated
from asyncexport.ledger.files import NAME, SIDE_FILES, ledger_path, make_folder, present, set_aside, sync_folder
from asyncexport.ledger.ledger import Ledger

FOLDER = "anew"


@asynccontextmanager
async def made_anew(directory: Path) -> AsyncIterator[Ledger]:
    """A new ledger for an output directory; it is put in its place when it is left without an error.

    Until then the old one, if there is one, lies where it did; then it is moved aside, and never removed. A crash
    between the two leaves archives without a ledger, which no run takes for a beginning. To be done under the lock.

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
        with translated(path):
            await asyncio.to_thread(_put_in_place, aside, directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _emptied(directory: Path) -> Path:
    aside = make_folder(directory) / FOLDER
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def _put_in_place(aside: Path, directory: Path) -> None:
    made, path = ledger_path(aside), ledger_path(directory)
    if present(directory):
        set_aside(directory)
    # What belongs to it first: a ledger without its log could be taken for a whole one.
    for suffix in SIDE_FILES:
        with suppress(FileNotFoundError):
            made.with_name(NAME + suffix).replace(path.with_name(NAME + suffix))
    made.rename(path)
    sync_folder(path.parent)
