"""The tests of the destination Snowflake, against the real service.

`ASYNCEXPORT_LIVE_SNOWFLAKE` names a database. The login is the one of `load`: `ASYNCEXPORT_LOAD__SNOWFLAKE__ACCOUNT`,
`…__USER`, `…__KEY_FILE` and, unless the user has a default one, `…__WAREHOUSE`. Each test makes a schema and drops it;
what it loads and reads is a few kilobytes.
"""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncexport.core.warehouse.snowflake_login import SnowflakeLogin, address
from asyncexport.core.warehouse.snowflake_sql import name_of_setting
from tests.snowflake_rig import SnowflakeRig, why_no_client

DATABASE = os.environ.get("ASYNCEXPORT_LIVE_SNOWFLAKE", "")

if not DATABASE or why_no_client():
    pytest.skip(why_no_client() or "ASYNCEXPORT_LIVE_SNOWFLAKE names no database", allow_module_level=True)

from tests import test_sink_snowflake, test_sink_snowflake_faults  # noqa: E402 - they need the client

ACCOUNT, USER, KEY_FILE, WAREHOUSE = (
    os.environ.get(f"ASYNCEXPORT_LOAD__SNOWFLAKE__{name}", "") for name in ("ACCOUNT", "USER", "KEY_FILE", "WAREHOUSE")
)

for module in (test_sink_snowflake, test_sink_snowflake_faults):
    globals().update({name: found for name, found in vars(module).items() if name.startswith("test_")})


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SnowflakeRig]:
    """Return the rig of a new schema."""
    login = SnowflakeLogin(address(ACCOUNT), USER, KEY_FILE, name_of_setting(DATABASE), WAREHOUSE)
    with SnowflakeRig(login, tmp_path, schema=f"ASYNCEXPORT_TEST_{uuid.uuid4().hex[:12].upper()}") as rig:
        yield rig
        rig.drop_schema()
