"""The end of a command: turns what it returned or raised into its final output and the exit code."""

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
"""The base class of typer's usage errors. Depending on the version it is defined in typer or in click."""

TYPER_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for a missing command, and the program for an unknown one; errors of options are subclasses."""

BUG_HINT = "this is a bug in asyncexport: please report it with the output of the same command with -vv"


CHOICES = "Choose from:"
"""What precedes the possible values in typer's message about a missing argument."""

PYDANTICS_WORDS = {"Value error, ": "", "Input should be ": "must be "}
"""The beginnings of pydantic's messages, and what replaces them."""

LAST_OUTPUT_SECONDS = 1.0
"""How long to wait for readers of stdout and stderr after a signal asked the program to stop waiting."""


def conclude(session: "Session", run: Callable[[], "Summary | int | None"]) -> int:
    """Run a command, report how it ended, and return the exit code.

    At this point a run has closed its ledger and released its lock, so waiting for a slow reader blocks nothing else.
    """
    try:
        outcome = _outcome(session, run)
        code = int(outcome or 0) if outcome is None or isinstance(outcome, int) else _report(session, outcome)
        return _flush(session, 0 if code in session.success_exits else code, ended=code)
    finally:
        session.end()


def _flush(session: "Session", code: int, *, ended: int) -> int:
    """Wait until all output has been read, or until a signal comes; return the exit code.

    `code`: the exit code if nothing else happens; `ended`: how the command ended, which `--success-exit` may hide.
    """
    if not session.has_output:
        return code
    from asyncexport.cli.signals import interruptible

    session.lines.report_dropped()
    try:
        with interruptible():
            late = session.stopped_at_once or _late_signal(session, ended)
            if not session.streams.deliver(seconds=None if late is None else LAST_OUTPUT_SECONDS):
                code = code or int(late or 0)
            failure = session.results.failure
            if failure is not None:
                code = code or int(Exit.DISK)
                session.lines.error(f"cannot write to stdout: {failure.strerror or failure}")
                session.streams.deliver(seconds=LAST_OUTPUT_SECONDS)
    except Stopped as stopped:
        return code or int(stopped.reason)
    return code


def _late_signal(session: "Session", code: int) -> Exit | None:
    """Return the exit code for a signal that came too late to stop the run and so ends this wait, None if none came."""
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
        # Typer writes help and the version itself; Python would try to write the rest again at exit.
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
        return session.summary(Exit.DISK, error=StorageError(f"cannot write to stdout: {error.strerror or error}"))
    except Exception as error:  # noqa: BLE001 - the last place that can report it
        return session.summary(Exit.UNEXPECTED, error=_bug(error))


def _report(session: "Session", summary: "Summary") -> int:
    """Write errors to stderr and, with `--json`, the summary to stdout; return the exit code."""
    errors = _errors(summary)
    if session.quiet and errors and not isinstance(errors[0], ConfigError):
        errors = [_in_one_line(session, errors)]
    for error in errors:
        problems = [problem.text for problem in error.problems] if isinstance(error, ConfigError) else [str(error)]
        for problem in problems[:-1]:
            session.lines.error(problem)
        session.lines.error(
            problems[-1] if problems else "no reason given", hint=session.invocation.pasteable(error.hint)
        )
    if session.as_json:
        session.results.record(summary.to_dict())
    return int(summary.exit_code)


def _errors(summary: "Summary") -> list[ExportError]:
    """Return the errors to report: if exports were refused, one per export with its name, else the error itself."""
    refusals = summary.tally.refusals
    if summary.error is None or summary.error not in refusals.values():
        return [] if summary.error is None else [summary.error]
    return [ExportError(f"{export}: {error}", hint=error.hint) for export, error in refusals.items()]


def _in_one_line(session: "Session", errors: list[ExportError]) -> ExportError:
    """Return the first error with its hint in the same line, for `--quiet`, and say how many there are."""
    first, more = errors[0], len(errors) - 1
    text = f"{first} (and {more} more)" if more else str(first)
    return ExportError(f"{text}; {session.invocation.pasteable(first.hint)}" if first.hint else text)


def _usage_error(error: Any, *, command: str) -> ExportError:
    """Turn typer's message into the form of ours: one line, no capital letter, no full stop."""
    message, _, choices = error.format_message().partition("\n")
    # The choices of a missing argument are on lines of their own.
    message, has_choices, _ = message.strip().partition(f". {CHOICES}")
    message = f"{message}: choose from {' '.join(choices.split())}" if has_choices else message.rstrip(".")
    # Pydantic reads some values for typer.
    for pydantics, ours in PYDANTICS_WORDS.items():
        message = message.replace(f": {pydantics}", f": {ours}")
    nearest = get_close_matches(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), n=1)
    if nearest:
        message = f"{error.message.rstrip('.')} (did you mean {nearest[0]}?)"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else f"asyncexport {command}".rstrip()
    of_program = context is not None and context.parent is None
    what = "commands" if of_program and type(error) is TYPER_USAGE_ERROR else "options"
    return ExportError(message[:1].lower() + message[1:], hint=f"`{path} --help` lists the {what}")


def _bug(error: Exception) -> ExportError:
    """Return the error for an unexpected exception; its text may contain secrets, so only `-vv` shows it."""
    _debug("traceback of the bug", error)
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
    return ExportError(f"unexpected {type(error).__name__}{place}", hint=BUG_HINT)


def _debug(message: str, error: Exception) -> None:
    import logging

    logging.getLogger(__name__).debug("%s", message, exc_info=error)
