"""The rows in an archive are counted and checked as a complete parser would do it."""

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncexport.core.archive.json_array import DEEPEST, SLICE_BYTES
from asyncexport.core.archive.structure import STRUCTURES
from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError, NoExportError

BRACKETS_AND_QUOTES = '[]{}",:\\\n\r\t é🎈\u2028x1'
TEXTS = st.text(st.sampled_from(BRACKETS_AND_QUOTES), max_size=12)
SCALARS = TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=6)
CUTS = st.lists(st.integers(0, 400), max_size=6)

BALLOON = json.dumps({"text": '\\"}],{"a":[\n', "more": {"b": [{}, "]"]}}, ensure_ascii=False)


def rows_in(form: Format, pieces: Iterable[bytes]) -> int:
    """Return the number of rows that the structure counts."""
    structure = STRUCTURES[form]()
    for piece in pieces:
        structure.feed(piece)
    return structure.close()


def cut(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Return the bytes in pieces."""
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def refused(form: Format, data: bytes) -> str:
    """Return why the data is refused, which must not depend on whether it arrives in one piece or byte by byte."""
    with pytest.raises(CorruptError) as whole:
        rows_in(form, [data])
    with pytest.raises(CorruptError) as bytewise:
        rows_in(form, cut(data, range(len(data))))
    assert str(whole.value) == str(bytewise.value)
    return str(whole.value)


def is_refused(form: Format, data: bytes) -> bool:
    """Whether the data is refused."""
    try:
        rows_in(form, [data])
    except CorruptError:
        return True
    return False


# All formats


@pytest.mark.parametrize("form", Format)
def test_no_bytes_have_no_rows(form):
    """A file without a byte is a complete, empty export."""
    assert rows_in(form, []) == 0
    assert rows_in(form, [b""]) == 0


@pytest.mark.parametrize("form", Format)
def test_a_web_page_is_not_an_export(form):
    """A page of a proxy is refused in every format."""
    refused(form, b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n")


MIB = 1 << 20
LONG_ROWS = {
    "ndjson": (Format.NDJSON, b'{"a":1}\n{"a":"', b"x", b'"}\n{"a":2}\n', 3),
    "ndjson, brackets": (Format.NDJSON, b'{"a":[', b"[],", b"[]]}", 1),
    "ndjson, escapes": (Format.NDJSON, b'{"a":"', b'\\\\\\"', b'"}', 1),
    "ndjson, blanks": (Format.NDJSON, b'{"a":1}\n', b" ", b'{"a":2}', 2),
    "ndjson, newlines": (Format.NDJSON, b"{}\n", b"\n", b"", 1),
    "json": (Format.JSON, b'[{"a":"', b"x", b'"},{"a":2}]', 2),
    "json, brackets": (Format.JSON, b'[{"a":[', b"[{}],", b'[]]},{"a":"]"}]', 2),
    "json, quotes": (Format.JSON, b'[{"a":[', b'"[",', b'""]}]', 1),
    "json, blanks": (Format.JSON, b"[{},", b" ", b"{}]", 2),
    "csv": (Format.CSV, b"a,b\n1,", b"x", b"\n3,4\n", 2),
    "csv, quotes": (Format.CSV, b"a,b\n", b'""', b"", 1),
    "csv, newlines": (Format.CSV, b"a,b\n1,2\n", b"\n", b"", 1),
    "csv, line ends": (Format.CSV, b"a,b\n1,2\n\r", b"\n\r", b"\n", 1),
    "csv, line ends above the header": (Format.CSV, b"\n\r", b"\n\r", b"\na,b\n", 0),
    "csv, newlines in quotes": (Format.CSV, b'a,b\n"', b"\n", b'",2\n', 1),
}


@pytest.mark.parametrize("case", LONG_ROWS)
def test_a_long_row_is_counted_without_being_held(case):
    """Rows of any length are counted, and memory does not grow with them."""
    form, start, unit, end, rows = LONG_ROWS[case]
    structure = STRUCTURES[form](max_row=2 * MIB)
    middle = unit * (MIB // len(unit))
    tracemalloc.start()
    try:
        structure.feed(start)
        for _ in range(4):
            structure.feed(middle)
        structure.feed(end)
        assert structure.close() == rows
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert structure.long_rows == (0 if re.search(r"blanks|newlines$|line ends", case) else 1)
    assert peak < 48 * MIB


@pytest.mark.parametrize(
    "case", ["ndjson", "ndjson, brackets", "ndjson, escapes", "json", "json, brackets", "json, quotes"]
)
def test_a_long_row_that_is_cut_is_refused(case):
    """A long row that stops in the middle is refused, although it is not parsed."""
    form, start, unit, _, _ = LONG_ROWS[case]
    with pytest.raises(CorruptError, match="stops in the middle"):
        rows_in(form, [start, *[unit * (MIB // len(unit))] * 3])


@pytest.mark.parametrize("depth", [10, DEEPEST - 3, DEEPEST + 5, 300_000])
@pytest.mark.parametrize("kinds", [b"[", b"[{"])
def test_deeply_nested_json_is_checked(depth, kinds):
    """JSON of any depth is accepted if its brackets match, and is refused if it is cut or closed wrongly."""
    opening = (kinds * depth)[:depth]
    closing = opening[::-1].translate(bytes.maketrans(b"[{", b"]}"))
    assert rows_in(Format.JSON, [b'[{"a":' + opening + closing + b"},{}]"]) == 2
    assert rows_in(Format.JSON, [b'[{"a":' + b'"' + b"x" * 100_000 + b'"' + opening + closing + b"},{}]"]) == 2
    with pytest.raises(CorruptError, match="stops in the middle"):
        rows_in(Format.JSON, [b'[{"a":' + opening + closing[:-1]])
    with pytest.raises(CorruptError, match="mismatched brackets"):
        rows_in(Format.JSON, [b'[{"a":' + b'"' + b"x" * 100_000 + b'"' + opening + closing[:-2] + b"}" * 2])


@given(
    row=st.lists(st.sampled_from([b"[]", b"{}", b"[", b"]", b"{", b"}", b'"[{"', b",", b'"\\""']), max_size=40),
    cuts=CUTS,
)
def test_a_long_row_gets_the_same_verdict_as_a_short_one(row, cuts):
    """The verdict on brackets does not change if the row before them is too long to be held."""
    text = b"".join(row)
    padding = b'"' + b"x" * SLICE_BYTES + b'"'

    def verdict(pieces: Iterable[bytes]) -> int | str:
        try:
            return rows_in(Format.JSON, pieces)
        except CorruptError as error:
            return str(error)

    assert verdict([b'[{"a":', padding, *cut(text, cuts), b"}]"]) == verdict([b'[{"a":', *cut(text, cuts), b"}]"])


@pytest.mark.parametrize("form", Format)
@given(data=st.text(BRACKETS_AND_QUOTES, max_size=30).map(str.encode), cuts=CUTS)
def test_the_verdict_does_not_depend_on_the_pieces(form, data, cuts):
    """Valid or not, data gets the same verdict in whatever pieces it arrives."""

    def verdict(pieces: list[bytes]) -> int | str:
        try:
            return rows_in(form, pieces)
        except CorruptError as error:
            return str(error)

    assert verdict(cut(data, cuts)) == verdict([data]) == verdict(cut(data, range(len(data))))


# NDJSON


@given(rows=ROWS, cuts=CUTS, data=st.data())
def test_ndjson_rows_are_counted_as_by_a_parser(rows, cuts, data):
    """One row is counted for each object, with any line ends, blank lines, and with or without a last newline."""
    text = "".join(
        data.draw(st.sampled_from(["", "\n", "\r\n", " \t\n"]))
        + json.dumps(row)
        + data.draw(st.sampled_from(["\n", "\r\n"]))
        for row in rows
    )
    if data.draw(st.booleans()):
        text = text.rstrip()
    found = [json.loads(line) for line in text.split("\n") if line.strip()]
    assert rows_in(Format.NDJSON, cut(text.encode(), cuts)) == len(found) == len(rows)


@pytest.mark.parametrize("text", ["\n", "\r\n\r\n", "  \n\t\n", " "])
def test_blank_lines_are_not_rows(text):
    """A file of blank lines is an empty export."""
    assert rows_in(Format.NDJSON, [text.encode()]) == 0


def test_a_carriage_return_within_a_row_does_not_end_it():
    """A carriage return between tokens is whitespace and does not split a row."""
    assert rows_in(Format.NDJSON, [b'{"a":\r1}\n{"a":\r2}']) == 2


def test_ndjson_cut_within_a_line_is_refused():
    """A cut is detected everywhere except right after a row, where only complete rows are left."""
    text = f'{{"a":1}}\n{BALLOON}\n'.encode()
    complete = {0: 0, 7: 1, 8: 1, len(text) - 1: 2, len(text): 2}
    for end in range(len(text) + 1):
        if end in complete:
            assert rows_in(Format.NDJSON, [text[:end]]) == complete[end]
        else:
            assert "stops in the middle of a row" in refused(Format.NDJSON, text[:end])


@pytest.mark.parametrize("row", ['{"a":"\ud800"}', '{"a":NaN}', '{"a":"\t"}', '{"a":' + "[" * 100 + "]" * 100 + "}"])
def test_a_last_line_that_is_not_quite_json_is_accepted(row):
    """Small faults that the service lets through are accepted: half a character, NaN, a raw tab, deep nesting."""
    assert rows_in(Format.NDJSON, [row.encode("utf-8", "surrogatepass")]) == 1


@pytest.mark.parametrize("line", [b"[1]", b"null", b"error: out of memory", b"<Error/>", b'"text"', b"}"])
@pytest.mark.parametrize("place", ["first", "middle", "last", "open"])
def test_a_line_that_is_not_an_object_is_refused_anywhere(line, place):
    """A line that is not an object, such as an error message within the file, is refused at any place."""
    row = b'{"a":1}\n'
    text = {
        "first": line + b"\n" + row,
        "middle": row + line + b"\n" + row,
        "last": row + line + b"\n",
        "open": row + line,
    }
    assert "not an object" in refused(Format.NDJSON, text[place])


# JSON


@given(rows=ROWS, cuts=CUTS, indent=st.sampled_from([None, 0, 1]), ascii=st.booleans())
def test_json_rows_are_counted_as_by_a_parser(rows, cuts, indent, ascii):  # noqa: A002 - json's word
    """Nested objects, and brackets and quotes in strings, do not count as rows."""
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii).encode()
    assert rows_in(Format.JSON, cut(text, cuts)) == len(rows)


def test_every_strict_prefix_of_an_array_is_refused():
    """An array that is cut at any byte after its first is refused."""
    text = f'[{{"a":1}},\n {BALLOON} , {{}}]'.encode()
    assert rows_in(Format.JSON, [text]) == 3
    for end in range(1, len(text)):
        assert "stops in the middle" in refused(Format.JSON, text[:end])


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1}',
        b"[1]",
        b'["a"]',
        b"[[]]",
        b"[{},]",
        b"[,{}]",
        b"[{} {}]",
        b'[{}"a",{}]',
        b"[]]",
        b"[{}]x",
        b"[{}][{}]",
        b"x[{}]",
        b"null",
        b'[{"a":[}]',
        b'[{"a":]}]',
        b"}",
        b"[}",
        b"[{}}]",
        b"[{}]\\",
    ],
)
def test_anything_but_one_array_of_objects_is_refused(text):
    """Brackets must match, and nothing else may be before, between or after the rows."""
    refused(Format.JSON, text)


@pytest.mark.parametrize("text", [b"[]", b"[\n]\n", b" [ ] "])
def test_an_empty_array_has_no_rows(text):
    """An empty array is a complete export without rows."""
    assert rows_in(Format.JSON, [text]) == 0


@pytest.mark.parametrize("backslashes", range(8))
def test_backslashes_are_paired_wherever_they_are_cut(backslashes):
    """Whether a quote ends its string depends on the backslashes before it, even across two pieces."""
    text = json.dumps([{"a": "\\" * backslashes + '"}],[{'}, {"b": "\\" * backslashes}]).encode()
    for place in range(len(text)):
        assert rows_in(Format.JSON, cut(text, [place])) == 2
    assert rows_in(Format.JSON, cut(text, range(len(text)))) == 2


# CSV


@given(
    rows=st.lists(st.lists(st.text(st.sampled_from(',"\n\r ax'), max_size=6), min_size=2, max_size=2), max_size=6),
    cuts=CUTS,
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    closed=st.booleans(),
)
@example(rows=[['"', '""']], cuts=list(range(30)), ends="\r\n", quoting=csv.QUOTE_MINIMAL, closed=False)
def test_csv_records_are_counted_as_by_a_parser(rows, cuts, ends, quoting, closed):
    """Newlines, quotes and commas within quotes start neither records nor values."""
    out = io.StringIO(newline="")
    has_returns = any("\r" in value for row in rows for value in row)
    writer = csv.writer(out, lineterminator=ends, quoting=csv.QUOTE_ALL if has_returns else quoting)
    writer.writerows([["one", "two"], *rows])
    text = out.getvalue() if closed else out.getvalue().removesuffix(ends)
    found = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    assert rows_in(Format.CSV, cut(text.encode(), cuts)) == len(found) - 1 == len(rows)


def test_a_header_alone_has_no_rows():
    """A header alone is a complete export without rows, with or without a line end."""
    assert rows_in(Format.CSV, [b"a,b"]) == rows_in(Format.CSV, [b"a,b\n"]) == rows_in(Format.CSV, [b"a,b\r\n"]) == 0


def test_blank_lines_are_not_records():
    """Blank lines before the header, between records and at the end are not counted."""
    assert rows_in(Format.CSV, [b"\r\n\na,b\n\n1,2\r\n\r\n3,4\n\n"]) == 2


@pytest.mark.parametrize("blanks", [b"\n", b"\r\n", b"\n\r", b"\r\n\n", b"\r\r\n\n"])
@pytest.mark.parametrize("start", [b"a\n1\n", b""])
def test_very_many_blank_lines_are_skipped(start, blanks):
    """Many blank lines are skipped, even if a piece ends within a line end; an extra carriage return makes a record."""
    records = 1 if start else 0
    if blanks.startswith(b"\r\r"):
        records += 300_000 if start else 299_999
    assert rows_in(Format.CSV, [start, blanks * 300_000 + b"\n" * blanks.endswith(b"\r")]) == records


def test_one_column_of_short_values_is_counted():
    """A record that is a single character is counted."""
    assert rows_in(Format.CSV, [b"a\n1\n\n2\r\n3"]) == 3


def test_csv_cut_is_refused_where_it_can_be_detected():
    """A cut is detected within quotes and where the last record lacks a comma; elsewhere it cannot be seen."""
    text = b'one,two\n1,"a\n""b"",c"\n4,5\n'
    pieces = [text[:end] for end in range(len(text) + 1)]
    shows = [piece for piece in pieces if piece.count(b'"') % 2 or piece.endswith((b"\n1", b"\n4"))]
    assert [piece for piece in pieces if is_refused(Format.CSV, piece)] == shows


@pytest.mark.parametrize(
    "text", [b"a,b\n1,2\n3", b"a,b\n1,2\n3\n", b"a,b\n1,2\n3,4,5\n", b'a,b\n1,2\n"3,4"\n', b"a,b\n1\n\n"]
)
def test_a_last_record_of_another_width_is_refused(text):
    """A last record with fewer or more values than the header is refused."""
    assert "not as wide" in refused(Format.CSV, text)


@pytest.mark.parametrize("text", [b'{"a":1}\n{"a":2}\n', b'[{"a":1},{"a":2}]', b' {"error":"no"}'])
def test_json_is_not_csv(text):
    """JSON in place of CSV, such as an error, is not mistaken for a header."""
    assert "not CSV" in refused(Format.CSV, text)


@pytest.mark.parametrize(
    ("container", "data", "is_no_export"),
    [
        (Format.NDJSON, b"OK", True),
        (Format.NDJSON, b"\n\nOK\n", True),
        (Format.NDJSON, b'<?xml version="1.0"?><Error/>\n', True),
        (Format.NDJSON, b"[]\n", True),
        (Format.NDJSON, b'{"a":1}\nOK\n', False),
        (Format.NDJSON, b'{"a":1}\n{"a"', False),
        (Format.JSON, b'{"error":1}', True),
        (Format.JSON, b"OK", True),
        (Format.JSON, b'[{"a":1}', False),
        (Format.JSON, b"[1]", False),
        (Format.CSV, b"<html>", True),
        (Format.CSV, b'{"error":1}\n', True),
        (Format.CSV, b"a,b\n1\n", False),
    ],
)
def test_a_file_that_begins_as_another_kind_is_not_an_export(container, data, is_no_export):
    """A file that begins as something else, perhaps from a proxy, is no export; a fault further on is damage."""

    def read_to_its_end(size: int) -> None:
        structure = STRUCTURES[container]()
        for at in range(0, len(data), size):
            structure.feed(data[at : at + size])
        structure.close()

    for size in (1, 1 << 20):
        with pytest.raises(CorruptError) as caught:
            read_to_its_end(size)
        assert isinstance(caught.value, NoExportError) is is_no_export
