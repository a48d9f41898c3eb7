"""The same manifest written differently: a value has only one text, or its digest would be meaningless."""

from __future__ import annotations

import json

import pytest

from seedcnn.bundle.container import read_container, write_container
from tests.bundle.bundles import with_header_text

REWRITES = {
    "indented": lambda v: json.dumps(v, sort_keys=True, indent=1, ensure_ascii=False),
    "spaces": lambda v: json.dumps(v, sort_keys=True, ensure_ascii=False),
    "escaped": lambda v: json.dumps(v, sort_keys=True, separators=(",", ":")),
    "unsorted": lambda v: json.dumps(dict(reversed(v.items())), separators=(",", ":"), ensure_ascii=False),
}


@pytest.mark.parametrize("name", REWRITES)
def test_another_spelling(tiny, refused, name):
    container = read_container(tiny)
    text = REWRITES[name](json.loads(container.manifest)).encode()
    assert json.loads(text) == json.loads(container.manifest)
    assert text != container.manifest
    refused(write_container(text, container.payloads), "not in canonical form")


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
    container = read_container(tiny)
    assert old in container.manifest
    refused(write_container(container.manifest.replace(old, new), container.payloads), message)


@pytest.mark.parametrize("text", [b"", b"[]", b'"x"', b"null", b"{}", b"\xc3\xa9"])
def test_something_else(tiny, refused, text):
    refused(write_container(text, read_container(tiny).payloads), "manifest is not|bundle format is None")


@pytest.mark.parametrize("name", ["spaces", "escaped"])
def test_another_spelling_of_the_header(tiny, refused, name):
    header = json.loads(tiny[8 : 8 + int.from_bytes(tiny[:8], "little")])
    text = json.dumps(header) if name == "spaces" else json.dumps(header, separators=(",", ":"))
    refused(with_header_text(tiny, text.encode()), "header is not compact JSON")
