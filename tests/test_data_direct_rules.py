"""The rules of the Data Direct table: URLs, custom variables, the mapping and the receipt."""

import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncexport.core.exports import Type
from asyncexport.core.warehouse.choices import Identify, Suffixes
from asyncexport.core.warehouse.columns import EVENT_KEY, Layout
from asyncexport.core.warehouse.data_direct.columns import COLUMNS, DataDirectRecipe, refusal, unmet_identify
from asyncexport.core.warehouse.data_direct.json_members import json_name, members
from asyncexport.core.warehouse.data_direct.mapping import EVENT_TYPES, LEFT_OUT, OTHER_TYPES, SOURCE
from asyncexport.core.warehouse.data_direct.nesting import DEEPEST, TYPE_SUFFIXES, nested
from asyncexport.core.warehouse.data_direct.urls import url_parts
from asyncexport.core.warehouse.data_direct.values import json_object

# URLs

URLS: dict[str, dict[str, Any]] = {
    "https://shop.example/": {"host": "shop.example", "path": "/"},
    "https://shop.example": {"host": "shop.example"},
    "https://shop.example:8443/a/b.html": {"host": "shop.example:8443", "path": "/a/b.html"},
    "https://ann:secret@shop.example/": {"host": "shop.example", "path": "/"},
    "https://[2001:db8::1]:80/": {"host": "[2001:db8::1]:80", "path": "/"},
    "https://[broken/": {"host": "[broken", "path": "/"},
    "https://shop.example/?dest=%2Fui": {
        "host": "shop.example",
        "path": "/",
        "query": {"dest": {"values": ["/ui"]}},
    },
    "https://shop.example/s?b=2&a=1&b=&c&&=x": {
        "host": "shop.example",
        "path": "/s",
        "query": {"b": {"values": ["2", ""]}, "a": {"values": ["1"]}, "c": {"values": [""]}, "": {"values": ["x"]}},
    },
    "https://shop.example/?": {"host": "shop.example", "path": "/"},
    "https://shop.example/%C3%B6?q=%C3%B6long+tea&bad=%FF": {
        "host": "shop.example",
        "path": "/%C3%B6",
        "query": {"q": {"values": ["ölong tea"]}, "bad": {"values": ["\ufffd"]}},
    },
    "https://shop.example/#/basket?step=2": {
        "host": "shop.example",
        "path": "/",
        "hash_path": "/basket",
        "hash_query": {"step": {"values": ["2"]}},
    },
    "https://shop.example/?a=1#top": {
        "host": "shop.example",
        "path": "/",
        "query": {"a": {"values": ["1"]}},
        "hash_path": "top",
    },
    "https://shop.example/search?q=pasted\nfrom a\r\nletter": {
        "host": "shop.example",
        "path": "/search",
        "query": {"q": {"values": ["pasted\nfrom a\r\nletter"]}},
    },
    "/relative?x=1": {"path": "/relative", "query": {"x": {"values": ["1"]}}},
    "mailto:ann@shop.example": {"path": "ann@shop.example"},
    "file:///tmp/a": {"path": "/tmp/a"},
    "//cdn.example/x": {"host": "cdn.example", "path": "/x"},
    "Shelf/Green": {"path": "Shelf/Green"},
    " ": {"path": " "},
}


@pytest.mark.parametrize("url", URLS)
def test_a_url_has_six_parts(url):
    """Each part is a piece of the URL, names and values of queries decoded; empty parts are left out."""
    assert json.loads(url_parts(url)) == {"full_url": url, **URLS[url]}


@given(st.text() | st.from_regex(r"https?://[a-z:@\[\]]*/[a-z?#&=%]*", fullmatch=True))
def test_no_url_is_refused(url):
    """Any text has parts, and is itself one of them."""
    assert json.loads(url_parts(url)).get("full_url", "") == url


NAMED = st.tuples(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))


@given(st.lists(NAMED, max_size=6))
def test_a_query_is_decoded(pairs):
    """All names and values of a query come back, those of one name in order."""
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    expected: dict[str, dict[str, list[str]]] = {}
    for name, value in pairs:
        expected.setdefault(name, {"values": []})["values"].append(value)
    for url in (f"https://shop.example/?{query}", f"https://shop.example/#/x?{query}"):
        parts = json.loads(url_parts(url))
        assert parts.get("query", parts.get("hash_query", {})) == expected


# Members of a JSON object


def test_values_are_found_as_they_are_written():
    """Numbers, escapes and nested values are not changed."""
    text = ' { "a" : 1.50 ,"b":1e5,"c":"x\\"}\\u00e9","d":[1,{"e":"]"}],"f\\u002e\\"":-0,"g":null,"h":{} } '
    assert list(members(text)) == [
        ("a", "1.50"),
        ("b", "1e5"),
        ("c", '"x\\"}\\u00e9"'),
        ("d", '[1,{"e":"]"}]'),
        ('f."', "-0"),
        ("g", "null"),
        ("h", "{}"),
    ]
    assert list(members("{}")) == list(members(" { } ")) == []
    deep = "[" * 100_000 + "]" * 100_000
    assert list(members(f'{{"a":{deep},"b":{"9" * 5000}}}')) == [("a", deep), ("b", "9" * 5000)]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"}', '{"a":}', '{"a":1', '{"a":[1}', '{"a":1 2}', '{"a":1,}', "{a:1}"]
)
def test_text_that_is_no_object_is_an_error(text):
    """What is not an object is reported instead of being left out."""
    with pytest.raises(ValueError, match="not a JSON object"):
        list(members(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=6), st.booleans(), st.sampled_from([None, 1]))
def test_every_member_is_found(row, ascii_, indent):
    """The members are those that a parser finds, in order, whatever the white space and escapes."""
    text = json.dumps(row, ensure_ascii=ascii_, indent=indent)
    assert [(name, json.loads(value)) for name, value in members(text)] == list(row.items())


@given(st.text() | st.characters(categories=["Cs"]))
def test_any_name_can_be_written(name):
    """A name is a JSON string that UTF-8 can hold, even one with half a character."""
    assert json.loads(json_name(name).encode()) == name


# Custom variables

NESTED = {
    '{"a_str":1,"b":2}': '{"a_str":1,"b":2}',
    '{"order.total_real":9.50,"order.items_int":1,"order.by.name_str":"x"}': (
        '{"order":{"by":{"name_str":"x"},"items_int":1,"total_real":9.50}}'
    ),
    '{"a_str":1,"a_str.b_str":2,"a_str.b_str.c":3}': '{"a_str":1,"a_str.b_str":2,"a_str.b_str.c":3}',
    '{"a.b":1,"a.b.c":2,"a.d.e":3}': '{"a":{"b":1,"d":{"e":3}},"a.b.c":2}',
    '{"":1,".":2,"a.":3,".b":4,"c..d":5}': '{"":1,".":2,".b":4,"a.":3,"c..d":5}',
}


@pytest.mark.parametrize("text", NESTED)
def test_names_are_split_at_their_dots(text):
    """A name with dots becomes nested objects, unless a value would be lost by it."""
    assert nested(dict(members(text)), strip=False) == NESTED[text]


STRIPPED = {
    '{"price_real":1.5,"names_strs":["a"],"on_date":"x","plain":1,"is_bool":true}': (
        '{"is":true,"names":["a"],"on":"x","plain":1,"price":1.5}'
    ),
    '{"order.items_int":1,"order.id_str":"x"}': '{"order":{"id":"x","items":1}}',
    '{"price_real":1.5,"price_str":"1.5","unit_str":"lb"}': '{"price_real":1.5,"price_str":"1.5","unit":"lb"}',
    '{"price":1,"price_str":"1"}': '{"price":1,"price_str":"1"}',
    '{"a_str":1,"a.b_str":2}': '{"a":{"b":2},"a_str":1}',
    '{"a_str":1,"a_str.b_str":2}': '{"a":1,"a_str":{"b":2}}',
    '{"_str":1,"a._int":2,"a_str_str":3}': '{"_str":1,"a":{"_int":2},"a_str":3}',
}


@pytest.mark.parametrize("text", STRIPPED)
def test_suffixes_are_removed_where_names_stay_different(text):
    """A suffix stays if two variables would have one name, or if the name would be a value and a parent."""
    assert nested(dict(members(text)), strip=True) == STRIPPED[text]


PARTS = st.sampled_from(["a", "b", "a_str", "a_int", "a_strs", "", "_str"])
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(".".join)


@given(st.sets(NAMES, max_size=8), st.booleans())
def test_no_variable_is_lost(names, strip):
    """Each variable is one value of the nested object, whichever names are there together, in whatever order."""
    if not names:
        return
    values = {name: str(number) for number, name in enumerate(sorted(names))}

    def leaves(value):
        return [one for inner in value.values() for one in leaves(inner)] if isinstance(value, dict) else [value]

    text = nested(values, strip=strip)
    pairs = json.loads(text, object_pairs_hook=list)
    assert len({name for name, _ in pairs}) == len(pairs)
    assert sorted(leaves(json.loads(text))) == list(range(len(values)))
    assert text == nested(dict(reversed(values.items())), strip=strip)


def test_a_name_with_very_many_parts_is_not_split():
    """Nesting ends long before a reader of JSON gives up."""
    name = ".".join("a" * (DEEPEST + 1))
    assert nested({name: "1"}, strip=False) == f'{{"{name}":1}}'
    assert nested({name.removesuffix(".a"): "1"}, strip=False).count("{") == DEEPEST
    assert nested({".".join("a" * 100_000): "1"}, strip=True).count("{") == 1


def test_lists_have_suffixes_too():
    """Every kind of value has a suffix for one and a suffix for many."""
    assert set(TYPE_SUFFIXES) >= {
        "_str",
        "_strs",
        "_int",
        "_ints",
        "_real",
        "_reals",
        "_bool",
        "_bools",
        "_date",
        "_dates",
    }


# The mapping


def all_properties():
    """Yield every property of the mapping."""
    yield from SOURCE
    yield from OTHER_TYPES
    for one in EVENT_TYPES.values():
        yield from one.properties


def test_properties_come_from_columns_of_the_flat_table():
    """Each property is made from columns that exist, and has a path that is no other's parent."""
    columns = {column.name for column in Layout(Type.EVENT).columns} | {"evt_*", "user_*"}
    assert {name for one in all_properties() for name in one.value.columns} <= columns
    for properties in (SOURCE, OTHER_TYPES, *(one.properties for one in EVENT_TYPES.values())):
        paths = [one.path for one in properties]
        assert len(set(paths)) == len(paths)
        json_object((path, "NULL") for path in paths)


def test_two_paths_that_exclude_each_other_are_refused():
    """A path cannot be a value and an object."""
    with pytest.raises(AssertionError, match="a is a value and an object"):
        json_object([("a", "1"), ("a.b", "1")])


def test_types_have_different_names():
    """No two types become one, and a type that is left out has no row."""
    names = [one.name for one in EVENT_TYPES.values()]
    assert len(set(names)) == len(names)
    assert not set(LEFT_OUT) & {*EVENT_TYPES, *names}


def test_the_columns_are_the_vendors():
    """The table has the vendor's eleven columns in the vendor's order."""
    assert [column.name for column in COLUMNS] == [
        *("event_id", "event_time", "processed_time", "updated_time", "device_id", "session_id", "view_id"),
        *("event_type", "event_properties", "source_type", "source_properties"),
    ]


# Receipt and refusal


def test_the_receipt_depends_on_all_that_decides_the_rows():
    """Another flat file or another setting gives another receipt; the same gives the same."""
    recipes = [DataDirectRecipe(identify, suffixes) for identify in Identify for suffixes in Suffixes]
    receipts = {recipe.receipt(flat) for recipe in recipes for flat in ("a", "b")}
    assert len(receipts) == 8
    assert DataDirectRecipe().receipt("a") == DataDirectRecipe(Identify.SEEN, Suffixes.KEEP).receipt("a")


def test_an_export_without_a_field_of_the_key_is_refused():
    """The refusal names the table and what the rows lack."""
    assert refusal("everyone__datadirect", ()) == refusal("everyone__datadirect", [*EVENT_KEY, "evt_*"]) == ""
    fields = [name for name in EVENT_KEY if name not in {"SessionId", "ReqStatus"}]
    assert "everyone__datadirect cannot be made, because the export's fields lack SessionId, ReqStatus," in refusal(
        "everyone__datadirect", [*fields, "evt_*"]
    )


def test_events_are_not_made_up_without_the_field_that_names_the_user():
    """The note names the table, the field and the setting; there is none if nothing is asked for, or nothing lacks."""
    asked = Identify.PER_SESSION
    assert not unmet_identify("t", EVENT_KEY, Identify.SEEN)
    assert not any(unmet_identify("t", fields, asked) for fields in ((), ["UserAppKey"], ["User*"], ["*"]))
    note = unmet_identify("t", EVENT_KEY, asked)
    assert note.startswith("the table t gets no further identify events, because the export's fields lack UserAppKey")
    assert note.endswith('or set identify = "seen" in [load.datadirect]')
