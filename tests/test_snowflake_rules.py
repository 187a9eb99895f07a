"""The rules for Snowflake: names, types, statements, logins, and what is compared before the commit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import DATE, ORIGIN, Column, ColumnKind, Layout
from asyncexport.core.warehouse.snowflake_check import aggregates, difference, query_of_file, query_of_table
from asyncexport.core.warehouse.snowflake_login import SnowflakeAddress, address
from asyncexport.core.warehouse.snowflake_sql import (
    LONGEST_NAME,
    SnowflakeSchema,
    literal,
    missing,
    name_of_setting,
    snowflake_name,
)

SCHEMA = SnowflakeSchema("DB", "S")


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("EventStart", "EVENTSTART"),
        ("_rescued", "_RESCUED"),
        ("evt_größe_int", "evt_größe_int"),
        ("evt_a b_str", "evt_a b_str"),
        ("date", "DATE"),
    ],
)
def test_a_name_is_in_capitals_unless_it_needs_quotes_anyway(name, stored):
    """As Snowflake stores a name that is written without quotes."""
    assert snowflake_name(name) == stored


def test_the_standard_columns_have_different_names():
    """Also in capitals."""
    for type_ in Type:
        names = [snowflake_name(column.name) for column in (*Layout(type_).columns, DATE)]
        assert len(set(names)) == len(names)


def test_long_names_are_shortened_and_stay_apart():
    """With a digest of the full name."""
    one, other = snowflake_name("evt_" + "x" * 300 + "_int"), snowflake_name("evt_" + "x" * 300 + "_str")
    assert one != other
    assert (len(one), len(other)) == (LONGEST_NAME, LONGEST_NAME)
    assert snowflake_name("x" * LONGEST_NAME) == "X" * LONGEST_NAME


@pytest.mark.parametrize(
    ("text", "name"),
    [("fullstory", "FULLSTORY"), ('"fullstory"', "fullstory"), ('"a""b"', 'a"b'), ('"', '"'), ("a b", "a b")],
)
def test_a_name_in_the_settings_is_read_as_snowflake_reads_it(text, name):
    """In quotes it keeps its case."""
    assert name_of_setting(text) == name


@given(st.text())
def test_a_text_in_a_statement_ends_where_it_should(text):
    """Read with the escapes of Snowflake, it is the text again."""
    inner = literal(text)[1:-1]
    read, rest = "", inner
    while rest:
        if rest[0] in "\\'":
            assert rest[1] == rest[0]
            rest = rest[1:]
        read, rest = read + rest[0], rest[1:]
    assert read == text


def test_a_column_of_a_fitting_type_is_accepted():
    """Integers need 19 digits, times six digits after the second."""
    number, time = Column("N", ColumnKind.INTEGER, ""), Column("T", ColumnKind.TIME, "")
    json, text = Column("J", ColumnKind.JSON, ""), Column("X", ColumnKind.TEXT, "")
    fine = {"N": "NUMBER(38,0)", "T": "TIMESTAMP_LTZ(9)", "J": "VARCHAR(16777216)"}
    assert missing([number, time, json, text], fine) == (text,)
    for name, type_ in [
        ("N", "NUMBER(18,0)"),
        ("N", "NUMBER(38,2)"),
        ("N", "FLOAT"),
        ("T", "TIMESTAMP_TZ(3)"),
        ("T", "VARCHAR(16777216)"),
        ("J", "OBJECT"),
        ("X", "VARIANT"),
    ]:
        with pytest.raises(ValueError, match=f"its column {name} is"):
            missing([number, time, json, text], fine | {name: type_})


def test_a_new_table_has_comments():
    """The emulator does not store them, so the statement is looked at."""
    made = SCHEMA.created("t", [Column("a", ColumnKind.TEXT, "It's a \\."), *ORIGIN[:1]])
    assert made.startswith('CREATE TABLE "DB"."S"."T" ("A" VARCHAR COMMENT \'It\'\'s a \\\\.\', "_ARCHIVE" VARCHAR')
    assert "\"A\" NUMBER(19,0) COMMENT 'x'" in SCHEMA.added("t", [Column("a", ColumnKind.INTEGER, "x")])


def test_a_text_is_not_cut_to_the_length_of_its_column():
    """It is cast without a length; everything else is cast to the type of the column."""
    types = {"A": "VARCHAR(10)", "B": "NUMBER(38,0)", "C": "VARIANT", "DATE": "DATE"}
    copy = SCHEMA.copy("t", ["a", "b", "c"], types, day="2026-01-01", file="@x")
    assert copy.startswith(
        'COPY INTO "DB"."S"."T" ("A", "B", "C", "DATE") FROM (SELECT $1:"a"::VARCHAR, $1:"b"::NUMBER(38,0), '
    )
    assert 'THEN PARSE_JSON($1:"c"::VARCHAR) ELSE TO_VARIANT($1:"c"::VARCHAR) END, DATE \'2026-01-01\' FROM @x)' in copy


def test_each_receipt_has_its_own_place_in_the_stage():
    """A place that needs quotes has them."""
    places = {SCHEMA.staged(*day) for day in (("t", "d", "r"), ("t", "d", "s"), ("u", "d", "r"), ("t", "e", "r"))}
    assert len(places) == 4
    plain = SCHEMA.staged("t", "2026-01-01", "r", file="data.parquet")
    assert plain.startswith('@"DB"."S"."_ASYNCEXPORT_STAGE"/2026-01-01/')
    assert plain.endswith("/data.parquet")
    assert SnowflakeSchema("my db", "S").staged("t", "2026-01-01", "r").startswith('\'@"my db".')


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("org-account", SnowflakeAddress("org-account")),
        ("xy12345.eu-central-1", SnowflakeAddress("xy12345.eu-central-1")),
        (
            "https://org-account.snowflakecomputing.com",
            SnowflakeAddress("org-account", "org-account.snowflakecomputing.com"),
        ),
        ("xy.snowflakecomputing.cn/", SnowflakeAddress("xy", "xy.snowflakecomputing.cn")),
        ("http://localhost:8080", SnowflakeAddress("local", "localhost", 8080, "http")),
    ],
)
def test_an_account_is_named_by_its_identifier_or_its_url(text, found):
    """The web interface shows both."""
    assert address(text) == found


@pytest.mark.parametrize(
    "text", ["", "a b", "http://org.snowflakecomputing.com", "https://u:p@x.snowflakecomputing.com", "a/b", "ftp://x"]
)
def test_what_is_no_account_is_refused(text):
    """The message does not repeat it."""
    with pytest.raises(ValueError, match=r"^must be "):
        address(text)


TYPES = {"UserId": "BIGINT", "EventStart": "TIMESTAMP WITH TIME ZONE", "x": "DOUBLE", "vars": "VARCHAR"}


def test_counts_and_limits_are_compared():
    """Every column is counted; numbers and times have a smallest and a largest value."""
    compared = aggregates(TYPES)
    assert len(compared) == 1 + 4 + 3 * 2
    assert 'count("vars")' in query_of_file(compared, "/a/b.parquet")
    table = query_of_table(compared, '"T"', "2026-01-01")
    assert 'COUNT("VARS")' in table
    assert 'DATE_PART(EPOCH_MICROSECOND, MAX("EVENTSTART"))' in table
    assert table.endswith("WHERE \"DATE\" = DATE '2026-01-01'")


def test_a_difference_is_named_without_values():
    """Counts may be shown, values may not: they are the customers' data."""
    compared = aggregates({"UserId": "BIGINT"})
    assert difference(compared, (3, 2, 5, 9), (3, 2, 5, 9)) == ""
    assert difference(compared, (3, 2, 5, 9), (4, 2, 5, 9)) == "the number of rows is 4 instead of 3"
    assert difference(compared, (3, 2, 5, 9), (3, 0, None, None)) == "the number of values of UserId is 0 instead of 2"
    assert difference(compared, (3, 2, 5, 9), (3, 2, 6, 9)) == "the smallest value of UserId is another one"
