"""`verify`: are the archives what the ledger says? And what to do where they are not."""

from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncexport.cli.configuration import read_key
from asyncexport.cli.options import Directory, Names, Sets, check_names, read_asked
from asyncexport.cli.run_command import carry_out
from asyncexport.cli.session import Session
from asyncexport.cli.signals import run_abruptly
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.exits import Exit
from asyncexport.core.row_refusals import RULE_WAS_OFF, RULES_ARE_OFF
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
    repair: Annotated[bool, typer.Option("--repair", help="Export anew what is missing or broken.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the ledger anew from the archives.")] = False,
    adopt: Annotated[bool, typer.Option("--adopt", help="Take in archives that the ledger does not know.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --rebuild: also where the ledger is sound.")] = False,
    export: Names = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Check what is stored.

    Every archive is read to its end, and its bytes, checksums and rows are compared with the ledger; names all that
    is not sound, and ends with 3 then. It needs no key, and may be done during a run. --repair exports what is
    missing or broken anew, as a run of its own. --rebuild is for a ledger that is lost or damaged: the old one is moved
    aside, and so is every archive that is not whole. --adopt is for a ledger that is older than the archives, such as
    one from a backup: those that it does not know are looked into, and taken in.
    """
    session: Session = ctx.obj
    asked = read_asked(session, directory=directory, sets=sets)
    _refuse_together(export, repair=repair, rebuild=rebuild, adopt=adopt, force=force)
    key = read_key(session, asked.settings) if repair else None
    if rebuild:
        found = _rebuild(session, asked.settings, force=force)
    else:
        found = _adopt(session, asked.settings) if adopt else _check(session, asked.settings, export)
    if key is not None and found.unsound:
        return _repair(session, asked.settings, found, key)
    for hint in _hints(session, found):
        session.lines.hint(hint)
    return session.summary(Exit.DONE if found.is_well else Exit.PARTIAL, tally=found.tally)


def _refuse_together(names: list[str] | None, *, repair: bool, rebuild: bool, adopt: bool, force: bool) -> None:
    """Make sure that the options go together.

    Raises:
        ConfigError: some do not.
    """
    problems = []
    if repair and rebuild:
        problems.append(Problem("--repair", "and --rebuild are two steps: rebuild first, then repair"))
    if adopt and (repair or rebuild):
        problems.append(Problem("--adopt", f"and {'--rebuild' if rebuild else '--repair'} are two steps"))
    if rebuild and names:
        problems.append(Problem("--export", "a ledger is rebuilt as a whole"))
    if adopt and names:
        problems.append(Problem("--export", "archives are taken in as a whole"))
    if force and not rebuild:
        problems.append(Problem("--force", "goes with --rebuild alone"))
    if problems:
        raise ConfigError(problems)


def _hints(session: Session, found: "CheckResult") -> Iterator[str]:
    """What to do about what was found."""
    counts, again = found.counts, session.invocation.again
    if counts["damaged"]:
        spans = [bundle.range for bundle, kind in found.kinds.items() if kind == "damaged"]
        start, end = show(min(span.start for span in spans)), show(max(span.end for span in spans))
        yield f"`{again('backfill', '--start', start, '--end', end)}` exports anew what was moved aside"
    if counts["missing"] or counts["broken"]:
        yield f"`{again('verify', '--repair')}` exports anew what is missing or broken"
    if counts["unrecorded"]:
        yield f"`{again('verify', '--adopt')}` takes archives in that the ledger knows nothing of"
    if counts["overlapping"]:
        yield "archives that overlap hold the same rows twice: move one of each two to a place of its own"
    if counts["unknown"]:
        yield f"bring the .export.json of such a folder back, then run `{again('verify', '--adopt')}`"


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

    run_abruptly(checked)
    _say_counts(session, found)
    return found


def _rebuild(session: Session, settings: "Settings", *, force: bool) -> "CheckResult":
    from asyncexport.run.rebuild import rebuild

    where = settings.output.directory
    return _looked(session, f"rebuild the ledger of {where}", rebuild(where, force=force))


def _adopt(session: Session, settings: "Settings") -> "CheckResult":
    from asyncexport.run.adopt import adopt

    where = settings.output.directory
    heading = f"take archives into the ledger of {where}"
    return _looked(session, heading, adopt(where, exports=settings.exports))


def _looked(session: Session, heading: str, looks: "AsyncGenerator[Finding, None]") -> "CheckResult":
    """Count what is found, until there is no more."""
    from asyncexport.run.check_result import CheckResult

    found = CheckResult()

    async def looked() -> None:
        with session.counting(heading, total=None, of="files read") as count:
            async with aclosing(looks) as findings:
                async for finding in findings:
                    _take(session, found, finding)
                    count()

    run_abruptly(looked)
    _say_counts(session, found)
    return found


def _take(session: Session, found: "CheckResult", finding: "Finding") -> None:
    """Count a finding, and name it where it is not sound."""
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
            told = count_of(outside, "row", "rows")
            _name(session, "outside", path, facts={"rows": outside}, reason=f"{told} looked at")
        case RulesOff(path, is_remembered):
            message = f"{path}: {RULE_WAS_OFF if is_remembered else RULES_ARE_OFF}"
            session.record("note", message=message)
            session.lines.tell("note", message)
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
            reason = "an archive that the ledger knows nothing of" if is_archive else ""
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
    """Name a file or folder; with `bundle`, that one's archive is not sound."""
    if bundle is not None:
        facts = {**_facts(bundle), "reason": reason}
    session.record(kind, path=path, **(facts or {}))
    session.say(f"{kind:<8} {plain(path)}" + (f": {plain(reason)}" if reason else ""))


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {"export": bundle.export, "start": show(bundle.range.start), "end": show(bundle.range.end)}


def _say_counts(session: Session, found: "CheckResult") -> None:
    counts = found.counts
    told = ", ".join(f"{show_count(counts[kind])} {kind}" for kind in ("sound", "missing", "broken"))
    if counts["damaged"]:
        told += f", {show_count(counts['damaged'])} damaged and moved aside"
    if counts["adopted"]:
        told += f"; {show_count(counts['adopted'])} taken in"
    if counts["overlapping"]:
        told += f"; {show_count(counts['overlapping'])} overlapping"
    if counts["unknown"]:
        told += f"; {count_of(counts['unknown'], 'folder', 'folders')} of an unknown export"
    if counts["unrecorded"]:
        told += f"; {show_count(counts['unrecorded'])} unknown to the ledger"
    if others := counts["foreign"] - counts["unrecorded"]:
        told += f"; {count_of(others, 'other file', 'other files')}"
    session.say(f"archives: {told}")


def _repair(session: Session, settings: "Settings", found: "CheckResult", key: "ApiKey") -> Summary:
    from asyncexport.run.check_result import repair_of

    return carry_out(session, settings, repair_of(settings, found.unsound), key=key)
