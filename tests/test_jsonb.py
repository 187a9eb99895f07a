"""What is changed in JSON so that jsonb holds it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.warehouse.jsonb import DEEPEST, fit_for_jsonb

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_only_characters_that_jsonb_cannot_hold_are_replaced(value, ascii_):
    """Everything else is the same, byte for byte; names are treated as values are."""
    text = json.dumps(value, ensure_ascii=ascii_)
    fitting = fit_for_jsonb(text)
    # Without U+0000 in it, and without a backslash before a text that only resembles it.
    if "\\u0000" not in text:
        assert fitting == text
    assert "\0" not in str(json.loads(fitting))


@pytest.mark.parametrize(
    ("text", "fitting"),
    [
        (r'{"a\u0000":"b\u0000c\\u0000"}', r'{"a\ufffd":"b\ufffdc\\u0000"}'),
        (
            r'["\ud83d\ude00","\ud83d","\ude00x","\ud83d\ud83d\ude00"]',
            r'["\ud83d\ude00","\ufffd","\ufffdx","\ufffd\ud83d\ude00"]',
        ),
        (r'["\\ud83d","\\\ud83d"]', r'["\\ud83d","\\\ufffd"]'),
        ("[1e400,1e131072,-1.5E-16384,1e0000005,1.50]", '[1e400,"1e131072","-1.5E-16384",1e0000005,1.50]'),
        ('[NaN,Infinity,-Infinity,"NaN"]', '["NaN","Infinity","-Infinity","NaN"]'),
        ("1" * 15_001, f'"{"1" * 15_001}"'),
        (f'"{"1" * 15_001}"', f'"{"1" * 15_001}"'),
        ('"' + "[" * 20_000 + '"', '"' + "[" * 20_000 + '"'),
    ],
)
def test_what_is_replaced(text, fitting):
    """Odd characters, numbers and words, each beside others that are fine."""
    assert fit_for_jsonb(text) == fitting


def test_json_that_is_nested_too_deep_becomes_a_string():
    """The string has the JSON as written."""
    deep = "[" * (DEEPEST + 1) + '"\\u0000"' + "]" * (DEEPEST + 1)
    assert json.loads(fit_for_jsonb(deep)) == deep
    assert fit_for_jsonb(deep[1:-1]) == deep[1:-1].replace("0000", "fffd")
