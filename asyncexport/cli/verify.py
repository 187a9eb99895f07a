"""`verify`: are the archives what the ledger says? And what to do where they are not."""

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asyncexport.cli.configuration import read_key
from asyncexport.cli.options import Directory, Names, Sets, check_names, read_asked
from asyncexport.cli.run_command import carry_out
from asyncexport.cli.session import Session
from asyncexport.cli.signals import run_abruptly
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary, Tally
from asyncexport.display import count_of, plain, show_count
from asyncexport.errors import ConfigError, Problem
from asyncexport.run.spec import Repair

if TYPE_CHECKING:
    from asyncexport.config import ApiKey, Settings
    from asyncexport.core.exports import Export
    from asyncexport.core.states import BundleRecord
    from asyncexport.run.verify import Finding


@dataclass(slots=True)
class Found:
    """What came of a check.

    Attributes:
        tally: Of archives: those that are sound count as stored before, the others as parked.
        counts: By kind of finding.
        unsound: Bundles whose archive is missing or broken.
    """

    tally: Tally = field(default_factory=Tally)
    counts: Counter[str] = field(default_factory=Counter)
    unsound: "list[BundleRecord]" = field(default_factory=list)


def verify(
    ctx: typer.Context,
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Export anew what is missing or broken.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the ledger anew from the archives.")] = False,
    export: Names = None,
    directory: Directory = None,
    sets: Sets = None,
) -> Summary:
    """Check what is stored.

    Every archive is read to its end, and its bytes, checksums and rows are compared with the ledger; names all that
    is not sound, and ends with 3 then. It needs no key, and may be done during a run. --repair exports what is
    missing or broken anew, as a run of its own. --rebuild is for a ledger that is lost or damaged: the old one is moved
    aside, and so is every archive that is not whole.
    """
    session: Session = ctx.obj
    asked = read_asked(session, directory=directory, sets=sets)
    if repair and rebuild:
        raise ConfigError([Problem("--repair", "and --rebuild are two steps: rebuild first, then repair")])
    if rebuild and export:
        raise ConfigError([Problem("--export", "a ledger is rebuilt as a whole")])
    key = read_key(session, asked.settings) if repair else None
    found = _rebuild(session, asked.settings) if rebuild else _check(session, asked.settings, export)
    if key is not None and found.unsound:
        return _repair(session, asked.settings, found, key)
    if found.tally.failed:
        session.lines.hint(
            "the next backfill over its range exports anew what was moved aside"
            if rebuild
            else f"`{session.invocation.again('verify', '--repair')}` exports anew what is missing or broken"
        )
    return session.summary(Exit.PARTIAL if found.tally.failed else Exit.DONE, tally=found.tally)


def _check(session: Session, settings: "Settings", names: list[str] | None) -> Found:
    from asyncexport.ledger import LedgerReader
    from asyncexport.run.directory import check_ledger_not_lost
    from asyncexport.run.verify import verify as check

    where = settings.output.directory
    check_ledger_not_lost(where)
    with LedgerReader(where) as ledger:
        overviews = ledger.overviews()
    check_names(names, [one.name for one in overviews])
    total = sum(one.stored for one in overviews if not names or one.name in names)
    found = Found()

    async def checked() -> None:
        with session.counting(f"verify {where}", total=total, of="archives checked") as count:
            async with aclosing(check(where, exports=names or ())) as findings:
                async for finding in findings:
                    _take(session, found, finding, where)
                    count()

    run_abruptly(checked)
    _say_counts(session, found)
    return found


def _rebuild(session: Session, settings: "Settings") -> Found:
    from asyncexport.run.verify import rebuild

    where = settings.output.directory
    found = Found()

    async def rebuilt() -> None:
        with session.counting(f"rebuild the ledger of {where}", total=None, of="files read") as count:
            async with aclosing(rebuild(where)) as findings:
                async for finding in findings:
                    _take(session, found, finding, where)
                    count()

    run_abruptly(rebuilt)
    _say_counts(session, found)
    return found


def _take(session: Session, found: Found, finding: "Finding", where: Path) -> None:
    """Count a finding, and name it where it is not sound."""
    from asyncexport.run.verify import Broken, Damaged, Intact, Missing, Unrecorded

    match finding:
        case Intact(path, rows):
            found.counts["sound"] += 1
            found.tally.planned += 1
            found.tally.stored_before += 1
            found.tally.rows += rows
            found.tally.bytes += (where / path).stat().st_size
        case Missing(path, record):
            found.unsound.append(record)
            _name(session, found, "missing", path, bundle=record.bundle, reason="there is no such file")
        case Broken(path, record, reason):
            found.unsound.append(record)
            _name(session, found, "broken", path, bundle=record.bundle, reason=reason)
        case Damaged(path, bundle, reason):
            _name(session, found, "damaged", path, bundle=bundle, reason=f"{reason}; it is moved aside")
        case Unrecorded(path):
            _name(session, found, "foreign", path)


def _name(
    session: Session, found: Found, kind: str, path: str, *, bundle: Bundle | None = None, reason: str = ""
) -> None:
    found.counts[kind] += 1
    facts = {"path": path}
    if bundle is not None:
        found.tally.planned += 1
        found.tally.parked[bundle] = f"{kind}: {reason}"
        facts |= {
            "export": bundle.export,
            "start": show(bundle.range.start),
            "end": show(bundle.range.end),
            "reason": reason,
        }
    session.record(kind, **facts)
    session.say(f"{kind:<8} {plain(path)}" + (f": {plain(reason)}" if reason else ""))


def _say_counts(session: Session, found: Found) -> None:
    counts = found.counts
    told = ", ".join(f"{show_count(counts[kind])} {kind}" for kind in ("sound", "missing", "broken"))
    if counts["damaged"]:
        told += f", {show_count(counts['damaged'])} damaged and moved aside"
    if counts["foreign"]:
        told += f"; {count_of(counts['foreign'], 'other file', 'other files')}"
    session.say(f"archives: {told}")


def _repair(session: Session, settings: "Settings", found: Found, key: "ApiKey") -> Summary:
    spec = Repair(_exports_of(settings, found.unsound), tuple(found.unsound), command="verify")
    return carry_out(session, settings, spec, key=key)


def _exports_of(settings: "Settings", unsound: "list[BundleRecord]") -> "tuple[Export, ...]":
    """The exports to be repaired; those that the settings do not name any more are as the ledger remembers them."""
    from asyncexport.core.exports import Export
    from asyncexport.ledger import LedgerReader

    names = sorted({one.bundle.export for one in unsound})
    named = {one.name: one for one in settings.exports}
    with LedgerReader(settings.output.directory) as ledger:
        known = ledger.exports()
    return tuple(named.get(name) or Export(name, known[name]) for name in names)
