"""The command line.

1. Results go to stdout, everything else to stderr. With `--json`, stdout has one JSON object per line, and the last one
   is always the summary, however the command ends.
2. A command is a function that takes its options and returns a summary. `finish` turns the summary or the exception
   into the final output and the exit code.
3. All errors look alike, whether they are ours, typer's or bugs: one line per problem and one for the next step, and no
   traceback without `-vv`.
4. A command imports what it needs when it runs, so that `--help` loads little more than typer.

    commands       the table of commands, and the global options
    session        the state of one call of the program: its verbosity and its output streams
    invocation     the arguments of the call, and the commands that hints suggest
    configuration  the settings and the API key
    options        options that several commands share
    signals        Ctrl-C, SIGTERM and SIGHUP
    early_signals  the same while the program is being loaded
    run_command    carries out one run and prints its closing text
    finish         turns the outcome of a command into messages and an exit code
    runs           backfill, nightly, retry
    verify         verify, and its repair and rebuild
    simulating     plan --simulate
    status_text    the report of `status` as lines of text
    status_records the report of `status` as JSON objects
    status_page    the report of `status` as a page for a browser
    service_manager  reports a run to systemd
    plan, status, doctor, metrics, accept, audit, load, mirror, segments, init, deploy, demo, sandbox, completion
"""

import gc
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from asyncexport.cli.early_signals import noted_signals

NEW_OBJECTS = 10_000
"""Garbage collection starts after this many new objects instead of 700: importing the program creates a hundred
thousand objects that stay alive, and a run creates few reference cycles."""

MIRROR_LIBRARY = "obstore"

DESTINATIONS = "asyncexport.run.load_sinks"
"""The module that starts threads for destinations."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name, and return the exit code.

    Args:
        arguments: The arguments. None: those of this process, which may then end here.
    """
    _open_standard_streams()
    gc.set_threshold(NEW_OBJECTS)
    try:
        with noted_signals() as signals:
            from asyncexport.cli.commands import call
            from asyncexport.cli.finish import conclude
            from asyncexport.cli.session import Session

            given = list(sys.argv[1:] if arguments is None else arguments)
            session = Session(as_json="--json" in given, signals=signals)
            code = conclude(session, lambda: call(given, session))
    except KeyboardInterrupt:
        # A second Ctrl-C while the program was being loaded, or one after its last output.
        code = 130
    if arguments is None and (MIRROR_LIBRARY in sys.modules or _are_threads_left()):
        _end_process(code)
    return code


def _are_threads_left() -> bool:
    """Return whether threads of destinations still wait for servers: the load was stopped immediately."""
    module = sys.modules.get(DESTINATIONS)
    return module is not None and any(one.name.startswith(module.THREADS) for one in threading.enumerate())


def _end_process(code: int) -> None:
    """End the process without Python's own end.

    That would wait for threads that wait for a server.

    The threads of the mirror's library call Python when a request ends, also one that was given up. If Python is ending
    at that moment, the library reports a crash, or the process is aborted with another exit code. By now all output is
    written, and everything is closed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _open_standard_streams() -> None:
    """Open closed standard streams on the null device.

    Otherwise the next file that is opened, such as an archive, would get the file descriptor of stderr, and libraries
    that write to stderr would write into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # `open` returns the lowest free descriptor, which is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


__all__ = ["main"]
