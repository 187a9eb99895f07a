"""`verify`: check the archives against the ledger; repair, rebuild and adopt what does not match."""

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncexport.cli.configuration import read_key
from asyncexport.cli.options import Dashboard, Directory, Names, Sets, SuccessExits, check_names, read_asked
from asyncexport.cli.run_command import carry_out
from asyncexport.cli.session import Session
from asyncexport.cli.signals import run_interruptibly
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.exits import Exit
from asyncexport.core.row_rejections import RULE_WAS_OFF, RULES_ARE_OFF
from asyncexport.core.summary import Summary
from asyncexport.display import count_of, plain, show_count
from asyncexport.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncexport.config import ApiKey, Settings
    from asyncexport.run.check_result import CheckResult
    from asyncexport.run.findings import Finding


def verify(
    ctx: typer.Context,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Export missing and broken archives again.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make a new ledger from the archives.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Add archives that the ledger does not know.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --rebuild: even if the ledger is intact.")] = False,
    export: Names = None,
    success_exit: SuccessExits = None,
    dashboard: Dashboard = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Check what is stored.

    Reads every archive to its end and compares its bytes, checksums and rows with the ledger. Lists everything that is
    not intact; the exit code is then 3. Needs no key and works during a run.

    --repair then exports missing and broken archives again. --rebuild is for a ledger that is lost or damaged: it makes
    a new one from the archives and moves the old one and every damaged archive aside. --adopt is for a ledger that is
    older than the archives, such as one restored from a backup: it checks the archives that the ledger does not know
    and adds the intact ones.
    """
    session: Session = ctx.obj
    asked = read_asked(
        session,
        directory=directory,
        sets=sets,
        success_exits=success_exit,
        dashboard=dashboard,
        faults=[Problem("--dashboard", "needs --repair")] if dashboard is not None and not repair else (),
    )
    _refuse_together(export, repair=repair, rebuild=rebuild, adopt=adopt, force=force)
    key = read_key(session, asked.settings) if repair else None
    if rebuild:
        found = _rebuild(session, asked.settings, force=force)
    else:
        found = _adopt(session, asked.settings) if adopt else _check(session, asked.settings, export)
    if key is not None and found.faulty:
        return replace(_repair(session, asked.settings, found, key), checked=found.checked)
    for hint in _hints(session, found):
        session.lines.hint(hint)
    return session.summary(Exit.DONE if found.is_well else Exit.PARTIAL, tally=found.tally, checked=found.checked)


def _refuse_together(names: list[str] | None, *, repair: bool, rebuild: bool, adopt: bool, force: bool) -> None:
    """Check that the options can be combined.

    Raises:
        ConfigError: some cannot.
    """
    problems = []
    if repair and rebuild:
        problems.append(Problem("--repair", "cannot be combined with --rebuild: rebuild first, then repair"))
    if adopt and (repair or rebuild):
        problems.append(Problem("--adopt", f"cannot be combined with {'--rebuild' if rebuild else '--repair'}"))
    if rebuild and names:
        problems.append(Problem("--export", "cannot be combined with --rebuild, which covers all exports"))
    if adopt and names:
        problems.append(Problem("--export", "cannot be combined with --adopt, which covers all exports"))
    if force and not rebuild:
        problems.append(Problem("--force", "needs --rebuild"))
    if problems:
        raise ConfigError(problems)


def _hints(session: Session, found: "CheckResult") -> Iterator[str]:
    """Say what to do about each kind of finding."""
    counts, again = found.counts, session.invocation.again
    if counts["damaged"]:
        spans = [bundle.range for bundle, kind in found.kinds.items() if kind == "damaged"]
        start, end = show(min(span.start for span in spans)), show(max(span.end for span in spans))
        yield f"`{again('backfill', '--start', start, '--end', end)}` exports the damaged bundles again"
    if counts["missing"] or counts["broken"]:
        yield f"`{again('verify', '--repair')}` exports missing and broken archives again"
    if counts["unrecorded"]:
        yield f"`{again('verify', '--adopt')}` adds the unrecorded archives to the ledger"
    if counts["overlapping"]:
        yield "overlapping archives contain the same rows twice: move one of each pair to another directory"
    if counts["unknown"]:
        yield f"restore the .export.json of each unknown folder, then run `{again('verify', '--adopt')}`"


def _check(session: Session, settings: "Settings", names: list[str] | None) -> "CheckResult":
    from asyncexport.ledger import LedgerReader
    from asyncexport.run.check_result import CheckResult
    from asyncexport.run.directory import check_ledger_not_lost
    from asyncexport.run.verify import verify as check

    where = settings.output.directory
    check_ledger_not_lost(where)
    with LedgerReader(where) as ledger:
        overviews = ledger.overviews()
    check_names(names, [one.name for one in overviews])
    total = sum(one.stored for one in overviews if not names or one.name in names)
    found = CheckResult()

    async def checked() -> None:
        with session.counting(f"verify {where}", total=total, of="archives checked") as count:
            async with aclosing(check(where, exports=names or ())) as findings:
                async for finding in findings:
                    _take(session, found, finding)
                    count()

    run_interruptibly(checked)
    _say_counts(session, found)
    return found


def _rebuild(session: Session, settings: "Settings", *, force: bool) -> "CheckResult":
    from asyncexport.run.rebuild import rebuild

    where = settings.output.directory
    return _collect(session, f"rebuild the ledger of {where}", rebuild(where, force=force))


def _adopt(session: Session, settings: "Settings") -> "CheckResult":
    from asyncexport.run.adopt import adopt

    where = settings.output.directory
    heading = f"adopt archives into the ledger of {where}"
    return _collect(session, heading, adopt(where, exports=settings.exports))


def _collect(session: Session, heading: str, source: "AsyncGenerator[Finding, None]") -> "CheckResult":
    """Count and show all findings."""
    from asyncexport.run.check_result import CheckResult

    found = CheckResult()

    async def collect() -> None:
        with session.counting(heading, total=None, of="files read") as count:
            async with aclosing(source) as findings:
                async for finding in findings:
                    _take(session, found, finding)
                    count()

    run_interruptibly(collect)
    _say_counts(session, found)
    return found


def _take(session: Session, found: "CheckResult", finding: "Finding") -> None:
    """Count a finding, and list it unless it is an intact archive."""
    from asyncexport.run.check_result import NO_FILE, moved_aside
    from asyncexport.run.findings import (
        Adopted,
        Broken,
        Damaged,
        Intact,
        Missing,
        Overlapping,
        RulesOff,
        UnknownExport,
        Unrecorded,
    )

    found.count(finding)
    match finding:
        case Adopted(path):
            _name(session, "adopted", path)
        case Intact(path, outside=outside) if outside:
            sampled = count_of(outside, "sampled row", "sampled rows")
            _name(session, "outside", path, facts={"rows": outside}, reason=f"{sampled} outside of its range")
        case RulesOff(path, is_remembered):
            message = f"{path}: {RULE_WAS_OFF if is_remembered else RULES_ARE_OFF}"
            session.record("note", message=message)
            session.lines.report("note", message)
        case Missing(path, record):
            _name(session, "missing", path, bundle=record.bundle, reason=NO_FILE)
        case Broken(path, record, reason):
            _name(session, "broken", path, bundle=record.bundle, reason=reason)
        case Damaged(path, bundle, reason):
            _name(session, "damaged", path, bundle=bundle, reason=moved_aside(reason))
        case Overlapping(path, bundle, other):
            _name(session, "overlapping", path, facts={**_facts(bundle), "other": other}, reason=f"with {other}")
        case UnknownExport(path, reason):
            _name(session, "unknown", path, facts={"reason": reason}, reason=reason)
        case Unrecorded(path, is_archive):
            reason = "an archive that is not in the ledger" if is_archive else ""
            _name(session, "foreign", path, facts={"archive": is_archive}, reason=reason)


def _name(
    session: Session,
    kind: str,
    path: str,
    *,
    bundle: Bundle | None = None,
    reason: str = "",
    facts: dict[str, Any] | None = None,
) -> None:
    """List a file or folder; `bundle` is given if the archive of that bundle is not intact."""
    if bundle is not None:
        facts = {**_facts(bundle), "reason": reason}
    session.record(kind, path=path, **(facts or {}))
    session.say(f"{kind:<8} {plain(path)}" + (f": {plain(reason)}" if reason else ""))


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {"export": bundle.export, "start": show(bundle.range.start), "end": show(bundle.range.end)}


def _say_counts(session: Session, found: "CheckResult") -> None:
    counts = found.counts
    text = ", ".join(f"{show_count(counts[kind])} {kind}" for kind in ("intact", "missing", "broken"))
    if counts["damaged"]:
        text += f", {show_count(counts['damaged'])} damaged and moved aside"
    if counts["adopted"]:
        text += f"; {show_count(counts['adopted'])} adopted"
    if counts["overlapping"]:
        text += f"; {show_count(counts['overlapping'])} overlapping"
    if counts["unknown"]:
        text += f"; {count_of(counts['unknown'], 'folder', 'folders')} of an unknown export"
    if counts["unrecorded"]:
        text += f"; {show_count(counts['unrecorded'])} not in the ledger"
    if others := counts["foreign"] - counts["unrecorded"]:
        text += f"; {count_of(others, 'other file', 'other files')}"
    session.say(f"archives: {text}")


def _repair(session: Session, settings: "Settings", found: "CheckResult", key: "ApiKey") -> Summary:
    from asyncexport.run.check_result import repair_of

    return carry_out(session, settings, repair_of(settings, found.faulty), key=key)
