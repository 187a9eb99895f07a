"""The result of an audit as text: what it proves, and how late rows came."""

import math

from asyncexport.core.auditing import AuditResult, AuditStep, Comparison
from asyncexport.core.bundles import show
from asyncexport.core.confidence import CONFIDENCE
from asyncexport.core.exits import Exit
from asyncexport.core.summary import Summary
from asyncexport.core.text import show_duration
from asyncexport.display.formatting import count_of, plain, show_count

MOST_DIFFERING = 10
"""Differing bundles that are listed one by one; `--json` lists all."""


def compared_nothing(summary: Summary) -> bool:
    """Whether the command `audit` found no bundle that it could have compared."""
    return summary.command == "audit" and summary.exit_code is Exit.TIME_UP and not summary.tally.audit.comparisons


def audit_lines(audit: AuditResult) -> list[str]:
    """Return the result of an audit; none without an audit."""
    if not (audit.sample or audit.damaged):
        return []
    lines = [f"audit: {_claim(audit)}"]
    lines += [f"damaged: {plain(one.path)}" for one in list(audit.damaged.values())[:MOST_DIFFERING]]
    if len(audit.damaged) > MOST_DIFFERING:
        lines.append(f"damaged: {show_count(len(audit.damaged) - MOST_DIFFERING)} more; `verify` lists all")
    if missing := len(audit.sample) - len(audit.comparisons):
        count = count_of(missing, "bundle of the sample was", "bundles of the sample were")
        lines.append(f"audit: {count} not compared")
    differing = audit.differing
    if not differing:
        return lines
    lines += [f"audit: {_step(one)}" for one in audit.curve()]
    lines += [f"differs: {_differing(one)}" for one in differing[:MOST_DIFFERING]]
    if len(differing) > MOST_DIFFERING:
        lines.append(f"differs: {show_count(len(differing) - MOST_DIFFERING)} more; --json lists all")
    if any(one.rows_found > one.rows_before for one in differing):
        lines.append(
            "rows came after these bundles were exported: a later age in [nightly] refresh, or a longer settle in "
            "[[export]], includes them"
        )
    return lines


def _claim(audit: AuditResult) -> str:
    if not audit.comparisons:
        return "no bundle was exported again, so nothing follows"
    differ, limit = len(audit.differing), audit.share_limit
    text = f"of {show_count(len(audit.comparisons))} exported again {show_count(differ)} {_verb(differ)}"
    if limit is None:
        return f"{text}, so nothing follows about the others"
    return f"{text}: fewer than {show_limit(limit)} do, at {CONFIDENCE * 100:g} %"


def show_limit(share: float) -> str:
    """Return a share in percent, rounded up to two digits, so that it stays a limit."""
    percent = share * 100
    digits = 1 - math.floor(math.log10(percent))
    # Rounding first keeps 2.5 from becoming 2.6 because of its last bit.
    rounded = math.ceil(round(percent * 10**digits, 6)) / 10**digits
    return f"{rounded:g} %"


def _step(step: AuditStep) -> str:
    begin = show_duration(step.from_seconds) if step.from_seconds else ""
    end = "" if step.to_seconds is None else show_duration(step.to_seconds)
    age = f"less than {end}" if not begin else f"{begin} to {end}" if end else f"{begin} or more"
    text = (
        f"exported {age} after their end: {show_count(step.differ)} of {show_count(step.bundles)} {_verb(step.differ)}"
    )
    added, of, removed = map(show_count, (step.rows_added, step.rows + step.rows_added, step.rows_removed))
    changes = f"; {added} of {of} rows came later, {removed} removed"
    return text + (changes if step.differ else "")


def _verb(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _differing(one: Comparison) -> str:
    start = f"{plain(one.bundle.export)} {show(one.bundle.range.start)}"
    counts = f"{count_of(one.rows_found, 'row', 'rows')} instead of {show_count(one.rows_before)}"
    kept = "; the archive was kept" if one.kept else ""
    return f"{start}: {counts}, exported {show_duration(max(0.0, one.age_seconds))} after its end{kept}"
