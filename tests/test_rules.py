"""Which rows of an archive are sampled for the rules, in whatever pieces the archive arrives."""

import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.archive.rules import PARSED_BYTES, SAMPLED_ROWS, RowSample, parsed_record
from asyncexport.core.archive.structure import STRUCTURES
from asyncexport.core.exports import Format
from asyncexport.errors import CorruptError
from asyncexport.storage.inspecting import inspect


class RecordingRules:
    """Rules that record the rows they get."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.rows: list[int] = []
        self.closed = 0
        self._refuses = refuses

    def add(self, row: Mapping[str, Any]) -> None:
        """Record the number of the row."""
        self.rows.append(int(row["n"]))

    def add_names(self, names: Iterable[str]) -> None:
        """Record a zero for each name."""
        self.rows.extend(0 for _ in names)

    def close(self) -> None:
        """Record the end, and refuse the file if asked to."""
        self.closed += 1
        if self._refuses:
            raise CorruptError("not what was asked for")

    def fresh(self) -> Self:
        """Return fresh rules that refuse the same."""
        return type(self)(refuses=self._refuses)


def text_of(form: Format, count: int, *, padding: str = "") -> bytes:
    """Return `count` rows, each with its number."""
    rows = [{"n": number, "t": padding + '"\\[{,'} for number in range(1, count + 1)]
    match form:
        case Format.NDJSON:
            return b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        case Format.JSON:
            return json.dumps(rows).encode()
        case Format.CSV:
            return b"n,t\r\n" + b"".join(f'{row["n"]},"{padding}a\n"""\r\n'.encode() for row in rows)


def sampled(form: Format, pieces: Iterable[bytes]) -> list[int]:
    """Return the numbers of the rows that the rules get."""
    seen = RecordingRules()
    structure = STRUCTURES[form](sample=RowSample(seen))
    for piece in pieces:
        structure.feed(piece)
    structure.close()
    assert seen.closed == 1
    return seen.rows


@pytest.mark.parametrize("form", Format)
@pytest.mark.parametrize("count", [0, 1, 2, SAMPLED_ROWS, SAMPLED_ROWS + 1, 2 * SAMPLED_ROWS + 7])
def test_the_first_the_last_and_every_thousandth_row_are_sampled(form, count):
    """The first, last and every thousandth row are sampled once and in order, in whatever pieces the text arrives."""
    text = text_of(form, count)
    header = [0, 0] if form is Format.CSV and not count else []
    wanted = header + sorted({*range(1, count + 1, SAMPLED_ROWS), *([count] if count else [])})
    for size in (len(text) + 1, 70_000, 333, 1):
        if size > 1 or count < 3:
            assert sampled(form, [text[at : at + size] for at in range(0, len(text), size)]) == wanted


@pytest.mark.parametrize("form", Format)
@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_a_row_is_sampled_completely_wherever_it_is_cut(form, cuts):
    """The sampled rows do not depend on the pieces in which the text arrives."""
    text = text_of(form, 3)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert sampled(form, [text[a:b] for a, b in zip(places, places[1:], strict=False)]) == [1, 3]


@pytest.mark.parametrize("form", Format)
def test_a_long_row_is_not_sampled(form):
    """A row that is too long to parse is not sampled."""
    text = text_of(form, 2, padding="x" * PARSED_BYTES)
    assert sampled(form, [text[at : at + 100_000] for at in range(0, len(text), 100_000)]) == []


def test_a_row_that_cannot_be_parsed_is_not_sampled():
    """A row that cannot be parsed is skipped."""
    assert sampled(Format.NDJSON, [b'{"n":1}\n{"n":NaN}\n']) == [1]
    assert sampled(Format.CSV, [b'n,t\n1,"a"b"c"\n2,b\n']) == [2]
    assert parsed_record(b"a,b", b"1,2,3") is None


@pytest.mark.parametrize("members", [1, 3])
def test_rules_get_the_rows_of_a_file_once(tmp_path, members):
    """The rules get each sampled row once, even if the file has several gzip members and is read twice."""
    text = text_of(Format.NDJSON, 2500)
    file = tmp_path / "body"
    file.write_bytes(b"".join(gzip.compress(line) for line in (text[:1_000], text[1_000:60_000], text[60_000:])))
    if members == 1:
        file.write_bytes(gzip.compress(text))
    seen = RecordingRules()
    found = inspect(file, Format.NDJSON, rewrite_to=tmp_path / "made", rules=seen)
    assert seen.rows == [1, 1001, 2001, 2500]
    assert found.archive.rows == 2500
    assert found.is_remade == (members > 1)


def test_a_file_that_the_rules_refuse_is_not_an_archive(tmp_path):
    """The rules can refuse a file that is otherwise complete and intact."""
    file = tmp_path / "body"
    file.write_bytes(gzip.compress(text_of(Format.NDJSON, 2)))
    with pytest.raises(CorruptError, match="not what was asked for"):
        inspect(file, Format.NDJSON, rules=RecordingRules(refuses=True))
