"""`load` on the command line: what it prints, and how it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asyncexport.cli import main
from asyncexport.core.exits import Exit
from asyncexport.core.warehouse.tables import DATA_DIRECT
from tests.day_making import ndjson
from tests.json_lines import check
from tests.load_rig import BROKEN, EVENTS, TABLE, Arrival, Place, date, events
from tests.test_load_crash import Pipe

ROOT = Path(__file__).parents[1]

OURS = f"{TABLE}{DATA_DIRECT}"


@pytest.fixture
def place(tmp_path):
    """Two days."""
    made = Place(tmp_path)
    made.store(Arrival((0, 1), events(0, 1200)), Arrival((24, 25), events(3000, 3)))
    return made


def options(place: Place, *more: str) -> list[str]:
    """Return the arguments of `load` for a place."""
    sets = (f"load.directory={place.warehouse}", "load.workers=1", "load.memory=128MiB")
    return ["load", "-d", str(place.output), *(word for one in sets for word in ("--set", one)), *more]


def test_a_load_says_what_it_did(place, capsys):
    """Days, rows, size and place; a second one says that everything was loaded before."""
    assert main(options(place)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 days loaded"
    assert lines[1].startswith("1,203 rows, ")
    assert lines[-1] == f"the tables are in {place.warehouse}"
    assert main(options(place)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 days loaded, 2 loaded before"
    assert main(options(place, "-q")) == 0
    assert capsys.readouterr().out == ""


def test_a_load_prints_a_line_of_json_for_each_day(place, capsys):
    """Every line is documented, and the last one is the summary. Days are made side by side, so their order is open."""
    assert main(options(place, "--json")) == 0
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert sorted((one["type"], one.get("date"), one.get("rows")) for one in records[:-1]) == [
        ("day", date(0), 1200),
        ("day", date(1), 3),
    ]
    assert records[-1]["load"]["loaded"] == 2


def test_a_load_of_nothing_says_so(place, capsys):
    """A range without archives is no error."""
    assert main(options(place, "--start", "2025-01-01", "--end", "2025-02-01")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "nothing to load: there are no archives in the range"


def test_failed_days_are_listed_with_their_reason_and_what_to_do(place, capsys):
    """Those with the same reason together; `--quiet` prints one line."""
    for archive in (place.output / EVENTS.name).glob("date=*/*.gz"):
        archive.unlink()
    assert main(options(place)) == Exit.LEDGER
    found = capsys.readouterr()
    assert "0 days loaded, 2 failed" in found.out
    assert f"failed: everyone-events {date(0)}: everyone-events/date={date(0)}/" in found.out
    assert f"hint: `asyncexport verify --repair -d {place.output}" in found.err
    assert main(options(place, "-q")) == Exit.LEDGER
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("load, exit code 7: 0 days loaded, 2 failed; failed: everyone-events")
    assert main(options(place, "--json")) == Exit.LEDGER
    day, *_ = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert (day["loaded"], set(day["failed_sinks"])) == (False, {"parquet", "duckdb"})


def test_lines_that_are_no_rows_are_reported(place, capsys):
    """The exit code is 3, and the text says where they are kept."""
    place.store(Arrival((25, 26), events(60, 1), content=ndjson(*events(60, 1)) + BROKEN))
    assert main(options(place)) == Exit.PARTIAL
    text = f"quarantined: 1 line that is no row is kept in {place.warehouse}/TABLE.quarantine"
    assert text in capsys.readouterr().out
    assert main(options(place)) == Exit.DONE


def test_a_check_prints_what_differs(place, capsys):
    """The exit code is 3 until everything is loaded, and then 0."""
    assert main(options(place, "--check", "--to", "parquet")) == Exit.PARTIAL
    found = capsys.readouterr()
    assert found.out.splitlines() == [
        *(f"differs  parquet {table} {date(0)} to {date(1)} (2 days): not loaded" for table in (TABLE, OURS)),
        "4 days of tables differ from the archives",
    ]
    assert "hint: `asyncexport load --to parquet -d" in found.err
    assert main(options(place)) == Exit.DONE
    capsys.readouterr()
    assert main(options(place, "--check")) == Exit.DONE
    assert capsys.readouterr().out == "nothing differs\n"
    place.file().unlink()
    assert main(options(place, "--check", "--json")) == Exit.PARTIAL
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert [(one["sink"], one["date"]) for one in records[:-1]] == [("parquet", date(0)), ("duckdb", date(0))]


def test_a_check_loads_nothing_and_says_so(place, capsys):
    """Options that would make a load do more are refused, instead of being ignored."""
    assert main(options(place, "--check", "--again", "--scheduler", "tcp://127.0.0.1:1")) == Exit.USAGE
    said = capsys.readouterr().err
    assert "--again: cannot be combined with --check" in said
    assert "--scheduler: cannot be combined with --check" in said
    assert not place.warehouse.exists()


def test_a_check_compares_what_a_view_shows(place, capsys):
    """A view that was dropped shows nothing; the next load makes it, and the check says which command does."""
    assert main(options(place)) == Exit.DONE
    (place.warehouse / "warehouse.duckdb").unlink()
    capsys.readouterr()
    assert main(options(place, "--check", "--to", "duckdb", "--start", date(1))) == Exit.PARTIAL
    found = capsys.readouterr()
    assert found.out.splitlines()[0] == f"differs  duckdb {TABLE} {date(1)}: 0 rows instead of 3"
    assert "hint: `asyncexport load --to duckdb --again" in found.err
    assert main(options(place)) == Exit.DONE
    assert main(options(place, "--check")) == Exit.DONE


def test_a_check_of_a_destination_that_cannot_be_read_does_not_say_that_all_is_well(place, capsys):
    """The exit code is 3, and the error says why."""
    assert main(options(place)) == Exit.DONE
    (place.warehouse / "warehouse.duckdb").write_text("not a database")
    capsys.readouterr()
    assert main(options(place, "--check")) == Exit.PARTIAL
    found = capsys.readouterr()
    assert found.out == ""
    assert "could not read" in found.err


def test_an_export_that_was_renamed_is_named_if_there_is_nothing_to_load(place, tmp_path, capsys):
    """Its archives are there, but the settings do not ask for them."""
    config = tmp_path / "renamed.toml"
    config.write_text('[[export]]\nname = "renamed"\n')
    assert main(["-c", str(config), *options(place)]) == Exit.DONE
    out = capsys.readouterr().out
    assert f"not in the settings, and therefore not loaded: {EVENTS.name}; `--export {EVENTS.name}` loads it" in out


def folder_in_place_of_the_file(file: Path) -> None:
    """Put a folder where a day's file is expected."""
    file.mkdir(parents=True)


def file_in_place_of_the_folder(file: Path) -> None:
    """Put a file where a day's folder is expected."""
    file.parent.parent.mkdir(parents=True)
    file.parent.write_text("")


def link_to_nowhere(file: Path) -> None:
    """Put a link that leads nowhere where a day's folder is expected."""
    file.parent.parent.mkdir(parents=True)
    file.parent.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (folder_in_place_of_the_file, "/data.parquet is a folder where a file is expected"),
        (file_in_place_of_the_folder, "/date=2026-01-01 cannot be used: in its path there is something else where a"),
        (link_to_nowhere, "/date=2026-01-01 cannot be used: in its path there is something else where a folder"),
    ],
)
def test_what_is_in_the_place_of_a_days_file_fails_that_day(place, capsys, put, said):
    """The place is named, not the temporary file that should be there. The other day is loaded; the exit code is 8."""
    put(place.file())
    assert main(options(place)) == Exit.DISK
    found = capsys.readouterr()
    assert f"failed: everyone-events 2026-01-01: {place.warehouse}/{TABLE}" in found.out
    assert said in found.out
    assert "move " in found.err.partition("hint: ")[2]
    assert place.day_in_parquet(1) == place.day_expected(1)
    assert place.leftovers() == []


def test_several_days_in_a_row_without_a_place_end_the_load(place, capsys):
    """If the folder of a table cannot be used, not every day is made in vain."""
    place.store(*(Arrival((day * 24, day * 24 + 1), events(day, 1)) for day in range(2, 9)))
    place.warehouse.mkdir()
    (place.warehouse / TABLE).write_text("")
    assert main(options(place)) == Exit.DISK
    assert f"error: {place.warehouse / TABLE} cannot be used: in its path" in capsys.readouterr().err


def test_files_that_are_not_ours_stay_and_disturb_no_query(place):
    """A folder such as `date=old` is not loaded, emptied or read by the view."""
    assert main(options(place)) == Exit.DONE
    ours = place.file()
    strange = [ours.parents[1] / f"date={name}" / ours.name for name in ("old", "today", "20260101", "2026-1-1")]
    for file in strange:
        file.parent.mkdir()
        file.write_bytes(ours.read_bytes())
    assert main(options(place)) == Exit.DONE
    assert main(options(place, "--check")) == Exit.DONE
    assert place.in_duckdb().total() == 1203
    assert all(file.exists() for file in strange)


def test_a_file_of_a_day_without_archives_is_removed_even_if_it_cannot_be_read(place):
    """It would make every query of the view fail."""
    assert main(options(place)) == Exit.DONE
    broken = place.file(7)
    broken.parent.mkdir()
    broken.write_text("PAR1")
    assert main(options(place)) == Exit.DONE
    assert not broken.exists()
    assert place.in_duckdb().total() == 1203


@pytest.mark.parametrize(
    ("asked", "reported"),
    [
        (["--to", "oracle"], "--to: there is no destination 'oracle'"),
        (["--export", "nobody"], "--export: there is no export 'nobody'"),
        (["--start", "soon"], "--start: "),
        (["--to", "postgres"], "load.postgres.dsn: is not set"),
        (["--set", "load.duckdb.path=a?b"], 'load.duckdb.path: must have no "?"'),
        (["--set", "load.duckdb.path=a\\b"], 'load.duckdb.path: must have no "\\"'),
        (["--set", "load.directory=a\udcff"], "load.directory: must be UTF-8"),
        (["--set", "load.duckdb.path=.spill/a"], "load.duckdb.path: must not be where files of the load are"),
        (["--to", "snowflake"], "load.snowflake.account: is not set"),
    ],
)
def test_wrong_options_are_exit_code_2(place, capsys, asked, reported):
    """Nothing is written, and the option is named."""
    assert main(options(place, *asked)) == Exit.USAGE
    assert reported in capsys.readouterr().err
    assert not place.warehouse.exists()


def test_each_destination_that_fails_is_reported_with_what_to_do(place, capsys, monkeypatch):
    """Once with its days, and not again for its views; also by `--check`."""
    monkeypatch.setenv("ASYNCEXPORT_LOAD__POSTGRES__DSN", "host=/nowhere")
    place.warehouse.mkdir()
    (place.warehouse / "warehouse.duckdb").write_text("not a database")
    both = ("--to", "postgres", "--to", "duckdb")
    assert main(options(place, *both)) == Exit.PARTIAL
    found = capsys.readouterr()
    reasons = [line for line in found.out.splitlines() if line.startswith(("failed: ", "not up to date: "))]
    said = f"{date(0)} to {date(1)} (2 days): could not"
    assert len(reasons) == 2
    assert f"{said} connect to PostgreSQL: there is no such socket" in reasons[0]
    assert f"{said} read {place.warehouse}/warehouse.duckdb" in reasons[1]
    assert found.err.count("hint: ") == 2
    assert main(options(place, "--check", *both)) == Exit.PARTIAL
    found = capsys.readouterr()
    assert found.out.startswith("failed   duckdb: could not read")
    assert "error: could not connect to PostgreSQL" in found.err
    assert found.err.count("hint: ") == 2


def test_the_connection_string_appears_nowhere(place, capsys, monkeypatch):
    """A server that cannot be reached is reported without the connection string, at the highest log level."""
    monkeypatch.setenv("ASYNCEXPORT_LOAD__POSTGRES__DSN", "host=/nowhere/CANARYhost user=me password=CANARYpass")
    assert main(["-vv", *options(place, "--to", "postgres")]) == Exit.PARTIAL
    found = capsys.readouterr()
    assert "failed: everyone-events" in found.out
    assert "CANARY" not in found.out + found.err
    assert place.in_parquet() == place.expected()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)])
def test_a_signal_stops_a_load_cleanly(tmp_path, number, code):
    """The exit code is that of the signal, nothing unfinished is left, and the same command resumes."""
    place = Place(tmp_path)
    place.store(*(Arrival((day * 24, day * 24 + 1), events(day * 10, 4)) for day in range(3)))
    pipe = Pipe(place, f"{EVENTS.name}/date={date(1)}/20260102T000000Z_20260102T010000Z.ndjson.gz")
    command = [sys.executable, "-m", "asyncexport", *options(place)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        descriptor = pipe.wait()
        process.send_signal(number)
        out, err = process.communicate()
    os.close(descriptor)
    assert process.returncode == code, (out, err)
    # The first day may still be on its way into DuckDB when the second one is made.
    assert re.match(r"stopped: (0 days|1 day) loaded, [23] left\n", out)
    assert "hint: run the same command again to resume" in err
    assert place.leftovers() == []
    pipe.mend()
    assert main(options(place)) == 0
    assert place.in_parquet() == place.expected()


EARLY = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            sys.argv[1] = ""
            os.kill(os.getpid(), int(sys.argv[2]))
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.meta_path.insert(0, Finder())
from asyncexport.cli import main
sys.exit(main(sys.argv[3:]))
"""
"""Runs the program, and sends it a signal when it begins to import a module."""


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [
        ("asyncexport.cli.commands", signal.SIGTERM, Exit.TERMINATED),
        ("asyncexport.config", signal.SIGHUP, Exit.TERMINATED),
        ("asyncexport.run.load", signal.SIGINT, Exit.INTERRUPTED),
        ("duckdb", signal.SIGTERM, Exit.TERMINATED),
    ],
)
def test_a_signal_while_the_program_is_loaded_leads_to_a_summary(place, module, number, code):
    """The last line of `--json` is the summary however early a signal comes, and the command is named in it."""
    command = [sys.executable, "-c", EARLY, module, str(int(number)), *options(place, "--json")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stderr
    summary = check(json.loads(ended.stdout.splitlines()[-1]))
    assert (summary["type"], summary["command"], summary["exit_code"]) == ("summary", "load", code)
    assert "Traceback" not in ended.stderr
    assert place.leftovers() == []


@pytest.mark.slow
def test_the_demo_shows_a_query_and_its_answer(tmp_path, capsys):
    """Sandbox, export, tables and a query in one command; the events add up to the rows of the archives."""
    assert main(["demo", "--load", "--json", "-d", str(tmp_path / "demo")]) == 0
    records = [check(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    (answer,) = [one for one in records if one["type"] == "answer"]
    assert answer["columns"] == ["EventType", "events", "users"]
    assert 0 < sum(row[1] for row in answer["rows"]) <= records[-1]["load"]["rows"] == records[-1]["rows"]
