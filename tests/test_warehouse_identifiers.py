"""Names and texts in SQL."""

import duckdb
from hypothesis import example, given
from hypothesis import strategies as st

from asyncexport.core.warehouse.identifiers import literal, postgres_name, quoted

WITHOUT_NUL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(WITHOUT_NUL)
@example("it's \"so\" \\' --")
def test_names_and_texts_arrive_as_they_are(text):
    """A quoted name and a literal mean exactly the text, whatever is in it."""
    with duckdb.connect() as con:
        found = con.execute(f"SELECT {literal(text)} AS {quoted(text)}")
        assert [column[0] for column in found.description] == [text]
        assert found.fetchall() == [(text,)]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_in_postgresql_has_at_most_63_bytes(name):
    """A name that fits is kept; a longer one is shortened at a character, and names that differ stay different."""
    short = postgres_name(name)
    assert len(short.encode()) <= 63
    assert (short == name) == (len(name.encode()) <= 63)
    assert postgres_name(name * 64 + "a") != postgres_name(name * 64 + "b")
