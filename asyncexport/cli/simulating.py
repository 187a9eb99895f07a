"""`plan --simulate`: simulate a run on a virtual clock, as configured and with one setting changed at a time.

1. The scheduler, poller, budget and bundle runner are the real ones; only the service is simulated. The assumptions
   about it are printed below the table.
2. Durations and sizes come from the ledger if it has some. No request is sent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncexport.cli.options import Asked
from asyncexport.cli.session import Session
from asyncexport.core.admission import BudgetScope, Quota
from asyncexport.core.bundles import Bundle, show
from asyncexport.core.exports import Export, Type
from asyncexport.core.second_looks import SECOND_LOOKS, SecondLooks
from asyncexport.core.text import show_duration
from asyncexport.display import count_of, fitted_table, show_bytes, show_count, show_minute
from asyncexport.errors import ConfigError, Problem

if TYPE_CHECKING:
    from asyncexport.run.survey import Survey
    from asyncexport.simulate.variants import Assumed, Case, ExportShare, Row, Variant

FETCH_SECONDS = 2.0
"""Assumed seconds per download while there is no archive to measure."""

BYTES_A_SECOND = 1_000_000
"""Assumed download rate. It is below that of most connections, and downloads seldom delay a run."""

SEEDS = 5

MANY_BUNDLES = 20_000
"""Limit on the bundles simulated in total: without `--seeds`, variants are repeated less often to stay below it."""

QUICK_BUNDLES = 1_000
"""Bundles that can be simulated in about a second; for more, a note announces the wait."""

HEADS = {BudgetScope.CREATE: "if only creates count", BudgetScope.ALL: "if every request counts"}

SPARE = (5, 3)
"""The columns that a narrow terminal leaves out: "min to max", then "first file"."""

KINDS = ("create", "poll", "list", "results")

Simulate = Annotated[
    bool,
    typer.Option("--simulate", help="Simulate the run with the real scheduler on a virtual clock."),
]
Vary = Annotated[
    list[str] | None,
    typer.Option(
        "--vary",
        metavar="KEY=A,B",
        help="Also simulate other values of a setting, such as bundle=1h,6h or concurrency.operations=20; may be"
        " repeated: each setting is varied on its own, the others stay as configured.",
    ),
]
Duration = Annotated[
    str | None,
    typer.Option(
        "--duration",
        metavar="TIME",
        help="Median duration of the simulated operations. Default: as in earlier runs, else [polling] expected.",
    ),
]
Sigma = Annotated[
    float | None,
    typer.Option(
        "--sigma",
        metavar="S",
        min=0.0,
        max=3.0,
        help="Spread of the durations: the standard deviation of their logarithm. Default: 0.5.",
    ),
]
Growth = Annotated[
    float | None,
    typer.Option(
        "--growth",
        metavar="G",
        min=0.0,
        max=3.0,
        help="How durations grow with bundle width: k times as wide takes k^G times as long. Default: 0, no longer.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        metavar="N",
        min=1,
        max=1000,
        help="Simulations per variant, each with other random durations. Default: 5, fewer if that takes long.",
    ),
]


@dataclass(frozen=True, slots=True)
class Options:
    """The values of the options; None if one was not given."""

    simulate: bool = False
    vary: tuple[str, ...] = ()
    duration: str | None = None
    sigma: float | None = None
    growth: float | None = None
    seeds: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether to simulate; `--vary` implies it."""
        return self.simulate or bool(self.vary)


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger knows from earlier runs.

    Attributes:
        durations: Durations of operations, in seconds.
        densities: Archive bytes per second of covered time, by export.
        second_looks: The share of files that needed a second check.
    """

    durations: tuple[float, ...] = ()
    densities: dict[str, float] = field(default_factory=dict)
    second_looks: float = 0.0

    def fetch_seconds(self, export: Export) -> float:
        """Return the expected seconds for the download of one bundle."""
        density = self.densities.get(export.name)
        return FETCH_SECONDS if density is None else density * export.bundle_seconds / BYTES_A_SECOND


Look = Callable[[Asked, tuple[Export, ...]], "Survey"]
"""Returns what a run of these exports would have to do."""


def check(options: Options) -> None:
    """Check the options as far as that is possible without the settings.

    Raises:
        ConfigError: some are wrong; it holds every problem.
    """
    from asyncexport.config import read_duration

    given = {"--duration": options.duration, "--sigma": options.sigma, "--growth": options.growth}
    given["--seeds"] = options.seeds
    problems = [
        Problem(name, "needs --simulate or --vary")
        for name, value in given.items()
        if value is not None and not options.wanted
    ]
    for one in options.vary:
        key, _, values = one.partition("=")
        if not key.strip() or not all(value.strip() for value in values.split(",")):
            problems.append(Problem("--vary", "expected KEY=A,B, such as bundle=1h,6h"))
    if options.duration is not None:
        try:
            if not read_duration(options.duration):
                problems.append(Problem("--duration", "must be longer than 0s"))
        except ValueError as error:
            problems.append(Problem("--duration", str(error)))
    if problems:
        raise ConfigError(problems)


def read_variants(asked: Asked, options: Options) -> "list[Variant]":
    """Return the configuration and the variants to compare it with.

    Raises:
        ConfigError: some keys or values are wrong; it holds every problem.
    """
    from asyncexport.simulate.variants import variants

    pairs = (one.partition("=") for one in options.vary)
    vary = [(key.strip(), [value.strip() for value in values.split(",")]) for key, _, values in pairs]
    return variants(asked.settings, vary)


def show_simulation(
    session: Session, asked: Asked, options: Options, found: "Sequence[Variant]", *, look: Look, now: float
) -> None:
    """Simulate these variants and show the results."""
    from asyncexport.simulate.variants import forecast

    known = _read_known(asked)
    cases = [case for variant in found for case in _cases(asked, variant, known, look) if case.bundles]
    if not cases:
        session.say("nothing to do: the run would send no request")
        return
    assumed = _assumptions(asked, options, known, bundles=sum(case.bundles for case in cases))
    bundles = assumed.seeds * sum(case.bundles for case in cases)
    if bundles > QUICK_BUNDLES and not session.quiet:
        runs = count_of(assumed.seeds * len(cases), "run", "runs")
        session.lines.report(
            "note", f"simulating {runs} with {show_count(bundles)} bundles in total, about a millisecond each"
        )
    rows = forecast(cases, assumed)
    for row in rows:
        session.record("simulation", **_row_record(row, now))
    _show_rows(session, rows, now=now)
    notes = list(_notes(asked, options, cases, assumed, known))
    session.record("assumed", **_assumptions_record(assumed), notes=notes)
    session.say()
    for note in notes:
        session.say_fitted(note)


def _read_known(asked: Asked) -> Known:
    from asyncexport.ledger import LedgerReader, present

    directory = asked.settings.output.directory
    if not present(directory):
        return Known()
    with LedgerReader(directory) as ledger:
        covered = {
            one.name: (one.bytes, sum(span.end - span.start for span in one.covered)) for one in ledger.overviews()
        }
        densities = {name: size / seconds for name, (size, seconds) in covered.items() if seconds}
        return Known(tuple(ledger.durations()), densities, SecondLooks.read(ledger.recall(SECOND_LOOKS)).share)


def _cases(asked: Asked, variant: "Variant", known: Known, look: Look) -> "Iterator[Case]":
    """Yield a case for each reading of the limit that the variant's settings leave open."""
    from asyncexport.simulate.variants import Case, ExportShare, readings

    present = {export.name: export for export in asked.exports}
    exports = tuple(export for export in variant.settings.exports if export.name in present)
    survey = look(replace(asked, settings=variant.settings, exports=exports), exports)
    parts = tuple(
        ExportShare(
            work.count,
            widening=work.export.bundle_seconds / present[work.export.name].bundle_seconds,
            fetch_seconds=known.fetch_seconds(present[work.export.name]),
        )
        for work in survey.plans
    )
    audits = tuple(_audit_shares(survey.audit, present, known))
    in_progress = sum(len(work.in_progress) for work in survey.plans)
    budget = variant.settings.budget
    for counts in readings(variant.settings):
        allowance = Quota(budget.requests_per_minute, budget.burst, counts)
        tokens = survey.tokens_for_creates if counts is BudgetScope.CREATE else survey.tokens
        used = ceil(allowance.usable_burst - tokens)
        yield Case(variant, counts, (*parts, *audits), len(survey.audit), tokens_used=used, in_progress=in_progress)


def _audit_shares(audit: "Sequence[Bundle]", present: "Mapping[str, Export]", known: Known) -> "Iterator[ExportShare]":
    """Yield the bundles to audit of each export; they keep the width that they have."""
    from asyncexport.simulate.variants import ExportShare

    for name, count in Counter(one.export for one in audit).items():
        export = present[name]
        seconds = sum(one.range.seconds for one in audit if one.export == name) / count
        yield ExportShare(count, widening=seconds / export.bundle_seconds, fetch_seconds=known.fetch_seconds(export))


def _assumptions(asked: Asked, options: Options, known: Known, *, bundles: int) -> "Assumed":
    from asyncexport.config import read_duration
    from asyncexport.simulate.variants import ENOUGH, Assumed

    learned = known.durations
    usual = median(learned) if len(learned) >= ENOUGH else asked.settings.polling.expected_seconds
    return Assumed(
        learned=learned,
        median_seconds=usual if options.duration is None else read_duration(options.duration),
        sigma=0.5 if options.sigma is None else options.sigma,
        given=options.duration is not None or options.sigma is not None,
        growth=options.growth or 0.0,
        seeds=options.seeds or max(1, min(SEEDS, MANY_BUNDLES // bundles)),
        second_looks=known.second_looks,
    )


def _show_rows(session: Session, rows: "Sequence[Row]", *, now: float) -> None:
    for counts, head in HEADS.items():
        lines = [(head, "bundles", "/".join(KINDS), "first file", "done in", "min to max", "done at")]
        for row in rows:
            if row.counts is not counts:
                continue
            least, most = show_duration(row.makespan_min), show_duration(row.makespan_max)
            lines.append(
                (
                    row.variant,
                    show_count(row.bundles),
                    "/".join(show_count(row.requests[kind]) for kind in KINDS),
                    show_duration(row.first_archive),
                    show_duration(row.makespan),
                    least if least == most else f"{least} to {most}",
                    show_minute(now + row.makespan),
                )
            )
        if len(lines) > 1:
            session.say()
            for line in fitted_table(lines, right=frozenset({1, 2}), columns=session.results.columns(), spare=SPARE):
                session.say(line)


def _notes(asked: Asked, options: Options, cases: "Sequence[Case]", assumed: "Assumed", known: Known) -> Iterator[str]:
    """Describe the assumptions, one per line."""
    if assumed.seeds == 1:
        yield "each variant was simulated once with the real scheduler and budget; --seeds 5 shows the role of chance"
    else:
        times = f"{assumed.seeds} times"
        yield f"each variant was simulated {times} with the real scheduler and budget; figures are medians"
    yield _durations_note(options, assumed)
    if any(part.widening != 1 for case in cases for part in case.parts):
        yield _growth_note(assumed)
        if any(export.definition.type is Type.INDIVIDUAL for export in asked.exports):
            yield "exports of individuals always use bundles of 24h"
    yield _downloads_note(asked, known)
    if known.second_looks:
        yield f"{known.second_looks:.0%} of the files are empty and downloaded twice to confirm it, as in earlier runs"
    if cases[0].in_progress:
        yield f"{count_of(cases[0].in_progress, 'bundle', 'bundles')} in progress: simulated from the start"
    if cases[0].audits:
        yield f"{count_of(cases[0].audits, 'stored bundle', 'stored bundles')} to audit when everything else is stored"
    yield "assumes that the service grants the configured budget and starts every operation immediately"
    yield "assumes no failures and a usable List Operations endpoint"


def _durations_note(options: Options, assumed: "Assumed") -> str:
    from asyncexport.simulate.variants import ENOUGH

    if assumed.resamples:
        middle = show_duration(median(assumed.learned))
        return (
            f"durations are drawn from {show_count(len(assumed.learned))} earlier operations, with a median of {middle}"
        )
    source = "--duration" if options.duration else "[polling] expected"
    if not options.duration and len(assumed.learned) >= ENOUGH:
        source = "earlier runs"
    middle = show_duration(assumed.median_seconds)
    return f"durations of operations are lognormal: median {middle} ({source}), sigma {assumed.sigma:g}"


def _growth_note(assumed: "Assumed") -> str:
    if not assumed.growth:
        return "assumes that wider bundles take no longer; --growth 1 makes durations proportional to the width"
    return f"a bundle twice as wide takes {2**assumed.growth:.2g} times as long (--growth)"


def _downloads_note(asked: Asked, known: Known) -> str:
    sizes = [known.densities[one.name] * one.bundle_seconds for one in asked.exports if one.name in known.densities]
    wider = "in proportion to the bundle width"
    if not sizes:
        return f"a download takes {show_duration(FETCH_SECONDS)}, {wider} (no archive to measure yet)"
    size = show_bytes(sum(sizes) / len(sizes))
    return f"a download has {size} like earlier archives, {wider}, at {show_bytes(BYTES_A_SECOND)}/s"


def _row_record(row: "Row", now: float) -> dict[str, Any]:
    return {
        "variant": row.variant,
        "scope": row.counts.value,
        "bundles": row.bundles,
        "makespan_seconds": round(row.makespan, 1),
        "makespan_min": round(row.makespan_min, 1),
        "makespan_max": round(row.makespan_max, 1),
        "first_archive_seconds": round(row.first_archive, 1),
        "ends_at": show(now + row.makespan),
        "requests": row.requests,
    }


def _assumptions_record(assumed: "Assumed") -> dict[str, Any]:
    resampled = assumed.resamples
    return {
        "seeds": assumed.seeds,
        "durations": "learned" if resampled else "lognormal",
        "learned": len(assumed.learned),
        "median_seconds": round(median(assumed.learned) if resampled else assumed.median_seconds, 1),
        "sigma": None if resampled else assumed.sigma,
        "growth": assumed.growth,
    }
