"""A digest of rows that depends neither on their order nor on how they are written."""

import csv
import io
import json
import random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.archive.row_digest import RowDigest
from asyncexport.core.archive.rules import PARSED_BYTES
from asyncexport.core.archive.structure import STRUCTURES
from asyncexport.core.exports import Format

TEXTS = st.text(max_size=6)
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=6)


def digest_of(form: Format, text: bytes, *, size: int = 1 << 20) -> int | None:
    """Return the digest of the rows in a text that is fed in pieces."""
    digest = RowDigest()
    structure = STRUCTURES[form](sample=digest)
    for at in range(0, len(text), size):
        structure.feed(text[at : at + size])
    structure.close()
    return digest.value


def written(form: Format, rows: list[dict[str, object]], *, ascii: bool) -> bytes:  # noqa: A002 - json's word
    """Return the rows as NDJSON or JSON."""
    if form is Format.JSON:
        return json.dumps(rows, ensure_ascii=ascii, indent=None if ascii else 1).encode("utf-8", "surrogatepass")
    return b"".join(json.dumps(row, ensure_ascii=ascii).encode("utf-8", "surrogatepass") + b"\n" for row in rows)


@pytest.mark.parametrize("form", [Format.NDJSON, Format.JSON])
@given(rows=ROWS, seed=st.integers(0, 99), size=st.sampled_from([1, 7, 1 << 20]))
def test_the_same_rows_in_another_order_have_the_same_digest(form, rows, seed, size):
    """The digest ignores the order of rows and members, how texts are escaped, and whitespace."""
    chance = random.Random(seed)
    others = [dict(chance.sample(list(row.items()), len(row))) for row in rows]
    chance.shuffle(others)
    before = digest_of(form, written(form, rows, ascii=True))
    assert before == digest_of(form, written(form, others, ascii=False), size=size)


@pytest.mark.parametrize("form", [Format.NDJSON, Format.JSON])
@given(rows=ROWS, other=ROWS)
def test_different_rows_have_different_digests(form, rows, other):
    """Rows that differ in a value, or in how often one occurs, have different digests."""

    def kind(these: list[dict[str, object]]) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in these)

    same = digest_of(form, written(form, rows, ascii=True)) == digest_of(form, written(form, other, ascii=True))
    assert same == (kind(rows) == kind(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1e2}', b'{"a":100.0}'),
        (b'{"a":18446744073709551617}', b'{"a":18446744073709551616}'),
        (b'{"a":1,"a":2}', b'{"a":2}'),
        (b'{"a":1,"a":2}', b'{"a":3,"a":2}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":1}\n{"a":1}', b'{"a":1}'),
        (b'{"a":"\xff"}', b'{"a":"\xfe"}'),
        (b'{"a":}x}', b'{"a":}y}'),
        (b'{"a":null}', b"{}"),
    ],
)
def test_subtly_different_rows_have_different_digests(one, other):
    """The digest distinguishes spellings of numbers, repeated members and values that are not valid JSON."""
    assert digest_of(Format.NDJSON, one + b"\n") != digest_of(Format.NDJSON, other + b"\n")


@given(
    rows=st.lists(st.lists(st.text(st.sampled_from(',"\n ax'), max_size=4), min_size=3, max_size=3), max_size=5),
    seed=st.integers(0, 99),
)
def test_csv_records_are_hashed_by_column_name(rows, seed):
    """The digest of a CSV ignores the order of columns and records, and the quoting."""
    chance = random.Random(seed)
    columns = chance.sample(range(3), 3)

    def csv_of(order: list[int], records: list[list[str]], quoting: Literal[0, 1]) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.writer(out, quoting=quoting, lineterminator="\r\n" if quoting == csv.QUOTE_ALL else "\n")
        writer.writerows([[record[at] for at in order] for record in [["one", "two", "three"], *records]])
        return out.getvalue().encode()

    one = digest_of(Format.CSV, csv_of([0, 1, 2], rows, csv.QUOTE_MINIMAL))
    assert one == digest_of(Format.CSV, csv_of(columns, chance.sample(rows, len(rows)), csv.QUOTE_ALL))
    if rows:
        assert one != digest_of(Format.CSV, csv_of([0, 1, 2], [["?", "", ""], *rows[1:]], csv.QUOTE_ALL))


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Format.NDJSON, b'{"a":"%s"}\n{"b":1}\n'),
        (Format.JSON, b'[{"a":"%s"},{"b":1}]'),
        (Format.CSV, b"a\n%s\n1\n"),
    ],
)
def test_a_row_too_long_to_hold_has_no_digest(form, text):
    """A file with a row that is too long to hold in memory has no digest."""
    assert digest_of(form, text % (b"x" * (PARSED_BYTES + 1)), size=100_000) is None
    assert digest_of(form, text % b"x") is not None
