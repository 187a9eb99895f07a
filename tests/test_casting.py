"""What the text of a field becomes in its column: the rules in Python, and the same ones in SQL."""

import math
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncexport.core.warehouse.casting import cast, may_fail
from asyncexport.core.warehouse.cells import COLUMN_TEXT, integer_text, real_text, time_text
from asyncexport.core.warehouse.columns import ColumnKind

DIGITS = st.text("0123456789", min_size=1, max_size=24)
SIGNS = st.sampled_from(["", "-", "+"])
INTEGERS = st.builds("{}{}".format, SIGNS, DIGITS) | st.integers(-(2**64), 2**64).map(str)
REALS = (
    st.builds("{}{}.{}".format, SIGNS, DIGITS, DIGITS)
    | st.builds("{}{}{}{}{}".format, SIGNS, DIGITS, st.sampled_from("eE"), SIGNS, st.integers(0, 400).map(str))
    | st.builds("{}.{}e{}".format, DIGITS, DIGITS, st.integers(-400, 400))
    | st.floats().map(repr)
    | st.floats().map("{:.15g}".format)
    | st.floats().map("{:.20f}".format)
)
TIMES = st.builds(
    "{:%Y-%m-%d}{}{:%H:%M:%S}{}{}".format,
    st.datetimes(),
    st.sampled_from(["T", "T", "T", " ", "t"]),
    st.datetimes(),
    st.just("") | DIGITS.map(".{}".format) | DIGITS.map(".{:.6}000".format),
    st.sampled_from(["Z", "Z", "", "z", "+02:00", "-00:00", "-23:59", "+15:59", "+16:00", "+24:00", "+1:00", "+01"]),
)
WORDS = st.sampled_from(
    ["", " 1", "1 ", "1_000", "0x1", "true", "True", "NaN", "inf", "-", ".5", "1.", "\u0661", "today", "0"]
)
TEXTS = WORDS | INTEGERS | REALS | TIMES | st.text(max_size=5)

TYPES = [kind for kind in ColumnKind if may_fail(kind)]


@pytest.fixture(scope="module")
def duck():
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def value_of(text: str | None, kind: ColumnKind) -> object:
    """Return the value of a column in Python, from a text that fits."""
    match kind:
        case _ if text is None:
            return None
        case ColumnKind.INTEGER:
            return int(text)
        case ColumnKind.REAL:
            return float(text)
        case ColumnKind.TIME:
            return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        case _:
            return text == "true"


@pytest.mark.parametrize("kind", TYPES)
@given(texts=st.lists(TEXTS, min_size=20, max_size=40))
@example(["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59.999999-00:01", "0000-12-31T23:59:59-01:00"])
@example(["5e-324", "0e999999999999", "1e-99999999999999999999", "-0", "-0.0", "2.2250738585072014e-308", "1e-310"])
def test_both_readers_cast_alike(duck, kind, texts):
    """A text fits a column in SQL if and only if it does in Python, and becomes the same value."""
    shown = "strftime(v, '%Y-%m-%d %H:%M:%S.%f')" if kind is ColumnKind.TIME else "v"
    question = f"SELECT {shown} FROM (SELECT {cast('t', kind)} AS v FROM (SELECT unnest(?::VARCHAR[]) AS t))"
    found = [value for (value,) in duck.execute(question, [texts]).fetchall()]
    expected = [value_of(COLUMN_TEXT[kind](text), kind) for text in texts]
    assert list(map(repr, found)) == list(map(repr, expected))


@pytest.mark.parametrize("kind", TYPES)
@given(texts=st.lists(TEXTS, min_size=20, max_size=40))
def test_a_text_that_fits_still_fits_when_it_was_written(duck, kind, texts):
    """What one reader writes into the canonical form is never rescued by the other one."""
    written = [text for one in texts if (text := COLUMN_TEXT[kind](one)) is not None]
    question = f"SELECT count({cast('t', kind)}) FROM (SELECT unnest(?::VARCHAR[]) AS t)"
    assert duck.execute(question, [written]).fetchall() == [(len(written),)]


@given(st.integers(-(2**66), 2**66))
def test_integers_of_64_bits_fit(number):
    """All of them, and no others."""
    assert (integer_text(str(number)) is not None) == (-(2**63) <= number < 2**63)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_double_fits_as_it_is_written_by_default(number):
    """Whatever a program writes that has doubles itself comes back as the same double."""
    text = real_text(repr(number))
    assert text is not None
    assert math.copysign(1, float(text)) == math.copysign(1, number)
    assert float(text) == number


@given(st.decimals(-(10**9), 10**9, places=6))
def test_amounts_of_money_fit(amount):
    """Numbers of at most 15 digits fit, whether or not their last digits are zeros."""
    text = real_text(str(amount))
    assert text is not None
    assert float(text) == float(amount)


@given(st.datetimes(), st.integers(-1439, 1439))
def test_times_of_any_offset_fit_as_their_instant(moment, minutes):
    """The offset is converted, as long as the year keeps four digits."""
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    found = time_text(moment.isoformat())
    if found is None:
        assert moment.year in (1, 9999)
    else:
        assert found.endswith("Z")
        assert datetime.fromisoformat(found) == moment
