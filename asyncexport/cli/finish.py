"""How a command ends: one place from what it returned or raised to what is said, and to the exit code."""

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from asyncexport.cli.session import Stopped
from asyncexport.core.exits import Exit, exit_of
from asyncexport.errors import ConfigError, ExportError, StorageError

if TYPE_CHECKING:
    from asyncexport.cli.session import Session
    from asyncexport.core.summary import Summary

TYPER_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""What all of typer's usage errors are. Its own name for that is inside of typer, or of click, by version."""

BUG_HINT = "this is a bug in asyncexport: please report it with the output of the same command with -vv"


LAST_WORDS_SECONDS = 1.0
"""How long a reader is waited for where a signal said that nobody is to be waited for."""


def conclude(session: "Session", run: Callable[[], "Summary | int | None"]) -> int:
    """Run a command and say how it ended; the exit code.

    By then a run has closed its ledger and let go of its lock: it may wait for a reader as long as that one likes.
    """
    try:
        outcome = _outcome(session, run)
        code = int(outcome or 0) if outcome is None or isinstance(outcome, int) else _tell(session, outcome)
        return _delivered(session, code)
    finally:
        session.end()


def _delivered(session: "Session", code: int) -> int:
    """Wait for the readers of what was said; the exit code. The first signal ends the wait."""
    if not session.has_spoken:
        return code
    from asyncexport.cli.signals import stoppable

    session.lines.report_left_out()
    try:
        with stoppable():
            late = session.stopped_at_once or _late_signal(session, code)
            if not session.streams.deliver(seconds=None if late is None else LAST_WORDS_SECONDS):
                code = code or int(late or 0)
            failure = session.results.failure
            if failure is not None:
                code = code or int(Exit.DISK)
                session.lines.fault(f"cannot write to stdout: {failure.strerror or failure}")
                session.streams.deliver(seconds=LAST_WORDS_SECONDS)
    except Stopped as stopped:
        return code or int(stopped.reason)
    return code


def _late_signal(session: "Session", code: int) -> Exit | None:
    """The reason of a signal that did not stop the run any more, and so is for this wait; None: there was none."""
    from asyncexport.cli.signals import REASONS

    reasons = [REASONS[one] for one in session.signals]
    return next(iter(reasons[1:] if reasons and reasons[0] == code else reasons), None)


def _outcome(session: "Session", run: Callable[[], "Summary | int | None"]) -> "Summary | int | None":
    try:
        return run()
    except ExportError as error:
        _debug("traceback of the error", error)
        return session.summary(exit_of(error), error=error)
    except Stopped as stopped:
        session.stopped_at_once = stopped.reason
        return session.summary(stopped.reason)
    except KeyboardInterrupt:
        session.stopped_at_once = Exit.INTERRUPTED
        return session.summary(Exit.INTERRUPTED)
    except TYPER_ERROR as error:
        return session.summary(Exit.USAGE, error=_usage_error(error, command=session.command))
    except OSError as error:
        if session.has_begun:
            return session.summary(Exit.UNEXPECTED, error=_bug(error))
        # Help and the version are written by typer; what it could not write would be tried again at the very end.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
        return session.summary(Exit.DISK, error=StorageError(f"cannot write to stdout: {error.strerror or error}"))
    except Exception as error:  # noqa: BLE001 - the last place that can say anything
        return session.summary(Exit.UNEXPECTED, error=_bug(error))


def _tell(session: "Session", summary: "Summary") -> int:
    """What is said at the end: of errors on stderr, and the summary where results are JSON."""
    for error in _errors(summary):
        problems = [problem.text for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
        for problem in problems[:-1]:
            session.lines.fault(problem)
        session.lines.fault(
            problems[-1] if problems else "no reason given", hint=session.invocation.pasteable(error.hint)
        )
    if session.as_json:
        session.results.record(summary.to_dict())
    return int(summary.exit_code)


def _errors(summary: "Summary") -> list[ExportError]:
    """All refusals, each with its export's name, where that is why a run failed; else the error."""
    refusals = summary.tally.refusals
    if summary.error is None or summary.error not in refusals.values():
        return [] if summary.error is None else [summary.error]
    return [ExportError(f"{export}: {error}", hint=error.hint) for export, error in refusals.items()]


def _usage_error(error: Any, *, command: str) -> ExportError:
    """What typer says, in our voice: no capital, no full stop, one line."""
    # Typer has values read by pydantic, which begins its own messages so.
    message = error.format_message().split("\n")[0].strip().rstrip(".").replace(": Value error, ", ": ")
    nearest = get_close_matches(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), n=1)
    if nearest:
        message = f"{error.message.rstrip('.')} (did you mean {nearest[0]}?)"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else f"asyncexport {command}".rstrip()
    return ExportError(message[:1].lower() + message[1:], hint=f"`{path} --help` lists the options")


def _bug(error: Exception) -> ExportError:
    """An exception that nobody foresaw; its text may hold anything, so it is not shown but with `-vv`."""
    _debug("traceback of the bug", error)
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
    return ExportError(f"unexpected {type(error).__name__}{place}", hint=BUG_HINT)


def _debug(message: str, error: Exception) -> None:
    import logging

    logging.getLogger(__name__).debug("%s", message, exc_info=error)
