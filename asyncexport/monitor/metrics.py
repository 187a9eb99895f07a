"""The metrics of an output directory in Prometheus' text format.

1. Every metric has the label `directory`, so that the text files of several directories can be collected together.
2. Nothing but the ledger remembers a count from run to run, and it keeps 400 days. Counters therefore start again on
   1 January (UTC), which Prometheus recognises as a reset. A request counts as unanswered only some hours after it was
   sent: until then its answer may come, and a counter must not decrease.
3. Without a readable ledger, `asyncexport_ledger_readable` is 0, and everything that is read from it is left out.

The metrics are listed in OPERATIONS.md.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from asyncexport import __version__
from asyncexport.core.health.beside import Beside, BesideEnd, BesideKind, days_not_loaded, files_missing
from asyncexport.core.health.export_report import ExportReport
from asyncexport.core.health.gap_list import is_optional
from asyncexport.core.health.last_run import ENDS_WELL
from asyncexport.core.health.missing import MISSING
from asyncexport.core.health.records import RunRecord
from asyncexport.core.health.report import StatusReport
from asyncexport.core.states import Failed, FewerRows, Refused

PREFIX = "asyncexport_"

NOT_REQUESTED = "not requested"
"""The reason of gaps that are no fault, in place of "never asked"."""

PARKED_KINDS = ("failed", "refused", "overdue", "kept")

UNANSWERED_AFTER_SECONDS = 7200
"""A request of an hour that began earlier than this gets no answer any more."""

OPERATION_BUCKETS = (10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 43_200.0)
"""Upper limits of the histogram in seconds: an operation usually takes minutes; its deadline is a day by default."""

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


@dataclass(frozen=True, slots=True)
class EndedRun:
    """How the run ended that asks for the metrics; the ledger has no record of a run that could not open it."""

    command: str
    exit_code: int
    at: float


@dataclass(frozen=True, slots=True)
class MetricsFacts:
    """What the metrics are made from.

    Attributes:
        directory: The output directory.
        now: The time at the service, in seconds since 1970.
        report: The report of `status`; None if the ledger cannot be read.
        operations: How long the operations took that finished last, in seconds.
        tokens: The requests that may be sent now, by what the limit counts: `all` requests or `create` alone.
        burst: Tokens in a full bucket.
        split: Bundles that were replaced by narrower ones, by export.
        disk: The free bytes and the size of the disk; None if they cannot be read.
        ended: How the run ended that asks for the metrics. None if none asks.
    """

    directory: str
    now: float
    report: StatusReport | None = None
    operations: Sequence[float] = ()
    tokens: Mapping[str, float] = field(default_factory=dict)
    burst: float = 0.0
    split: Mapping[str, int] = field(default_factory=dict)
    disk: tuple[int, int] | None = None
    ended: EndedRun | None = None


def metrics_text(facts: MetricsFacts) -> bytes:
    """Return the metrics in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(facts))
    return generate_latest(registry)


class _Collector:
    """Gives the metrics to the library."""

    def __init__(self, facts: MetricsFacts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        facts = self._facts
        yield from _of_program(facts)
        yield from _of_runs(facts)
        if facts.report is None:
            return
        yield from _of_beside(facts, facts.report.beside)
        yield from _of_requests(facts, facts.report)
        yield from _of_exports(facts, facts.report.exports)


def _gauge(facts: MetricsFacts, name: str, help_text: str, samples: Samples, labels: Labels = ()) -> Metric:
    metric = GaugeMetricFamily(PREFIX + name, help_text, labels=("directory", *labels))
    for values, value in samples:
        metric.add_metric([facts.directory, *values], value)
    return metric


def _counter(facts: MetricsFacts, name: str, help_text: str, samples: Samples, labels: Labels = ()) -> Metric:
    metric = CounterMetricFamily(PREFIX + name, f"{help_text} since 1 January (UTC)", labels=("directory", *labels))
    for values, value in samples:
        metric.add_metric([facts.directory, *values], value)
    return metric


def _of_program(facts: MetricsFacts) -> Iterator[Metric]:
    versions = (__version__, platform.python_version())
    yield _gauge(facts, "build_info", "Always 1; the versions are labels", [(versions, 1)], ("version", "python"))
    readable = facts.report is not None
    yield _gauge(facts, "ledger_readable", "Whether the ledger can be read: 1, or 0", [((), float(readable))])
    if facts.disk is not None:
        free, size = facts.disk
        yield _gauge(facts, "disk_free_bytes", "Free bytes on the disk of the directory", [((), free)])
        yield _gauge(facts, "disk_size_bytes", "Size of the disk of the directory", [((), size)])


def _of_runs(facts: MetricsFacts) -> Iterator[Metric]:
    runs = list(facts.report.runs) if facts.report else []
    if facts.ended is not None and not _is_recorded(facts.ended, runs):
        ended = facts.ended
        runs.append(RunRecord(ended.command, ended.at, ended=ended.at, exit_code=ended.exit_code))
    finished = [run for run in runs if run.ended is not None and run.exit_code is not None]
    last = {run.command: run for run in finished}
    if facts.report is not None:
        report = facts.report
        yield _gauge(facts, "run_in_progress", "Whether a run is in progress", [((), float(report.in_progress))])
        yield _gauge(
            facts,
            "healthy",
            "Whether `status --check` finds nothing wrong; the files themselves are not looked up",
            [((), float(report.verdict.healthy))],
        )
        good = {run.command: run.ended or 0.0 for run in finished if run.exit_code in ENDS_WELL}
        yield _gauge(
            facts,
            "last_success_timestamp_seconds",
            "When a run of this command last ended with 0 or 9, in seconds since 1970; 0 if none ever did",
            [((command,), good.get(command, 0.0)) for command in last],
            ("command",),
        )
    yield _gauge(
        facts,
        "last_exit_code",
        "The exit code of the last run of this command",
        [((command,), float(run.exit_code or 0)) for command, run in last.items()],
        ("command",),
    )
    yield _gauge(
        facts,
        "last_end_timestamp_seconds",
        "When the last run of this command ended, in seconds since 1970",
        [((command,), run.ended or 0.0) for command, run in last.items()],
        ("command",),
    )


def _is_recorded(ended: EndedRun, runs: Sequence[RunRecord]) -> bool:
    """Whether the newest run on record is the one that just ended."""
    finished = [run for run in runs if not run.running]
    return bool(finished) and (finished[-1].command, finished[-1].exit_code) == (ended.command, ended.exit_code)


def _of_beside(facts: MetricsFacts, beside: Sequence[Beside]) -> Iterator[Metric]:
    """Yield how the last load and the last mirror went; nothing of what was never used."""
    for record in beside:
        kind, what = record.kind.value, "all days loaded" if record.kind is BesideKind.LOAD else "all files there"
        yield _gauge(
            facts,
            f"{kind}_last_success_timestamp_seconds",
            f"When a {kind} last ended with {what}, in seconds since 1970; 0 if none ever did",
            [((), record.complete_at)],
        )
        if (last := record.last) is not None:
            yield _gauge(facts, f"{kind}_exit_code", f"The exit code of the last {kind}", [((), last.exit_code)])
            help_text = f"When the last {kind} ended, in seconds since 1970"
            yield _gauge(facts, f"{kind}_last_end_timestamp_seconds", help_text, [((), last.ended)])
            yield from _counts_of_beside(facts, record.kind, last)


def _counts_of_beside(facts: MetricsFacts, kind: BesideKind, last: BesideEnd) -> Iterator[Metric]:
    if kind is BesideKind.LOAD:
        failed, odd = days_not_loaded(last), last.count("quarantined")
        yield _gauge(facts, "load_failed_days", "Days that the last load could not load, or left", [((), failed)])
        yield _gauge(facts, "load_quarantined_rows", "Lines that are no rows, of days it loaded", [((), odd)])
    elif (missing := files_missing(last)) is not None:
        yield _gauge(facts, "mirror_missing_files", "Files not known to be in the mirror", [((), missing)])


def _of_audits(facts: MetricsFacts, report: StatusReport, *, since: float) -> Iterator[Metric]:
    """Yield what audits have compared; an audit that compared nothing does not count as one."""
    audits = [(run, one) for run in report.runs if (one := run.counts.get("audited", {})).get("compared")]
    this_year = [one for run, one in audits if run.began >= since]
    differing = sum(one.get("differ", 0) for one in this_year)
    compared = sum(one["compared"] for one in this_year)
    yield _counter(
        facts,
        "audited_bundles",
        "Stored bundles that audits compared with a new export, by whether their rows differed",
        [(("true",), differing), (("false",), compared - differing)],
        ("differs",),
    )
    yield _gauge(
        facts,
        "last_audit_timestamp_seconds",
        "When a run last ended that had audited bundles, in seconds since 1970; 0 if none has",
        [((), max((run.ended or 0.0 for run, _ in audits), default=0.0))],
    )


def _of_requests(facts: MetricsFacts, report: StatusReport) -> Iterator[Metric]:
    year = datetime(datetime.fromtimestamp(facts.now, UTC).year, 1, 1, tzinfo=UTC).timestamp()
    requests: Counter[Labels] = Counter()
    for hour in report.hours:
        if hour.began >= year and (hour.status or hour.began < facts.now - UNANSWERED_AFTER_SECONDS):
            requests[hour.kind, str(hour.status) if hour.status else "none"] += hour.requests
    yield _counter(
        facts,
        "requests",
        "Requests sent, by kind and by the status of the answer (none: no answer)",
        requests.items(),
        ("kind", "status"),
    )
    refused = sum(count for (_, status), count in requests.items() if status == "429")
    yield _counter(facts, "refused_requests", "Requests answered with 429", [((), refused)])
    counts = [run.counts.get("refreshed", {}) for run in report.runs if run.began >= year]
    changed = sum(one.get("changed", 0) for one in counts)
    again = sum(one.get("bundles", 0) for one in counts)
    yield _counter(
        facts,
        "refreshed_bundles",
        "Stored bundles that were exported again, by whether that changed the archive",
        [(("true",), changed), (("false",), again - changed)],
        ("changed",),
    )
    yield from _of_audits(facts, report, since=year)
    yield _gauge(
        facts,
        "budget_tokens",
        "Requests that may be sent now, if the limit counts all requests, or creates alone",
        [((scope,), tokens) for scope, tokens in facts.tokens.items()],
        ("counts",),
    )
    yield _gauge(facts, "budget_burst", "Requests that may be sent after an idle period", [((), facts.burst)])
    help_text = "Durations of the operations that finished last, 1,500 at most"
    durations = HistogramMetricFamily(f"{PREFIX}operation_seconds", help_text, labels=["directory"])
    buckets = [(str(limit), float(sum(one <= limit for one in facts.operations))) for limit in OPERATION_BUCKETS]
    durations.add_metric(
        [facts.directory], [*buckets, ("+Inf", float(len(facts.operations)))], sum_value=sum(facts.operations)
    )
    yield durations


def _of_exports(facts: MetricsFacts, reports: Sequence[ExportReport]) -> Iterator[Metric]:
    def each(name: str, help_text: str, value: Callable[[ExportReport], float | None]) -> Metric:
        values = [(one.overview.name, value(one)) for one in reports]
        return _gauge(facts, name, help_text, [((name,), one) for name, one in values if one is not None], ("export",))

    yield each("stored_bundles", "Bundles that have an archive", lambda one: one.overview.stored)
    yield each("empty_bundles", "Bundles whose archive has no rows", lambda one: one.overview.empty)
    yield each("stored_rows", "Rows in all archives", lambda one: one.overview.rows)
    yield each("stored_bytes", "Bytes of all archives", lambda one: one.overview.bytes)
    yield each("bundles_in_progress", "Bundles with an operation in flight", lambda one: one.overview.in_progress)
    yield each(
        "covered_until_timestamp_seconds",
        "The end of the newest stored bundle, in seconds since 1970",
        lambda one: one.overview.covered[-1].end if one.overview.covered else None,
    )
    yield each("settled_lag_seconds", "How far the newest stored bundle is behind the settled data", _lag)
    yield each("split_bundles", "Bundles replaced by narrower ones", lambda one: facts.split.get(one.overview.name, 0))
    yield each("shortfalls", "Times with far fewer rows than usual, not accepted", lambda one: len(one.shortfalls))
    yield _gauge(
        facts,
        "gap_seconds",
        "Time that is due and not stored, by reason",
        [((one.overview.name, reason), seconds) for one in reports for reason, seconds in _gaps(one).items()],
        ("export", "reason"),
    )
    yield _gauge(
        facts,
        "parked_bundles",
        "Bundles that are parked and not accepted, by kind",
        [((one.overview.name, kind), count) for one in reports for kind, count in _parked(one).items()],
        ("export", "kind"),
    )


def _lag(report: ExportReport) -> float | None:
    """Return how far the newest stored bundle is behind; None if no night was ever asked for."""
    due, covered = report.due, report.overview.covered
    if due is None or due.since is None:
        return None
    return float(max(0, due.whole - (covered[-1].end if covered else due.since)))


def _gaps(report: ExportReport) -> dict[str, float]:
    """Return the seconds by reason. What no run and no night has requested is no fault, so no alert counts it."""
    seconds = dict.fromkeys((*(reason.value for reason in MISSING), NOT_REQUESTED), 0.0)
    for gap in report.gaps:
        reason = NOT_REQUESTED if is_optional(gap, report.due) else gap.reason.value
        seconds[reason] += gap.range.end - gap.range.start
    return seconds


def _parked(report: ExportReport) -> dict[str, float]:
    counts = dict.fromkeys(PARKED_KINDS, 0.0)
    for record in report.open_parked:
        match record.state:
            case Failed():
                counts["failed"] += 1
            case Refused():
                counts["refused"] += 1
            case FewerRows():
                counts["kept"] += 1
            case _:
                counts["overdue"] += 1
    return counts
