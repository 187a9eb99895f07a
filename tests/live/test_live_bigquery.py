"""The tests of the destination BigQuery, against the real service.

`ASYNCEXPORT_LIVE_BIGQUERY` names a project. Credentials are Google's default ones. Each test makes a dataset and
deletes it; what it loads and reads is a few kilobytes.
"""

import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from asyncexport.warehouse.sinks.bigquery_connection import default_client
from tests import test_sink_bigquery, test_sink_bigquery_faults
from tests.bigquery_rig import DAY, BigQueryRig

PROJECT = os.environ.get("ASYNCEXPORT_LIVE_BIGQUERY", "")

pytestmark = pytest.mark.skipif(not PROJECT, reason="ASYNCEXPORT_LIVE_BIGQUERY names no project")

for module in (test_sink_bigquery, test_sink_bigquery_faults):
    globals().update({name: found for name, found in vars(module).items() if name.startswith("test_")})


@pytest.fixture
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BigQueryRig]:
    """Return the rig of a new dataset, with what the test's own module puts into it."""
    dataset = f"asyncexport_test_{uuid.uuid4().hex[:12]}"
    with BigQueryRig(partial(default_client, PROJECT, ""), dataset, tmp_path) as rig:
        if request.function.__module__ == test_sink_bigquery_faults.__name__:
            rig.load({DAY: test_sink_bigquery_faults.OLD})
        yield rig
