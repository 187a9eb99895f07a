"""`plan --simulate` on the command line: its output, its options, and that it leaves no files behind."""

import asyncio
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from asyncexport.cli import main
from asyncexport.core.bundles import Bundle, Range, read_moment
from asyncexport.core.exits import Exit
from asyncexport.core.exports import Export
from asyncexport.core.second_looks import SECOND_LOOKS
from asyncexport.core.states import BundleRecord, Created, Creating, Ready, State, Stored
from asyncexport.ledger import Ledger

pytestmark = pytest.mark.slow

PLAN = ("plan", "--start", "2026-01-01", "--end", "2026-01-01T06:00:00Z")
"""A range of twelve bundles."""

FIRST = read_moment("2026-01-01", now=0.0)

EXPORT = Export("everyone-events")

ROW = re.compile(
    r"(\S.*?)  +([\d,]+)  +([\d,]+)/([\d,]+)/([\d,]+)/([\d,]+)  +(\S.*?)  +(\S.*?)  +(\S.*?)  +(\S+ \S+ UTC)"
)


@dataclass(frozen=True)
class Ran:
    """The output of a command and its exit code."""

    code: int
    out: list[str]
    err: list[str]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of one type."""
        return [record for record in self.records if record["type"] == kind]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Callable[..., Ran]:
    """Run a command in an empty directory, without a key and without a config file."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("ASYNCEXPORT_", "FULLSTORY_"))]:
        monkeypatch.delenv(name)

    def ran(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out.splitlines(), captured.err.splitlines())

    return ran


def earlier_run(
    *, durations: Sequence[float] = (), stored: int = 0, in_progress: int = 0, second_looks: str = ""
) -> None:
    """Write a ledger with archives of 9 MB and bundles in progress."""

    async def write() -> None:
        ledger = await Ledger.open(Path("exports"))
        await ledger.register([EXPORT])
        for number in range(stored + in_progress):
            start = FIRST + 1800 * number
            bundle = Bundle(EXPORT.name, Range(start, start + 1800))
            archive = Stored(f"{EXPORT.name}/{number}.gz", 9_000_000, 1, "0" * 64, exported_at=start + 90_000.0)
            states: list[State] = [Creating(1, 1.0), Created(1, 1.0, str(number))]
            states += [Ready(1, 1.0, str(number)), archive] if number < stored else []
            for state in states:
                await ledger.append(BundleRecord(bundle, 0, state, state if state is archive else None), at=2.0)
        for seconds in durations:
            ledger.learn(finished_at=1.0, seconds=seconds)
        if second_looks:
            ledger.remember(SECOND_LOOKS, second_looks)
        await ledger.close()

    asyncio.run(write())


def test_there_is_a_table_for_each_scope(run):
    """A table has a row for the configuration and for each variant, with requests and finish time, and assumptions."""
    ran = run(*PLAN, "--simulate", "--vary", "bundle=1h,6h", "--vary", "polling.prefer=latency")
    assert (ran.code, ran.err) == (0, [])
    assert ran.out[:2] == [
        "everyone-events: 2026-01-01T00:00:00Z to 2026-01-01T06:00:00Z, in bundles of 30m",
        "  12 bundles to do, 0 already stored",
    ]
    heads = [line.split("  ")[0] for line in ran.out if line.startswith("if ")]
    assert heads == ["if only creates count", "if every request counts"]
    rows = [found.groups() for line in ran.out if (found := ROW.fullmatch(line))]
    assert [row[:3] for row in rows] == 2 * [
        ("as configured", "12", "12"),
        ("bundle=1h", "6", "6"),
        ("bundle=6h", "1", "1"),
        ("polling.prefer=latency", "12", "12"),
    ]
    assert ran.out[-6:] == [
        "each variant was simulated 5 times with the real scheduler and budget; figures are medians",
        "durations of operations are lognormal: median 5 min ([polling] expected), sigma 0.5",
        "assumes that wider bundles take no longer; --growth 1 makes durations proportional to the width",
        "a download takes 2 s, in proportion to the bundle width (no archive to measure yet)",
        "assumes that the service grants the configured budget and starts every operation immediately",
        "assumes no failures and a usable List Operations endpoint",
    ]


def test_a_simulation_leaves_no_files_behind(run):
    """Neither a directory nor a ledger is created."""
    run(*PLAN, "--simulate")
    assert list(Path().iterdir()) == []


def test_json_has_an_object_per_row_and_the_summary_last(run):
    """The objects contain the figures of the table, with durations in seconds."""
    ran = run("--json", *PLAN, "--vary", "bundle=1h")
    assert [record["type"] for record in ran.records] == ["plan", *4 * ["simulation"], "assumed", "summary"]
    rows = ran.of("simulation")
    assert [(one["variant"], one["scope"], one["bundles"]) for one in rows] == [
        ("as configured", "create", 12),
        ("as configured", "all", 12),
        ("bundle=1h", "create", 6),
        ("bundle=1h", "all", 6),
    ]
    for one in rows:
        assert 0 < one["first_archive_seconds"] < one["makespan_min"] < one["makespan_seconds"] < one["makespan_max"]
        assert (one["requests"]["create"], one["requests"]["results"]) == (one["bundles"], one["bundles"])
    (assumed,) = ran.of("assumed")
    assert (assumed["durations"], assumed["median_seconds"], assumed["seeds"]) == ("lognormal", 300.0, 5)
    assert len(assumed["notes"]) == 6
    summary = ran.records[-1]
    assert summary["bundles"]["planned"] == 12
    assert not any(summary["requests"].values())


def test_a_simulation_is_repeatable(run):
    """Two runs with the same settings give the same figures, so a difference comes from the settings."""

    def rows() -> list[dict[str, Any]]:
        return [{**one, "ends_at": ""} for one in run("--json", *PLAN, "--simulate").of("simulation")]

    assert rows() == rows()


def test_vary_implies_simulate(run):
    """`--vary` simulates without `--simulate`."""
    assert run("--json", *PLAN, "--vary", "bundle=30m").of("simulation")


def test_a_configured_scope_is_the_only_one_simulated(run):
    """With `[budget] scope` set there is one table instead of one for each scope."""
    ran = run("--json", *PLAN, "--simulate", "--set", "budget.scope=all", "--vary", "budget.scope=create")
    assert [(one["variant"], one["scope"]) for one in ran.of("simulation")] == [
        ("as configured", "all"),
        ("budget.scope=create", "create"),
    ]


def test_durations_and_sizes_of_earlier_runs_are_used(run):
    """They come from the ledger if it has any, and stored bundles are not simulated again."""
    earlier_run(durations=[100.0] * 30, stored=4)
    ran = run("--json", *PLAN, "--simulate")
    (assumed,) = ran.of("assumed")
    assert (assumed["durations"], assumed["learned"], assumed["median_seconds"]) == ("learned", 30, 100.0)
    assert "durations are drawn from 30 earlier operations, with a median of 2 min" in assumed["notes"]
    assert (
        "a download has 9.0 MB like earlier archives, in proportion to the bundle width, at 1.0 MB/s"
        in assumed["notes"]
    )
    first, _ = ran.of("simulation")
    assert first["bundles"] == 8
    # 100 s for the operation, 9 for the download, a few calls of 0.2 s, and the wait for the next poll.
    assert 109 < first["first_archive_seconds"] < 125
    (given,) = run("--json", *PLAN, "--simulate", "--duration", "20m").of("assumed")
    assert (given["durations"], given["median_seconds"]) == ("lognormal", 1200.0)


def test_second_looks_of_earlier_runs_are_simulated(run):
    """The same share of files needs a second check, and each check costs a results call."""
    earlier_run(durations=[100.0] * 30, stored=4, second_looks="[8,4]")
    ran = run("--json", *PLAN, "--simulate")
    (assumed,) = ran.of("assumed")
    assert "50% of the files are empty and downloaded twice to confirm it, as in earlier runs" in assumed["notes"]
    assert [one["requests"]["results"] for one in ran.of("simulation")] == [8 + 4] * 2


def test_bundles_in_progress_are_simulated_from_the_start(run):
    """A line says that their progress is not used."""
    earlier_run(in_progress=3)
    ran = run(*PLAN, "--simulate")
    assert "3 bundles in progress: simulated from the start" in ran.out


def test_without_bundles_to_do_nothing_is_simulated(run):
    """A complete range has no table."""
    earlier_run(stored=12)
    ran = run(*PLAN, "--vary", "bundle=1h")
    assert (ran.code, ran.out[-1]) == (0, "nothing to do: the run would send no request")
    assert not run("--json", *PLAN, "--vary", "bundle=1h").of("simulation")


def test_durations_can_be_set(run):
    """`--duration`, `--sigma` and `--growth` change the simulated finish time."""

    def done_in(*options: str) -> float:
        ran = run("--json", *PLAN, "--vary", "bundle=1h", "--seeds", "1", *options)
        assert ran.of("assumed")[0]["seeds"] == 1
        wide: float = ran.of("simulation")[-1]["makespan_seconds"]
        return wide

    assert done_in("--duration", "1h", "--sigma", "0") == pytest.approx(3600, abs=120)
    assert done_in("--duration", "1h", "--sigma", "0", "--growth", "1") == pytest.approx(7200, abs=120)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--vary", "bundles=1h"],
            "--vary bundles: 'bundles' cannot be varied (did you mean bundle?); these can: bundle, ",
        ),
        (["--vary", "bundle=7m"], '--vary bundle: must divide a day, as 6m and 8m do, got "7m"'),
        (["--vary", "budget.burst=many"], '--vary budget.burst: expected a whole number, got "many"'),
        (["--vary", "bundle"], "--vary: expected KEY=A,B, such as bundle=1h,6h"),
        (["--vary", "bundle=1h,"], "--vary: expected KEY=A,B, such as bundle=1h,6h"),
        (["--simulate", "--duration", "long"], "--duration: expected a duration such as"),
        (["--simulate", "--duration", "0s"], "--duration: must be longer than 0s"),
        (["--growth", "1"], "--growth: needs --simulate or --vary"),
        (["--simulate", "--seeds", "0"], "invalid value for '--seeds'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_option_is_a_usage_error(run, options, message):
    """The error names the option, and nothing is simulated."""
    ran = run(*PLAN, *options)
    assert (ran.code, ran.out) == (Exit.USAGE, [])
    assert any(line.startswith(f"asyncexport: error: {message}") for line in ran.err), ran.err


def test_a_simulated_night_includes_its_audits(run):
    """They are counted with the other bundles, and a note says when they come."""
    earlier_run(stored=6)
    Path("exports", EXPORT.name).mkdir(parents=True)
    for number in range(6):
        with Path("exports", EXPORT.name, f"{number}.gz").open("wb") as file:
            # A sparse file: only the size is looked up.
            file.truncate(9_000_000)
    Path("asyncexport.toml").write_text('[nightly]\nsince = "2026-01-01"\naudit = 4\n[[export]]\nbundle = "24h"\n')
    (planned,) = run("--json", "plan", "--nightly").of("plan")
    ran = run("--json", "plan", "--nightly", "--simulate", "--seeds", "1")
    assert {one["bundles"] for one in ran.of("simulation")} == {planned["to_do"] + 4}
    (assumed,) = ran.of("assumed")
    assert "4 stored bundles to audit when everything else is stored" in assumed["notes"]
