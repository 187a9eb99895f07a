"""The exact reading of archives, row by row: nothing is lost, whatever a row holds."""

import gzip
import hashlib
import json
import zlib
from base64 import b64decode

import pytest

from asyncexport.core.exports import Format, Type
from asyncexport.core.warehouse.columns import EVENT_KEY, Layout
from asyncexport.core.warehouse.raw_rows import HEAD_BYTES
from asyncexport.errors import ChangedArchiveError
from asyncexport.sandbox.data import SandboxSyntheticRows
from asyncexport.sandbox.formats import render
from tests.exact_reading import ARCHIVE, read_archive, read_content
from tests.odd_rows import LAYOUT, ODD_FILES, ODD_OBJECTS, OddFile, OddRow


def expected(odd: OddRow) -> dict[str, object]:
    """Return the canonical row of an odd one."""
    row: dict[str, object] = dict(odd.columns)
    if odd.vars is not None:
        row["vars"] = odd.vars
    if odd.rescued is not None:
        row["_rescued"] = odd.rescued
    return row


@pytest.mark.parametrize("odd", ODD_OBJECTS, ids=[odd.says for odd in ODD_OBJECTS])
def test_odd_rows_of_ndjson(odd):
    """Each odd row becomes what the table says, and the rows around it are as they were."""
    rows, quarantined = read_content(b'{"UserId":1}\n' + odd.row + b'\n{"UserId":3}\n', Format.NDJSON)
    assert rows == [{"UserId": "1"}, *([] if odd.reason else [expected(odd)]), {"UserId": "3"}]
    assert [(line.reason, line.data, line.row, line.line) for line in quarantined] == (
        [(odd.reason, odd.row, 2, 2)] if odd.reason else []
    )


IN_ARRAYS = [odd for odd in ODD_OBJECTS if not odd.reason or (odd.row.endswith(b"}") and b"}{" not in odd.row)]
"""The rows that an array may hold: any others either make it no array, or are two rows in it."""


@pytest.mark.parametrize("odd", IN_ARRAYS, ids=[odd.says for odd in IN_ARRAYS])
def test_odd_rows_of_a_json_array(odd):
    """The same rows in an array become the same."""
    rows, quarantined = read_content(b'[{"UserId":1},\n' + odd.row + b',\n{"UserId":3}]', Format.JSON)
    assert rows == [{"UserId": "1"}, *([] if odd.reason else [expected(odd)]), {"UserId": "3"}]
    assert [(line.reason, line.row, line.line) for line in quarantined] == ([(odd.reason, 2, 2)] if odd.reason else [])


@pytest.mark.parametrize("odd", ODD_FILES, ids=[odd.says for odd in ODD_FILES])
def test_odd_files_of_csv(odd: OddFile):
    """Each odd file becomes what the table says."""
    rows, quarantined = read_content(odd.content, Format.CSV)
    assert rows == [row for row in odd.rows if not isinstance(row, str)]
    assert [line.reason for line in quarantined] == [row for row in odd.rows if isinstance(row, str)]


def test_the_second_object_of_a_line_is_two_rows_in_an_array():
    """In an array, brackets alone decide where a row ends: that is how its rows were counted."""
    rows, _ = read_content(b'[{"UserId":1},{"UserId":2}]', Format.JSON)
    assert rows == [{"UserId": "1"}, {"UserId": "2"}]


@pytest.mark.parametrize(
    ("content", "container", "ids"),
    [
        (b"", Format.NDJSON, []),
        (b"", Format.JSON, []),
        (b"[]", Format.JSON, []),
        (b" [ ] \n", Format.JSON, []),
        (b"\n \r\n\t\n", Format.NDJSON, []),
        (b'\xef\xbb\xbf{"UserId":1}', Format.NDJSON, ["1"]),
        (b'\xef\xbb\xbf[{"UserId":1}]', Format.JSON, ["1"]),
        (b"\xef\xbb\xbfUserId\n1\n", Format.CSV, ["1"]),
        (b"\xef\xbb\xbf", Format.CSV, []),
        (b'\n\n {"UserId":1}\r\n\r\n{"UserId":2}', Format.NDJSON, ["1", "2"]),
    ],
)
def test_content_around_the_rows(content, container, ids):
    """A byte order mark, blank lines, line breaks of Windows and empty files are no rows."""
    rows, quarantined = read_content(content, container)
    assert [row["UserId"] for row in rows] == ids
    assert not quarantined


def test_any_number_of_gzip_members_is_one_file():
    """A row may go over the boundary of two members; members may be empty, and zeros may follow the last."""
    content = b'\xef\xbb\xbf{"UserId":1}\n{"UserId":2}\n'
    archive = (
        b"".join(gzip.compress(content[at : at + 1]) for at in range(len(content))) + gzip.compress(b"") + b"\0" * 600
    )
    count, lines, _ = read_archive(archive, Format.NDJSON)
    assert [json.loads(line)["UserId"] for line in lines] == ["1", "2"]
    assert count.sha256 == hashlib.sha256(archive).hexdigest()


def test_a_damaged_archive_is_reported_as_changed():
    """The ledger says that the archive was complete, so a broken one was altered."""
    archive = gzip.compress(b'{"UserId":1}\n')
    for damaged in (archive[:-1], b"", archive[:-8] + bytes(8), b'{"UserId":1}\n'):
        with pytest.raises(ChangedArchiveError, match=r"cannot read everyone_events.*any more") as caught:
            read_archive(damaged, Format.NDJSON)
        assert caught.value.path == ARCHIVE


@pytest.mark.parametrize("container", Format)
def test_a_row_longer_than_max_row_is_quarantined(container):
    """The limit is inclusive. A longer row is kept up to its first megabyte, with its length."""
    limit = 2 * HEAD_BYTES
    rows = [b'{"PageName":"%b"}' % (b"x" * (limit + extra - 15)) for extra in (0, 1, 3 * HEAD_BYTES)]
    content = b"\n".join(rows)
    if container is Format.JSON:
        content = b"[" + b",\n".join(rows) + b"]"
    if container is Format.CSV:
        rows = [b"x" * (limit + extra) for extra in (0, 1, 3 * HEAD_BYTES)]
        content = b"\n".join([b"PageName", *rows])
    found, quarantined = read_content(content, container, max_row=limit)
    assert len(found) == 1
    assert [(line.size, line.data, line.row) for line in quarantined] == [
        (len(row), row[:HEAD_BYTES], number) for number, row in enumerate(rows[1:], start=2)
    ]
    assert quarantined[0].reason == f"the row is longer than max_row: {limit + 1:,} bytes"


def test_the_line_of_a_quarantined_record_is_the_one_it_begins_in():
    """Line breaks within values count as lines, but not as rows."""
    content = b'PageName,UserId\n"a\nb\n",1\n\n"c\n"\n"d\ne",2\n4\n'
    _, quarantined = read_content(content, Format.CSV)
    assert [(line.row, line.line) for line in quarantined] == [(2, 6), (4, 10)]


def test_a_quarantined_line_holds_the_bytes_as_they_are():
    """The bytes come back from the quarantine file, whatever they are."""
    _, (line,) = read_content(b'{"a":1}\n{\xff\x00\n', Format.NDJSON)
    record = json.loads(line.to_json())
    assert b64decode(record.pop("bytes")) == b"{\xff\x00"
    assert record == {
        "archive": ARCHIVE,
        "row": 2,
        "line": 2,
        "reason": "the row is not valid JSON, at character 2",
        "size": 3,
    }


def test_the_key_of_an_event_is_the_same_in_every_format():
    """It has the texts of the fields that do not change, and the custom ones of the event, sorted by name."""
    texts = {
        **{name: f"{name} é" for name in EVENT_KEY if name != "ReqUrl"},
        "UserId": "12",
        "PageId": "",
        "UserEmail": "x",
    }
    texts |= {"evt_b_bool": "true", "evt_a_real": "1.50", "evt_c_str": ""}
    row = ",".join(f"{json.dumps(name)}:{json.dumps(text)}" for name, text in texts.items())
    row = row.replace('"12"', "12").replace('"true"', "true").replace('"1.50"', "1.50")
    record = ",".join(texts) + "\n" + ",".join(texts.values())
    layout = Layout(Type.EVENT)
    keys = set()
    for container, content in (
        (Format.NDJSON, "{" + row + "}"),
        (Format.JSON, "[{" + row + "}]"),
        (Format.CSV, record),
        (Format.NDJSON, '{"evt_a_real":1,' + row + "}"),
    ):
        _, (line,), _ = read_archive(gzip.compress(content.encode()), container, layout=layout, has_key=True)
        keys.add(json.loads(line)["_key"])
    (key,) = keys
    assert json.loads(key) == [
        *(None if name in ("PageId", "ReqUrl") else texts[name] for name in EVENT_KEY),
        *("evt_a_real", "1.50", "evt_b_bool", "true"),
    ]


def test_the_key_has_the_text_of_a_value_that_no_column_holds():
    """Rows that differ in such a value only are different events."""
    content = b'{"UserId":NaN}\n{"UserId":1.5}\n{"UserId":"\\ud800"}\n'
    _, lines, _ = read_archive(gzip.compress(content), Format.NDJSON, has_key=True)
    assert [json.loads(json.loads(line)["_key"])[0] for line in lines] == ["NaN", "1.5", "\ufffd"]


def test_inflating_to_very_much_takes_little_memory():
    """A few bytes that inflate to one endless row are read in pieces."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    archive = packer.compress(b'{"PageName":"') + b"".join(packer.compress(b"x" * (1 << 20)) for _ in range(200))
    archive += packer.compress(b'"}\n{"UserId":2}\n') + packer.flush()
    count, _, (line,) = read_archive(archive, Format.NDJSON, max_row=1 << 20)
    assert (count.rows, count.quarantined, line.size) == (1, 1, (200 << 20) + 15)


def test_the_same_rows_in_every_format_have_the_same_columns_and_keys():
    """A window that is exported again as CSV or JSON gives the same events."""
    hour = list(SandboxSyntheticRows(3, 2000).between(1_767_268_800, 1_767_272_400))
    found: list[list[object]] = []
    for container in Format:
        archive = gzip.compress(b"".join(render(iter(hour), container.value)))
        count, lines, _ = read_archive(archive, container, has_key=True)
        assert (count.rows, count.quarantined) == (len(hour), 0)
        rows = [json.loads(line) for line in lines]
        names = {column.name for column in LAYOUT.fields}
        # CSV cannot tell an empty value from an absent one, and its values in `vars` are strings.
        found.append([{name: row[name] for name in row if row[name] and name in {*names, "_key"}} for row in rows])
        assert not any("_rescued" in row for row in rows)
    assert found[0] == found[1] == found[2]
