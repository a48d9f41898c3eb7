"""Text and plain data become configuration: every annotation, every spelling, every refusal."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.errors import ConfigError
from seedcnn.literals import literal, split
from seedcnn.typed import (
    FORMAT,
    convert,
    convertible,
    prefixed,
    register_family,
    settle,
    stamped,
    to_plain,
    unstamped,
)
from tests.typed_values import JSON, spelled


@dataclass(frozen=True)
class Shape:
    """Base of a family."""


@dataclass(frozen=True)
class Circle(Shape):
    """One member."""

    radius: float
    filled: bool = False


@dataclass(frozen=True)
class Group(Shape):
    """Another, which holds members."""

    parts: tuple[Shape, ...] = ()
    around: Shape | None = None


@dataclass(frozen=True)
class Foreign(Shape):
    """A subclass that nobody registered."""


register_family(Shape, "shape", {"circle": Circle, "group": Group, "dot": lambda **options: Circle(0.5, **options)})


@dataclass(frozen=True)
class Config:
    """Every annotation that is known."""

    name: str
    count: int = 1
    rate: float = 0.5
    on: bool = False
    limit: int | None = None
    mode: Literal["fast", "slow", 3] = "fast"
    span: tuple[float, float] = (0, 1)
    steps: tuple[int, ...] = ()
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    shape: Shape | None = None

    def __post_init__(self) -> None:
        settle(self)


@pytest.mark.parametrize("text", ["true", "True", "YES", "on", "1", " true "])
def test_words_for_true(text):
    assert convert(bool, text, "on") is True


@pytest.mark.parametrize("text", ["false", "False", "no", "OFF", "0"])
def test_words_for_false(text):
    assert convert(bool, text, "on") is False


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (bool, 1, True),
        (bool, np.False_, False),
        (int, "7", 7),
        (int, "1e3", 1000),
        (int, 7.0, 7),
        (int, np.int64(7), 7),
        (int, np.array(7), 7),
        (int, 2**70, 2**70),
        (float, "1e-3", 0.001),
        (float, "-2", -2.0),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (float, np.int32(2), 2.0),
        (str, "false", "false"),
        (str, np.str_("a"), "a"),
        (str, Path("runs/a.ckpt"), "runs/a.ckpt"),
        (int | None, "None", None),
        (int | None, "null", None),
        (int | None, "3", 3),
        (int | str, "x", "x"),
        (Literal["a", 2], "2", 2),
        (Literal["a", 2, None], None, None),
        (tuple[float, float], "(0,1)", (0.0, 1.0)),
        (tuple[float, float], [0, np.float64(1)], (0.0, 1.0)),
        (tuple[int, ...], "[16, 16, 32]", (16, 16, 32)),
        (tuple[int, ...], "()", ()),
        (tuple[bool, ...], "[true, off_, False]".replace("off_", "0"), (True, False, False)),
        (tuple[str, ...], "['a', 'b']", ("a", "b")),
        (list[float], (1, 2), [1.0, 2.0]),
        (dict[str, int], '{"a": 1, "b": "2"}', {"a": 1, "b": 2}),
        (dict[str, int | None], {"a": None}, {"a": None}),
        (Any, [1, [2.5, None]], (1, (2.5, None))),
        (Any, {"a": [Path("b"), np.float32(0.5)]}, {"a": ("b", 0.5)}),
        (Any, "3", "3"),
        (Circle, "{'radius': 2, 'filled': 'yes'}", Circle(2.0, True)),
        (Circle, {"shape": "circle", "radius": 2}, Circle(2.0)),
        (Shape, {"shape": "dot", "filled": "true"}, Circle(0.5, True)),
        (Shape, {"shape": "group", "parts": [{"shape": "circle", "radius": 1}]}, Group((Circle(1.0),))),
        (Shape, Group((Circle(1),)), Group((Circle(1.0),))),
    ],
    ids=str,
)
def test_values_become_what_the_annotation_says(kind, value, expected):
    assert spelled(convert(kind, value, "x")) == spelled(expected)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("True", True),
        ("none", None),
        ("null", None),
        ("3", 3),
        ("1e-3", 0.001),
        ("[16,16,32]", (16, 16, 32)),
        ("(true, null)", (True, None)),
        ("{'a': [1]}", {"a": (1,)}),
        ('"3"', "3"),
        ('["3"]', ("3",)),
        ("rand-m9", "rand-m9"),
        ("(0,1", "(0,1"),
        ("", ""),
    ],
)
def test_typed_text_without_an_annotation_is_a_literal_or_text(text, value):
    assert spelled(convert(Any, text, "x", text=True)) == spelled(value)
    if not isinstance(value, tuple | dict):
        assert spelled(literal(text)) == spelled(value)


def test_what_is_quoted_inside_a_literal_stays_text():
    assert convert(dict[str, Any], '{"a": "3", "b": 3}', "x", text=True) == {"a": "3", "b": 3}
    assert convert(dict[str, Any], {"a": "3"}, "x", text=True) == {"a": 3}


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (bool, "maybe", "x (='maybe') must be true or false"),
        (bool, 2, "x (=2) must be true or false"),
        (bool, None, "x (=None) must be true or false"),
        (bool, 1.0, "x (=1.0) must be true or false"),
        (int, "many", "x (='many') must be an integer"),
        (int, "true", "x (='true') must be an integer"),
        (int, True, "x (=True) must be an integer"),
        (int, np.True_, "x (=True) must be an integer"),
        (int, 7.5, "x (=7.5) must be an integer"),
        (int, float("inf"), "x (=inf) must be an integer"),
        (float, "nan", "x (='nan') must be a finite number"),
        (float, math.inf, "x (=inf) must be a finite number"),
        (float, np.float32("nan"), "x (=nan) must be a finite number"),
        (float, 10**400, "must be a finite number"),
        (float, "1e999", "must be a finite number"),
        (float, False, "x (=False) must be a finite number"),
        (str, 3, "x (=3) must be text"),
        (int | None, "x", "x (='x') must be an integer or none"),
        (int | float, "x", "x (='x') must be an integer or a finite number"),
        (Literal["fast", "slow"], "fats", "x (='fats') must be one of 'fast', 'slow'; did you mean fast"),
        (Literal["fast", 1], True, "x (=True) must be one of 'fast', 1"),
        (tuple[float, float], "(0, 1, 2)", "x (='(0, 1, 2)') must be a list of 2 values"),
        (tuple[float, float], "0.5", "x (='0.5') must be a list of 2 values"),
        (tuple[float, float], "(0, a)", "x (='(0, a)') must be a list of 2 values"),
        (tuple[float, float], ("0", "a"), "x[1] (='a') must be a finite number"),
        (tuple[int, ...], "stages", "x (='stages') must be a list"),
        (tuple[int, ...], np.array([1, 2]), "x (=array([1, 2])) must be a list"),
        (dict[str, int], "[1]", "x (='[1]') must be a mapping"),
        (dict[str, int], {"a": "b"}, "x.a (='b') must be an integer"),
        (dict[str, int], {1: 2}, "a key of x (=1) must be text"),
        (Circle, "circle", "x (='circle') must be a Circle (or a mapping of its fields)"),
        (Circle, {"radius": "big"}, "x.radius (='big') must be a finite number"),
        (Circle, {"raduis": 1}, "Circle has no field 'raduis'; did you mean radius? fields: radius, filled"),
        (Circle, {}, "Circle needs the field 'radius', which is missing"),
        (Circle, {"shape": "group"}, "x.shape (='group') must be one that makes a Circle"),
        (Shape, {"shape": "cirle"}, "unknown shape 'cirle'; did you mean circle? known shapes: circle, group, dot"),
        (Shape, {"radius": 1}, "the name of the shape is missing; known shapes"),
        (Shape, {"shape": ["circle"]}, "unknown shape ['circle']"),
        (Shape, {"shape": "circle", "size": 1}, "shape 'circle' has no option 'size'; options: radius, filled"),
        (Any, int, "x (=<class 'int'>) must be something that JSON can hold"),
        (Any, len, "x (=<built-in function len>) must be something that JSON can hold"),
        (Any, {"a": [math.nan]}, "x.a[0] (=nan) must be a finite number"),
        (Any, {1: 2}, "a key of x (=1) must be text"),
        (Any, {1, 2}, "x (={1, 2}) must be something that JSON can hold"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_sentence_with_name_value_and_rule(kind, value, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        convert(kind, value, "x")
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ConfigError) as caught:
        convert(int, "a" * 1000, "x")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", [bytes, set[int], type[int], tuple[int, bytes]])
def test_other_annotations_are_defects(kind):
    assert not convertible(kind)
    with pytest.raises(TypeError, match="is annotated"):
        convert(kind, (1, 2), "x")


def test_known_annotations():
    for kind in (
        Any,
        bool,
        Shape,
        Config,
        int | None,
        Literal["a"],
        tuple[int, ...],
        tuple,
        dict,
        dict[str, list[int]],
    ):
        assert convertible(kind)


def test_a_config_is_settled_when_it_is_made():
    made = Config(Path("a"), np.int64(2), 1, "off", "none", "3", [0, 1], [np.int8(3)], ("b",), {"c": 1}, {"d": [1]})
    plain = Config("a", 2, 1.0, False, None, 3, (0.0, 1.0), (3,), ["b"], {"c": 1.0}, {"d": (1,)})
    assert spelled(made) == spelled(plain)
    with pytest.raises(ConfigError, match=re.escape("options.act (=<class 'int'>) must be something that JSON")):
        Config("a", options={"act": int})
    with pytest.raises(ConfigError, match=re.escape("shape.radius (='x') must be a finite number")):
        Config("a", shape=Circle("x"))


def test_plain_data_and_back():
    config = Config("a", shape=Group((Circle(1.0), Group(around=Circle(2.0, True)))), options={"b": (1, {"c": None})})
    plain = to_plain(config)
    assert plain["shape"]["parts"][0] == {"shape": "circle", "radius": 1.0, "filled": False}
    assert plain["span"] == [0.0, 1.0]
    again = convert(Config, json.loads(json.dumps(plain)), "")
    assert spelled(again) == spelled(config)


def test_what_has_no_plain_data():
    with pytest.raises(ConfigError, match="shape is a Foreign, which is no shape: circle, group, dot"):
        to_plain(Config("a", shape=Foreign()))
    with pytest.raises(ConfigError, match=re.escape("a.b (=<class 'int'>) must be something that JSON can hold")):
        to_plain({"a": {"b": int}})


def test_an_error_of_the_constructor_names_the_field():
    @dataclass(frozen=True)
    class Positive:
        value: int

        def __post_init__(self) -> None:
            if self.value < 1:
                raise ValueError("`value` must be positive")

    with pytest.raises(ConfigError, match="x: `value` must be positive"):
        convert(Positive, {"value": 0}, "x")


@given(JSON)
@settings(deadline=None)
def test_anything_that_json_can_hold_survives_it(value):
    assert spelled(convert(Any, json.loads(json.dumps(to_plain(value))), "x")) == spelled(value)


@given(st.text())
@settings(deadline=None)
def test_any_text_is_a_literal_or_itself(text):
    literal(text)  # raises nothing
    assert convert(str, text, "x") == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("groupnl:phi_range=(0,1),ghost", ["groupnl:phi_range=(0,1)", "ghost"]),
        ("a:b=[1,[2,3]],c:d={'e': 1, 'f': 2},,g", ["a:b=[1,[2,3]]", "c:d={'e': 1, 'f': 2}", "", "g"]),
        ("a),b", ["a)", "b"]),
        ("a=(0,1", ["a=(0,1"]),
        ("", [""]),
    ],
)
def test_separators_in_brackets_separate_nothing(text, parts):
    assert split(text, ",") == parts


def test_formats():
    data = stamped({"a": 1})
    assert data == {"format": FORMAT, "a": 1}
    assert unstamped(data, "it") == {"a": 1}
    for other, words in [
        ({"a": 1}, "it names no format; this version of seedcnn reads 'seedcnn-config/1' only"),
        ({"format": "seedcnn-config/2"}, "it has the format 'seedcnn-config/2'; this version"),
        ([1], "it is a list; it must be a mapping"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(words)):
            unstamped(other, "it")
    with pytest.raises(ConfigError, match="reads 'seedcnn-plan/1' only"):
        unstamped(data, "it", "seedcnn-plan/1")


def test_the_option_stands_before_the_sentence():
    with pytest.raises(ConfigError, match=r"^--set x=a: x \(='a'\) must be an integer$"), prefixed("--set x=a"):
        convert(int, "a", "x")
