"""The command line.

1. Results go to stdout, all else to stderr. With `--json`, stdout has one JSON object a line, and the last of them is
   always the summary, however the command ended.
2. A command is a function in a file of its family: it takes its options, and returns the summary of what came of it.
   How a command ends is decided here, in one place.
3. Errors are told in one voice, be they ours, typer's or a bug: a line for each problem, a line for the next thing to
   do, no traceback unless `-vv` asks for it.
4. A command imports what it needs when it runs: `--help` costs what typer costs.

    commands       the table of the commands, the global options
    session        one call of the program: how it speaks
    invocation     how it was called, and the commands that hints tell to type next
    configuration  its settings and its API key
    options        options that several commands have, and what they ask for
    signals        Ctrl-C and SIGTERM
    run_command    one run, from what was asked for to its closing words
    finish         from what came of a command to what is said and the exit code
    runs           backfill, nightly, retry
    verify         verify, and its repair and rebuild
    simulating     plan --simulate
    plan, status, segments, init, demo, sandbox, completion
"""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

NEW_OBJECTS = 10_000
"""Python looks for garbage in circles after so many new objects, and not after 700 as by default: loading the program
makes a hundred thousand that stay, and little of what a run makes is in circles."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; the exit code."""
    _open_standard_streams()
    gc.set_threshold(NEW_OBJECTS)
    try:
        from asyncexport.cli.commands import call
        from asyncexport.cli.finish import conclude
        from asyncexport.cli.session import Session

        given = list(sys.argv[1:] if arguments is None else arguments)
        session = Session(as_json="--json" in given)
        return conclude(session, lambda: call(given, session))
    except KeyboardInterrupt:
        # While the program was still being loaded, or had said its last word.
        return 130


def _open_standard_streams() -> None:
    """Open on the null device what was closed of the standard streams.

    Otherwise the next file opened, such as an archive, would get the number of stderr, and what a library writes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115


__all__ = ["main"]
