"""The page about the Data Direct table says what the code does."""

import json
import re
from pathlib import Path

import duckdb
import pytest

import asyncexport
from asyncexport.core.warehouse.choices import Identify
from asyncexport.core.warehouse.data_direct.columns import COLUMNS, DataDirectRecipe
from asyncexport.core.warehouse.data_direct.mapping import EVENT_TYPES, LEFT_OUT, OTHER_TYPES, SOURCE, Property
from tests.day_making import ndjson
from tests.test_data_direct import ROW, made_of

PAGE = (Path(asyncexport.__file__).parent / "warehouse" / "DATA_DIRECT.md").read_text(encoding="utf-8")


def shown(one: Property) -> str:
    """Return a property as in the page's tables."""
    columns = ", ".join(f"`{name}`" for name in one.value.columns)
    remark = f"; {one.remark}" if one.remark else ""
    return f"`{one.path}` ← {columns} ({one.basis.value}{remark})"


def event_types() -> str:
    """Return the page's table of types."""
    lines = ["| in the export | `event_type` | `event_properties` |", "|---|---|---|"]
    for name, one in EVENT_TYPES.items():
        remark = f" ({one.remark})" if one.remark else ""
        lines.append(f"| `{name}` | `{one.name}`{remark} | {'<br>'.join(map(shown, one.properties))} |")
    lines.append(f"| {', '.join(f'`{name}`' for name in LEFT_OUT)} | none | |")
    lines.append(f"| any other | the same | {'<br>'.join(map(shown, OTHER_TYPES))} |")
    return "\n".join(lines)


def source_properties() -> str:
    """Return the page's table of the source's properties."""
    lines = ["| `source_properties` | column |", "|---|---|"]
    for one in SOURCE:
        path, rest = shown(one).split(" ← ")
        lines.append(f"| {path} | {rest} |")
    return "\n".join(lines)


@pytest.mark.parametrize("table", [event_types, source_properties])
def test_the_tables_of_the_page_are_the_mapping(table):
    """The page has the mapping as it is in the code."""
    assert table() in PAGE


def statement(containing: str) -> str:
    """Return the SQL on the page that contains a text."""
    (found,) = [one for one in re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL) if containing in one]
    return str(found)


def test_the_statement_for_one_view_works(tmp_path):
    """The view over past and live events, as on the page, has each event once; a session across the cut is one."""
    rows = [ROW | {"EventStart": f"2026-01-01T{hour}:00:00Z"} for hour in ("09", "11", "13")]
    request, _ = made_of(tmp_path, ndjson(*rows))
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        columns = [column.name for column in COLUMNS]
        duck.execute("CREATE SCHEMA live")
        for name in ("everyone_events__datadirect", "live.events"):
            duck.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet(?)", [str(request.data_direct.file)])
        duck.execute("UPDATE live.events SET event_id = 'theirs-' || event_id")
        duck.execute(statement("CREATE VIEW").replace("2026-03-01 00:00:00", "2026-01-01 12:00:00"))
        found = duck.execute("SELECT * FROM all_events ORDER BY event_time")
        assert [one[0] for one in found.description] == columns
        assert [row[0].startswith("theirs-") for row in found.fetchall()] == [False, False, True]
        sessions = duck.execute("SELECT count(DISTINCT (device_id, session_id)) FROM all_events").fetchall()
        assert sessions == [(1,)]


def test_the_query_that_compares_both_sides_works(tmp_path):
    """The comparison of an overlap, as on the page, finds what only one side has, events that were made up aside."""
    rows = [ROW | {"UserAppKey": "ann"}, ROW | {"EventType": "click"}, ROW | {"SessionId": 0}]
    request, made = made_of(tmp_path, ndjson(*rows), recipe=DataDirectRecipe(identify=Identify.PER_SESSION))
    assert made.made_up == 1
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        duck.execute("CREATE SCHEMA live")
        for name in ("everyone_events__datadirect", "live.events"):
            duck.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet(?)", [str(request.data_direct.file)])
        duck.execute("DELETE FROM live.events WHERE event_id LIKE 'ax1i-%'")
        query = statement("HAVING").replace("2026-03-0", "2026-01-0")
        assert duck.execute(query).fetchall() == []
        duck.execute("DELETE FROM live.events WHERE event_type = 'click'")
        ((*_, ours, theirs),) = duck.execute(query).fetchall()
        assert (ours, theirs) == (1, 0)


def test_the_example_of_nesting_is_what_is_made(tmp_path):
    """The JSON that the page shows for custom variables is made of the fields that it shows."""
    fields, kept, stripped = re.findall(r"```json\n(.*?)\n```", PAGE.split("## Custom variables")[1], re.DOTALL)[:3]
    for suffixes, expected in (("keep", kept), ("strip", stripped)):
        folder = tmp_path / suffixes
        recipe = DataDirectRecipe(suffixes=type(DataDirectRecipe().suffixes)(suffixes))
        request, _ = made_of(folder, ndjson(ROW | {"EventType": "custom"} | json.loads(fields)), recipe=recipe)
        with duckdb.connect() as duck:
            ((made,),) = duck.execute(
                "SELECT event_properties FROM read_parquet(?)", [str(request.data_direct.file)]
            ).fetchall()
        assert json.loads(made)["event_properties"] == json.loads(expected)
