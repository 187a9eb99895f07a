"""The files of a day: equal bytes of equal archives, all sorts of archives, and no file of an archive that changed."""

import gzip
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asyncexport.core.exports import Format
from asyncexport.errors import ChangedArchiveError, DayCountError
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import render
from asyncexport.warehouse.day_maker import DayRequest
from asyncexport.warehouse.make_day import make_day
from tests.day_making import MIDNIGHT, day_request, described, ndjson, request_of, source_archive, table_of

ROW = {"UserId": 1, "PageName": "Home"}
LINE = ndjson(ROW)

MAKE = """
import pickle, sys
from asyncexport.warehouse.make_day import make_day
make_day(pickle.loads(sys.stdin.buffer.read()))
"""


def events(number: int, *, form: Format = Format.NDJSON, rows_per_hour: float = 2_000) -> bytes:
    """Return the sandbox's events of a half-hour of the day."""
    start = MIDNIGHT + 1800 * number
    return b"".join(render(SandboxSyntheticRows(1, rows_per_hour, quiet=0).between(start, start + 1800), form.value))


def made_elsewhere(request: DayRequest, target: Path, **more: str) -> bytes:
    """Make a day in a process of its own; return the bytes of the Parquet file."""
    subprocess.run(
        [sys.executable, "-c", MAKE],
        input=pickle.dumps(replace(request, flat=target)),
        env={**os.environ, **more},
        check=True,
    )
    return target.read_bytes()


def test_equal_archives_make_equal_bytes(tmp_path):
    """The file does not depend on the run, the process, the time zone, the locale, or the memory limit."""
    odd = events(3) + b'{"UserId":1,"evt_price_real":1.50}\n' * 2
    request = request_of(tmp_path, events(0), events(1), b"", odd, memory=256 << 20)
    make_day(request)
    first = request.flat.read_bytes()
    make_day(request)
    assert request.flat.read_bytes() == first
    for number, zone in enumerate(("America/New_York", "Asia/Kathmandu")):
        assert made_elsewhere(request, tmp_path / f"{number}.parquet", TZ=zone, LC_ALL="C") == first
    roomy = replace(request, memory=1 << 30)
    assert made_elsewhere(roomy, tmp_path / "roomy.parquet", PYTHONHASHSEED="7") == first


def test_rows_are_sorted_by_user_session_and_time(tmp_path):
    """Rows of all archives are in one order, those without a value at the end."""
    request = request_of(tmp_path, events(1), events(0) + LINE)
    make_day(request)
    places = [(row["UserId"], row["SessionId"] or 2**63, row["EventStart"]) for row in table_of(request.flat)]
    assert [place[:2] for place in places] == sorted(place[:2] for place in places)
    assert len(places) > 300


def test_every_format_makes_the_same_ids(tmp_path):
    """The same half-hour as NDJSON, JSON and CSV has the same events and columns."""
    found = []
    for form in Format:
        folder = tmp_path / form.value
        folder.mkdir()
        request = request_of(folder, events(20, form=form, rows_per_hour=600), form=form)
        made = make_day(request)
        assert bool(made.exact) is (form is not Format.NDJSON)
        rows = table_of(request.flat)
        ids = sorted((row["event_id"], row["UserId"], row["EventStart"], row["PageUrl"]) for row in rows)
        assert len({row["event_id"] for row in rows}) == len(rows) == request.source.rows > 200
        found.append(ids)
    assert found[0] == found[1] == found[2]


WRAPPED = {
    "several members of gzip": gzip.compress(LINE[:10]) + gzip.compress(LINE[10:] + LINE) + gzip.compress(b""),
    "zeros after the end": gzip.compress(LINE * 2) + bytes(512),
    "a byte order mark": gzip.compress(b"\xef\xbb\xbf" + LINE * 2),
    "blank lines and CRLF": gzip.compress(b"\r\n\n" + LINE.replace(b"\n", b"\r\n") + b" \t\n" + LINE + b"\n\n"),
    "no line break at the end": gzip.compress(LINE + LINE.rstrip()),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_archives_of_all_sorts_are_read(tmp_path, case):
    """Whatever is around the rows, they are all loaded, beside archives without rows."""
    archives = [
        described(tmp_path, "a.ndjson.gz", WRAPPED[case], start=MIDNIGHT, rows=2),
        source_archive(tmp_path, 1, b""),
        described(tmp_path, "nothing.ndjson.gz", b"", start=MIDNIGHT + 3600, rows=0),
        source_archive(tmp_path, 3, LINE),
    ]
    request = day_request(tmp_path, archives)
    made = make_day(request)
    assert made.rows == {"a.ndjson.gz": 2, archives[1].path: 0, "nothing.ndjson.gz": 0, archives[3].path: 1}
    assert [(row["UserId"], row["PageName"]) for row in table_of(request.flat)] == [(1, "Home")] * 3


@pytest.mark.parametrize("name", ["a[1]", "b*", "it's", 'a "b"', "c?d", "date=2026-01-01", "ü {x}"])
def test_any_directory_can_be_loaded(tmp_path, name):
    """Characters that mean something to DuckDB or SQL are taken literally."""
    folder = tmp_path / name
    folder.mkdir()
    request = request_of(folder, LINE)
    assert make_day(request).rows == {"archive-00.ndjson.gz": 1}
    assert [row["_archive"] for row in table_of(request.flat)] == ["archive-00.ndjson.gz"]


@pytest.mark.parametrize("form", Format)
def test_a_row_longer_than_allowed_is_quarantined(tmp_path, form):
    """Rows above `max_row` are quarantined in every format, and the others loaded."""
    long = ROW | {"PageName": "x" * 5000}
    content = b"".join(render([ROW, long, ROW], form.value))
    request = request_of(tmp_path, content, form=form, max_row=4000)
    made = make_day(request)
    path = request.source.archives[0].path
    assert (made.rows, made.quarantined) == ({path: 2}, {path: 1})
    (line,) = gzip.decompress(request.quarantine.read_bytes()).splitlines()
    assert json.loads(line)["archive"] == path


def test_a_day_of_quarantined_lines_has_no_table(tmp_path):
    """If no line is a row, there is a quarantine file and no Parquet file."""
    request = request_of(tmp_path, b'{"UserId":}\n{"UserId":}\n')
    made = make_day(request)
    assert made.quarantined == {"archive-00.ndjson.gz": 2}
    assert not request.flat.exists()
    assert len(gzip.decompress(request.quarantine.read_bytes()).splitlines()) == 2


def test_a_wrong_number_of_rows_is_not_loaded(tmp_path):
    """An archive that does not have the rows of the ledger ends the day."""
    archive = replace(source_archive(tmp_path, 0, LINE), rows=2)
    with pytest.raises(DayCountError, match="1 rows were read, but the ledger says 2"):
        make_day(day_request(tmp_path, [archive]))


@pytest.mark.parametrize("form", Format)
def test_another_archive_in_its_place_is_not_loaded(tmp_path, form):
    """An archive of other rows, one that is missing, and one that should have no rows end the day."""
    content = b"".join(render([ROW], form.value))
    request = request_of(tmp_path, content, b"", form=form)
    for archive in request.source.archives:
        file = tmp_path / archive.path
        data = file.read_bytes()
        file.write_bytes(gzip.compress(content, 1, mtime=1))
        with pytest.raises(ChangedArchiveError, match="its hash differs") as raised:
            make_day(request)
        assert raised.value.path == archive.path
        file.unlink()
        with pytest.raises(ChangedArchiveError, match="does not exist"):
            make_day(request)
        file.write_bytes(data)
    make_day(request)
    assert list(request.scratch.glob("inflated*")) == []


def test_many_names_fit_into_one_statement(tmp_path):
    """Thousands of custom variables are kept, under names of any kind."""
    row = {f'evt_{number}.it\'s "{number}"_int': number for number in range(2_000)}
    request = request_of(tmp_path, ndjson(row, ROW))
    made = make_day(request)
    assert made.exact == {}
    held = [json.loads(row["vars"]) for row in table_of(request.flat) if row["vars"]]
    assert held == [row]


def test_a_day_with_a_row_of_many_megabytes_is_made(tmp_path):
    """A row that is too long for the statement is read row by row, and is in the table."""
    text = "x" * (40 << 20)
    request = request_of(tmp_path, ndjson(ROW | {"evt_x_str": text}), LINE, memory=512 << 20)
    made = make_day(request)
    assert list(made.exact) == ["archive-00.ndjson.gz"]
    assert "exceeded while reading" in made.exact["archive-00.ndjson.gz"]
    assert str(tmp_path) not in made.exact["archive-00.ndjson.gz"]
    assert {row["vars"] for row in table_of(request.flat)} == {
        json.dumps({"evt_x_str": text}, separators=(",", ":")),
        None,
    }
