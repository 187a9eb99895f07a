"""A worker: a process that makes one day after the other, as it is told on standard input.

1. It answers each request on standard output, with what it made or with the error. What libraries print goes to
   standard error.
2. It ends as soon as standard input is closed, in the middle of a day as well: the load that it belongs to has ended,
   and another one may begin.
"""

import os
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

from asyncexport.errors import ExportError
from asyncexport.warehouse.day_maker import DayMade, DayRequest
from asyncexport.warehouse.faults import translated
from asyncexport.warehouse.frames import frame, read_frame
from asyncexport.warehouse.make_day import make_day


def main(umask: int | None, directory: str) -> None:
    """Answer requests until standard input is closed.

    Args:
        umask: The umask, which decides who may read the files. None: that of the load.
        directory: The load directory, for messages.
    """
    if umask is not None:
        os.umask(umask)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: SimpleQueue[DayRequest] = SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    while True:
        answers.write(frame(answer(requests.get(), Path(directory))))
        answers.flush()


def answer(request: DayRequest, directory: Path) -> DayMade | ExportError:
    """Make a day; return the error if it cannot be made.

    The text of an unexpected exception may contain customers' data, so only its place is reported.
    """
    try:
        with translated(directory):
            return make_day(request)
    except ExportError as error:
        return error
    except Exception as error:  # noqa: BLE001 - the load reports it
        frames = traceback.extract_tb(error.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return ExportError(f"unexpected {type(error).__name__}{place}", hint="this is a bug in asyncexport: report it")


def _receive(file: BinaryIO, requests: "SimpleQueue[Any]") -> None:
    """Read requests; at the end of the file, end the process (rule 2)."""
    while True:
        try:
            requests.put(read_frame(file))
        except EOFError:
            os._exit(0)
