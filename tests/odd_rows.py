r"""Rows that readers lose or change without a word, and what becomes of each: shared by the tests of both readers.

The expected texts are those of the canonical form. A row that is quarantined has its reason instead.
"""

from dataclasses import dataclass, field

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.columns import Layout

CUSTOM = ("evt_count_int", "evt_tags_strs", "evt_is_new_bool", "evt_price_real", "evt_due_date", "evt_note_str")
"""Custom variables with a column of their own, one of each kind."""

LAYOUT = Layout(Type.EVENT, CUSTOM)

DEEP = "[" * 100_000 + "]" * 100_000
JUST_HELD = "[" * 126 + "1" + "]" * 126


@dataclass(frozen=True, slots=True)
class OddRow:
    """A row, and what becomes of it.

    Attributes:
        says: What is odd about it.
        row: The row as it stands in the archive.
        columns: The texts in columns.
        vars: `vars`.
        rescued: `_rescued`.
        reason: Why it is quarantined.
        title: How a table shows the row, if it is long or not text.
    """

    says: str
    row: bytes
    columns: dict[str, str] = field(default_factory=dict)
    vars: str | None = None
    rescued: dict[str, str] | None = None
    reason: str = ""
    title: str = ""


ODD_OBJECTS: tuple[OddRow, ...] = (
    OddRow("an unknown name", b'{"Surprise": 1}', vars='{"Surprise":1}'),
    OddRow("a name in another case", b'{"userid":1,"UserId":2}', {"UserId": "2"}, '{"userid":1}'),
    OddRow(
        "custom names that differ in case only",
        b'{"evt_a_str":"x","evt_A_str":"y"}',
        vars='{"evt_A_str":"y","evt_a_str":"x"}',
    ),
    OddRow("a name that a column of the table has", b'{"vars":1,"_rescued":2}', vars='{"_rescued":2,"vars":1}'),
    OddRow("no fields", b"{}"),
    OddRow("null", b'{"UserId":null,"evt_note_str":null,"evt_x":null}'),
    OddRow("an empty string", b'{"PageName":"","evt_x_str":""}', {"PageName": ""}, '{"evt_x_str":""}'),
    OddRow("an integer in quotes", b'{"UserId":"12"}', {"UserId": "12"}),
    OddRow("1.6 in an integer column", b'{"UserId":1.6}', rescued={"UserId": "1.6"}),
    OddRow("1.0 in an integer column", b'{"UserId":1.0}', rescued={"UserId": "1.0"}),
    OddRow("1e3 in an integer column", b'{"UserId":1e3}', rescued={"UserId": "1e3"}),
    OddRow("-0 in an integer column", b'{"UserId":-0}', rescued={"UserId": "-0"}),
    OddRow("true in an integer column", b'{"UserId":true}', rescued={"UserId": "true"}),
    OddRow("a word in an integer column", b'{"UserId":"x"}', rescued={"UserId": "x"}),
    OddRow("an empty string in an integer column", b'{"UserId":""}', rescued={"UserId": ""}),
    OddRow("a list in an integer column", b'{"UserId":[ 1, 2.50 ]}', rescued={"UserId": "[1,2.50]"}),
    OddRow("2^53 + 1", b'{"UserId":9007199254740993}', {"UserId": "9007199254740993"}),
    OddRow("2^63 - 1", b'{"UserId":9223372036854775807}', {"UserId": "9223372036854775807"}),
    OddRow("-2^63", b'{"UserId":-9223372036854775808}', {"UserId": "-9223372036854775808"}),
    OddRow("2^63", b'{"UserId":9223372036854775808}', rescued={"UserId": "9223372036854775808"}),
    OddRow("2^64", b'{"UserId":18446744073709551616}', rescued={"UserId": "18446744073709551616"}),
    OddRow("2^64 in a custom variable", b'{"evt_x":18446744073709551616}', vars='{"evt_x":18446744073709551616}'),
    OddRow(
        "numbers that are not written in the shortest way",
        b'{"evt_a_real":1.50,"evt_b_real":1e5,"evt_c_real":0.1234567890123456789012345,"evt_d":-0}',
        vars='{"evt_a_real":1.50,"evt_b_real":1e5,"evt_c_real":0.1234567890123456789012345,"evt_d":-0}',
    ),
    OddRow("1.50 in a text column", b'{"PageName":1.50}', {"PageName": "1.50"}),
    OddRow(
        "an object in a text column",
        b'{"PageName": {"b": 1.50, "a": "\\u00e9\\/", "b": null}}',
        {"PageName": '{"b":1.50,"a":"\u00e9/","b":null}'},
    ),
    OddRow("1.50 in a real column", b'{"evt_price_real":1.50}', {"evt_price_real": "1.5"}),
    OddRow(
        "20 digits in a real column",
        b'{"evt_price_real":0.12345678901234567890}',
        rescued={"evt_price_real": "0.12345678901234567890"},
    ),
    OddRow("1e400 in a real column", b'{"evt_price_real":1e400}', rescued={"evt_price_real": "1e400"}),
    OddRow("1e-400 in a real column", b'{"evt_price_real":1e-400}', rescued={"evt_price_real": "1e-400"}),
    OddRow(
        "NaN and Infinity",
        b'{"evt_price_real":NaN,"PageName":-Infinity,"evt_x":[1,Infinity]}',
        rescued={"PageName": "-Infinity", "evt_price_real": "NaN", "evt_x": "[1,Infinity]"},
    ),
    OddRow("a word in a column of true and false", b'{"evt_is_new_bool":1}', rescued={"evt_is_new_bool": "1"}),
    OddRow("true in quotes", b'{"evt_is_new_bool":"true"}', {"evt_is_new_bool": "true"}),
    OddRow("a list in a JSON column", b'{"evt_tags_strs":["a", 1.0]}', {"evt_tags_strs": '["a",1.0]'}),
    OddRow("a string in a JSON column", b'{"evt_tags_strs":"a"}', {"evt_tags_strs": '"a"'}),
    OddRow(
        "a time in microseconds",
        b'{"EventStart":"2026-01-01T00:00:00.123456Z"}',
        {"EventStart": "2026-01-01T00:00:00.123456Z"},
    ),
    OddRow(
        "a time in nanoseconds",
        b'{"EventStart":"2026-01-01T00:00:00.123456789Z"}',
        rescued={"EventStart": "2026-01-01T00:00:00.123456789Z"},
    ),
    OddRow(
        "a time with nine digits, of which three are zeros",
        b'{"EventStart":"2026-01-01T00:00:00.123456000Z"}',
        {"EventStart": "2026-01-01T00:00:00.123456Z"},
    ),
    OddRow(
        "an offset other than Z",
        b'{"EventStart":"2026-01-01T01:30:00.5+02:00"}',
        {"EventStart": "2025-12-31T23:30:00.5Z"},
    ),
    OddRow(
        "a time without offset", b'{"EventStart":"2026-01-01T00:00:00"}', rescued={"EventStart": "2026-01-01T00:00:00"}
    ),
    OddRow("a leap second", b'{"EventStart":"2026-12-31T23:59:60Z"}', rescued={"EventStart": "2026-12-31T23:59:60Z"}),
    OddRow(
        "a day that does not exist",
        b'{"EventStart":"2026-02-30T00:00:00Z"}',
        rescued={"EventStart": "2026-02-30T00:00:00Z"},
    ),
    OddRow("the year 0", b'{"EventStart":"0000-01-01T00:00:00Z"}', rescued={"EventStart": "0000-01-01T00:00:00Z"}),
    OddRow("24 o'clock", b'{"EventStart":"2026-01-01T24:00:00Z"}', rescued={"EventStart": "2026-01-01T24:00:00Z"}),
    OddRow("a number in a time column", b'{"EventStart":1767225600}', rescued={"EventStart": "1767225600"}),
    OddRow("a name twice", b'{"UserId":1,"UserId":2}', {"UserId": "2"}, rescued={"UserId#1": "1"}),
    OddRow(
        "a custom name three times, and a field called like that",
        b'{"evt_x":1,"evt_x":"b","evt_x#1":"c","evt_x":3}',
        vars='{"evt_x":3,"evt_x#1":"c"}',
        rescued={"evt_x#2": "1", "evt_x#3": "b"},
    ),
    OddRow("a name twice, then null", b'{"UserId":1,"UserId":null}', rescued={"UserId#1": "1"}),
    OddRow("null, then a value", b'{"UserId":null,"UserId":2}', {"UserId": "2"}),
    OddRow(
        "a name twice, spelt in two ways", b'{"UserId":1,"\\u0055serId":2}', {"UserId": "2"}, rescued={"UserId#1": "1"}
    ),
    OddRow(
        "half of a surrogate pair",
        b'{"PageName":"a\\ud800b","evt_x":["\\uDC00"]}',
        {"PageName": "a\ufffdb"},
        '{"evt_x":["\ufffd"]}',
        {"PageName": '"a\\ud800b"', "evt_x": '["\\uDC00"]'},
    ),
    OddRow("both halves of a surrogate pair", b'{"PageName":"\\ud83d\\ude00"}', {"PageName": "\U0001f600"}),
    OddRow(
        "bytes that are not UTF-8",
        b'{"PageName":"caf\xe9 \\\\xe9"}',
        {"PageName": "caf\ufffd \\xe9"},
        rescued={"PageName": '"caf\\xe9 \\\\xe9"'},
        title='{"PageName":"caf\\xe9"}, a byte',
    ),
    OddRow(
        "a name that is not UTF-8",
        b'{"evt_\xff":1}',
        vars='{"evt_\ufffd":1}',
        rescued={"evt_\ufffd": '"evt_\\xff":1'},
        title='{"evt_\\xff":1}, a byte',
    ),
    OddRow("U+0000", b'{"PageName":"a\\u0000b"}', {"PageName": "a\0b"}),
    OddRow(
        "control characters",
        b'{"PageName":"a\tb","evt_x":"a\tb\\u001F"}',
        {"PageName": "a\tb"},
        '{"evt_x":"a\\tb\\u001F"}',
        title='{"PageName":"a⇥b"}, a tab',
    ),
    OddRow(
        "126 lists in each other",
        b'{"evt_x":%b}' % JUST_HELD.encode(),
        vars=f'{{"evt_x":{JUST_HELD}}}',
        title="126 lists in each other",
    ),
    OddRow(
        "127 lists in each other",
        b'{"evt_x":[%b]}' % JUST_HELD.encode(),
        rescued={"evt_x": f"[{JUST_HELD}]"},
        title="127 lists in each other",
    ),
    OddRow(
        "100,000 lists in each other",
        b'{"PageName":%b}' % DEEP.encode(),
        rescued={"PageName": DEEP},
        title="100,000 lists in each other",
    ),
    OddRow(
        "a text of 17 MiB",
        b'{"PageName":"%b"}' % (b"x" * (17 << 20)),
        {"PageName": "x" * (17 << 20)},
        title="a text of 17 MiB",
    ),
    OddRow("white space around it", b' \t{ "UserId" : 1 } \r', {"UserId": "1"}),
    OddRow("a form feed after it", b'{"UserId":1}\f', {"UserId": "1"}, title='{"UserId":1} and a form feed'),
    OddRow("a word that is not JSON", b'{"UserId":nan}', reason="the row is not valid JSON, at character 11"),
    OddRow("a cut row", b'{"UserId":1,"PageName":"ab', reason="the row ends before its object does"),
    OddRow("a comma too many", b'{"UserId":1,}', reason="the row is not valid JSON, at character 13"),
    OddRow("something after it", b'{"UserId":1} x', reason="the row has something after its object, at character 13"),
    OddRow(
        "two objects on a line",
        b'{"UserId":1}{"UserId":2}',
        reason="the row has something after its object, at character 13",
    ),
    OddRow("no object", b"[1]", reason="the row is not a JSON object"),
)
"""Rows of NDJSON."""


@dataclass(frozen=True, slots=True)
class OddFile:
    """A CSV file, and what becomes of its records.

    Attributes:
        says: What is odd about it.
        content: The file.
        rows: The canonical rows, without `_archive` and `_key`; a text is the reason why a record is quarantined.
        title: How a table shows the file, if it is long or not text.
    """

    says: str
    content: bytes
    rows: tuple[dict[str, object] | str, ...]
    title: str = ""


ODD_FILES: tuple[OddFile, ...] = (
    OddFile(
        "columns in another order",
        b"PageName,evt_x_int,UserId\nHome,5,12\n",
        ({"PageName": "Home", "UserId": "12", "vars": '{"evt_x_int":"5"}'},),
    ),
    OddFile(
        "CRLF",
        b"UserId,PageName\r\n1,a\r\n2,b\r\n",
        ({"UserId": "1", "PageName": "a"}, {"UserId": "2", "PageName": "b"}),
    ),
    OddFile("empty values", b'UserId,PageName\n1,\n,""\n', ({"UserId": "1"}, {})),
    OddFile(
        "quotes, commas and line breaks in a value",
        b'UserId,PageName\n1,"a ""b"", c\r\nd"\n',
        ({"UserId": "1", "PageName": 'a "b", c\r\nd'},),
    ),
    OddFile("a quote within a value", b'UserId,PageName\n1,x"y"z\n', ({"UserId": "1", "PageName": 'x"y"z'},)),
    OddFile(
        "too few and too many values",
        b"UserId,PageName\n1\n2,b,c\n3,d\n",
        (
            "the record has 1 values, the header 2",
            "the record has 3 values, the header 2",
            {"UserId": "3", "PageName": "d"},
        ),
    ),
    OddFile(
        "something after a closing quote",
        b'UserId,PageName\n1,"a"b\n2,c\n',
        ("the record is not valid CSV, at character 6", {"UserId": "2", "PageName": "c"}),
    ),
    OddFile(
        "a quote that is not closed",
        b'UserId,PageName\n1,a"b,"c\n2,d\n',
        ("the record is not valid CSV: a quote is not closed, at character 7", {"UserId": "2", "PageName": "d"}),
    ),
    OddFile(
        "a name twice",
        b"UserId,PageName,PageName\n1,a,b\n2,c,\n",
        (
            {"UserId": "1", "PageName": "b", "_rescued": {"PageName#1": "a"}},
            {"UserId": "2", "PageName": "c"},
        ),
    ),
    OddFile(
        "bytes that are not UTF-8",
        b"PageName,evt_\xff\ncaf\xe9,\nx,y\n",
        (
            {"PageName": "caf\ufffd", "_rescued": {"PageName": '"caf\\xe9"'}},
            {"PageName": "x", "vars": '{"evt_\ufffd":"y"}', "_rescued": {"evt_\ufffd": '"evt_\\xff":"y"'}},
        ),
        title="PageName⏎caf\\xe9, a byte",
    ),
    OddFile(
        "a value of 3 MiB",
        b"PageName\n%b\n" % (b"x" * (3 << 20)),
        ({"PageName": "x" * (3 << 20)},),
        title="a value of 3 MiB",
    ),
    OddFile("blank lines", b"\nUserId\n\n1\n\r\n2", ({"UserId": "1"}, {"UserId": "2"})),
    OddFile("a header alone", b"UserId,PageName\n", ()),
    OddFile("no content", b"", ()),
    OddFile(
        "a header that is not CSV",
        b'UserId,"a"b\n1,2\n3,4\n',
        ("the header of the file cannot be read: the record is not valid CSV, at character 11",) * 2,
    ),
)
"""Files of CSV."""
