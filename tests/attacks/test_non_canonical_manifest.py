"""The same manifest written differently: a value has only one text, or its digest would be meaningless."""

from __future__ import annotations

import json

import pytest

from seedcnn.bundle import read_bundle
from tests.bundle.bundles import with_header_text, with_text

REWRITES = {
    "indented": lambda v: json.dumps(v, sort_keys=True, indent=1, ensure_ascii=False),
    "spaces": lambda v: json.dumps(v, sort_keys=True, ensure_ascii=False),
    "escaped": lambda v: json.dumps(v, sort_keys=True, separators=(",", ":")),
    "unsorted": lambda v: json.dumps(dict(reversed(v.items())), separators=(",", ":"), ensure_ascii=False),
}


@pytest.mark.parametrize("name", REWRITES)
def test_another_spelling(tiny, refused, name):
    plain = read_bundle(tiny).manifest.dump()
    text = REWRITES[name](json.loads(plain)).encode()
    assert json.loads(text) == json.loads(plain)
    assert text != plain
    refused(with_text(tiny, text), "not in canonical form")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"release":3', b'"release":3.0', "number 3.0"),
        (b'"release":3', b'"release":3e0', "number 3e0"),
        (b'"release":3', b'"release":03', "not JSON"),
        (b'"release":3', b'"release":+3', "not JSON"),
        (b'"release":3', b'"release":true', "bool"),
        (b'"release":3', b'"release":null', "NoneType"),
        (b'"release":3', b'"release":NaN', "number NaN"),
        (b'"model":"tiny"', b'"model":"\\u0074iny"', "canonical form"),
        (b'"model":"tiny"', b'"model":"\\ud83d"', "surrogate"),
        (b'"model":"tiny"', b"'model':'tiny'", "not JSON"),
        (b'"tolerance_e6":1000', b'"tolerance_e6":-0', "canonical form"),
    ],
)
def test_other_tokens(tiny, refused, old, new, message):
    plain = read_bundle(tiny).manifest.dump()
    assert old in plain
    refused(with_text(tiny, plain.replace(old, new)), message)


@pytest.mark.parametrize("text", [b"", b"[]", b'"x"', b"null", b"{}", b"\xc3\xa9"])
def test_something_else(tiny, refused, text):
    refused(with_text(tiny, text), "manifest is not|bundle format is None|manifest has 0 bytes")


@pytest.mark.parametrize("name", ["spaces", "escaped"])
def test_another_spelling_of_the_header(tiny, refused, name):
    header = json.loads(tiny[8 : 8 + int.from_bytes(tiny[:8], "little")])
    compact = json.dumps(header, separators=(",", ":"))
    text = json.dumps(header) if name == "spaces" else compact.replace("f32", "\\u006632")
    refused(with_header_text(tiny, text.encode()), "header is not compact JSON")
