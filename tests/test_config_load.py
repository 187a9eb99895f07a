"""The settings of `load`: tables within a table, and a connection string that is a secret."""

from pathlib import Path

import pytest

from asyncexport.config import Settings, load_dsn, load_settings
from asyncexport.core.masking import MASK, Mask, secrets_of_dsn
from asyncexport.core.warehouse.choices import SinkName, Suffixes
from asyncexport.errors import ConfigError
from tests.test_config import faults, read

CANARY = "host=db password='CANARY pass'"


def test_the_defaults_are_those_of_the_example():
    """Parquet and DuckDB, 1 GiB for each worker, no extra columns."""
    load = Settings().load
    assert load.to == (SinkName.PARQUET, SinkName.DUCKDB)
    assert (load.memory, load.max_row, load.workers, load.columns) == (1 << 30, 64 << 20, 0, ())
    assert (load.directory, load.duckdb.path) == (Path("warehouse"), Path("warehouse.duckdb"))
    assert (load.postgres.schema_name, load.snowflake.schema_name) == ("fullstory", "FULLSTORY")


def test_a_table_within_a_table_is_merged_from_all_sources(tmp_path):
    """For each key the order is flag, environment, file, default, also in `[load.duckdb]`."""
    toml = '[load]\nworkers = 3\n[load.duckdb]\npath = "file.duckdb"\ntables = false\n'
    environ = {"ASYNCEXPORT_LOAD__DUCKDB__PATH": "variable.duckdb", "ASYNCEXPORT_LOAD__MEMORY": "2GiB"}
    flags = {"load.duckdb.tables": "true", "load.datadirect.suffixes": "strip"}
    load = read(tmp_path, toml, environ=environ, flags=flags).load
    assert (load.workers, load.memory) == (3, 2 << 30)
    assert (load.duckdb.path, load.duckdb.tables) == (Path("variable.duckdb"), True)
    assert load.datadirect.suffixes is Suffixes.STRIP


@pytest.mark.parametrize("text", ["parquet,postgres", '["parquet", "postgres"]', " parquet , postgres,"])
def test_a_list_in_a_variable_is_json_or_has_commas(tmp_path, text):
    """Lists can be set without a file."""
    environ = {"ASYNCEXPORT_LOAD__TO": text, "ASYNCEXPORT_LOAD__COLUMNS": "user_plan_str,evt_price_real"}
    load = read(tmp_path, environ=environ).load
    assert load.to == (SinkName.PARQUET, SinkName.POSTGRES)
    assert load.columns == ("user_plan_str", "evt_price_real")


ODD_PREFIX = 'output.mirror: the prefix must be names between single slashes, without "%", "\\", "." and ".."'

MESSAGES = [
    ("[load]\nto = ['parquet', 'duckdb', 'parquet']", "load.to: must not name parquet twice"),
    ("[load]\nto = []", "load.to: must name at least one destination"),
    (
        "[load]\nto = ['postgre']",
        'load.to[1]: expected parquet, duckdb, postgres, bigquery or snowflake, got "postgre" (did you mean postgres?)',
    ),
    (
        "[load]\nto = 'parquet'",
        'load.to: expected a list of texts, such as ["parquet", "duckdb"], got "parquet"',
    ),
    (
        "[load]\ncolumns = ['EventType']",
        'load.columns[1]: must be a custom variable, whose name begins with user_, evt_ or page_, got "EventType"',
    ),
    ("[load]\ncolumns = ['evt_*']", 'load.columns[1]: must be the whole name of a custom variable, got "evt_*"'),
    (
        "[load]\ncolumns = ['evt_a_str', 'evt_A_str']",
        "load.columns: must not name both evt_a_str and evt_A_str: databases take them for the same name",
    ),
    ("[load]\nmemory = '64MiB'", 'load.memory: must be between 128MiB and 1TiB, got "64MiB"'),
    (
        "[load]\nmemory = 1",
        'load.memory: expected a size in quotes and with the unit KiB, MiB or GiB, such as "64MiB", got 1',
    ),
    ("[load]\nmax_row = '1KiB'", 'load.max_row: must be between 1MiB and 900MiB, got "1KiB"'),
    ("[load]\nworkers = -1", "load.workers: must be at least 0, got -1"),
    (
        "[load]\nquarantine = 'drop'",
        'load.quarantine: expected keep or fail, got "drop"',
    ),
    ("[load]\nMemory = '1GiB'", "load.Memory: unknown key (did you mean memory?)"),
    ("[Load]\nto = ['parquet']", "Load: unknown table (did you mean [load]?)"),
    (
        "[load]\nmemory = '1GB'",
        'load.memory: expected a size in quotes and with the unit KiB, MiB or GiB, such as "64MiB", got "1GB"',
    ),
    ("[load.duckdb]\npath = 3", "load.duckdb.path: expected a path in quotes, got 3"),
    ("[load]\nmemry = '1GiB'", "load.memry: unknown key (did you mean memory?)"),
    ("[load.dukdb]\ntables = true", "load.dukdb: unknown key (did you mean [load.duckdb]?)"),
    ("[load.duckdb]\ntabels = true", "load.duckdb.tabels: unknown key (did you mean tables?)"),
    ("[load.duckdb]\nidentify = 'seen'", "load.duckdb.identify: unknown here: it belongs in [load.datadirect]"),
    ("[duckdb]\ntables = true", "duckdb: unknown table (did you mean [load.duckdb]?)"),
    ("[load]\nduckdb = 'x'", "load.duckdb: expected a table, written [load.duckdb]"),
    ("[load.duckdb]\ntables = 'yes'", 'load.duckdb.tables: expected true or false, got "yes"'),
    (
        "[load.datadirect]\nidentify = 'all'",
        'load.datadirect.identify: expected seen or per_session, got "all"',
    ),
    ("[load.postgres]\nschema = ' '", "load.postgres.schema: must not be empty"),
    ("[load.bigquery]\ndataset = 'a-b'", 'load.bigquery.dataset: must be letters, digits and underscores, got "a-b"'),
    ("[load.bigquery]\nproject = 'a b'", 'load.bigquery.project: must be the id of a project, got "a b"'),
    ("[output]\nmirror = 'bucket/prefix'", 'output.mirror: expected "" or a URL such as "s3://bucket/prefix"'),
    ("[output]\nmirror = 's3://key:CANARY@bucket'", "output.mirror: must not contain a user or a password"),
    ("[output]\nmirror = 's3://bucket/x%20y'", ODD_PREFIX),
    ("[output]\nmirror = 's3://bucket/../x'", ODD_PREFIX),
    ("[output]\nmirror = 's3://bucket//x'", ODD_PREFIX),
    (
        "[output]\nmirror = 's3://bucket:80/x'",
        "output.mirror: the bucket must be letters, digits and . - _",
    ),
    ("[output]\nmirror = 's3://bucket?x=CANARY'", "output.mirror: must not contain a query or a fragment"),
]


@pytest.mark.parametrize(("toml", "reported"), MESSAGES, ids=[reported[:60] for _, reported in MESSAGES])
def test_a_fault_is_one_line_with_place_expectation_and_value(tmp_path, toml, reported):
    """Each fault is reported in one line, in the words of the config file."""
    assert faults(tmp_path, toml) == [reported]


@pytest.mark.parametrize(
    ("variable", "text", "reported"),
    [
        ("ASYNCEXPORT_LOAD__DUKDB__PATH", "x", "unknown variable (did you mean ASYNCEXPORT_LOAD__DUCKDB__PATH?)"),
        ("ASYNCEXPORT_LOAD__DUCKDB", "x", "unknown variable (did you mean ASYNCEXPORT_LOAD__DUCKDB__PATH?)"),
        ("ASYNCEXPORT_LOAD__DUCKDB__TABLES", "yes", 'expected true or false, got "yes"'),
        ("ASYNCEXPORT_LOAD__POSTGRES__DSN", "CANARY\n", "must be one line of printable text"),
    ],
)
def test_a_fault_in_a_variable_is_reported_with_its_name(tmp_path, variable, text, reported):
    """Variables of tables within a table have two underscores between each part."""
    assert faults(tmp_path, environ={variable: text}) == [f"{variable}: {reported}"]


def test_a_fault_in_a_flag_is_reported_as_such(tmp_path):
    """A dotted key may name a table within a table, and a table cannot be set to a text."""
    place = "(on the command line)"
    flags = {"load.duckdb": "x", "load.duckdb.tables": "true"}
    message = f"load.duckdb {place}: expected a table, written [load.duckdb]"
    assert faults(tmp_path, flags=flags) == [message]
    assert faults(tmp_path, flags={"load.dukdb.tables": "true"}) == [
        f"load.dukdb.tables {place}: unknown key (did you mean [load.duckdb]?)"
    ]
    assert faults(tmp_path, flags={"load.duckdb.tables": "maybe"}) == [
        f'load.duckdb.tables {place}: expected true or false, got "maybe"'
    ]


def test_the_settings_hide_the_connection_string(tmp_path):
    """Neither `repr` nor `str` of the settings contains it, and no message about the table does."""
    settings = read(tmp_path, environ={"ASYNCEXPORT_LOAD__POSTGRES__DSN": CANARY})
    assert settings.load.postgres.dsn == CANARY
    assert "CANARY" not in repr(settings) + str(settings)
    assert faults(tmp_path, 'load.postgres.dsn = ["CANARY"]') == [
        "load.postgres.dsn: expected text in quotes, got a list"
    ]
    assert faults(tmp_path, 'load.postgres.dsn = "CANARY\\n"') == [
        "load.postgres.dsn: must be one line of printable text"
    ]


def test_the_connection_string_is_the_setting_or_the_first_line_of_a_file(tmp_path):
    """The setting comes first; without both, the message says where to put it."""
    file = tmp_path / "dsn"
    file.write_text("host=file\nmore\n")
    flags = {"load.postgres.dsn_file": file}
    assert load_dsn(read(tmp_path, flags=flags).load.postgres) == "host=file"
    assert load_dsn(read(tmp_path, flags={**flags, "load.postgres.dsn": CANARY}).load.postgres) == CANARY
    for text, reported in (("", "does not have the text"), ("a\x00CANARY", "does not have the text")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=reported) as caught:
            load_dsn(read(tmp_path, flags=flags).load.postgres)
        assert "CANARY" not in str(caught.value)
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_dsn(read(tmp_path, flags=flags).load.postgres)
    with pytest.raises(ConfigError, match=r"load\.postgres\.dsn: is not set"):
        load_dsn(Settings().load.postgres)


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        ("host=db password='it\\'s CANARY'", "bad password it's CANARY"),
        ("host=db password=CANARY9 user=me", "bad password CANARY9"),
        ("postgresql://me:CANARY%40pass@db/x", "bad password CANARY@pass"),
        ("postgresql://db/x?user=me&password=CANARY%20x", "bad password CANARY x"),
        ("host=db dbname=CANARY", "invalid dsn host=db dbname=CANARY"),
    ],
)
def test_a_password_in_a_connection_string_is_masked(dsn, said):
    """The text itself and the password in it are replaced in output."""
    shown = Mask(others=secrets_of_dsn(dsn))(said)
    assert "CANARY" not in shown
    assert MASK in shown


def test_without_a_file_nothing_else_is_needed(tmp_path):
    """The settings of `load` have defaults, so other commands need none of them."""
    assert load_settings(file=None, environ={}, flags={}, working_directory=tmp_path).load == Settings().load
