"""Properties of the exact reading: no row is lost, and no value is changed, for any input."""

import csv
import gzip
import io
import json
import random
import re
import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, example, given, reject
from hypothesis import strategies as st

from asyncexport.core.archive.inspection import Inspector
from asyncexport.core.exports import Format
from asyncexport.core.warehouse.csv_records import long_values_of, values_of
from asyncexport.core.warehouse.json_text import plain_cells
from asyncexport.core.warehouse.odd_json import NotARowError, members
from asyncexport.core.warehouse.raw_rows import RAW_ROWS, RawRow
from asyncexport.core.warehouse.rows import CanonicalRows
from asyncexport.errors import CorruptError
from tests.exact_reading import ARCHIVE, read_archive, read_content
from tests.odd_rows import LAYOUT

COLUMNS = [column.name for column in LAYOUT.fields]
NAMES = st.sampled_from(
    [*COLUMNS[:6], *COLUMNS[-6:], "evt_x", "evt_X", "userid", "", "vars", "_rescued", 'a"\\', "é🎈"]
)
CHARACTERS = st.text(st.sampled_from('[]{}",:\\\n\r\t é🎈\u2028\0\x1f\x7fax1#'), max_size=12)
NUMBERS = st.sampled_from(
    ["0", "-0", "1.50", "1e5", "1E-7", "9223372036854775808", "12", "0.1", "1e400", "-1.0", "3" * 25]
)
SCALARS = CHARACTERS.map(json.dumps) | NUMBERS | st.sampled_from(["true", "false", "null", '"2026-01-01T00:00:00Z"'])
BLANKS = st.sampled_from(["", "", " ", "\t ", "\r"])


def _list(inner: list[str], blank: str) -> str:
    return f"[{blank}{f'{blank},'.join(inner)}{blank}]"


def _object(inner: list[tuple[str, str]], blank: str) -> str:
    written = [
        f"{blank}{json.dumps(name, ensure_ascii=len(blank) == 0)}{blank}:{blank}{text}{blank}" for name, text in inner
    ]
    return f"{{{','.join(written)}{blank}}}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.builds(_list, st.lists(inner, max_size=3), BLANKS)
        | st.builds(_object, st.lists(st.tuples(CHARACTERS, inner), max_size=3), BLANKS)
    ),
    max_leaves=6,
)
MEMBERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
OBJECTS = st.builds(_object, MEMBERS, BLANKS)
ALPHABET = '[]{}",:\\\n\r\t é1tn'
NOISE = st.text(st.sampled_from(ALPHABET), max_size=6)
CUTS = st.lists(st.integers(0, 300), max_size=6)


@st.composite
def contents(draw: st.DrawFn, container: Format) -> bytes:
    """Make the content of a file that is complete, or nearly."""
    records = st.lists(
        st.sampled_from(["1", "", '"a"', '"a\n""b"', "x", 'x"y"', '"a"b', '"\r\n,"']), min_size=1, max_size=3
    )
    rows = draw(st.lists(OBJECTS if container is not Format.CSV else records.map(",".join), max_size=5))
    if container is Format.JSON:
        text = "[" + draw(st.sampled_from([",", " ,\n"])).join(rows) + "]"
    else:
        end = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\n \n"]))
        text = end.join(["UserId,PageName", *rows] if container is Format.CSV else rows) + draw(
            st.sampled_from(["", end])
        )
    for at in draw(st.lists(st.integers(0, len(text)), max_size=2)):
        text = text[:at] + draw(NOISE) + text[at:]
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.encode()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return the bytes in pieces."""
    places = [0, *sorted(min(place, len(data)) for place in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("container", Format)
@given(data=st.data())
def test_as_many_rows_as_the_check_of_the_archive_counts(container, data):
    """Rows and quarantined rows add up to the number in the ledger, for every archive that was accepted."""
    archive = gzip.compress(data.draw(contents(container)), 1)
    inspector = Inspector(container)
    try:
        inspector.feed(archive)
        rows = inspector.close().archive.rows
    except CorruptError:
        assume(False)
    count, _, _ = read_archive(archive, container)
    assert count.rows + count.quarantined == rows


@pytest.mark.parametrize("container", Format)
@given(data=st.data(), cuts=CUTS, max_row=st.sampled_from([5, 20, 10_000]))
@example(data=None, cuts=[], max_row=10_000)
def test_the_rows_do_not_depend_on_the_pieces(container, data, cuts, max_row):
    """Pieces may be cut anywhere, within an escape and within a character too."""
    content = b'[{"a":"\\\\\\"}"},\n{}]' if data is None else data.draw(contents(container))

    def found(parts: list[bytes]) -> list[RawRow]:
        rows = RAW_ROWS[container](max_row)
        return [row for part in parts for row in rows.feed(part)] + list(rows.close())

    whole = found([content])
    assert found(pieces(content, cuts)) == whole
    assert found(pieces(content, list(range(len(content))))) == whole


def parsed(row: str) -> list[tuple[str, str]]:
    """Return the members of a row by another parser: their names, and the texts of their values."""

    def written(value: Any) -> str:
        match value:
            case tuple():
                return str(value[0])
            case dict():
                return "{" + ",".join(f"{written(name)}:{written(inner)}" for name, inner in value["pairs"]) + "}"
            case list():
                return "[" + ",".join(map(written, value)) + "]"
            case str():
                text = json.dumps(value, ensure_ascii=False)
                return re.sub(r"(?<!\\)((?:\\\\)*)\\u00(..)", lambda found: f"{found[1]}\\u00{found[2].upper()}", text)
            case _:
                return json.dumps(value)

    pairs = json.loads(
        row,
        strict=False,
        object_pairs_hook=lambda pairs: {"pairs": pairs},
        parse_int=lambda text: (text,),
        parse_float=lambda text: (text,),
    )["pairs"]
    return [(name, value if isinstance(value, str) else written(value)) for name, value in pairs if value is not None]


@given(st.lists(OBJECTS, min_size=1, max_size=4), st.sampled_from([Format.NDJSON, Format.JSON]))
def test_each_value_of_a_row_is_in_exactly_one_place(rows, container):
    """Columns, `vars` and `_rescued` together hold the row: every name with every value, as it is written."""
    rows = [row.replace("\n", " ") for row in rows]
    content = "\n".join(rows) if container is Format.NDJSON else "[" + ",\n".join(rows) + "]"
    found, quarantined = read_content(content.encode(), container)
    assert not quarantined
    for row, one in zip(rows, found, strict=True):
        expected = parsed(row)
        rescued = one.pop("_rescued", {})
        others = parsed(one.pop("vars", "{}"))
        assert [name for name, _ in others] == sorted({name for name, _ in others})
        texts = Counter(others) + Counter((name.partition("#")[0], text) for name, text in rescued.items())
        texts += Counter(
            (
                name,
                next(text for key, text in reversed(expected) if key == name) if _means(name, expected, one) else "?",
            )
            for name in one
        )
        assert texts == Counter(expected)


def _means(name: str, expected: list[tuple[str, str]], row: dict[str, str]) -> bool:
    """Whether a column holds the last value of its name: the same text, or another text of the same JSON or number."""
    text = next(text for key, text in reversed(expected) if key == name)
    if text == row[name] or (name == "evt_tags_strs" and json.loads(row[name]) == text):
        return True
    return name == "evt_price_real" and float(text) == float(row[name])


@given(OBJECTS)
def test_both_ways_of_reading_json_agree(row):
    """A plain row gives the same canonical row when it is scanned as if it were odd."""
    cells = plain_cells(row.encode())
    if cells is None:
        reject()
    canonical = CanonicalRows(LAYOUT, archive=ARCHIVE, has_key=True)
    assert canonical.plain(cells) == canonical.odd(members(row.encode()))


@given(OBJECTS, st.lists(st.tuples(st.integers(0, 99), NOISE), max_size=2))
@example("{}", [(2, "{}")])
@example('{"a":"\\x"}', [])
@example('{"a":01}', [])
def test_whatever_is_json_is_a_row(row, noise):
    """A row is read if it is one JSON object, and else quarantined."""
    for at, text in noise:
        row = row[:at] + text + row[at:]
    try:
        is_row = isinstance(json.loads(row, strict=False), dict)
    except ValueError:
        is_row = False
    try:
        members(row.encode())
    except NotARowError:
        assert not is_row
        assert plain_cells(row.encode()) is None
    else:
        assert is_row


@given(st.binary(max_size=12), st.text(st.sampled_from('"\\ud89abcDC0')), st.booleans())
def test_invalid_unicode_can_be_recovered(junk, escapes, is_name):
    """The bytes of a value that is not valid Unicode come back from `_rescued`."""
    string = b'"' + re.sub(rb'["\\]', b"", junk) + b'"'
    if not is_name:
        string = string[:-1] + re.sub(r'"|\\(?!u[0-9a-fA-F]{4})', "", escapes).encode() + b'"'
    row = b'{"a":' + string + b"}" if not is_name else b'{"a' + string[1:] + b":1}"
    found = list(members(row))
    assert len(found) == 1
    rescued = found[0].rescued
    if rescued is None:
        assert json.loads(row, strict=False) == {found[0].name: found[0].text if not is_name else 1}
    else:
        assert "\ufffd" in (found[0].name if is_name else found[0].text or "")
        back = re.sub(rb"\\x(..)", lambda byte: bytes.fromhex(byte[1].decode()), rescued.encode())
        assert back == row[1:-1] if is_name else row[5:-1]


RECORDS = st.text(st.sampled_from('",\r\n\\ aé\0'), max_size=10)


@given(RECORDS)
@example("")
@example("a\r\r")
def test_long_values_of_csv_are_read_like_short_ones(record):
    """The reader for values that the library refuses because of their length agrees with the library."""
    assume(record.rstrip("\r\n") and not record.rstrip("\r").endswith("\n"))

    def outcome(read: Any) -> object:
        try:
            return read(record.rstrip("\r"))
        except (NotARowError, csv.Error):
            return None

    library = outcome(lambda text: next(csv.reader([text], strict=True)))
    assert outcome(values_of) == library
    assert outcome(long_values_of) == library


@given(st.lists(st.lists(CHARACTERS, min_size=3, max_size=3), max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_comes_back(values, end):
    """Every value that is not empty is in its column or in `vars`, under the name in the header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["evt_x", "PageName", "EventType"], *values])
    rows, quarantined = read_content(text.getvalue().encode(), Format.CSV)
    assert not quarantined
    found = [
        (json.loads(row.get("vars", '{"evt_x":""}'))["evt_x"], row.get("PageName", ""), row.get("EventType", ""))
        for row in rows
    ]
    assert found == list(map(tuple, values))


@pytest.mark.parametrize(
    "value",
    [
        b"[%b1]" % (b"1," * 150_000),
        b'"%b"' % (b"\\n" * 150_000),
        b'"%b"' % (b"\x01" * 300_000),
        b"[" * 150_000 + b"]" * 150_000,
        b"[%b1" % (b"{}," * 100_000),
    ],
    ids=["numbers", "escapes", "control characters", "brackets", "cut"],
)
def test_a_long_row_takes_a_few_times_its_length(value):
    """However a row is made up, the memory for it is bounded by a multiple of its length, or of that of its result."""
    archive = gzip.compress(b'{"evt_x":' + value + b"}", 1)
    tracemalloc.start()
    try:
        count, lines, _ = read_archive(archive, Format.NDJSON)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count.rows + count.quarantined == 1
    assert peak < 16 * max(map(len, [value, *lines])) + (8 << 20)


def test_random_bytes_never_stop_the_reader():
    """Whatever the content is, it is rows or quarantined rows."""
    chance = random.Random(5)
    for _ in range(300):
        content = chance.randbytes(chance.randrange(60)).replace(b"a", b'"').replace(b"b", b"{").replace(b"c", b"\n")
        for container in Format:
            read_content(content, container)
