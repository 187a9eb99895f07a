"""The queries with which the page about the warehouse begins work on tables of made-up events."""

import re
from pathlib import Path

import duckdb

import asyncexport
from tests.load_rig import Arrival, Place, events

PAGE = (Path(asyncexport.__file__).parent / "warehouse" / "README.md").read_text(encoding="utf-8")


def test_the_queries_of_the_page_work(tmp_path):
    """Events by day, a custom variable with a dot in its name, the coverage; and each column with its meaning."""
    place = Place(tmp_path)
    place.store(Arrival((0, 24), [{**one, "EventType": "custom", "evt_order.total_real": 9.5} for one in events(0, 3)]))
    place.load()
    (queries,) = re.findall(r"```sql\n(.*?)```", PAGE.partition("## What is loaded")[0], re.DOTALL)
    (columns,) = re.findall(r"```sql\n(.*?)```", PAGE.partition("## Columns")[2].partition("\n## ")[0], re.DOTALL)
    with duckdb.connect(place.warehouse / "warehouse.duckdb", read_only=True) as con:
        meanings = con.execute(columns).fetchall()
        by_day, totals, coverage = (con.execute(one).fetchall() for one in queries.strip().split(";\n"))
    assert [one[1] for one in by_day] == [3]
    assert [float(one[1]) for one in totals] == [9.5] * 3
    assert len(coverage) == 1
    assert all(comment for _, _, comment in meanings)
    assert {"UserId", "vars", "_rescued", "event_id", "_exported_at", "date"} <= {name for name, *_ in meanings}
