"""The metrics: what they say, that the official parser reads them, and the alert rules."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

import asyncexport
from asyncexport.cli.commands import COMMANDS
from asyncexport.core.bundles import DAY, HOUR, Bundle, Range, read_moment
from asyncexport.core.exports import Export
from asyncexport.core.health.beside import Beside, BesideEnd, BesideKind
from asyncexport.core.health.export_report import ExportFacts
from asyncexport.core.health.overview import Overview
from asyncexport.core.health.records import AcceptedGap, HourCount, RunRecord
from asyncexport.core.health.report import DirectoryFacts, StatusReport, status_report
from asyncexport.core.states import BundleRecord, Created, Failed, FewerRows, Overdue, Refused, State, Stored
from asyncexport.monitor.alert_rules import ALERT_RULES
from asyncexport.monitor.metrics import EndedRun, MetricsFacts, metrics_text

NOW = read_moment("2026-03-10T12:00:00Z", now=0)

START = NOW // DAY * DAY - 5 * DAY

EXPORT = Export("events")

ARCHIVE = Stored("path", 10, 5, "0" * 64, exported_at=9e9)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def record(hour: int, state: State) -> BundleRecord:
    """Return a bundle of an hour that has no archive."""
    return BundleRecord(Bundle(EXPORT.name, Range(START + hour * HOUR, START + (hour + 1) * HOUR)), 0, state)


def report(*unfinished: BundleRecord, hours: int = 90, since: int | None = START, **more: Any) -> StatusReport:
    """Return the report on a directory with one archive per hour, except for unfinished bundles."""
    missing = {one.bundle.range for one in unfinished if one.stored is None}
    spans = [Range(START + hour * HOUR, START + (hour + 1) * HOUR) for hour in range(hours)]
    missing |= {spans[hour] for hour in more.pop("holes", ())}
    covered = tuple(one for one in spans if one not in missing)
    accepted, more["hours"] = more.pop("accepted", ()), more.pop("hour_counts", ())
    overview = Overview(
        EXPORT.name,
        EXPORT.definition,
        stored=len(covered),
        empty=2,
        rows=1000,
        bytes=5000,
        unfinished=unfinished,
        covered=covered,
        last_at=float(NOW),
    )
    facts = DirectoryFacts((ExportFacts(overview, EXPORT, accepted=accepted),), since=since, **more)
    return status_report(facts, now=NOW, again=lambda *words: " ".join(words))


def samples(facts: MetricsFacts) -> Samples:
    """Return the value of each sample by its name without the prefix and its labels without the directory."""
    found: Samples = {}
    for family in text_string_to_metric_families(metrics_text(facts).decode()):
        assert family.documentation
        for one in family.samples:
            assert one.labels["directory"] == facts.directory
            labels = frozenset((name, value) for name, value in one.labels.items() if name != "directory")
            key = one.name.removeprefix("asyncexport_"), labels
            assert key not in found
            found[key] = one.value
    return found


def at(found: Samples, name: str, **labels: str) -> float:
    """Return the value of a sample."""
    return found[name, frozenset(labels.items())]


def run(command: str, hours_ago: float, exit_code: int | None, **counts: Any) -> RunRecord:
    """Return a run that ended then, or is still running."""
    ended = None if exit_code is None else NOW - hours_ago * HOUR
    return RunRecord(command, NOW - hours_ago * HOUR - 60, "host", ended, exit_code, "", counts)


def test_the_last_success_and_exit_code_are_those_of_each_command():
    """A failed run changes the exit code and not the time of the last success; 9 is a success."""
    runs = (run("nightly", 50, 9), run("retry", 30, 3), run("nightly", 26, 5), run("nightly", 0, None))
    found = samples(MetricsFacts("d", NOW, report(runs=runs, in_progress=True)))
    assert at(found, "last_success_timestamp_seconds", command="nightly") == NOW - 50 * HOUR
    assert at(found, "last_success_timestamp_seconds", command="retry") == 0
    assert at(found, "last_exit_code", command="nightly") == 5
    assert at(found, "last_end_timestamp_seconds", command="retry") == NOW - 30 * HOUR
    assert at(found, "run_in_progress") == 1


@pytest.mark.parametrize("recorded", [True, False])
def test_the_run_that_asks_counts_whether_it_is_recorded_or_not(recorded):
    """A run that could not open the ledger is not in it, and its exit code is still reported."""
    runs = (run("nightly", 24, 0), *([run("nightly", 0, 6)] if recorded else []))
    ended = EndedRun("nightly", 6, float(NOW))
    found = samples(MetricsFacts("d", NOW, report(runs=runs), ended=ended))
    assert at(found, "last_exit_code", command="nightly") == 6
    assert at(found, "last_success_timestamp_seconds", command="nightly") == NOW - 24 * HOUR


def test_without_a_readable_ledger_nothing_is_said_about_it():
    """Only the ledger's state, the program, the disk and the run that asks are reported."""
    found = samples(MetricsFacts("d", NOW, disk=(5, 10), ended=EndedRun("nightly", 7, 1.0)))
    assert at(found, "ledger_readable") == 0
    assert at(found, "disk_free_bytes") == 5
    assert at(found, "last_exit_code", command="nightly") == 7
    assert {name for name, _ in found} == {
        "build_info",
        "disk_free_bytes",
        "disk_size_bytes",
        "last_end_timestamp_seconds",
        "last_exit_code",
        "ledger_readable",
    }


@pytest.mark.parametrize(("since", "reason"), [(START, "never asked"), (None, "not requested")])
def test_a_gap_that_is_no_fault_has_a_reason_of_its_own(since, reason):
    """Without nightly runs, time that no run has requested is no gap to the alert rules."""
    found = samples(MetricsFacts("d", NOW, report(since=since, holes=(10,))))
    gaps = {one: at(found, "gap_seconds", export="events", reason=one) for one in ("never asked", "not requested")}
    assert gaps == {"never asked": 0, "not requested": 0} | {reason: HOUR}


def test_what_is_stored_and_missing_is_reported_by_export():
    """Sizes, gaps by reason, parked bundles by kind and the lag are those of the status report."""
    parked = (
        record(10, Failed("FAILED")),
        record(11, Refused("400", Created(0, 1.0, "operation"))),
        record(12, Overdue(0, 1.0, "operation")),
        replace(record(13, FewerRows(100, 1)), stored=ARCHIVE),
        record(14, Failed("FAILED")),
    )
    accepted = (AcceptedGap(parked[4].bundle, "known", 0.0),)
    found = samples(MetricsFacts("d", NOW, report(*parked, accepted=accepted), split={"events": 3}))
    kinds = {kind: at(found, "parked_bundles", export="events", kind=kind) for kind in ("failed", "refused", "kept")}
    assert kinds == {"failed": 1, "refused": 1, "kept": 1}
    assert at(found, "parked_bundles", export="events", kind="overdue") == 1
    assert at(found, "gap_seconds", export="events", reason="parked") == 3 * HOUR
    assert at(found, "stored_bundles", export="events") == 86
    assert at(found, "stored_rows", export="events") == 1000
    assert at(found, "stored_bytes", export="events") == 5000
    assert at(found, "split_bundles", export="events") == 3
    assert at(found, "covered_until_timestamp_seconds", export="events") == START + 90 * HOUR
    # 26 hours before noon of the fifth day is the hour 106.
    assert at(found, "settled_lag_seconds", export="events") == 16 * HOUR


def test_there_is_no_lag_without_nights():
    """Who only exports ranges is never behind."""
    found = samples(MetricsFacts("d", NOW, report(since=None)))
    assert not [name for name, _ in found if name == "settled_lag_seconds"]


def test_counters_begin_with_the_year_and_never_decrease():
    """Requests and refreshes of last year do not count, and neither does a request that may still be answered."""
    new_year = read_moment("2026-01-01", now=0)
    hours = (
        HourCount(new_year - HOUR, "list", 200, 70),
        HourCount(new_year, "list", 200, 5),
        HourCount(NOW - DAY, "create", 0, 2),
        HourCount(NOW - DAY, "create", 429, 4),
        HourCount(NOW - HOUR, "create", 0, 1),
        HourCount(NOW - HOUR, "create", 200, 1),
    )
    refreshed = {"bundles": 10, "changed": 4}
    runs = (
        RunRecord("nightly", new_year - HOUR, ended=new_year - 1, exit_code=0, counts={"refreshed": refreshed}),
        run("nightly", 24, 0, refreshed=refreshed),
        run("nightly", 0, 0),
    )
    facts = DirectoryFacts((), hours=hours, runs=runs)
    found = samples(MetricsFacts("d", NOW, status_report(facts, now=NOW, again=str), tokens={"all": 3.5}, burst=49))
    assert (at(found, "budget_tokens", counts="all"), at(found, "budget_burst")) == (3.5, 49)
    assert at(found, "requests_total", kind="list", status="200") == 5
    assert at(found, "requests_total", kind="create", status="none") == 2
    assert at(found, "refused_requests_total") == 4
    assert at(found, "refreshed_bundles_total", changed="true") == 4
    assert at(found, "refreshed_bundles_total", changed="false") == 6


def test_audits_are_counted_by_their_result():
    """An audit that compared nothing is none: the last audit stays the one that did."""
    found = samples(MetricsFacts("d", NOW, report()))
    assert (at(found, "last_audit_timestamp_seconds"), at(found, "audited_bundles_total", differs="true")) == (0, 0)
    runs = (
        run("audit", 48, 0, audited={"compared": 60, "differ": 2}),
        run("nightly", 24, 0, audited={"compared": 20, "differ": 1}),
        run("audit", 1, 143, audited={"compared": 0, "differ": 0}),
        run("nightly", 0, 0),
    )
    found = samples(MetricsFacts("d", NOW, status_report(DirectoryFacts((), runs=runs), now=NOW, again=str)))
    assert at(found, "audited_bundles_total", differs="true") == 3
    assert at(found, "audited_bundles_total", differs="false") == 77
    assert at(found, "last_audit_timestamp_seconds") == runs[1].ended


LOADED = BesideEnd("nightly", NOW - 60, NOW - 1, 3, "", {"days": 30, "already": 27, "loaded": 1, "quarantined": 4})

BESIDE = (
    Beside(BesideKind.LOAD, replace(LOADED, is_complete=False), complete_at=NOW - DAY),
    Beside(BesideKind.MIRROR, replace(LOADED, exit_code=0, counts={"missing": 7})),
)


def test_loads_and_mirrors_are_told_by_their_last_success():
    """Without a load or a mirror there is nothing about them, so no alert is raised; nor if a number is not known."""
    assert not [name for name, _ in samples(MetricsFacts("d", NOW, report())) if name.startswith(("load", "mirror"))]
    found = samples(MetricsFacts("d", NOW, report(beside=BESIDE)))
    assert at(found, "load_last_success_timestamp_seconds") == NOW - DAY
    assert (at(found, "load_failed_days"), at(found, "load_quarantined_rows")) == (2, 4)
    assert (at(found, "load_exit_code"), at(found, "load_last_end_timestamp_seconds")) == (3, NOW - 1)
    assert (at(found, "mirror_last_success_timestamp_seconds"), at(found, "mirror_missing_files")) == (0, 7)
    unknown = Beside(BesideKind.MIRROR, replace(LOADED, counts={"missing": None}))
    names = {name for name, _ in samples(MetricsFacts("d", NOW, report(beside=(unknown,))))}
    assert "mirror_exit_code" in names
    assert "mirror_missing_files" not in names


@given(st.lists(st.floats(0, 1e6), max_size=30))
def test_operations_are_a_histogram(seconds):
    """Each operation is counted in every bucket that it fits into, and in the sum."""
    facts = MetricsFacts("d", NOW, report(hours=1), operations=seconds)
    found = samples(facts)
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "operation_seconds_bucket"
    }
    assert buckets == {limit: sum(one <= limit for one in seconds) for limit in buckets}
    assert buckets[float("inf")] == at(found, "operation_seconds_count") == len(seconds)
    assert at(found, "operation_seconds_sum") == pytest.approx(sum(seconds))


def test_strange_names_of_directories_are_escaped():
    """Quotes, backslashes and line breaks in a label are escaped, as the official parser expects."""
    samples(MetricsFacts('a "b" \\ c\nd', NOW, report(), disk=(1, 2)))


def test_the_table_of_metrics_matches_the_code():
    """OPERATIONS.md lists each metric that is printed, with its labels, and no other."""
    text = (Path(asyncexport.__file__).parent / "OPERATIONS.md").read_text(encoding="utf-8")
    table = text.partition("| metric | labels | meaning |")[2].partition("\n\n")[0]
    listed: dict[str, set[str]] = {}
    for line in table.splitlines()[2:]:
        names, labels, _ = line.strip("| ").split("|", maxsplit=2)
        listed |= {name: set(re.findall(r"`(\w+)`", labels)) for name in re.findall(r"`(\w+)`", names)}
    runs = (run("nightly", 1, 0),)
    hours = (HourCount(NOW - DAY, "list", 200, 5),)
    facts = MetricsFacts(
        "d", NOW, report(runs=runs, hour_counts=hours, beside=BESIDE), tokens={"all": 1.0}, disk=(1, 2)
    )
    suffixes = re.compile(r"_(bucket|count|sum)$")
    printed = {suffixes.sub("", name): {label for label, _ in labels} - {"le"} for name, labels in samples(facts)}
    assert printed == listed


# Alert rules


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    (group,) = yaml.safe_load(ALERT_RULES)["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_alert_rules_use_metrics_that_exist():
    """There are six rules; each names metrics and labels that are printed, and commands that exist."""
    assert len(rules()) == 6
    facts = MetricsFacts("d", NOW, report(runs=(run("nightly", 1, 0),), beside=BESIDE))
    printed = {f"asyncexport_{name}": {label for label, _ in labels} for name, labels in samples(facts)}
    for rule in rules():
        names = re.findall(r"asyncexport_\w+", rule["expr"])
        assert names
        assert set(names) <= printed.keys()
        labels = {one for pair in re.findall(r"without \((\w+)\)|\{(\w+)[!=]", rule["expr"]) for one in pair}
        assert labels - {""} <= printed[names[0]]
        assert set(re.findall(r"`asyncexport (\w+)", rule["annotations"]["description"])) <= COMMANDS.keys()


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


def test_promtool_accepts_the_alert_rules(tmp_path, promtool):
    """Prometheus' own checker finds no fault in them, and finds one in a broken copy."""
    for text, is_valid in ((ALERT_RULES, True), (ALERT_RULES.replace("max without", "max witout"), False)):
        file = tmp_path / "rules.yml"
        file.write_text(text)
        done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode == 0) is is_valid, done.stderr


FIRING: dict[str, tuple[dict[str, str], str]] = {
    "nothing": (
        {
            'last_success_timestamp_seconds{command="nightly"}': "0+60x4000",
            "ledger_readable": "1x4000",
            'settled_lag_seconds{export="e"}': "107000x4000",
            'parked_bundles{export="e",kind="failed"}': "0x4000",
            'parked_bundles{export="e",kind="kept"}': "3x4000",
            'gap_seconds{export="e",reason="never asked"}': "0x4000",
            'gap_seconds{export="e",reason="parked"}': "1800x4000",
        },
        "",
    ),
    "a failed night after a good retry": (
        {
            'last_success_timestamp_seconds{command="nightly"}': "0x4000",
            'last_success_timestamp_seconds{command="retry"}': "0+60x4000",
        },
        "",
    ),
    "no success": ({'last_success_timestamp_seconds{command="nightly"}': "0x4000"}, "AsyncexportNoSuccess"),
    "never a success": (
        {
            'last_success_timestamp_seconds{command="nightly"}': "0x4000",
            'last_success_timestamp_seconds{command="retry"}': "0x4000",
        },
        "AsyncexportNoSuccess",
    ),
    "unreadable": ({"ledger_readable": "0x4000"}, "AsyncexportNoSuccess"),
    "behind": ({'settled_lag_seconds{export="e"}': "108001x4000"}, "AsyncexportBehind"),
    "parked": ({'parked_bundles{export="e",kind="overdue"}': "1x4000"}, "AsyncexportParked"),
    "gap": ({'gap_seconds{export="e",reason="never asked"}': "1800x4000"}, "AsyncexportGap"),
    "started": ({'gap_seconds{export="e",reason="in progress"}': "1800x4000"}, "AsyncexportGap"),
    "started by a run in progress": (
        {'gap_seconds{export="e",reason="in progress"}': "1800x4000", "run_in_progress": "1x4000"},
        "",
    ),
    "never asked for during a run": (
        {'gap_seconds{export="e",reason="never asked"}': "1800x4000", "run_in_progress": "1x4000"},
        "AsyncexportGap",
    ),
    "a load that is not complete": ({"load_last_success_timestamp_seconds": "0x4000"}, "AsyncexportLoadBehind"),
    "a mirror that is not complete": ({"mirror_last_success_timestamp_seconds": "0x4000"}, "AsyncexportMirrorBehind"),
    "a load and a mirror every night": (
        {
            "load_last_success_timestamp_seconds": "0+60x4000",
            "mirror_last_success_timestamp_seconds": "0+60x4000",
        },
        "",
    ),
    "a gap that is filled within a day": (
        {'gap_seconds{export="e",reason="in progress"}': "1800x1400 0x2600"},
        "",
    ),
}
"""Series of 4,000 minutes without prefix and directory, and the one alert that must fire at their end."""


@pytest.mark.parametrize("case", FIRING)
def test_each_alert_fires_when_it_should(tmp_path, promtool, case):
    """Prometheus itself evaluates the rules over almost three days of samples."""
    series, expected = FIRING[case]
    (tmp_path / "rules.yml").write_text(ALERT_RULES)
    inputs = []
    for name, values in series.items():
        labels = name.partition("{")[2].removesuffix("}")
        full = ",".join(filter(None, [labels, 'directory="d"']))
        inputs.append({"series": f"asyncexport_{name.partition('{')[0]}{{{full}}}", "values": values})
    expected_samples = [{"labels": f'{{alertname="{expected}"}}', "value": 1}] if expected else []
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    query = {"expr": firing, "eval_time": "3900m", "exp_samples": expected_samples}
    tested = {"interval": "1m", "input_series": inputs, "promql_expr_test": [query]}
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "10m", "tests": [tested]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [promtool, "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
