"""Canonical JSON: one text per value."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle.canonical import dump_canonical, parse_canonical
from seedcnn.bundle.limits import MAX_INT, MAX_JSON_DEPTH, MAX_MANIFEST_BYTES
from seedcnn.errors import BundleFormatError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.integers(-MAX_INT, MAX_INT) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


def _depth(value) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + _depth(item) for item in items), default=0)


@settings(deadline=None)
@given(OBJECTS.filter(lambda value: _depth(value) <= MAX_JSON_DEPTH))
def test_round_trip(value):
    text = dump_canonical(value)
    assert parse_canonical(text) == value == json.loads(text)


@given(st.dictionaries(TEXT, st.integers(0, 9), min_size=2, max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    backwards = dict(reversed(value.items()))
    assert dump_canonical(value) == dump_canonical(backwards)
    assert list(json.loads(dump_canonical(value))) == sorted(value)


def test_the_text_is_the_published_one():
    value = {"b": [1, -2, 'é\n"\\\x01/\x7f'], "a": {}, "Ä": "😀"}
    assert dump_canonical(value) == '{"a":{},"b":[1,-2,"é\\n\\"\\\\\\u0001/\x7f"],"Ä":"😀"}'.encode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "float"),
        (None, "NoneType"),
        (True, "bool"),
        ((1,), "tuple"),
        (b"x", "bytes"),
        (MAX_INT + 1, "outside"),
        (-MAX_INT - 1, "outside"),
        ({1: 2}, "not a string"),
        ("\ud800", "surrogate"),
        ({"\udfff": 1}, "surrogate"),
    ],
)
def test_only_integers_and_strings_travel(value, message):
    with pytest.raises(BundleFormatError, match=message):
        dump_canonical({"x": [value]})


def test_depth_is_capped_on_both_ways():
    value: object = 1
    for _ in range(MAX_JSON_DEPTH - 1):
        value = [value]
    assert parse_canonical(dump_canonical({"x": value})) == {"x": value}
    with pytest.raises(BundleFormatError, match="deeper than 8"):
        dump_canonical({"x": [value]})
    with pytest.raises(BundleFormatError, match="deeper than 8"):
        parse_canonical(json.dumps({"x": [value]}, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1}', "canonical form"),
        (b'{"b":1,"a":2}', "canonical form"),
        (b'{"a":1}\n', "canonical form"),
        (b' {"a":1}', "canonical form"),
        (b'{"a":-0}', "canonical form"),
        (b'{"a":"\\u00e9"}', "canonical form"),
        (b'{"a":"\\/"}', "canonical form"),
        (b'{"a":"\\u001F"}', "canonical form"),
        (b'{"a":1,"a":1}', "duplicate key"),
        (b'{"a":{"b":1,"b":2}}', "duplicate key"),
        (b'{"a":1.0}', "number 1.0"),
        (b'{"a":1e3}', "number 1e3"),
        (b'{"a":NaN}', "number NaN"),
        (b'{"a":-Infinity}', "number -Infinity"),
        (b'{"a":null}', "NoneType"),
        (b'{"a":true}', "bool"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":1}{', "not JSON"),
        (b'{"a":"\xff"}', "not JSON"),
        (b'{"a":"\x01"}', "not JSON"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"1", "not a JSON object"),
        (b"", "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a":' + b"9" * 4000 + b"}", "outside"),
        (b'{"a":' + b"[" * 100_000, "not JSON"),
        (b'{"a":"' + b"x" * MAX_MANIFEST_BYTES + b'"}', "at most 4194304"),
    ],
)
def test_any_other_text_is_refused(text, message):
    with pytest.raises(BundleFormatError, match=message):
        parse_canonical(text)
