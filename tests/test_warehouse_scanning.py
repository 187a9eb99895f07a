"""The scan of an archive overlooks no row that DuckDB would rewrite, and finds the names of all fields."""

import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Layout
from asyncexport.core.warehouse.scanning import (
    ADD_KNOWN,
    CREATE_KNOWN,
    Names,
    Scan,
    is_rewritten,
    scan_statement,
    suspects_statement,
)

DIGITS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
USUAL = st.decimals(-(10**7), 10**7, places=3).map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)
NUMBERS = st.lists(DIGITS | USUAL | st.integers().map(str), min_size=1, max_size=40)


def written(folder: Path, rows: Sequence[str]) -> str:
    """Write a decompressed archive; return its path."""
    file = folder / "rows.ndjson"
    file.write_text("".join(row + "\n" for row in rows))
    return str(file)


def found_in(file: str, *, type_: str) -> dict[str, tuple[str, str, str]]:
    """Return what DuckDB reads, by `id`, with the fields as texts or as JSON."""
    columns = f"{{id: 'VARCHAR', a: '{type_}', b: '{type_}', c: '{type_}'}}"
    with duckdb.connect() as duck:
        rows = duck.execute(f"SELECT * FROM read_json('{file}', columns = {columns})").fetchall()
    return {name: (a, b, c) for name, a, b, c in rows}


@settings(deadline=None, max_examples=80)
@given(numbers=NUMBERS)
def test_no_number_that_would_be_rewritten_is_overlooked(tmp_path_factory, numbers):
    """A row whose numbers DuckDB would write in another way is suspected, and confirmed."""
    rows = {
        str(place): f'{{"id": "{place}", "a": {number}, "b":[1,{number}],"c":{{"x":{number}\t}}}}'
        for place, number in enumerate(numbers)
    }
    file = written(tmp_path_factory.mktemp("scan"), list(rows.values()))
    rewritten = {
        name
        for type_ in ("VARCHAR", "JSON")
        for name, values in found_in(file, type_=type_).items()
        if values != ((number := numbers[int(name)]), f"[1,{number}]", f'{{"x":{number}}}')
    }
    with duckdb.connect() as duck:
        suspects = [row for (row,) in duck.execute(suspects_statement(file)).fetchall()]
    confirmed = {json.loads(row)["id"] for row in suspects if is_rewritten(row)}
    assert rewritten <= confirmed
    assert confirmed == {name for name, row in rows.items() if is_rewritten(row)}


@pytest.mark.parametrize(
    "row",
    [
        '{"a":"1.50"}',
        '{"a":",1.50,","b":": 1e5}"}',
        '{"PageLatLong":"50.0640,19.9450"}',
        '{"a":"\\"b\\":1.50,"}',
        '{"a":12.5,"b":-0.0,"c":[true,null,0.25],"d":{"e":6127384950617283940}}',
        '{"a":"nan, inf]","b":",}"}',
        '{"a":100000.5,"b":0.0001,"c":123456789012345678901234567890}',
    ],
)
def test_a_plain_row_is_not_taken_for_an_odd_one(row):
    """What is within a string is no number, and numbers as DuckDB writes them are plain."""
    assert not is_rewritten(row)


@pytest.mark.parametrize("row", ['{"a":NaN}', '{"a":[1,-inf]}', '{"a":1,}', '{"a":[1, ] }', '{"a":-0}'])
def test_what_only_duckdb_accepts_is_found(tmp_path, row):
    """Numbers that are none and commas before a bracket are found."""
    file = written(tmp_path, [row, '{"a":1}'])
    with duckdb.connect() as duck:
        assert duck.execute(suspects_statement(file)).fetchall() == [(row,)]
    assert is_rewritten(row)


def scan_of(folder: Path, *rows: str, known: Sequence[int] = ()) -> Scan:
    """Return the scan of an archive."""
    file = written(folder, rows)
    with duckdb.connect() as duck:
        duck.execute(CREATE_KNOWN)
        duck.execute(ADD_KNOWN, [list(known)])
        return Scan.of(duck.execute(scan_statement(file)).fetchall())


def test_all_names_are_found(tmp_path):
    """Each list of names is found once; a row without fields is a row."""
    rows = (
        '{"UserId":1,"evt_a":2}',
        '{"evt_\\u0062":3}',
        "{}",
        '{"UserId":1,"evt_a":2,"":5}',
        '{"UserId":4,"evt_a":5}',
    )
    scan = scan_of(tmp_path, *rows)
    assert sorted(map(sorted, scan.lists.values())) == [[], ["", "UserId", "evt_a"], ["UserId", "evt_a"], ["evt_b"]]
    assert (scan.rows, scan.repeats, scan.suspected, scan.longest) == (5, "", False, len(rows[3]))
    again = scan_of(tmp_path, *rows, '{"evt_c":1}', known=list(scan.lists))
    assert list(again.lists.values()) == [{"evt_c"}]
    assert (again.rows, again.longest) == (6, len(rows[3]))


@pytest.mark.parametrize(
    "row", ['{"a":1,"b":2,"a":3}', '{"a":1,"\\u0061":2}', '{"":1,"":2}', '{"a\\u001eb":1}', '{"\\u001e":1}']
)
def test_a_name_twice_is_found(tmp_path, row):
    """A repeated name is found, however it is spelt; so is a name that cannot be told from two names."""
    scan = scan_of(tmp_path, '{"a":1}', row)
    assert scan.repeats or Names(Layout(Type.EVENT)).odd_one(frozenset().union(*scan.lists.values())) is not None


def test_of_names_that_differ_in_case_one_becomes_a_column():
    """The layout's own name is a column, else the first one; archives with another one are odd."""
    names = Names(Layout(Type.EVENT))
    assert names.odd_one({"UserId", "evt_A"}) is None
    names.add({"UserId", "evt_A"})
    assert names.odd_one({"evt_A", "evt_b"}) is None
    assert names.odd_one({"evt_a", "UserId"}) == "evt_a"
    assert names.odd_one({"userid"}) == "userid"
    assert names.odd_one({"evt_c", "evt_C"}) == "evt_c"
    assert names.odd_one({"tab\t"}) == "tab\t"
    assert names.odd_one({""}) == ""
    assert names.found == {"UserId", "evt_A"}
