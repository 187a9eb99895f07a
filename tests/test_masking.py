"""Secrets in texts: found in every spelling, and nothing else is touched."""

import html
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.masking import Mask, looks_secret, secrets_of_headers, secrets_of_url
from asyncexport.core.text import one_line
from asyncexport.errors import ServiceError
from tests.spellings import SPELLINGS

KEY = "na1.Q0FOQVJZ/plus+slash/9f8e7d=="


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", [KEY, KEY[4:]], ids=["whole", "without its prefix"])
def test_a_key_is_replaced_in_every_spelling(spelling, secret):
    """What stands around it stays."""
    assert Mask([KEY])(f"100% of \\n &c: {spelling(secret)} <- key") == "100% of \\n &c: *** <- key"
    assert Mask(others=[secret])(f"({spelling(secret)})") == "(***)"


@given(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=len(KEY), max_size=len(KEY)))
def test_a_key_is_replaced_where_each_character_has_a_spelling_of_its_own(names):
    """No list of whole spellings is complete: each character is read by itself."""
    spelt = "".join(SPELLINGS[name](letter) for name, letter in zip(names, KEY, strict=True))
    assert Mask([KEY])(f"bad key {spelt} (400)") == "bad key *** (400)"


@pytest.mark.parametrize("length", [12, 20, len(KEY) - 1])
def test_the_beginning_of_a_key_is_replaced(length):
    """A message is cut at some length, and a key in it with it."""
    assert Mask([KEY])(f"bad key {KEY[:length]}…") == "bad key ***…"


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@given(st.data())
def test_the_beginning_of_any_secret_is_replaced_where_a_text_is_cut(spelling, data):
    """A message holds so many characters of what a service says, and may be cut within a password or a spelling."""
    secret = "hunter2/plus+slash=and-more"
    spelt = spelling(secret)
    length = data.draw(st.integers(0, len(spelt)))
    told = Mask(others=[secret])(f"(400): {one_line('x' * (199 - length) + spelt + 'x')}")
    assert "hunter" not in told
    assert "hunt" not in Mask(others=[secret])(unquote(html.unescape(told)))
    assert told.startswith("(400): xx"[: 7 + max(0, 199 - length)])


def test_a_beginning_that_is_not_cut_is_a_word_like_others():
    """The value of a header may begin as words of ours do."""
    mask = Mask(others=["warehouse-token-1"])
    assert mask("the warehouse-tokens … of warehouse-to…") == "the warehouse-tokens … of ***…"


@given(st.text())
def test_a_text_without_a_secret_stays_as_it_is(text):
    """Escapes, entities and percent signs of others are none of our business."""
    assert Mask([KEY], others=["a secret that nobody says"])(text) == text


@given(st.text(), st.text())
def test_no_secret_is_left_over(before, after):
    """Whatever stands around it."""
    assert KEY[4:] not in Mask([KEY])(f"{before}{KEY}{after}")


def test_without_secrets_nothing_is_replaced():
    """An empty key, as before one is known, stands in every text."""
    assert Mask([""], others=["", "ab"])("ab na1.") == "ab na1."


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the latest test", "the latest ***"),
        ("test", "***"),
        ('"test"', '"***"'),
        ("a%20test%2C", "a%20test%2C"),
        ("mytest", "mytest"),
    ],
)
def test_a_short_secret_is_replaced_as_a_word(text, told):
    """A password of four letters does not make holes in other words."""
    assert Mask(others=["test"])(text) == told.replace("a%20test%2C", "a%20***%2C")


def test_several_secrets_are_replaced_at_once():
    """Secrets that overlap or stand side by side leave nothing between them."""
    mask = Mask([KEY], others=["long-password", "password-and-more"])
    assert mask(f"{KEY}{KEY} long-password-and-more") == "****** ***"


def test_an_error_is_masked_in_its_hint_too():
    """Both go out."""
    error = ServiceError(f"bad {KEY}", hint=f"not {quote(KEY, safe='')}")
    Mask([KEY]).hide_in(error)
    assert (str(error), error.hint) == ("bad ***", "not ***")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:p%40ssword@proxy.example:3128",
        "user:p%40ssword@proxy.example:3128/",
        "https://user:p%40ssword@proxy.example",
    ],
)
def test_the_password_of_a_proxy_is_a_secret(url):
    """In the URL, decoded, and as it is sent to the proxy."""
    mask = Mask(others=secrets_of_url(url))
    told = mask(f"{url} user:p@ssword Basic dXNlcjpwQHNzd29yZA== p@ssword")
    assert "ssword" not in told
    assert "dXNlcjpw" not in told
    assert "proxy.example" in told


@pytest.mark.parametrize("url", ["", "http://proxy.example:3128", "http://user@proxy.example", "proxy/a:b@c"])
def test_a_proxy_without_a_password_has_no_secret(url):
    """Then there is nothing to hide."""
    assert secrets_of_url(url) == []


def test_what_of_headers_is_secret():
    """In what the service says, all but the shortest; in our own lines, what no word and no date can be."""
    headers = {"X-Token": "s3cr3t-token", "X-Team": "warehouse", "X-Version": "2026-01-01", "X-On": "1"}
    assert secrets_of_headers(headers) == ["s3cr3t-token", "warehouse", "2026-01-01"]
    assert [value for value in headers.values() if looks_secret(value)] == ["s3cr3t-token"]


def test_entities_that_stand_for_nothing_are_left_alone():
    """A name that HTML does not know, and a number beyond all characters."""
    text = f"&nosuchthing; &#9999999; {html.escape('<a>')}"
    assert Mask([KEY])(text) == text
