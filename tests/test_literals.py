"""Text that users write for values."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given

from seedcnn.errors import ConfigError
from seedcnn.literals import check_brackets, literal, parse_duration, parse_json
from tests.typed_values import JSON


@given(JSON)
def test_json_is_read_as_json(value):
    assert parse_json(json.dumps(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 1}', "an object has the duplicate key 'a'"),
        ('[{"b": {"a": 1, "c": 2, "a": 3}}]', "an object has the duplicate key 'a'"),
        ("[" * 100_000, "it nests too deeply"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_is_ambiguous_or_none(text, words):
    for each in (text, text.encode()):
        with pytest.raises(ValueError, match=words):
            parse_json(each)


def test_a_literal_has_each_key_once():
    assert literal("{'a': 1, 'b': {'a': true}}") == {"a": 1, "b": {"a": True}}
    for text in ("{'a': 1, 'a': 2}", '[{"b": 1, "a": 1, "b": 1}]'):
        with pytest.raises(ConfigError, match=r"a mapping has the key '[ab]' twice"):
            literal(text)


def test_brackets_have_partners():
    for text in ("", "rand-m9", "[1, (2, 3)]", "'('", "x(y)"):
        check_brackets(text)
    for text, words in [
        ("[1, 2", "opens a bracket '[' that it does not close"),
        ("(1, [2)", "closes a bracket ')' that it does not open"),
        ("1]", "closes a bracket ']' that it does not open"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(words)):
            check_brackets(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90s", 90), ("30m", 1800), ("6h", 21600), ("2d", 172800), ("999999s", 999999)]
)
def test_durations(text, seconds):
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "6", "h", "0s", "-1s", "1.5h", " 6h", "6H", "6h\n", "6 h", "1h30m", "1000000s", "٣s"]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a number and a unit, such as 90s, 30m, 6h or 2d"):
        parse_duration(text)
