"""The tables `[load]`, `[load.duckdb]` and so on: where exported days are loaded, and how."""

from pathlib import Path

from pydantic import Field

from asyncexport.config.fields import Amount, Directory, Filled, KeyFile, Size, Switch, Text
from asyncexport.config.load_fields import (
    Columns,
    Dataset,
    IdentifyName,
    Memory,
    Project,
    QuarantineName,
    Sinks,
    SuffixesName,
)
from asyncexport.config.table import Table, default
from asyncexport.core.warehouse.choices import Identify, QuarantineRule, SinkName, Suffixes


class DuckdbSettings(Table):
    """`[load.duckdb]`: the DuckDB file."""

    path: Directory = Path("warehouse.duckdb")
    tables: Switch = False


class DataDirectSettings(Table):
    """`[load.datadirect]`: the table in the shape of Fullstory's Data Direct."""

    enabled: Switch = True
    identify: IdentifyName = Identify.SEEN
    suffixes: SuffixesName = Suffixes.KEEP


class PostgresSettings(Table):
    """`[load.postgres]`: the PostgreSQL database. `load_dsn` reads the connection string from either place."""

    dsn: Text = Field(default="", repr=False)
    dsn_file: KeyFile = Field(default=default(""), repr=False)
    schema_name: Filled = Field(default="fullstory", alias="schema")


class BigquerySettings(Table):
    """`[load.bigquery]`: the BigQuery dataset."""

    project: Project = ""
    dataset: Dataset = "fullstory"
    location: Text = ""


class SnowflakeSettings(Table):
    """`[load.snowflake]`: the Snowflake database."""

    account: Text = ""
    user: Text = ""
    key_file: KeyFile = Field(default=default(""), repr=False)
    database: Text = ""
    schema_name: Filled = Field(default="FULLSTORY", alias="schema")
    warehouse: Text = ""


class LoadSettings(Table):
    """`[load]`: the destinations of loaded days, and how days are made."""

    to: Sinks = (SinkName.PARQUET, SinkName.DUCKDB)
    directory: Directory = Path("warehouse")
    memory: Memory = default("1GiB")
    workers: Amount = 0
    columns: Columns = ()
    max_row: Size = default("64MiB")
    quarantine: QuarantineName = QuarantineRule.KEEP
    duckdb: DuckdbSettings = DuckdbSettings()
    datadirect: DataDirectSettings = DataDirectSettings()
    postgres: PostgresSettings = PostgresSettings()
    bigquery: BigquerySettings = BigquerySettings()
    snowflake: SnowflakeSettings = SnowflakeSettings()
