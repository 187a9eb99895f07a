"""Masking finds secrets in every spelling and leaves the rest of a text unchanged."""

import html
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.masking import (
    MASK,
    Mask,
    looks_secret,
    secrets_of_headers,
    secrets_of_ping_url,
    secrets_of_url,
)
from asyncexport.core.text import one_line
from asyncexport.errors import ServiceError
from tests.spellings import SPELLINGS

KEY = "na1.Q0FOQVJZ/plus+slash/9f8e7d=="


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("secret", [KEY, KEY[4:]], ids=["complete", "without its prefix"])
def test_a_key_is_replaced_in_every_spelling(spelling, secret):
    """An API key is replaced in each known spelling, and the text around it stays."""
    assert Mask([KEY])(f"100% of \\n &c: {spelling(secret)} <- key") == "100% of \\n &c: *** <- key"
    assert Mask(others=[secret])(f"({spelling(secret)})") == "(***)"


@given(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=len(KEY), max_size=len(KEY)))
def test_a_key_is_replaced_when_each_character_is_spelled_differently(names):
    """A key is found even if each of its characters is escaped in a different way."""
    spelt = "".join(SPELLINGS[name](letter) for name, letter in zip(names, KEY, strict=True))
    assert Mask([KEY])(f"bad key {spelt} (400)") == "bad key *** (400)"


@pytest.mark.parametrize("length", [12, 20, len(KEY) - 1])
def test_the_beginning_of_a_key_is_replaced(length):
    """A key is replaced even if the message that contains it was cut in the middle of the key."""
    assert Mask([KEY])(f"bad key {KEY[:length]}…") == "bad key ***…"


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@given(st.data())
def test_the_beginning_of_any_secret_is_replaced_at_a_cut(spelling, data):
    """A secret is replaced even if the message was cut inside it or inside an escape sequence."""
    secret = "hunter2/plus+slash=and-more"
    spelt = spelling(secret)
    length = data.draw(st.integers(0, len(spelt)))
    masked = Mask(others=[secret])(f"(400): {one_line('x' * (199 - length) + spelt + 'x')}")
    assert "hunter" not in masked
    assert "hunt" not in Mask(others=[secret])(unquote(html.unescape(masked)))
    assert masked.startswith("(400): xx"[: 7 + max(0, 199 - length)])


def test_the_beginning_of_a_secret_is_left_alone_where_the_text_is_not_cut():
    """A word that merely begins like a secret is not replaced."""
    mask = Mask(others=["warehouse-token-1"])
    assert mask("the warehouse-tokens … of warehouse-to…") == "the warehouse-tokens … of ***…"


@given(st.text())
def test_a_text_without_a_secret_stays_as_it_is(text):
    """A text without secrets comes back unchanged, including its escapes, entities and percent signs."""
    assert Mask([KEY], others=["a secret that does not occur"])(text) == text


@given(st.text(), st.text())
def test_a_key_is_replaced_in_any_text(before, after):
    """A key is replaced completely, whatever text surrounds it."""
    assert KEY[4:] not in Mask([KEY])(f"{before}{KEY}{after}")


def test_without_secrets_nothing_is_replaced():
    """Empty and very short secrets are ignored, because they would match everywhere."""
    assert Mask([""], others=["", "ab"])("ab na1.") == "ab na1."


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("the latest test", "the latest ***"),
        ("test", "***"),
        ('"test"', '"***"'),
        ("a%20test%2C", "a%20test%2C"),
        ("mytest", "mytest"),
    ],
)
def test_a_short_secret_is_replaced_as_a_word(text, masked):
    """A four-letter password is replaced only as a whole word, not inside other words."""
    assert Mask(others=["test"])(text) == masked.replace("a%20test%2C", "a%20***%2C")


def test_several_secrets_in_one_text_are_replaced():
    """Overlapping and adjacent secrets are replaced without leaving anything between them."""
    mask = Mask([KEY], others=["long-password", "password-and-more"])
    assert mask(f"{KEY}{KEY} long-password-and-more") == "****** ***"


def test_the_message_and_hint_of_an_error_are_masked():
    """Secrets are replaced in an error's message and in its hint."""
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
    """A proxy password is replaced as it appears in the URL, decoded, and base64-encoded in a header."""
    mask = Mask(others=secrets_of_url(url))
    masked = mask(f"{url} user:p@ssword Basic dXNlcjpwQHNzd29yZA== p@ssword")
    assert "ssword" not in masked
    assert "dXNlcjpw" not in masked
    assert "proxy.example" in masked


@pytest.mark.parametrize("url", ["", "http://proxy.example:3128", "http://user@proxy.example", "proxy/a:b@c"])
def test_a_proxy_without_a_password_has_no_secret(url):
    """A proxy URL without a password yields no secrets."""
    assert secrets_of_url(url) == []


def test_which_header_values_are_secret():
    """All but very short header values are secrets, and only those unlike a word or date look secret by themselves."""
    headers = {"X-Token": "s3cr3t-token", "X-Team": "warehouse", "X-Version": "2026-01-01", "X-On": "1"}
    assert secrets_of_headers(headers) == ["s3cr3t-token", "warehouse", "2026-01-01"]
    assert [value for value in headers.values() if looks_secret(value)] == ["s3cr3t-token"]


def test_invalid_entities_are_left_alone():
    """An unknown HTML entity and a number beyond Unicode stay as they are."""
    text = f"&nosuchthing; &#9999999; {html.escape('<a>')}"
    assert Mask([KEY])(text) == text


def test_of_a_url_to_ping_only_what_looks_secret_is_masked():
    """The URL and its long mixed parts are secrets; words in its path, such as a command's name, are not."""
    url = "https://hc-ping.com/Hx4kPq82LmNo7tRs/nightly?create=1"
    mask = Mask(others=secrets_of_ping_url(url))
    assert mask(f"POST {url} failed") == f"POST {MASK} failed"
    assert mask("the key Hx4kPq82LmNo7tRs of nightly") == f"the key {MASK} of nightly"
    assert mask("nightly at hc-ping.com") == "nightly at hc-ping.com"
    assert secrets_of_ping_url("https://example.com/nightly") == ["https://example.com/nightly"]
    assert secrets_of_ping_url("") == []
